"""TLS of members and clients: terms, contexts, files that may change, who is let in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.base.lazy import names_in

if TYPE_CHECKING:
    from .admission import Allowed
    from .contexts import asked_name, client_context, on_alert
    from .ends import ClientTLS, ServerTLS, TLSFiles
    from .names import CertificateNames
    from .refusal import CertificateRefusedError
    from .terms import Terms, unknown_suite
    from .watched import WatchedFile

__getattr__ = names_in(
    __name__,
    {
        ".contexts": ("asked_name", "client_context", "on_alert"),
        ".admission": ("Allowed",),
        ".ends": ("ClientTLS", "ServerTLS", "TLSFiles"),
        ".names": ("CertificateNames",),
        ".refusal": ("CertificateRefusedError",),
        ".terms": ("Terms", "unknown_suite"),
        ".watched": ("WatchedFile",),
    },
)

__all__ = [
    "Allowed",
    "CertificateNames",
    "CertificateRefusedError",
    "ClientTLS",
    "ServerTLS",
    "TLSFiles",
    "Terms",
    "WatchedFile",
    "asked_name",
    "client_context",
    "on_alert",
    "unknown_suite",
]
