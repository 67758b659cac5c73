"""Request heads remembered, so that most requests cost no parsing of headers.

A head is remembered under the bytes of its block for as long as the decoder's table has not
changed since (see `hpack`), and under its fields, but for the timeout, for good.
"""

from __future__ import annotations

from keyraft.base.gotext import quote

from . import status
from .deadline import parse_timeout
from .head import RequestHead, parse_head
from .http2.errors import COMPRESSION_ERROR, ConnectionFault, HpackError
from .http2.hpack import Decoder, Header
from .limits import HEAD_MEMO_BLOCK_BYTES_MAX, HEAD_MEMO_ENTRIES_MAX
from .router import Router

Known = tuple[RequestHead, float | None]
"""A head and the timeout that came with it, in seconds."""


class Heads:
    """The heads of one connection. `blocks` is for looking up only; a miss goes to `decode`."""

    __slots__ = ("_by_fields", "_decoder", "_router", "blocks")

    def __init__(self, decoder: Decoder, router: Router) -> None:
        self._decoder = decoder
        self._router = router
        self.blocks: dict[bytes, Known] = {}
        self._by_fields: dict[tuple[Header, ...], RequestHead] = {}

    def decode(self, block: bytes) -> Known:
        """The head and the timeout of a block that is not remembered; raises ConnectionFault."""
        decoder = self._decoder
        generation = decoder.table.generation
        try:
            fields = decoder.decode_unmeasured(block)
        except HpackError as error:
            raise ConnectionFault(COMPRESSION_ERROR, str(error)) from error
        unchanged = decoder.table.generation == generation
        if not unchanged:
            self.blocks.clear()
        known = self._head_of(fields)
        if unchanged and len(block) <= HEAD_MEMO_BLOCK_BYTES_MAX:
            if len(self.blocks) >= HEAD_MEMO_ENTRIES_MAX:
                self.blocks.clear()
            self.blocks[block] = known
        return known

    def _head_of(self, fields: list[Header]) -> Known:
        """The head for a header list; a list seen before but for its timeout has it already.

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
        head = self._by_fields.get(key)
        if head is None:
            self._decoder.measure(fields)
            if self._decoder.oversize:
                head = RequestHead([])
                head.oversize = True
                return head, None
            head = parse_head(fields, self._router)
            if len(self._by_fields) >= HEAD_MEMO_ENTRIES_MAX:
                self._by_fields.clear()
            self._by_fields[key] = head
        return head, timeout_s

    def _refused(self, fields: list[Header], timeout: bytes) -> Known:
        """A request whose only certain fault is its timeout."""
        head = parse_head(fields, self._router)
        if head.malformed is None and not head.is_http:
            head.route = head.unary = None
            text = f"malformed grpc-timeout: {quote(timeout)}"
            head.refusal = (400, status.INTERNAL, text)
        return head, None
