"""A certificate with its private key, and what is wrong with a pair, in Go's words.

Go `crypto/tls/tls.go`, X509KeyPair, and etcd `client/pkg/tlsutil`: operators search for these texts.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import Iterator
from typing import Final, NamedTuple

_CERTIFICATE: Final = "CERTIFICATE"
_KEY_END: Final = "PRIVATE KEY"
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)


class UnfitError(OSError):
    """A file of a TLS configuration cannot be used; the text is Go's."""


class Pair(NamedTuple):
    """A certificate with its chain, and its private key: PEM."""

    certificate: bytes
    key: bytes

    def load_into(self, context: ssl.SSLContext) -> None:
        """Raises UnfitError when the two are broken or do not belong together."""
        # OpenSSL, as Python has it, reads pairs from files only.
        try:
            with in_memory(self.certificate) as certificate, in_memory(self.key) as key:
                context.load_cert_chain(certificate, key, _no_password)
        except ssl.SSLError as error:
            raise UnfitError(self._fault(error.reason or "")) from None

    def _fault(self, reason: str) -> str:
        """What Go would say of the pair that OpenSSL has refused for `reason`."""
        certificates, keys = _kinds(self.certificate), _kinds(self.key)
        if _CERTIFICATE not in certificates:
            return _nothing("certificate", f'"{_CERTIFICATE}" PEM block', certificates)
        if not any(kind.endswith(_KEY_END) for kind in keys):
            return _nothing("key", f'PEM block with type ending in "{_KEY_END}"', keys)
        if "VALUES_MISMATCH" in reason:
            return "tls: private key does not match public key"
        if "TYPE_MISMATCH" in reason:
            return "tls: private key type does not match public key type"
        try:
            authorities = self.certificate.decode("ascii", "replace").replace("\ufffd", "?")
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=authorities)
        except ssl.SSLError:
            return "x509: malformed certificate"
        if "PEM" in reason or "DECODE" in reason or not reason:
            return "tls: failed to parse private key"
        return f"tls: {reason.replace('_', ' ').lower()}"


def bundle(data: bytes) -> str:
    """The certificates of a client's bundle, PEM; empty when there is none.

    Whatever else is in it stops the client, as it does etcd's (`tlsutil.NewCertPool`), text outside
    of blocks excepted. Raises UnfitError.
    """
    if any(kind.endswith(_KEY_END) for kind in _kinds(data)):
        raise UnfitError("x509: malformed tbs certificate")
    text = "\n".join(found[0].decode("ascii", "replace") for found in _BLOCK.finditer(data))
    if text:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
                cadata=text.replace("\ufffd", "?")
            )
        except ssl.SSLError:
            raise UnfitError("x509: malformed certificate") from None
    return text


def _kinds(data: bytes) -> list[str]:
    return [found[1].decode() for found in _BLOCK.finditer(data)]


def _nothing(which: str, what: str, found: list[str]) -> str:
    """Why there is no certificate, or no key, in a file with these PEM blocks."""
    if not found:
        return f"tls: failed to find any PEM data in {which} input"
    if which == "certificate" and len(found) == 1 and found[0].endswith(_KEY_END):
        return (
            "tls: failed to find certificate PEM data in certificate input, but did find a "
            "private key; PEM inputs may have been switched"
        )
    if which == "key" and found == [_CERTIFICATE]:
        return "tls: found a certificate rather than a key in the PEM for the private key"
    return (
        f"tls: failed to find {what} in {which} input after skipping PEM blocks of the following "
        f"types: [{' '.join(found)}]"
    )


def _no_password() -> bytes:
    """A key that is encrypted is refused; otherwise OpenSSL would ask the terminal."""
    return b""


@contextlib.contextmanager
def in_memory(data: bytes) -> Iterator[str]:
    """A path that names `data`, for as long as the block lasts; nobody else can read it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        import tempfile  # only where there is no memfd

        with tempfile.NamedTemporaryFile() as file:  # mode 0600
            file.write(data)
            file.flush()
            yield file.name
