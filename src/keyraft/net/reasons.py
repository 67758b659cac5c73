"""Why a connection failed, in the words of Go's `net` and `crypto/tls`, which operators search for.

OpenSSL has its own names for a record that is no TLS, a missing certificate and an alert. Errors
without a counterpart in Go keep OpenSSL's text.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from types import MappingProxyType
from typing import Final

EOF: Final = "EOF"
NO_TLS: Final = "tls: first record does not look like a TLS handshake"
TIMEOUT: Final = "i/o timeout"

# Go `crypto/tls/alert.go`, by OpenSSL's names behind SSLV3_ALERT_, TLSV1_ALERT_, TLSV13_ALERT_.
ALERTS: Final = MappingProxyType(
    {
        "ACCESS_DENIED": "access denied",
        "BAD_CERTIFICATE": "bad certificate",
        "BAD_CERTIFICATE_HASH_VALUE": "bad certificate hash value",
        "BAD_CERTIFICATE_STATUS_RESPONSE": "bad certificate status response",
        "BAD_RECORD_MAC": "bad record MAC",
        "CERTIFICATE_EXPIRED": "expired certificate",
        "CERTIFICATE_REQUIRED": "certificate required",
        "CERTIFICATE_REVOKED": "revoked certificate",
        "CERTIFICATE_UNKNOWN": "unknown certificate",
        "CERTIFICATE_UNOBTAINABLE": "certificate unobtainable",
        "DECODE_ERROR": "error decoding message",
        "DECOMPRESSION_FAILURE": "decompression failure",
        "DECRYPT_ERROR": "error decrypting message",
        "EXPORT_RESTRICTION": "export restriction",
        "HANDSHAKE_FAILURE": "handshake failure",
        "ILLEGAL_PARAMETER": "illegal parameter",
        "INAPPROPRIATE_FALLBACK": "inappropriate fallback",
        "INSUFFICIENT_SECURITY": "insufficient security level",
        "INTERNAL_ERROR": "internal error",
        "MISSING_EXTENSION": "missing extension",
        "NO_APPLICATION_PROTOCOL": "no application protocol",
        "NO_CERTIFICATE": "no certificate",
        "NO_RENEGOTIATION": "no renegotiation",
        "PROTOCOL_VERSION": "protocol version not supported",
        "RECORD_OVERFLOW": "record overflow",
        "UNEXPECTED_MESSAGE": "unexpected message",
        "UNKNOWN_CA": "unknown certificate authority",
        "UNRECOGNIZED_NAME": "unrecognized name",
        "UNSUPPORTED_CERTIFICATE": "unsupported certificate",
        "UNSUPPORTED_EXTENSION": "unsupported extension",
        "USER_CANCELLED": "user canceled",
    }
)

_NO_TLS: Final = frozenset(
    ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL")
)
_REASONS: Final = MappingProxyType(
    {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "tls: client didn't provide a certificate",
        "NO_SHARED_CIPHER": "tls: no cipher suite supported by both client and server",
        "UNSUPPORTED_PROTOCOL": "tls: client offered only unsupported versions",
        "UNEXPECTED_EOF_WHILE_READING": EOF,
        "NO_APPLICATION_PROTOCOL": "tls: no application protocol",
    }
)
_UNKNOWN_AUTHORITY: Final = "x509: certificate signed by unknown authority"
_FOREIGN_NAME: Final = (
    "x509: a root or intermediate certificate is not authorized to sign for this name"
)
_CERTIFICATE: Final = MappingProxyType(  # X509_V_ERR_*, `openssl/x509_vfy.h`
    {
        7: _UNKNOWN_AUTHORITY,  # another authority of the same name has signed
        9: "x509: certificate has expired or is not yet valid",
        10: "x509: certificate has expired or is not yet valid",
        18: _UNKNOWN_AUTHORITY,  # the certificate is self-signed
        19: _UNKNOWN_AUTHORITY,  # the last one of the chain is self-signed
        20: _UNKNOWN_AUTHORITY,
        21: _UNKNOWN_AUTHORITY,
        26: "x509: certificate specifies an incompatible key usage",
        47: _FOREIGN_NAME,
        48: _FOREIGN_NAME,
        79: _UNKNOWN_AUTHORITY,  # who has signed is none
    }
)


def system_reason(error: OSError) -> str:
    """The system's text for an error: "connection refused"."""
    if error.errno is None:
        return str(error) or type(error).__name__
    return os.strerror(error.errno).lower()


def lookup_reason(host: str, error: socket.gaierror) -> str:
    """Why a name has no address."""
    unknown = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
    reason = "no such host" if unknown else (error.strerror or str(error)).lower()
    return f"lookup {host}: {reason}"


def failure_reason(error: BaseException) -> str:
    """Why a connection to another member failed: of TLS in Go's words, else in its own."""
    if isinstance(error, ssl.SSLError):
        return handshake_reason(error)
    return str(error) or type(error).__name__


def handshake_reason(error: BaseException) -> str:
    """Why a TLS handshake, or the connection behind it, failed at this end."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = getattr(error, "mismatch", "")  # of a certificate for another host
        return "tls: failed to verify certificate: " + (
            text or _CERTIFICATE.get(error.verify_code, f"x509: {error.verify_message.rstrip('.')}")
        )
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return EOF
    if isinstance(error, ssl.SSLError):
        return _ssl_reason(error.reason or "", str(error))
    if isinstance(error, ConnectionResetError) and error.errno is None:
        return EOF  # the loop's own: the other end closed
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return TIMEOUT
    if isinstance(error, OSError):
        if error.errno == errno.ECONNRESET:
            return "read: connection reset by peer"
        return system_reason(error)
    return str(error)


def _ssl_reason(name: str, whole: str) -> str:
    if name in _NO_TLS:
        return NO_TLS
    if name in _REASONS:
        return _REASONS[name]
    _, found, alert = name.partition("_ALERT_")
    if found and alert in ALERTS:
        return f"remote error: tls: {ALERTS[alert]}"
    return "tls: " + (name.replace("_", " ").lower() or whole)
