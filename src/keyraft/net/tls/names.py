"""Whom a certificate names, and whether a name is one of them, by the rules of Go's `crypto/x509`.

Only a leaf is looked at, and only what OpenSSL does not look at itself: who signed it, and until
when it holds, is not decided here. Names are compared by RFC 6125 §6.4 as Go does: a wildcard is a
whole label, the leftmost one; an address matches addresses only; the common name is no host's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

NAMES_TOLD_MAX: Final = 100  # Go `HostnameError.Error`
KEPT_MAX: Final = 256  # certificates that were read last
_LABEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\Z")
_LEGACY: Final = "x509: certificate relies on legacy Common Name field, use SANs instead"

_ALWAYS: Final = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """What a leaf says."""

    common_name: str = ""
    dns_names: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    has_names: bool = False
    """There is a subject alternative name, of whatever kind."""
    usages: tuple[str, ...] | None = None
    """Extended key usages, dotted; None: any."""
    unhandled: bool = False
    """There is an extension that is critical, and that nobody here knows."""
    begins: datetime = _ALWAYS[0]
    ends: datetime = _ALWAYS[1]

    @property
    def address_texts(self) -> list[str]:
        """The addresses as Go prints them."""
        return [str(address) for address in self.addresses]

    def holds(self, now: datetime) -> bool:
        """Whether `now` is between its dates."""
        return self.begins <= now <= self.ends

    def serves_for(self, usage: str) -> bool:
        """Whether its extended key usage covers `usage` (RFC 5280 §4.2.1.12)."""
        return self.usages is None or usage in self.usages or ANY_USAGE in self.usages

    def covers(self, host: str) -> bool:
        """Whether it is a certificate for this host or address (Go `VerifyHostname`)."""
        address = parse_address(_without_brackets(host))
        if address is not None:
            return address in self.addresses
        plain = host.translate(_LOWER)
        valid = _valid_name(plain.removesuffix("."), wildcard=False)
        return any(
            _matches(name, plain)
            if valid and _valid_name(name, wildcard=True)
            # Names that are none are compared whole.
            else plain not in ("", ".") and name.translate(_LOWER) == plain
            for name in self.dns_names
        )

    def mismatch(self, host: str) -> str:
        """Why `covers(host)` is false (Go `HostnameError`)."""
        if not self.has_names and _matches(self.common_name, host):
            return _LEGACY
        if parse_address(host) is not None:
            valid, kind = self.address_texts, "IP SANs"
            if not valid:
                return (
                    f"x509: cannot validate certificate for {host} because it doesn't contain "
                    "any IP SANs"
                )
        else:
            valid, kind = list(self.dns_names), "names"
        if len(valid) >= NAMES_TOLD_MAX:
            return f"x509: certificate is valid for {len(valid)} {kind}, but none matched {host}"
        if not any(valid):
            return f"x509: certificate is not valid for any names, but wanted to match {host}"
        return f"x509: certificate is valid for {', '.join(valid)}, not {host}"


FOR_SERVERS: Final = "1.3.6.1.5.5.7.3.1"
FOR_CLIENTS: Final = "1.3.6.1.5.5.7.3.2"
ANY_USAGE: Final = "2.5.29.37.0"
_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@lru_cache(maxsize=KEPT_MAX)  # a client comes back with the same one; its dates are looked at anew
def read_names(der: bytes) -> CertificateNames:
    """What a certificate says; raises ValueError for bytes that are none.

    Of several common names the last counts, as in Go (`pkix.Name.FillFromRDNSequence`).
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtensionOID, NameOID

    names: x509.SubjectAlternativeName | None = None
    usages: tuple[str, ...] | None = None
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        TypeError,  # a name in bits, which the library takes for an identifier only
    ) as error:
        raise ValueError(str(error)) from None
    unhandled = False
    for extension in extensions:
        if extension.oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
            names = extension.value
        elif extension.oid == ExtensionOID.EXTENDED_KEY_USAGE:
            usages = tuple(usage.dotted_string for usage in extension.value)
        elif extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            unhandled = True
    common_name = common[-1].value if common else ""
    return CertificateNames(
        common_name if isinstance(common_name, str) else "",
        tuple(names.get_values_for_type(x509.DNSName)) if names is not None else (),
        tuple(_hosts(names.get_values_for_type(x509.IPAddress))) if names is not None else (),
        names is not None,
        usages,
        unhandled,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _hosts(values: Iterable[object]) -> list[Address]:
    return [_plain(value) for value in values if isinstance(value, Address)]


def _plain(address: Address) -> Address:
    """An IPv4 address in IPv6's clothes is that address, as for Go's `net.IP.Equal`."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped if mapped is not None else address


def parse_address(text: str) -> Address | None:
    """An IP address; None for anything else, and for one with a zone (Go `net.ParseIP`)."""
    if "%" in text:
        return None
    try:
        return _plain(ipaddress.ip_address(text))
    except ValueError:
        return None


def _without_brackets(host: str) -> str:
    return host[1:-1] if len(host) >= 3 and host[0] == "[" and host[-1] == "]" else host


def _valid_name(name: str, wildcard: bool) -> bool:
    if name == "*":
        return False
    labels = name.split(".")
    if wildcard and labels[0] == "*":
        labels = labels[1:]
    return all(_LABEL.match(label) for label in labels)


def _matches(pattern: str, host: str) -> bool:
    wanted = pattern.translate(_LOWER).split(".")
    given = host.translate(_LOWER).removesuffix(".").split(".")
    if not pattern or given == [""] or len(wanted) != len(given):
        return False
    first = 1 if wanted[0] == "*" else 0
    return wanted[first:] == given[first:]
