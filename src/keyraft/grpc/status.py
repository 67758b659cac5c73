"""gRPC status codes and their text on the wire (gRPC over HTTP/2, "Responses")."""

from __future__ import annotations

from typing import Final

from keyraft.base import codes, http_status
from keyraft.base.codes import *  # noqa: F403  # the codes are `status.OK` and so on

CODE_NAMES: Final = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)
"""gRPC-Go's names, which are also the values of the metric label grpc_code."""

_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {0x25}
_HEX: Final = b"0123456789abcdefABCDEF"

_BY_HTTP_STATUS: Final = {
    http_status.BAD_REQUEST: codes.INTERNAL,
    http_status.UNAUTHORIZED: codes.UNAUTHENTICATED,
    http_status.FORBIDDEN: codes.PERMISSION_DENIED,
    http_status.NOT_FOUND: codes.UNIMPLEMENTED,
    http_status.TOO_MANY_REQUESTS: codes.UNAVAILABLE,
    http_status.BAD_GATEWAY: codes.UNAVAILABLE,
    http_status.SERVICE_UNAVAILABLE: codes.UNAVAILABLE,
    http_status.GATEWAY_TIMEOUT: codes.UNAVAILABLE,
}

_BY_RESET_CODE: Final = {
    0x7: codes.UNAVAILABLE,  # REFUSED_STREAM
    0x8: codes.CANCELLED,  # CANCEL
    0xB: codes.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    0xC: codes.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}


def encode_text(text: str) -> bytes:
    """`grpc-message`: UTF-8 with everything outside printable ASCII, and "%", as %XX."""
    raw = text.encode("utf-8", "surrogateescape")
    if all(byte in _PLAIN for byte in raw):
        return raw
    return b"".join([bytes((b,)) if b in _PLAIN else b"%%%02X" % b for b in raw])


def decode_text(value: bytes) -> str:
    """The reverse; an invalid escape stays as it is, as the protocol demands."""
    if b"%" in value:
        head, *rest = value.split(b"%")
        out = [head]
        for part in rest:
            if len(part) >= 2 and part[0] in _HEX and part[1] in _HEX:
                out.append(bytes((int(part[:2], 16),)) + part[2:])
            else:
                out.append(b"%" + part)
        value = b"".join(out)
    return value.decode("utf-8", "replace")


def described(code: int, text: str) -> str:
    """A status in the words of gRPC-Go, as an error there prints itself."""
    return f"rpc error: code = {CODE_NAMES[code]} desc = {text}"


def from_http_status(http_status: int) -> int:
    """The code for an answer that carries no grpc-status."""
    return _BY_HTTP_STATUS.get(http_status, codes.UNKNOWN)


def from_reset_code(code: int) -> int:
    """The code for a stream that the peer reset."""
    return _BY_RESET_CODE.get(code, codes.INTERNAL)
