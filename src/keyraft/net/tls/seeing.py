"""A handshake that looks at the other end's certificate while it can still say what is wrong.

After a handshake the only word left is the end of the connection, and the other end prints "EOF".
etcd decides about the names of members within it, and answers with the alert `bad_certificate`
(RFC 8446 §6.2), which operators know from the logs. Python's `ssl` has no place for a decision of
one's own, but it shows each message of a handshake before OpenSSL works at it, and it lets the
context be changed in the middle (as it must for server names). So:

    first     sees the Certificate message, asks, and goes on as one of:
    plain     the same without eyes: from here on nothing is called for a message any more
    denying   the same, whose authorities are marked as rejected for TLS: OpenSSL ends the handshake
              with X509_V_ERR_CERT_REJECTED and that alert

Who has no valid chain is refused by OpenSSL in its own words in all of them. The eye is an
attribute of CPython's that is not documented (`_msg_callback`, since 3.8). Where it is missing
nothing is seen here, and what is asked after the handshake still refuses, with an "EOF": so the
decision is never left to this module alone.
"""

from __future__ import annotations

import binascii
import contextlib
import re
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .refusal import CertificateRefusedError

_HANDSHAKE: Final = 22  # the content type of its records (RFC 8446 §5.1)
_CERTIFICATE: Final = 11  # RFC 8446 §4
_OTHER_HOSTS: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
_CERT_REJECTED: Final = 28  # X509_V_ERR_CERT_REJECTED, `openssl/x509_vfy.h`

REJECTED_MARK: Final = bytes.fromhex("3016a01406082b0601050507030106082b06010505070302")
"""Behind a certificate in a PEM block TRUSTED CERTIFICATE: rejected for servers and clients
(X509_CERT_AUX, `openssl/x509.h`)."""

_TRUSTED: Final = "TRUSTED CERTIFICATE"
_PEM: Final = re.compile(
    r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END "
)
_eye: Final = getattr(ssl.SSLContext.__base__, "_msg_callback", None)

Denial = Callable[[bytes], "CertificateRefusedError | None"]
"""Given a leaf, DER: why it is not let in; None: it is."""


def can_see() -> bool:
    """Whether this Python shows handshakes."""
    return _eye is not None


def look(
    first: ssl.SSLContext, plain: ssl.SSLContext, denying: ssl.SSLContext, denial: Denial
) -> None:
    """Has handshakes that begin with `first` asked about; the other two are made like it."""
    assert _eye is not None

    def seen(
        end: Any, direction: str, version: int, content: int, message: int, data: bytes
    ) -> None:
        if direction != "read" or content != _HANDSHAKE or message != _CERTIFICATE:
            return
        leaf = first_certificate(data, version == ssl.TLSVersion.TLSv1_3)
        end.denied = denied = denial(leaf) if leaf else None
        end.context = plain if denied is None else denying

    _eye.__set__(first, seen)


def sent_certificates(tls: ssl.SSLObject) -> list[bytes]:
    """What the other end sent, leaf first, DER, verified or not; empty where Python does not tell,
    and for a resumed session."""
    inner = getattr(tls, "_sslobj", tls)
    chain = getattr(inner, "get_unverified_chain", None)  # public since Python 3.13
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in (chain and chain()) or ()]


def note_mismatch(error: ssl.SSLError, tls: ssl.SSLObject) -> None:
    """Writes Go's reason into the error of a certificate that is another host's."""
    host = tls.server_hostname
    if getattr(error, "verify_code", 0) not in _OTHER_HOSTS or not host:
        return
    from .names import read_names

    for leaf in sent_certificates(tls)[:1]:
        with contextlib.suppress(ValueError):  # OpenSSL's words then
            error.mismatch = read_names(leaf).mismatch(host)  # type: ignore[attr-defined]


def is_rejection(error: ssl.SSLError) -> bool:
    """Whether a handshake failed by a denial, and not by a reason of OpenSSL's own."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code == _CERT_REJECTED


def rejected(authorities: str) -> bytes:
    """A bundle with each certificate marked as rejected."""
    blocks: list[str] = []
    for found in _PEM.finditer(authorities):
        try:
            der = binascii.a2b_base64(found[1])
        except binascii.Error:
            continue  # OpenSSL does not take it either
        der = der[: _size(der)] + REJECTED_MARK
        text = binascii.b2a_base64(der, newline=False).decode()
        lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
        blocks.append(f"-----BEGIN {_TRUSTED}-----\n{lines}\n-----END {_TRUSTED}-----\n")
    return "".join(blocks).encode()


def _size(der: bytes) -> int:
    """Of the first value, its head included (ITU-T X.690 §8.1.3); a mark may be behind it."""
    if len(der) < 2 or der[1] < 0x80:
        return 2 + (der[1] if len(der) > 1 else 0)
    count = der[1] & 0x7F
    return 2 + count + int.from_bytes(der[2 : 2 + count], "big")


def first_certificate(message: bytes, version_1_3: bool) -> bytes:
    """The leaf of a Certificate message, header included; empty when there is none.

    RFC 8446 §4.4.2 (with a context before the list), RFC 5246 §7.4.2. OpenSSL looks at the form.
    """
    at = 4
    if version_1_3:
        at += 1 + message[at] if len(message) > at else 0
    size = int.from_bytes(message[at + 3 : at + 6], "big")
    return message[at + 6 : at + 6 + size]
