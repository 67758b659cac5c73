"""From the header of an HTTP request to the metadata and the deadline of a call.

Headers `Grpc-Metadata-X` become `x`, `Authorization` stays, and those that HTTP itself defines
become `grpcgateway-...`, as in grpc-gateway's `runtime/context.go`. Services tell by
`grpcgateway-accept` that a call came this way; a certificate's name is never a user's here anyway
(`calls.JsonCall.common_name`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from keyraft.base.ids import INT64_MAX
from keyraft.grpc import status

_PREFIX: Final = b"grpc-metadata-"
_PERMANENT: Final = {
    name: b"grpcgateway-" + name
    for name in (
        *(b"accept", b"accept-charset", b"accept-language", b"accept-ranges", b"authorization"),
        *(b"cache-control", b"content-type", b"cookie", b"date", b"expect", b"from", b"host"),
        *(b"if-match", b"if-modified-since", b"if-none-match", b"if-schedule-tag-match"),
        *(b"if-unmodified-since", b"max-forwards", b"origin", b"pragma", b"referer"),
        *(b"user-agent", b"via", b"warning"),
    )
}
_RESERVED: Final = frozenset(  # gRPC's own, which a client never takes from metadata
    (
        *(b"content-type", b"user-agent", b"te", b"grpc-message-type", b"grpc-encoding"),
        *(b"grpc-message", b"grpc-status", b"grpc-timeout", b"grpc-status-details-bin"),
    )
)
_NAME: Final = re.compile(rb"[0-9A-Za-z_.-]+").fullmatch
_TEXT: Final = re.compile(rb"[\x20-\x7e]*").fullmatch
_TIMEOUT: Final = re.compile(rb"([+-]?[0-9]+)([HMSmun])").fullmatch
_UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_BASE64_RUN: Final = re.compile(rb"[A-Za-z0-9+/]*").match


class BadHeaderError(Exception):
    """A header that the original refuses, with gRPC's code and its words."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def annotate(headers: Iterable[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], float | None]:
    """Metadata, and the seconds that the client will wait; raises BadHeaderError.

    `headers` with names in lower case. No limit, or one of zero, is None.
    """
    metadata: dict[bytes, bytes] = {}
    timeout_s: float | None = None
    for name, value in headers:
        known = _PERMANENT.get(name)
        if known is not None:
            if name == b"authorization":
                if _TEXT(value) is None:
                    raise BadHeaderError(
                        status.INTERNAL,
                        'header key "authorization" contains value with non-printable ASCII '
                        "characters",
                    )
                metadata.setdefault(name, value)
            if _TEXT(value) is not None:
                metadata.setdefault(known, value)
        elif name[:5] != b"grpc-":
            continue
        elif name.startswith(_PREFIX):
            key = name[len(_PREFIX) :]
            if key.endswith(b"-bin"):
                _check_base64(name, value)
            elif _TEXT(value) is None:
                continue
            if key not in _RESERVED and _NAME(key) is not None:
                metadata.setdefault(key, value)
        elif name == b"grpc-timeout" and value:
            timeout_s = _timeout(value)
    return metadata, timeout_s or None


def _timeout(value: bytes) -> float:
    found = _TIMEOUT(value)
    if found is None or abs(int(found[1])) > INT64_MAX:
        shown = value.decode("utf-8", "replace")
        raise BadHeaderError(status.INVALID_ARGUMENT, f"invalid grpc-timeout: {shown}")
    return int(found[1]) * _UNITS_S[found[2]]


def _check_base64(name: bytes, value: bytes) -> None:
    padded = len(value) % 4 == 0
    data = value
    if padded:
        data = value[:-2] + value[-2:].rstrip(b"=")
    run = _BASE64_RUN(data)
    end = 0 if run is None else run.end()
    if end < len(data) or len(data) % 4 == 1:
        where = min(end, len(value))
        shown = name.title().decode("latin-1")
        raise BadHeaderError(
            status.INVALID_ARGUMENT,
            f"invalid binary header {shown}: illegal base64 data at input byte {where}",
        )
