"""What a member's TLS is made of, at both ends: one description, and a context for each handshake.

The files are looked at before each handshake and read again when they have changed. A connection
keeps what it began with; the next one has the new files.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from keyraft.base.log import Logger, NullLogger

from .addresses import AddressCheck
from .admission import EVERYBODY, NOT_ALLOWED, Admission, Allowed
from .contexts import dialling_context, server_context
from .pairs import UnfitError
from .refusal import CertificateRefusedError
from .revocation import RevocationList
from .seeing import can_see, look
from .source import TLSSource
from .terms import ANY_TERMS, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """The flags about one kind of port; empty names are flags that are not given."""

    cert_file: str = ""
    key_file: str = ""
    client_cert_file: str = ""
    """With its key: what the member shows when it dials; otherwise the pair that it serves with."""
    client_key_file: str = ""
    trusted_ca_file: str = ""
    client_cert_auth: bool = False
    allowed: Allowed = EVERYBODY
    """Names of which the other end must have one."""
    addresses_compared: bool = False
    """A client's certificate must be one for the address that it comes from: peers'."""
    crl_file: str = ""
    """Certificates that are revoked: nobody comes in who shows one."""
    self_signed: bool = False
    """The pair was made at the start (`--auto-tls`): when dialling, nobody's is verified."""
    terms: Terms = ANY_TERMS

    @property
    def certificate_needed(self) -> bool:
        """A client must show a certificate when either is given (etcd `transport.ServerConfig`)."""
        return bool(self.trusted_ca_file) or self.client_cert_auth

    @property
    def is_empty(self) -> bool:
        """Whether there is no pair to serve with."""
        return not self.cert_file and not self.key_file

    def check(self) -> None:
        """Raises UnfitError for flags that do not go together, or a pair that does not fit."""
        if not self.cert_file or not self.key_file:
            raise UnfitError(
                "KeyFile and CertFile must both be present"
                f"[key: {self.key_file}, cert: {self.cert_file}]"
            )
        if bool(self.client_cert_file) != bool(self.client_key_file):
            raise UnfitError(
                "ClientKeyFile and ClientCertFile must both be present or both absent: "
                f"key: {self.client_key_file}, cert: {self.client_cert_file}]"
            )
        if self.client_cert_file:
            TLSSource(self.client_cert_file, self.client_key_file, "", NullLogger()).renew()
        if exclusion := self.allowed.exclusion():
            raise UnfitError(exclusion)

    def __str__(self) -> str:
        """As etcd logs it (`transport.TLSInfo`)."""
        return (
            f"cert = {self.cert_file}, key = {self.key_file}, "
            f"client-cert={self.client_cert_file}, client-key={self.client_key_file}, "
            f"trusted-ca = {self.trusted_ca_file}, "
            f"client-cert-auth = {str(self.client_cert_auth).lower()}, crl-file = {self.crl_file}"
        )


class _Current:
    """The context in use. One that cannot be made (no descriptor is free) is made a while later."""

    def __init__(self, make: Callable[[], ssl.SSLContext], log: Logger) -> None:
        self._make = make
        self._log = log
        self._made = make()
        self._stale = False

    def context(self, renewed: bool) -> ssl.SSLContext:
        """`renewed`: another one is wanted from now on."""
        if renewed or self._stale:
            try:
                self._made = self._make()
                self._stale = False
            except OSError as error:
                if not self._stale:
                    self._log.error("cannot make a TLS context yet", error=str(error))
                self._stale = True
        return self._made


class ServerTLS:
    """What a listener needs for its handshakes. Owned by the loop's thread."""

    def __init__(
        self,
        files: TLSFiles,
        log: Logger | None = None,
        *,
        protocols: tuple[str, ...] = ("h2", "http/1.1"),
    ) -> None:
        """Raises UnfitError."""
        files.check()
        log = log or NullLogger()
        self.files = files
        self._protocols = protocols
        self._source = TLSSource(files.cert_file, files.key_file, files.trusted_ca_file, log)
        self._revoked = RevocationList(files.crl_file, log) if files.crl_file else None
        if self._revoked is not None:
            self._revoked.renew()
        addresses = AddressCheck() if files.addresses_compared else None
        self._admission = Admission(files.allowed, servers=False, addresses=addresses)
        self._source.renew()
        self._current = _Current(self._made, log)

    def context(self) -> ssl.SSLContext:
        """For the next handshake; the same one until a file changes."""
        renewed = self._source.renew()
        if self._revoked is not None and self._revoked.renew():
            renewed = True  # a session from before shows no chain that could be looked at
        return self._current.context(renewed)

    def _made(self) -> ssl.SSLContext:
        first = self._make()
        if self.files.certificate_needed and self._source.authorities is not None and can_see():
            look(first, self._make(), self._make(denying=True), self._admission.denial)
        return first

    def _make(self, denying: bool = False) -> ssl.SSLContext:
        pair = self._source.pair
        assert pair is not None, self.files
        return server_context(
            pair,
            self._source.authorities,
            certificate_needed=self.files.certificate_needed,
            terms=self.files.terms,
            protocols=self._protocols,
            denying=denying,
        )

    @property
    def verifies(self) -> bool:
        """Whether `verify` has anything to look at; without it a handshake costs nothing more."""
        looks = self._admission.verifies or self._revoked is not None
        return self.files.certificate_needed and looks

    def verify(self, tls: ssl.SSLObject, address: str) -> Awaitable[None] | None:
        """After the handshake, before the first byte of the application.

        `address`: the other end's, as Go prints it. Raises CertificateRefusedError at once, or returns what
        must be awaited and may raise it (when names are looked up). None: let in.
        """
        waits = self._admission.verify(tls, address)
        if self._revoked is None:
            return waits
        if waits is not None:
            return _then(waits, self._revoked, tls)
        self._revoked.check(tls)
        return None


async def _then(waits: Awaitable[None], revoked: RevocationList, tls: ssl.SSLObject) -> None:
    """etcd's order: first the address, then the list."""
    await waits
    revoked.check(tls)


class ClientTLS:
    """What a member needs to dial others. Owned by the loop's thread."""

    def __init__(
        self, files: TLSFiles, log: Logger | None = None, *, protocols: tuple[str, ...] = ("h2",)
    ) -> None:
        """Raises UnfitError."""
        if not files.is_empty:
            files.check()
        log = log or NullLogger()
        self.files = files
        self.server_name = ""
        """Whose certificate the other end must show; "": the host's that is dialled."""
        self._protocols = protocols
        self._source = TLSSource(
            files.client_cert_file or files.cert_file,
            files.client_key_file or files.key_file,
            files.trusted_ca_file,
            log,
            serving=False,
        )
        self._admission = Admission(files.allowed, servers=True)
        self._source.renew()
        self._current = _Current(self._made, log)

    def context(self) -> ssl.SSLContext:
        """For the next handshake; the same one until a file changes."""
        return self._current.context(self._source.renew())

    def _made(self) -> ssl.SSLContext:
        first = self._make()
        if self.files.allowed and self._source.authorities is not None and can_see():
            look(first, self._make(), self._make(denying=True), self._admission.denial)
        return first

    def _make(self, denying: bool = False) -> ssl.SSLContext:
        return dialling_context(
            self._source.pair,
            self._source.authorities,
            anybody=self.files.self_signed,
            terms=self.files.terms,
            protocols=self._protocols,
            denying=denying,
        )

    def verify(self, tls: ssl.SSLObject, address: str) -> Awaitable[None] | None:
        """As a server's `verify`, of the member that was dialled."""
        if not self.files.allowed:
            return None
        if self.files.self_signed:  # nobody was verified, so no name is known (etcd likewise)
            raise CertificateRefusedError(NOT_ALLOWED)
        return self._admission.verify(tls, address)
