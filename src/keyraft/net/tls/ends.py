"""What a member's TLS is made of, at both ends: one description, and a context for each handshake.

The files are looked at before each handshake and read again when they have changed. A connection
keeps what it began with; the next one has the new files. What is read and does not fit is logged
once, and what was good before stays in use, so that no handshake fails while an operator is half
way through a change.

DEVIATION: etcd fails the handshakes that find a pair half changed, and reads the authorities at
its start only.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable
from dataclasses import dataclass

from keyraft.base.log import Logger, NullLogger

from .addresses import AddressCheck
from .admission import EVERYBODY, NOT_ALLOWED, Admission, Allowed
from .contexts import Pair, dialling_context, server_context
from .refusal import CertificateRefusedError
from .seeing import can_see, look
from .terms import ANY_TERMS, Terms
from .watched import WatchedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """The flags about one kind of port; empty names are flags that are not given."""

    cert_file: str
    key_file: str
    client_cert_file: str = ""
    """With its key: what the member shows when it dials; otherwise the pair that it serves with."""
    client_key_file: str = ""
    trusted_ca_file: str = ""
    client_cert_auth: bool = False
    allowed: Allowed = EVERYBODY
    """Names of which the other end must have one."""
    addresses_compared: bool = False
    """A client's certificate must be one for the address that it comes from: peers'."""
    self_signed: bool = False
    """The pair was made at the start (`--auto-tls`): when dialling, nobody's is verified."""
    terms: Terms = ANY_TERMS

    @property
    def certificate_needed(self) -> bool:
        """A client must show a certificate when either is given (etcd `transport.ServerConfig`)."""
        return bool(self.trusted_ca_file) or self.client_cert_auth


class _Source:
    """A pair and a bundle of authorities, as they were when they were last good."""

    def __init__(self, cert_file: str, key_file: str, ca_file: str, log: Logger) -> None:
        self._certificate = WatchedFile(cert_file)
        self._key = WatchedFile(key_file)
        self._bundle = WatchedFile(ca_file) if ca_file else None
        self._log = log
        self.pair: Pair | None = None
        self.authorities: str | None = None

    def renew(self) -> bool:
        """Looks at the files; true when there is something new that fits.

        Raises OSError when what was never good is not good now.
        """
        pair_changed = [self._certificate.changed(), self._key.changed()]
        renewed = any(pair_changed) and self._take_pair()
        if self._bundle is not None and self._bundle.changed():
            renewed = self._take_bundle(self._bundle) or renewed
        return renewed

    def _take_pair(self) -> bool:
        try:
            pair = Pair(_content(self._certificate), _content(self._key))
            pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except OSError as error:  # includes ssl.SSLError
            if self.pair is None:
                raise
            missing = isinstance(error, FileNotFoundError)
            self._log.warn(
                "failed to find peer cert files"
                if missing
                else "failed to create peer certificate",
                cert_file=self._certificate.path,
                key_file=self._key.path,
                error=str(error),
            )
            return False
        if pair == self.pair:
            return False
        self.pair = pair
        return True

    def _take_bundle(self, bundle: WatchedFile) -> bool:
        try:
            text = _content(bundle).decode("ascii", "replace").replace("\ufffd", "?")
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
            except ValueError as error:  # there is no certificate in it
                raise OSError(None, f"{bundle.path}: {error}") from None
        except OSError as error:
            if self.authorities is None:
                raise
            self._log.error(
                "failed to reload trusted CA file; the former authorities stay",
                trusted_ca_file=bundle.path,
                error=str(error),
            )
            return False
        if text == self.authorities:
            return False
        if self.authorities is not None:
            self._log.info("reloaded trusted CA file", trusted_ca_file=bundle.path)
        self.authorities = text
        return True


def _content(file: WatchedFile) -> bytes:
    if file.data is None:
        assert file.error is not None, file.path
        raise file.error
    return file.data


class ServerTLS:
    """What a listener needs for its handshakes. Owned by the loop's thread."""

    def __init__(
        self,
        files: TLSFiles,
        log: Logger | None = None,
        *,
        protocols: tuple[str, ...] = ("h2", "http/1.1"),
    ) -> None:
        """Raises OSError (ssl.SSLError among them) for files that do not fit."""
        self.files = files
        self._protocols = protocols
        self._source = _Source(
            files.cert_file, files.key_file, files.trusted_ca_file, log or NullLogger()
        )
        addresses = AddressCheck() if files.addresses_compared else None
        self._admission = Admission(files.allowed, servers=False, addresses=addresses)
        self._source.renew()
        self._context = self._made()

    def context(self) -> ssl.SSLContext:
        """For the next handshake; the same one until a file changes."""
        if self._source.renew():
            self._context = self._made()
        return self._context

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
        return self.files.certificate_needed and self._admission.verifies

    def verify(self, tls: ssl.SSLObject, address: str) -> Awaitable[None] | None:
        """After the handshake, before the first byte of the application.

        `address`: the other end's, as Go prints it. Raises CertificateRefusedError at once, or returns what
        must be awaited and may raise it (when names are looked up). None: let in.
        """
        return self._admission.verify(tls, address)


class ClientTLS:
    """What a member needs to dial others. Owned by the loop's thread."""

    def __init__(
        self, files: TLSFiles, log: Logger | None = None, *, protocols: tuple[str, ...] = ("h2",)
    ) -> None:
        """Raises OSError (ssl.SSLError among them) for files that do not fit."""
        self.files = files
        self._protocols = protocols
        self._source = _Source(
            files.client_cert_file or files.cert_file,
            files.client_key_file or files.key_file,
            files.trusted_ca_file,
            log or NullLogger(),
        )
        self._admission = Admission(files.allowed, servers=True)
        self._source.renew()
        self._context = self._made()

    def context(self) -> ssl.SSLContext:
        """For the next handshake; the same one until a file changes."""
        if self._source.renew():
            self._context = self._made()
        return self._context

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
