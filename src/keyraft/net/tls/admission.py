"""Who is let in, of those whose certificate a trusted authority has signed.

In etcd's order (`client/pkg/transport/listener.go`, `listener_tls.go`): the names that are allowed,
within the handshake; the address that it comes from, after it. The names are compared again after
the handshake: a resumed session shows no certificate, and see `seeing`.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from keyraft.base.gotext import quote

from .addresses import AddressCheck
from .names import FOR_CLIENTS, FOR_SERVERS, CertificateNames, read_names
from .refusal import CertificateRefusedError

NOT_ALLOWED: Final = "client certificate authentication failed"
"""etcd's words for a name that is not on the list, a server's too."""
_UNUSABLE: Final = (
    "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage"
)
_UNHANDLED: Final = "tls: failed to verify certificate: x509: unhandled critical extension"


@dataclass(frozen=True, slots=True)
class Allowed:
    """Names of which the other end must have one; with neither list everybody is allowed.

    The two exclude each other (`exclusion`); where both are given all the same, the first counts.
    """

    common_names: tuple[str, ...] = ()
    host_names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.common_names or self.host_names)

    def exclusion(self) -> str:
        """etcd's refusal of both lists at once; empty without one."""
        if not (self.common_names and self.host_names):
            return ""
        first, second = (
            " ".join(map(quote, each)) for each in (self.common_names, self.host_names)
        )
        return (
            "AllowedCNs and AllowedHostnames are mutually exclusive "
            f"(cns=[{first}], hostnames=[{second}])"
        )

    def __contains__(self, shown: CertificateNames) -> bool:
        if self.common_names:
            return shown.common_name in self.common_names
        return not self.host_names or any(map(shown.covers, self.host_names))


EVERYBODY: Final = Allowed()


class Admission:
    """The decision of one port, or about those that are dialled. Owned by the loop's thread."""

    def __init__(
        self, allowed: Allowed, *, servers: bool, addresses: AddressCheck | None = None
    ) -> None:
        """`servers`: the other end is one. `addresses`: for a port that compares them."""
        self.allowed = allowed
        self._usage = FOR_SERVERS if servers else FOR_CLIENTS
        self._addresses = addresses

    @property
    def verifies(self) -> bool:
        """Whether `verify` looks at anything."""
        return bool(self.allowed) or self._addresses is not None

    def denial(self, leaf: bytes) -> CertificateRefusedError | None:
        """Why a handshake is to be ended that this leaf comes in.

        Nothing is said of what OpenSSL ends by itself with the alert that Go sends.
        """
        try:
            shown = read_names(leaf)
        except ValueError as error:
            return CertificateRefusedError(f"tls: failed to parse certificate: {error}")
        if shown.unhandled:
            return CertificateRefusedError(_UNHANDLED)
        if not shown.holds(datetime.now(UTC)):
            return None
        if not shown.serves_for(self._usage):
            return CertificateRefusedError(_UNUSABLE)
        return None if shown in self.allowed else CertificateRefusedError(NOT_ALLOWED, shown)

    def verify(self, tls: ssl.SSLObject, address: str) -> Awaitable[None] | None:
        """After a handshake; as `ServerTLS.verify`."""
        leaf = tls.getpeercert(binary_form=True)
        if leaf is None:
            return None  # none was asked for
        try:
            shown = read_names(leaf)
        except ValueError as error:
            raise CertificateRefusedError(str(error)) from None
        if shown not in self.allowed:
            raise CertificateRefusedError(NOT_ALLOWED, shown)
        return self._addresses(shown, address) if self._addresses is not None else None
