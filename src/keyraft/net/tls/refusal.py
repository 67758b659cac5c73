"""Why a certificate that is valid does not open the door."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .names import CertificateNames


class CertificateRefusedError(OSError):
    """The other end's certificate is valid, but not let in; the text is etcd's reason."""

    def __init__(self, reason: str, shown: CertificateNames | None = None) -> None:
        super().__init__(reason)
        self.names = shown
        """What it says of its owner, for the log."""
