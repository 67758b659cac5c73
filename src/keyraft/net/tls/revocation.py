"""Certificates that are revoked: a list in a file (RFC 5280 §5), read again when it changes.

Like etcd (`client/pkg/transport/listener_tls.go`, checkCRL) a list counts for every authority: a
serial number in it keeps out whoever shows a certificate with that number, or one signed by such.
Who signed the list, and until when it holds, is not looked at.

A list that was never read keeps everybody out. One that becomes unreadable is logged once, and the
former one stays in use.

DEVIATION: etcd reads the file at each handshake, refuses everybody while it is being written, and
since 3.6 takes DER only; here PEM is taken too.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from keyraft.base.log import Logger

from .names import CertificateNames, read_names
from .pairs import UnfitError
from .refusal import CertificateRefusedError
from .seeing import sent_certificates
from .watched import WatchedFile

if TYPE_CHECKING:
    from cryptography import x509

_KNOWN_MAX: Final = 4_096
"""Serial numbers whose answer is remembered: to look one up takes 25 ms in a list of 100,000."""
_PEM: Final = b"-----BEGIN X509 CRL-----"


class RevocationList:
    """One file. Owned by the loop's thread."""

    def __init__(self, path: str, log: Logger) -> None:
        self._file = WatchedFile(path)
        self._log = log
        self._list: x509.CertificateRevocationList | None = None
        self._problem = ""
        self._known: dict[int, bool] = {}

    def renew(self) -> bool:
        """Looks at the file; true when there is another list."""
        if not self._file.changed():
            return False
        try:
            made = _parsed(self._file.content())
        except UnfitError as error:
            self._problem = str(error)
            self._log.error(
                "failed to read certificate revocation list"
                + ("" if self._list is None else "; the former one stays"),
                crl_file=self._file.path,
                error=self._problem,
            )
            return False
        if self._list is not None:
            self._log.info("reloaded certificate revocation list", crl_file=self._file.path)
        self._list = made
        self._known = {}
        return True

    def check(self, tls: ssl.SSLObject) -> None:
        """After a handshake; raises CertificateRefusedError for what the other end has shown."""
        shown = _shown(tls)
        if not shown:
            return
        self.renew()
        if self._list is None:
            raise CertificateRefusedError(self._problem)
        for serial in _serials(shown):
            if self._has(self._list, serial):
                text = serial.to_bytes((serial.bit_length() + 7) // 8, "big").hex()
                raise CertificateRefusedError(
                    f"transport: certificate serial {text} revoked", _names(shown[0])
                )

    def _has(self, revoked: x509.CertificateRevocationList, serial: int) -> bool:
        known = self._known.get(serial)
        if known is None:
            known = revoked.get_revoked_certificate_by_serial_number(serial) is not None
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[serial] = known
        return known


def _shown(tls: ssl.SSLObject) -> list[bytes]:
    """The certificates that the other end sent, leaf first, DER; of a resumed session the leaf."""
    leaf = tls.getpeercert(binary_form=True)
    if leaf is None:
        return []
    return [leaf, *(one for one in sent_certificates(tls) if one != leaf)]


def _names(leaf: bytes) -> CertificateNames | None:
    try:
        return read_names(leaf)
    except ValueError:
        return None


def _serials(certificates: Iterable[bytes]) -> list[int]:
    from cryptography import x509

    try:
        return [x509.load_der_x509_certificate(one).serial_number for one in certificates]
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateRefusedError(f"x509: {error}") from None


def _parsed(data: bytes) -> x509.CertificateRevocationList:
    from cryptography import x509

    try:
        if _PEM in data:
            return x509.load_pem_x509_crl(data)
        return x509.load_der_x509_crl(data)
    except (ValueError, x509.InvalidVersion):
        raise UnfitError("x509: malformed crl") from None
