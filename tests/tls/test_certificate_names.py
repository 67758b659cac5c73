"""Names and addresses of certificates, by the rules of Go's `crypto/x509`."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization

from keyraft.net.tls.names import FOR_CLIENTS, FOR_SERVERS, CertificateNames, read_names
from tests.fuzz.targets import all_targets
from tests.tls.issuing import CLIENT, CODE, Issued, Order, new_authority

ANSWERS = [
    ("cn", ("localhost",), (), "localhost", ""),
    ("cn", ("localhost",), (), "LOCALHOST.", ""),
    ("cn", ("Localhost",), (), "localhost", ""),
    (
        "localhost",
        (),
        (),
        "localhost",
        "certificate relies on legacy Common Name field, use SANs instead",
    ),
    ("", (), (), "a", "certificate is not valid for any names, but wanted to match a"),
    (
        "a.b",
        (),
        ("1.2.3.4",),
        "a.b",
        "certificate is not valid for any names, but wanted to match a.b",
    ),
    ("cn", ("*.example.com",), (), "a.example.com", ""),
    (
        "cn",
        ("*.example.com",),
        (),
        "a.b.example.com",
        "certificate is valid for *.example.com, not a.b.example.com",
    ),
    (
        "cn",
        ("*.example.com",),
        (),
        "example.com",
        "certificate is valid for *.example.com, not example.com",
    ),
    ("cn", ("*.com",), (), "example.com", ""),
    ("cn", ("*",), (), "example", "certificate is valid for *, not example"),
    ("cn", ("*",), (), "*", ""),
    (
        "cn",
        ("a*.example.com",),
        (),
        "ab.example.com",
        "certificate is valid for a*.example.com, not ab.example.com",
    ),
    ("cn", ("*.example.com",), (), "*.example.com", ""),
    ("cn", ("f_o.example",), (), "f_o.example", ""),
    ("cn", ("-a.example",), (), "-a.example", ""),
    ("cn", ("a..b",), (), "a..b", ""),
    ("cn", ("a..b",), (), "A..B", ""),
    ("cn", ("a b",), (), "a b", ""),
    ("cn", ("x.example.",), (), "x.example.", ""),
    ("cn", ("x.example.",), (), "x.example", "certificate is valid for x.example., not x.example"),
    ("cn", ("x.example",), (), "x.example.", ""),
    (
        "cn",
        ("10.0.0.1",),
        (),
        "10.0.0.1",
        "cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs",
    ),
    ("cn", ("a",), ("10.0.0.1",), "10.0.0.1", ""),
    ("cn", ("a",), ("10.0.0.1",), "10.0.0.2", "certificate is valid for 10.0.0.1, not 10.0.0.2"),
    (
        "cn",
        (),
        ("10.0.0.1", "10.0.0.3"),
        "10.0.0.2",
        "certificate is valid for 10.0.0.1, 10.0.0.3, not 10.0.0.2",
    ),
    (
        "cn",
        ("a",),
        (),
        "10.0.0.2",
        "cannot validate certificate for 10.0.0.2 because it doesn't contain any IP SANs",
    ),
    ("cn", (), ("::1",), "[::1]", ""),
    ("cn", (), ("::1",), "::1", ""),
    ("cn", (), ("::1",), "[0:0:0:0:0:0:0:1]", ""),
    ("cn", (), ("10.0.0.1",), "::ffff:10.0.0.1", ""),
    ("cn", ("a", "b"), (), "c", "certificate is valid for a, b, not c"),
    ("cn", ("a", "b"), (), "", "certificate is valid for a, b, not "),
    ("cn", ("a", "b"), (), ".", "certificate is valid for a, b, not ."),
    ("cn", ("",), (), "x", "certificate is not valid for any names, but wanted to match x"),
    ("cn", ("",), (), "", "certificate is not valid for any names, but wanted to match "),
    ("cn", ("*.a",), (), ".a", "certificate is valid for *.a, not .a"),
    ("cn", ("*.a",), (), "b.a.", ""),
    (
        "*.example",
        (),
        (),
        "a.example",
        "certificate relies on legacy Common Name field, use SANs instead",
    ),
    ("cn", ("xn--bcher-kva.example",), (), "xn--bcher-kva.example", ""),
    ("cn", ("a",), ("fe80::1",), "fe80::1%lo", "certificate is valid for a, not fe80::1%lo"),
    ("cn", ("K",), (), "\u212a", "certificate is valid for K, not \u212a"),
    ("cn", ("a",), (), "010.0.0.1", "certificate is valid for a, not 010.0.0.1"),
    (
        "cn",
        ("*.*.example",),
        (),
        "a.*.example",
        "certificate is valid for *.*.example, not a.*.example",
    ),
    (
        "cn",
        ("*.*.example",),
        (),
        "a.b.example",
        "certificate is valid for *.*.example, not a.b.example",
    ),
]
"""Common name, DNS names, addresses, the host that is asked for, and what `VerifyHostname` of Go
1.26 says to it, nothing when it is content."""


@pytest.mark.parametrize(("common_name", "dns_names", "addresses", "host", "answer"), ANSWERS)
def test_hosts_are_compared_as_go_compares_them(
    common_name: str, dns_names: tuple[str, ...], addresses: tuple[str, ...], host: str, answer: str
) -> None:
    shown = CertificateNames(
        common_name,
        dns_names,
        tuple(map(ipaddress.ip_address, addresses)),
        bool(dns_names or addresses),
    )
    assert shown.covers(host) is not bool(answer)
    if answer:
        assert shown.mismatch(host) == f"x509: {answer}"


def test_a_long_list_of_names_is_counted_instead_of_told() -> None:
    many = CertificateNames(dns_names=("a",) * 100, has_names=True)
    assert many.mismatch("c") == "x509: certificate is valid for 100 names, but none matched c"
    hosts = tuple(ipaddress.ip_address(f"10.0.0.{last}") for last in range(100))
    assert CertificateNames(addresses=hosts, has_names=True).mismatch("11.0.0.1") == (
        "x509: certificate is valid for 100 IP SANs, but none matched 11.0.0.1"
    )


@pytest.fixture(scope="module")
def authority() -> Issued:
    return new_authority()


def names_of(issued: Issued) -> CertificateNames:
    return read_names(issued.certificate.public_bytes(serialization.Encoding.DER))


def test_a_certificate_is_read(authority: Issued) -> None:
    order = Order(("first", "second"), ("a.example", "*.b", "::1", "10.0.0.1"), usage=(CLIENT,))
    shown = names_of(authority.issue(order))
    assert shown.common_name == "second"  # the last one, as in Go
    assert shown.dns_names == ("a.example", "*.b")
    assert shown.address_texts == ["::1", "10.0.0.1"]
    assert shown.serves_for(FOR_CLIENTS) and not shown.serves_for(FOR_SERVERS)
    now = datetime.now(UTC)
    assert shown.holds(now) and not shown.holds(now + timedelta(days=60))
    assert not shown.holds(now - timedelta(days=60))


def test_a_certificate_without_usages_serves_for_all_and_one_for_code_for_neither(
    authority: Issued,
) -> None:
    anything = names_of(authority.issue(Order((), (), usage=None)))
    assert anything.common_name == "" and not anything.has_names
    assert anything.serves_for(FOR_CLIENTS) and anything.serves_for(FOR_SERVERS)
    code = names_of(authority.issue(Order(usage=(CODE,))))
    assert not code.serves_for(FOR_CLIENTS) and not code.serves_for(FOR_SERVERS)


def test_bytes_that_are_no_certificate_are_told(authority: Issued) -> None:
    der = authority.certificate.public_bytes(serialization.Encoding.DER)
    for bad in (b"", b"x", der[:-1], b"0" * len(der)):
        with pytest.raises(ValueError):
            read_names(bad)


@pytest.mark.parametrize(
    ("known", "strange"),
    [
        (b"\x81\x0ba@b.example", b"\xa3\x0ba@b.example"),  # an x400Address
        (b"\x81\x0ba@b.example", b"\xa5\x0ba@b.example"),  # an ediPartyName
        (b"\x0c\x04root", b"\x03\x04root"),  # a common name in bits
    ],
)
def test_a_certificate_that_the_library_cannot_read_is_told(known: bytes, strange: bytes) -> None:
    der = next(iter(all_targets()["certificates"].seeds()))
    assert read_names(der) and known in der
    with pytest.raises(ValueError):
        read_names(der.replace(known, strange))
