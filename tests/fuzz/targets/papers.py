"""What a TLS port reads itself: certificates, revocation lists, the start of a handshake."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyraft.base.log import NullLogger
from keyraft.net.tls.hello import asked_name
from keyraft.net.tls.names import read_names
from keyraft.net.tls.pairs import UnfitError
from keyraft.net.tls.refusal import CertificateRefusedError
from keyraft.net.tls.revocation import RevocationList, _parsed, _serials
from keyraft.net.tls.seeing import first_certificate

from ..target import Target

_KEY = ec.derive_private_key(7, ec.SECP256R1())  # the same bytes in every run, but for signatures
_NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])


@cache
def _certificate() -> bytes:
    names = [
        x509.DNSName("a.example"),
        x509.DNSName("*.b.example"),
        x509.IPAddress(ip_address("127.0.0.1")),
        x509.RFC822Name("a@b.example"),
        x509.UniformResourceIdentifier("spiffe://a/b"),
        x509.DirectoryName(_NAME),
        x509.OtherName(NameOID.COMMON_NAME, b"\x05\0"),
    ]
    builder = x509.CertificateBuilder().subject_name(_NAME).issuer_name(_NAME)
    builder = builder.public_key(_KEY.public_key()).serial_number(77)
    builder = builder.not_valid_before(_NOW).not_valid_after(_NOW + datetime.timedelta(days=9))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(usages, critical=True)
    certificate = builder.sign(_KEY, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.DER)


@cache
def _revoked() -> tuple[bytes, bytes]:
    builder = x509.CertificateRevocationListBuilder().issuer_name(_NAME)
    builder = builder.last_update(_NOW).next_update(_NOW + datetime.timedelta(days=9))
    for serial in (5, 77, 1 << 150):
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_NOW)
        builder = builder.add_revoked_certificate(one.build())
    made = builder.sign(_KEY, hashes.SHA256())
    return (
        made.public_bytes(serialization.Encoding.DER),
        made.public_bytes(serialization.Encoding.PEM),
    )


def read_certificate(data: bytes) -> None:
    """A certificate as a client shows it; of a chain each has a serial number."""
    try:
        _serials([data])
    except CertificateRefusedError:
        pass
    try:
        names = read_names(data)
    except ValueError:
        return
    names.common_name.encode("utf-8", "surrogatepass")


def read_revoked(data: bytes) -> None:
    """A list, and whether numbers are in it."""
    try:
        made = _parsed(data)
    except UnfitError:
        return
    revoked = RevocationList("/nowhere", NullLogger())
    for serial in (5, 77, 78):
        try:
            revoked._has(made, serial)
        except CertificateRefusedError:
            pass


def read_handshake(data: bytes) -> None:
    """The bytes in which OpenSSL shows a ClientHello or a Certificate."""
    asked_name(data)
    for version_1_3 in (False, True):
        assert len(first_certificate(data, version_1_3)) <= len(data)


def _handshakes() -> Iterator[bytes]:
    name = b"\0\0\0\x10\0\x0e\0\0\x0ba.example.x"
    extensions = b"\0\x17\0\0" + name
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += len(extensions).to_bytes(2, "big") + extensions
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    yield hello
    yield b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello
    leaf = _certificate()
    listed = len(leaf).to_bytes(3, "big") + leaf
    yield b"\x0b" + bytes(3) + len(listed).to_bytes(3, "big") + listed
    yield b"\x0b" + bytes(3) + b"\0" + len(listed).to_bytes(3, "big") + listed + b"\0\0"


_TAGS = (
    b"\xa0\x02\x05\0",
    b"\xa3\x02\x05\0",  # an x400Address, which nobody knows
    b"\xa5\x02\x05\0",  # an ediPartyName
    b"\x88\x03\x55\x04\x03",
    b"\x30\x80",
    b"\x06\x03\x55\x1d\x11",
    b"\x01\x01\xff",
)

ALL = (
    Target(
        "certificates",
        read_certificate,
        lambda: [_certificate()],
        _TAGS,
        held_bytes=4 << 20,
    ),
    Target("revocation_lists", read_revoked, lambda: list(_revoked()), _TAGS, held_bytes=4 << 20),
    Target("handshakes", read_handshake, _handshakes, (b"\x16\x03\x01", b"\0\0", b"\xff\xff")),
)
