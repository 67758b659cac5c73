"""TLS of members and clients: terms, contexts, files that may change, who is let in, connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.base.lazy import names_in

if TYPE_CHECKING:
    from .admission import Allowed
    from .contexts import client_context
    from .dialling import shake_hands
    from .ends import ClientTLS, ServerTLS, TLSFiles
    from .names import CertificateNames, read_names
    from .pairs import UnfitError
    from .refusal import CertificateRefusedError
    from .selfsigned import end_of, self_signed
    from .serving import HANDSHAKE_S_MAX, Failed, Handshakes
    from .terms import Terms, not_offered, unknown_suite
    from .watched import WatchedFile

__getattr__ = names_in(
    __name__,
    {
        ".admission": ("Allowed",),
        ".contexts": ("client_context",),
        ".dialling": ("shake_hands",),
        ".ends": ("ClientTLS", "ServerTLS", "TLSFiles"),
        ".pairs": ("UnfitError",),
        ".names": ("CertificateNames", "read_names"),
        ".refusal": ("CertificateRefusedError",),
        ".serving": ("HANDSHAKE_S_MAX", "Failed", "Handshakes"),
        ".selfsigned": ("end_of", "self_signed"),
        ".terms": ("Terms", "not_offered", "unknown_suite"),
        ".watched": ("WatchedFile",),
    },
)

__all__ = [
    "HANDSHAKE_S_MAX",
    "Allowed",
    "CertificateNames",
    "CertificateRefusedError",
    "ClientTLS",
    "Failed",
    "Handshakes",
    "ServerTLS",
    "TLSFiles",
    "Terms",
    "UnfitError",
    "WatchedFile",
    "client_context",
    "end_of",
    "not_offered",
    "read_names",
    "self_signed",
    "shake_hands",
    "unknown_suite",
]
