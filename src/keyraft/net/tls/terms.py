"""What both ends of a connection may agree on: versions and cipher suites, by Go's names."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final, NamedTuple

VERSIONS: Final = MappingProxyType(
    {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}
)
"""The versions that a configuration may name."""

SUITES: Final = MappingProxyType(
    {
        "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
        "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
        "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    }
)
"""Suites of TLS 1.2: IANA's name as Go has it → OpenSSL's."""

SUITES_1_3: Final = frozenset(
    ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
)
"""Suites of TLS 1.3, which may be named and are always on, as in Go (`crypto/tls`)."""

NOT_OFFERED: Final = frozenset(
    (
        "TLS_RSA_WITH_RC4_128_SHA",
        "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    )
)
"""Suites that Go has, and calls insecure; OpenSSL has none of them any more.

DEVIATION: they may be named, and are not agreed on.
"""

DEFAULT_SUITES: Final = tuple(
    f"ECDHE-{signature}-{rest}"
    for rest in (
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "CHACHA20-POLY1305",
        "AES128-SHA",
        "AES256-SHA",
    )
    for signature in ("ECDSA", "RSA")
)
"""Suites of TLS 1.2 when none are named: Go's (`crypto/tls/defaults.go`)."""

_LEVEL: Final = ":@SECLEVEL=1"
"""What OpenSSL takes for too weak: as Go, keys below 1,024 bits and signatures with SHA-1, and not
what a system's settings add to it: an upgrade from etcd must not lock out certificates in use."""


class Terms(NamedTuple):
    """What both ends of a connection may agree on; empty names: what Go allows by itself."""

    min_version: str = ""
    max_version: str = ""
    suites: tuple[str, ...] = ()

    def set_on(self, context: ssl.SSLContext) -> None:
        """Raises ssl.SSLError when OpenSSL has none of the suites."""
        context.minimum_version = VERSIONS.get(self.min_version, ssl.TLSVersion.TLSv1_2)
        if self.max_version:
            context.maximum_version = VERSIONS[self.max_version]
        names = [SUITES[name] for name in self.suites if name in SUITES]
        context.set_ciphers(":".join(names or DEFAULT_SUITES) + _LEVEL)
        if self.suites and not names:  # of TLS 1.3 only: nothing is left for 1.2
            context.minimum_version = ssl.TLSVersion.TLSv1_3


ANY_TERMS: Final = Terms()


def unknown_suite(names: Iterable[str]) -> str | None:
    """The first name that is no suite's."""
    known = SUITES.keys() | SUITES_1_3 | NOT_OFFERED
    return next((name for name in names if name not in known), None)


def not_offered(names: Iterable[str]) -> list[str]:
    """Those that may be named and are not agreed on."""
    return [name for name in names if name in NOT_OFFERED]
