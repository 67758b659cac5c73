"""A pair and the authorities, as they were in their files when they were last good.

What is read and does not fit is logged once, and what was good before stays in use, so that no
handshake fails while an operator is half way through a change.

DEVIATION: etcd fails the handshakes that find a pair half changed, and reads the authorities at its
start only.
"""

from __future__ import annotations

import os
import ssl
from typing import Final

from keyraft.base.log import Logger

from .pairs import Pair, UnfitError
from .watched import WatchedFile

_SERVING: Final = ("failed to find peer cert files", "failed to create peer certificate")
_DIALLING: Final = ("failed to find client cert files", "failed to create client certificate")
_BEGINS: Final = "-----BEGIN CERTIFICATE-----"


class TLSSource:
    """Up to two files of a pair and one of authorities; empty names are files that there are not."""

    def __init__(
        self, cert_file: str, key_file: str, ca_file: str, log: Logger, *, serving: bool = True
    ) -> None:
        """`serving`: the pair is a listener's; etcd's lines tell the two ends apart."""
        self._certificate = WatchedFile(cert_file)
        self._key = WatchedFile(key_file)
        self._bundle = WatchedFile(ca_file)
        self._log = log
        self._missing, self._broken = _SERVING if serving else _DIALLING
        self._again = False
        self.pair: Pair | None = None
        self.authorities: str | None = None

    def renew(self) -> bool:
        """Looks at the files; true when there is something new that fits.

        Raises UnfitError when what was never good is not good now.
        """
        renewed = False
        if self._certificate.path:
            changed = [self._certificate.changed(), self._key.changed()]
            renewed = (any(changed) or self._again) and self._take_pair()
        if self._bundle.path and self._bundle.changed():
            renewed = self._take_authorities() or renewed
        return renewed

    def _take_pair(self) -> bool:
        self._again = False
        try:
            pair = Pair(self._certificate.content(), self._key.content())
            pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except OSError as error:
            if self.pair is None:
                raise
            self._again = not isinstance(error, UnfitError)  # there was no descriptor free
            missing = not (
                os.path.exists(self._certificate.path) and os.path.exists(self._key.path)
            )
            self._log.warn(
                self._missing if missing else self._broken,
                cert_file=self._certificate.path,
                key_file=self._key.path,
                error=str(error),
            )
            return False
        before, self.pair = self.pair, pair
        if before is not None and before != pair:
            self._log.info(
                "reloaded TLS certificate",
                cert_file=self._certificate.path,
                key_file=self._key.path,
            )
        return before != pair

    def _take_authorities(self) -> bool:
        path = self._bundle.path
        try:
            authorities = checked_authorities(path, self._bundle.content())
        except UnfitError as error:
            if self.authorities is None:
                raise
            self._log.error(
                "failed to reload trusted CA file; the former authorities stay",
                trusted_ca_file=path,
                error=str(error),
            )
            return False
        before, self.authorities = self.authorities, authorities
        if before is not None and before != authorities:
            self._log.info("reloaded trusted CA file", trusted_ca_file=path)
        return before != authorities


def checked_authorities(path: str, data: bytes) -> str:
    """A bundle as OpenSSL takes it; raises UnfitError for one that is broken or empty.

    Many have comments with the names of their authorities, in any encoding.
    """
    text = data.decode("ascii", "replace").replace("\ufffd", "?")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        wrong = "x509: malformed certificate" if _BEGINS in text else "no certificate in it"
        raise UnfitError(f"{path}: {wrong}") from None
    return text
