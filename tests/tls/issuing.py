"""Certificates of every kind: whom they name, when they hold, what for, who signed."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = Any
"""A private key of `cryptography`; its union type is not needed here."""

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
CODE = ExtendedKeyUsageOID.CODE_SIGNING
_DAY = datetime.timedelta(days=1)
_NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def new_key(kind: str = "ec") -> Key:
    """ "ec", "ec384", "ec521", "ed25519", "rsa", or "rsa1024" with its bits."""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:] or "2048"))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curve: ec.EllipticCurve = {"ec384": ec.SECP384R1(), "ec521": ec.SECP521R1()}.get(
        kind, ec.SECP256R1()
    )
    return ec.generate_private_key(curve)


@dataclass(frozen=True)
class Order:
    """What a certificate is to say; `names` are DNS names and IP addresses."""

    common_names: Sequence[str] = ("someone",)
    names: Sequence[str] = ("localhost", "127.0.0.1")
    begins_in_days: int = -1
    ends_in_days: int = 30
    usage: Sequence[x509.ObjectIdentifier] | None = (SERVER, CLIENT)
    key: str = "ec"
    authority: bool = False
    signs_only: bool = False
    """A key usage without digitalSignature."""
    unknown_critical: bool = False
    """An extension that nobody knows and that must not be overlooked."""
    only_under: str = ""
    """An authority's name constraint: DNS names below it."""


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and the ones above it that are sent along."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def serial(self) -> int:
        return self.certificate.serial_number

    def pem(self) -> bytes:
        return b"".join(
            one.public_bytes(serialization.Encoding.PEM) for one in (self.certificate, *self.chain)
        )

    def key_pem(self) -> bytes:
        return bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """The two files: `name`.crt and `name`.key."""
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        cert.write_bytes(self.pem())
        key.write_bytes(self.key_pem())
        key.chmod(0o600)
        return cert, key

    def issue(self, order: Order, send_chain: bool = True) -> Issued:
        """A certificate that this one signs; with `send_chain` this one goes along, if it has
        an issuer itself."""
        made = _issue(order, self)
        chain = (self.certificate, *self.chain) if send_chain and not self._is_root else ()
        return Issued(made.certificate, made.key, chain)

    @property
    def _is_root(self) -> bool:
        return self.certificate.issuer == self.certificate.subject

    def revoke(self, serials: Iterable[int]) -> bytes:
        """A list of revoked certificates, DER."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(_NOW - _DAY)
            .next_update(_NOW + 30 * _DAY)
        )
        for serial in serials:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(_NOW - _DAY)
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def new_authority(name: str = "test authority", key: str = "ec") -> Issued:
    """A root."""
    return _issue(Order((name,), (), key=key, usage=None, authority=True), None)


def self_signed(order: Order) -> Issued:
    """A certificate that only itself vouches for."""
    return _issue(order, None)


def _issue(order: Order, issuer: Issued | None) -> Issued:
    key = new_key(order.key)
    signer = issuer.key if issuer is not None else key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn) for cn in order.common_names])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW + order.begins_in_days * _DAY)
        .not_valid_after(_NOW + order.ends_in_days * _DAY)
        .add_extension(x509.BasicConstraints(order.authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
    )
    if order.authority:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    elif order.signs_only:
        usage = x509.KeyUsage(False, True, True, False, False, False, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    if order.usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(order.usage), critical=False)
    if order.names:
        names = x509.SubjectAlternativeName([_name(name) for name in order.names])
        builder = builder.add_extension(names, critical=not order.common_names)
    if order.unknown_critical:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\5\0")
        builder = builder.add_extension(unknown, critical=True)
    if order.only_under:
        allowed = x509.NameConstraints([x509.DNSName(order.only_under)], None)
        builder = builder.add_extension(allowed, critical=True)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signer, digest), key)


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
