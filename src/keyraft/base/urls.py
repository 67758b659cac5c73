"""The URLs that members listen on and advertise, read by Go's rules and refused in etcd's words.

A URL here is scheme, host and path and nothing else is ever used. A list of URLs is sorted by
its text, so that every member derives the same identifiers from it (etcd `client/pkg/types`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final

from keyraft.base.gotext import quote

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BAD_HOST_CHARACTER: Final = re.compile(r"[ \"<>\\^`{|}]")
_PORT: Final = re.compile(r":[0-9]*\Z")


class URLError(ValueError):
    """The text is no URL that a member may use; the message is etcd's."""


class URL:
    """One URL: `scheme` in lower case, `host` with its port, `path` with its slash or empty.

    `text` is how Go's `URL.String` writes it; two URLs are the same when these are. Changed by
    nobody.
    """

    __slots__ = ("host", "path", "scheme", "text")

    def __init__(self, scheme: str, host: str, path: str, text: str) -> None:
        self.scheme = scheme
        self.host = host
        self.path = path
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, URL) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"URL({self.text!r})"

    @property
    def hostname(self) -> str:
        """The host without port and without the brackets of an IPv6 address."""
        return split_host_port(self.host)[0] if self.has_port else self.host.strip("[]")

    @property
    def port(self) -> int:
        """The port number; 0 when there is none (a unix socket)."""
        port = split_host_port(self.host)[1] if self.has_port else ""
        return int(port or "0")

    @property
    def has_port(self) -> bool:
        """Whether the host has the form host:port."""
        try:
            split_host_port(self.host)
        except URLError:
            return False
        return True

    @property
    def is_unix(self) -> bool:
        """Whether this is the address of a unix socket."""
        return self.scheme in ("unix", "unixs")

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken here."""
        return self.scheme in ("https", "unixs")

    @property
    def address(self) -> str:
        """What to bind or dial: host:port, or the path of a unix socket."""
        return self.host + self.path if self.is_unix else self.host

    def __str__(self) -> str:
        return self.text


def split_host_port(host: str) -> tuple[str, str]:
    """Host and port of "host:port" or "[ipv6]:port"; raises URLError (Go `net.SplitHostPort`)."""
    colon = host.rfind(":")
    if colon < 0:
        raise URLError(f"address {host}: missing port in address")
    if host.startswith("["):
        end = host.find("]")
        if end < 0:
            raise URLError(f"address {host}: missing ']' in address")
        if end + 1 == len(host):
            raise URLError(f"address {host}: missing port in address")
        if end + 1 != colon:
            raise URLError(f"address {host}: too many colons in address")
        name = host[1:end]
    else:
        name = host[:colon]
        if ":" in name:
            raise URLError(f"address {host}: too many colons in address")
    return name, host[colon + 1 :]


def parse_url(text: str) -> URL:
    """One URL with any scheme; raises URLError with the text of Go's `url.Parse`."""

    def refuse(reason: str) -> URLError:
        return URLError(f"parse {quote(text)}: {reason}")

    if _CONTROL.search(text):
        raise refuse("net/url: invalid control character in URL")
    rest, hash_mark, fragment = text.partition("#")
    match = _SCHEME.match(rest)
    if rest.startswith(":"):
        raise refuse("missing protocol scheme")
    scheme = match.group()[:-1].lower() if match else ""
    rest = rest[match.end() :] if match else rest
    rest, question_mark, query = rest.partition("?")
    tail = question_mark + query + hash_mark + fragment
    if not rest.startswith("/"):
        if scheme:
            return URL(scheme, "", "", f"{scheme}:{rest}{tail}")
        if ":" in rest.split("/", 1)[0]:
            raise refuse("first path segment in URL cannot contain colon")
        return URL("", "", rest, rest + tail)
    if not rest.startswith("//") or (not scheme and rest.startswith("///")):
        return URL(scheme, "", rest, f"{scheme}:{rest}{tail}" if scheme else rest + tail)
    authority, slash, path = rest[2:].partition("/")
    path = slash + path
    user, at, host = authority.rpartition("@")
    bad = _BAD_HOST_CHARACTER.search(host)
    if bad:
        raise refuse(f"invalid character {quote(bad.group())} in host name")
    if host.startswith("["):
        end = host.rfind("]")
        if end < 0:
            raise refuse("missing ']' in host")
        port = host[end + 1 :]
    else:
        colon = host.rfind(":")
        port = host[colon:] if colon >= 0 else ""
    if port and not _PORT.match(port):
        raise refuse(f"invalid port {quote(port)} after host")
    return URL(scheme, host, path, f"{scheme}://{user}{at}{host}{path}{tail}")


def parse_urls(texts: Iterable[str]) -> tuple[URL, ...]:
    """The URLs of members, checked and sorted; raises URLError (etcd `types.NewURLs`)."""
    urls = []
    for given in texts:
        text = given.strip()
        url = parse_url(text)
        if url.scheme in ("http", "https"):
            if not url.has_port:
                raise URLError(f'URL address does not have the form "host:port": {text}')
            if url.path:
                raise URLError(f"URL must not contain a path: {text}")
        elif not url.is_unix:
            raise URLError(f"URL scheme must be http, https, unix, or unixs: {text}")
        urls.append(url)
    if not urls:
        raise URLError("no valid URLs given")
    return tuple(sorted(urls, key=lambda url: url.text))


def parse_urls_map(text: str) -> dict[str, tuple[URL, ...]]:
    """Member name → peer URLs from "name=url,name=url"; a name may come several times.

    Raises URLError. Source: etcd `types.NewURLsMap`.
    """
    by_name: dict[str, list[str]] = {}
    for piece in text.split(","):
        if piece:
            name, _, url = piece.partition("=")
            by_name.setdefault(name, []).append(url)
    return {name: parse_urls(urls) for name, urls in by_name.items()}


def format_urls_map(urls_by_name: Mapping[str, Iterable[URL]]) -> str:
    """The map as `--initial-cluster` takes it, sorted."""
    return ",".join(sorted(f"{name}={url}" for name, urls in urls_by_name.items() for url in urls))


def check_bind_urls(urls: Iterable[URL]) -> None:
    """Refuses names: one listens on an address or on localhost; raises URLError."""
    for url in urls:
        if url.is_unix or url.hostname == "localhost":
            continue
        try:
            ipaddress.ip_address(url.hostname)
        except ValueError:
            raise URLError(f"expected IP in URL for binding ({url})") from None


def check_host_urls(urls: Iterable[URL]) -> None:
    """Refuses an advertised URL without a host; raises URLError."""
    for url in urls:
        if not url.is_unix and not url.hostname:
            raise URLError(f"unexpected empty host ({url})")
