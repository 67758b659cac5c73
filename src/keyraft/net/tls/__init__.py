"""TLS of members and clients: terms, contexts, files that may change, who is let in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.base.lazy import names_in

if TYPE_CHECKING:
    from .contexts import asked_name, client_context, on_alert
    from .ends import CertificateRefusedError, ClientTLS, ServerTLS, TLSFiles
    from .terms import Terms, unknown_suite

__getattr__ = names_in(
    __name__,
    {
        ".contexts": ("asked_name", "client_context", "on_alert"),
        ".ends": ("CertificateRefusedError", "ClientTLS", "ServerTLS", "TLSFiles"),
        ".terms": ("Terms", "unknown_suite"),
    },
)

__all__ = [
    "CertificateRefusedError",
    "ClientTLS",
    "ServerTLS",
    "TLSFiles",
    "Terms",
    "asked_name",
    "client_context",
    "on_alert",
    "unknown_suite",
]
