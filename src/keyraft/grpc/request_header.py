"""The header section of a request (RFC 9113 §8.3.1), checked once and remembered.

It holds nothing that belongs to a single call, not even the timeout. So one object serves all
requests whose other fields are equal. The checks are those of RFC 9113 §8.2 and §8.3 (a malformed
request is reset) and of gRPC-Go (a request that is well formed but no gRPC call is refused with a
status).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from keyraft.base.gotext import quote

from . import status
from .field_validity import check_fields
from .http2.hpack import Header
from .route import UNARY, Route
from .router import Router

_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_IDENTITY: Final = (b"", b"identity")
_NOTHING: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class RequestHeader:
    """A request's header, immutable after it is made.

    `malformed` is the fault that resets the stream; `refusal` the (HTTP status, gRPC code, text)
    that answers it; `oversize` a list above the limit, of which nothing is kept; `is_http` marks a
    request that is not gRPC at all. With none of these, `route` is the method called, `unary` the
    same if it is unary and so may take the fast path, and `metadata` are the other fields, the
    first of each name, "-bin" values decoded.
    """

    __slots__ = (
        "content_length",
        "encoding",
        "fields",
        "is_http",
        "malformed",
        "metadata",
        "method",
        "oversize",
        "path",
        "refusal",
        "route",
        "unary",
    )

    def __init__(self, fields: list[Header]) -> None:
        self.fields = fields
        self.method = b""
        self.path = b""
        self.route: Route | None = None
        self.unary: Route | None = None
        self.content_length: int | None = None
        self.encoding: bytes = b""
        self.malformed: str | None = None
        self.refusal: tuple[int, int, str] | None = None
        self.is_http = False
        self.oversize = False
        self.metadata: Mapping[bytes, bytes] = _NOTHING


def _metadata(fields: list[Header]) -> dict[bytes, bytes]:
    """Fields without pseudo-headers; the first of a repeated key; "-bin" values decoded. Raises
    binascii.Error."""
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        if name[:1] != b":" and name not in found:
            found[name] = decode_binary(value) if name.endswith(b"-bin") else value
    return found


def decode_binary(value: bytes) -> bytes:
    """A "-bin" value: base64 with or without padding; raises binascii.Error."""
    return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)


def parse_header(fields: list[Header], router: Router) -> RequestHeader:
    """Checks a header list, which is without `grpc-timeout`, and finds its route."""
    header = RequestHeader(fields)
    header.malformed = check_fields(fields, _PSEUDO)
    if header.malformed is not None:
        return header
    values = dict(reversed(fields))
    header.method = values.get(b":method", b"")
    header.path = values.get(b":path", b"")
    if not header.method or not header.path or b":scheme" not in values:
        header.malformed = "a request without :method, :scheme or :path"
        return header
    length = values.get(b"content-length")
    if length is not None:
        if not length.isdigit() or len(length) > 18:
            header.malformed = "a content-length that is no number"
            return header
        header.content_length = int(length)
    _parse_grpc(header, values, router)
    return header


def _parse_grpc(header: RequestHeader, values: Mapping[bytes, bytes], router: Router) -> None:
    """The gRPC half, in gRPC-Go's order of checks."""
    content_type = values.get(b"content-type", b"").lower()
    rest = content_type.removeprefix(b"application/grpc")
    if rest == content_type or rest[:1] not in (b"", b"+", b";"):
        header.is_http = True
        text = f"invalid gRPC request content-type {quote(content_type)}"
        header.refusal = (415, status.INVALID_ARGUMENT, text)
        return
    try:
        header.metadata = _metadata(header.fields)
    except binascii.Error as error:
        header.refusal = (400, status.INTERNAL, f"malformed binary metadata: {error}")
        return
    if header.method != b"POST":
        text = f"Received a HEADERS frame with :method {quote(header.method)} which should be POST"
        header.refusal = (405, status.INTERNAL, text)
        return
    route = router.find(header.path)
    if route is None:
        header.refusal = (200, status.UNIMPLEMENTED, router.refusal(header.path))
        return
    header.encoding = values.get(b"grpc-encoding", b"")
    if header.encoding not in _IDENTITY:
        text = f"grpc: Decompressor is not installed for grpc-encoding {quote(header.encoding)}"
        header.refusal = (200, status.UNIMPLEMENTED, text)
        return
    header.route = route
    if route.kind == UNARY:
        header.unary = route
