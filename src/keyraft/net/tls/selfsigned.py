"""A certificate that signs itself, as etcd makes it (`client/pkg/transport/listener.go`, SelfCert).

Of `cryptography`, which takes a while to load; only who makes a certificate imports this module.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .pairs import Pair

YEAR: Final = datetime.timedelta(days=365)


def self_signed(hosts: Iterable[str], begin: datetime.datetime, years: int) -> Pair:
    """A new key of P-521, and its certificate for names and IP addresses."""
    key = ec.generate_private_key(ec.SECP521R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "etcd")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end_of(begin, years))
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=True,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    names = [_general_name(host) for host in dict.fromkeys(hosts) if host]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(
        builder.sign(key, hashes.SHA512()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,  # "EC PRIVATE KEY"
            serialization.NoEncryption(),
        ),
    )


def end_of(begin: datetime.datetime, years: int) -> datetime.datetime:
    """When a certificate of so many years ends; X.509 has no time after the year 9999."""
    try:
        return begin + years * YEAR
    except OverflowError:
        return datetime.datetime.max.replace(microsecond=0, tzinfo=begin.tzinfo)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
