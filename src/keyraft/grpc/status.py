"""gRPC status codes and their text on the wire (gRPC over HTTP/2, "Responses")."""

from __future__ import annotations

from typing import Final

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
ALREADY_EXISTS: Final = 6
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
FAILED_PRECONDITION: Final = 9
ABORTED: Final = 10
OUT_OF_RANGE: Final = 11
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
DATA_LOSS: Final = 15
UNAUTHENTICATED: Final = 16

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
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}

_BY_RESET_CODE: Final = {
    0x7: UNAVAILABLE,  # REFUSED_STREAM
    0x8: CANCELLED,  # CANCEL
    0xB: RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    0xC: PERMISSION_DENIED,  # INADEQUATE_SECURITY
}


def encode_text(text: str) -> bytes:
    """`grpc-message`: UTF-8 with everything outside printable ASCII, and "%", as %XX."""
    raw = text.encode("utf-8", "surrogateescape")
    if all(byte in _PLAIN for byte in raw):
        return raw
    return b"".join([bytes((b,)) if b in _PLAIN else b"%%%02X" % b for b in raw])


def decode_text(value: bytes) -> str:
    """The reverse; what is no valid escape stays as it is, as the protocol demands."""
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


def from_http_status(http_status: int) -> int:
    """The code for an answer that carries no grpc-status."""
    return _BY_HTTP_STATUS.get(http_status, UNKNOWN)


def from_reset_code(code: int) -> int:
    """The code for a stream that the peer reset."""
    return _BY_RESET_CODE.get(code, INTERNAL)
