"""Remembers field blocks of earlier requests, so that the fields of most need no parsing.

A request's header is remembered by the bytes of its field block (RFC 9113 §4.3) until the decoder's
table changes (see `hpack`). It is also remembered, for ever, by its field lines without the
timeout.
"""

from __future__ import annotations

from keyraft.base.gotext import quote

from . import status
from .deadline import parse_timeout
from .http2.errors import COMPRESSION_ERROR, ConnectionFault, HpackError
from .http2.hpack import Header, HpackDecoder
from .limits import KNOWN_FIELD_BLOCK_BYTES_MAX, KNOWN_FIELD_BLOCKS_MAX
from .request_header import RequestHeader, parse_header
from .router import Router

Known = tuple[RequestHeader, float | None]
"""A header and the timeout that came with it, in seconds."""


class FieldBlocks:
    """The field blocks of one connection.

    `known` is for lookups only; after a miss call `decode`.
    """

    __slots__ = ("_by_fields", "_decoder", "_router", "known")

    def __init__(self, decoder: HpackDecoder, router: Router) -> None:
        self._decoder = decoder
        self._router = router
        self.known: dict[bytes, Known] = {}
        self._by_fields: dict[tuple[Header, ...], RequestHeader] = {}

    def decode(self, block: bytes) -> Known:
        """The header and the timeout of a block that is not remembered; raises ConnectionFault."""
        decoder = self._decoder
        generation = decoder.table.generation
        try:
            fields = decoder.decode_unmeasured(block)
        except HpackError as error:
            raise ConnectionFault(COMPRESSION_ERROR, str(error)) from error
        unchanged = decoder.table.generation == generation
        if not unchanged:
            self.known.clear()
        known = self._header_of(fields)
        if unchanged and len(block) <= KNOWN_FIELD_BLOCK_BYTES_MAX:
            if len(self.known) >= KNOWN_FIELD_BLOCKS_MAX:
                self.known.clear()
            self.known[block] = known
        return known

    def _header_of(self, fields: list[Header]) -> Known:
        """The header for a list of fields; a list that only differs in its timeout has the same
        header.

        Many clients send a timeout that differs with each request and, put into the header
        table, makes each block differ too: for them this is the way that counts.
        """
        timeout_s: float | None = None
        for place in range(len(fields) - 1, -1, -1):
            if fields[place][0] == b"grpc-timeout":
                value = fields.pop(place)[1]
                timeout_s = parse_timeout(value)
                if timeout_s is None:
                    return self._refused(fields, value)
                break
        key = tuple(fields)
        header = self._by_fields.get(key)
        if header is None:
            self._decoder.measure(fields)
            if self._decoder.oversize:
                header = RequestHeader([])
                header.oversize = True
                return header, None
            header = parse_header(fields, self._router)
            if len(self._by_fields) >= KNOWN_FIELD_BLOCKS_MAX:
                self._by_fields.clear()
            self._by_fields[key] = header
        return header, timeout_s

    def _refused(self, fields: list[Header], timeout: bytes) -> Known:
        """The header of a request with a malformed timeout."""
        header = parse_header(fields, self._router)
        if header.malformed is None and not header.is_http:
            header.route = header.unary = None
            text = f"malformed grpc-timeout: {quote(timeout)}"
            header.refusal = (400, status.INTERNAL, text)
        return header, None
