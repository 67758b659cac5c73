"""TLS contexts for both ends: TLS 1.2 or later, h2 before http/1.1.

A server whose handshake fails tells its client why, with an alert (RFC 8446 §6.2). OpenSSL makes
it, and the loops' TLS protocols drop it with the connection: so a server's context hands it out
where the failure happens (`on_alert`), to be written before the socket is closed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from contextvars import ContextVar
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


class Terms(NamedTuple):
    """What both ends of a connection may agree on; empty names leave the choice to OpenSSL."""

    min_version: str = ""
    max_version: str = ""
    suites: tuple[str, ...] = ()

    def set_on(self, context: ssl.SSLContext) -> None:
        """Raises ssl.SSLError when OpenSSL has none of the suites."""
        context.minimum_version = VERSIONS.get(self.min_version, ssl.TLSVersion.TLSv1_2)
        if self.max_version:
            context.maximum_version = VERSIONS[self.max_version]
        if names := [SUITES[name] for name in self.suites if name in SUITES]:
            context.set_ciphers(":".join(names))
        elif self.suites:  # of TLS 1.3 only: nothing is left for 1.2
            context.minimum_version = ssl.TLSVersion.TLSv1_3


ANY_TERMS: Final = Terms()

on_alert: Final[ContextVar[Callable[[bytes], None]]] = ContextVar("on_alert")
"""Who sends what OpenSSL has to say to the other end of the handshake that runs in this context."""


class _ServerSide(ssl.SSLObject):
    """A server's end, which says why its handshake failed."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            send = on_alert.get(None)
            if send is not None and self.outgoing.pending:
                send(self.outgoing.read())
            raise


class _ServerContext(ssl.SSLContext):
    sslobject_class = _ServerSide

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, _ServerSide)
        made.outgoing = outgoing
        return made


def unknown_suite(names: Iterable[str]) -> str | None:
    """The first name that is no suite's."""
    return next((name for name in names if name not in SUITES and name not in SUITES_1_3), None)


def server_context(
    cert_file: str,
    key_file: str,
    *,
    trusted_ca_file: str | None = None,
    client_cert_auth: bool = False,
    terms: Terms = ANY_TERMS,
) -> ssl.SSLContext:
    """A server's context; raises OSError or ssl.SSLError for files that do not fit.

    A client must show a certificate when either is given, `trusted_ca_file` or
    `client_cert_auth` (etcd `client/pkg/transport/listener.go`, `ServerConfig`).
    """
    context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
    terms.set_on(context)
    context.load_cert_chain(cert_file, key_file)
    if trusted_ca_file:
        context.load_verify_locations(trusted_ca_file)
    elif client_cert_auth:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    if trusted_ca_file or client_cert_auth:
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def client_context(
    *,
    trusted_ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    insecure_skip_verify: bool = False,
    terms: Terms = ANY_TERMS,
) -> ssl.SSLContext:
    """A client's context; the system's authorities unless `trusted_ca_file` is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    terms.set_on(context)
    if trusted_ca_file:
        context.load_verify_locations(trusted_ca_file)
    else:
        context.load_default_certs()
    if cert_file:
        context.load_cert_chain(cert_file, key_file)
    if insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
