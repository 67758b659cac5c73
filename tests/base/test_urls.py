"""URLs are read by Go's rules and refused in etcd's words."""

from __future__ import annotations

import pytest

from keyraft.base.urls import (
    URLError,
    check_bind_urls,
    check_host_urls,
    format_urls_map,
    parse_url,
    parse_urls,
    parse_urls_map,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
        ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
        (
            "127.0.0.1:2379",
            'parse "127.0.0.1:2379": first path segment in URL cannot contain colon',
        ),
        (":2379", 'parse ":2379": missing protocol scheme'),
        ("http://h", 'URL address does not have the form "host:port": http://h'),
        ("http://127.0.0.1:1/x", "URL must not contain a path: http://127.0.0.1:1/x"),
        ("http://h:x1", 'parse "http://h:x1": invalid port ":x1" after host'),
        ("http://a b:1", 'parse "http://a b:1": invalid character " " in host name'),
        ("http://a\x01:1", 'parse "http://a\\x01:1": net/url: invalid control character in URL'),
        ("http://[::1:1", "parse \"http://[::1:1\": missing ']' in host"),
    ],
)
def test_refuses_what_a_member_cannot_use(text: str, message: str) -> None:
    with pytest.raises(URLError) as caught:
        parse_urls([text])
    assert str(caught.value) == message


def test_takes_hosts_ports_and_sockets_apart() -> None:
    url = parse_url("http://[::1]:2379")
    assert (url.hostname, url.port, url.address, url.is_secure) == (
        "::1",
        2379,
        "[::1]:2379",
        False,
    )
    socket = parse_url("unixs:/run/etcd.sock")
    assert (socket.address, socket.is_unix, socket.is_secure, str(socket)) == (
        "/run/etcd.sock",
        True,
        True,
        "unixs:/run/etcd.sock",
    )
    assert parse_url("unix://localhost:1234").address == "localhost:1234"


def test_a_list_is_sorted_and_a_map_collects_names() -> None:
    urls = parse_urls([" http://b:1", "http://a:2 "])
    assert [str(url) for url in urls] == ["http://a:2", "http://b:1"]
    members = parse_urls_map("m1=http://b:1,,m2=http://c:1,m1=http://a:1")
    assert format_urls_map(members) == "m1=http://a:1,m1=http://b:1,m2=http://c:1"


def test_one_listens_on_addresses_and_advertises_hosts() -> None:
    check_bind_urls(
        parse_urls(["http://127.0.0.1:1", "http://localhost:1", "http://[::]:1", "unix://x:1"])
    )
    with pytest.raises(URLError, match=r"expected IP in URL for binding \(http://foo:1\)"):
        check_bind_urls(parse_urls(["http://foo:1"]))
    with pytest.raises(URLError, match=r"unexpected empty host \(http://:1\)"):
        check_host_urls(parse_urls(["http://:1"]))
