"""A client's field blocks (RFC 9113 §4.3), remembered in both directions.

The part of a request's block that is the same from call to call is remembered until the encoder's
table changes; the timeout, which is not, is a literal of its own behind it. A response's block is
remembered with its fields until the decoder's table changes. It is also noted whether the block can
only be the header, or the trailer, of an OK answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .deadline import format_timeout
from .field_validity import check_fields
from .http2.errors import ENHANCE_YOUR_CALM, StreamFault
from .http2.hpack import Header, HpackDecoder, HpackEncoder
from .limits import KNOWN_FIELD_BLOCK_BYTES_MAX, KNOWN_FIELD_BLOCKS_MAX

ANSWER_PSEUDO: Final = frozenset((b":status",))
NO_PSEUDO: Final[frozenset[bytes]] = frozenset()

# The timeout's literal, without indexing (RFC 7541 §6.2.2): its name never changes.
_TIMEOUT_NAME: Final = b"\0" + bytes((len(b"grpc-timeout"),)) + b"grpc-timeout"


class RequestBlocks:
    """The field blocks of requests on one connection."""

    __slots__ = ("_blocks", "_encoder", "_first", "_generation", "_then")

    def __init__(self, encoder: HpackEncoder, scheme: str, authority: str, user_agent: str) -> None:
        self._encoder = encoder
        self._blocks: dict[tuple[bytes, tuple[Header, ...]], bytes] = {}
        self._generation = -1
        self._first: list[Header] = [
            (b":method", b"POST"),
            (b":scheme", scheme.encode("ascii")),
        ]
        self._then: list[Header] = [
            (b":authority", authority.encode("ascii")),
            (b"content-type", b"application/grpc"),
            (b"user-agent", user_agent.encode("ascii")),
            (b"te", b"trailers"),
        ]

    def of(self, path: bytes, metadata: tuple[Header, ...]) -> bytes:
        """The request's field block without its timeout; must be sent if it was made."""
        encoder = self._encoder
        if self._generation != encoder.generation:
            self._blocks.clear()
        key = (path, metadata)
        block = self._blocks.get(key)
        if block is None:
            fields = [*self._first, (b":path", path), *self._then, *metadata]
            settled = encoder.settled(fields)
            block = encoder.encode(fields)
            if not settled:
                self._blocks.clear()
                self._generation = encoder.generation
            elif len(self._blocks) < KNOWN_FIELD_BLOCKS_MAX:
                self._blocks[key] = block
        return block


def timeout_literal(seconds: float) -> bytes:
    """The literal of `grpc-timeout` behind the block, for a call with so much time left."""
    timeout = format_timeout(seconds)
    return _TIMEOUT_NAME + bytes((len(timeout),)) + timeout


class ResponseBlocks:
    """The field blocks of the server's answers.

    `headers` and `trailers` are the blocks that can only be those of an OK answer; they are for
    lookups only.
    """

    __slots__ = ("_decoder", "_fields", "headers", "trailers")

    def __init__(self, decoder: HpackDecoder) -> None:
        self._decoder = decoder
        self._fields: dict[bytes, list[Header]] = {}
        self.headers: set[bytes] = set()
        self.trailers: set[bytes] = set()

    def fields(self, stream_id: int, block: bytes) -> list[Header]:
        """The fields of a block; raises HpackError, or StreamFault when they are too many."""
        fields = self._fields.get(block)
        if fields is not None:
            return fields
        decoder = self._decoder
        generation = decoder.table.generation
        fields = decoder.decode(block)
        unchanged = decoder.table.generation == generation
        if not unchanged:
            self._forget()
        if decoder.oversize:
            raise StreamFault(stream_id, ENHANCE_YOUR_CALM, "a header list above the limit")
        if unchanged and len(block) <= KNOWN_FIELD_BLOCK_BYTES_MAX:
            if len(self._fields) >= KNOWN_FIELD_BLOCKS_MAX:
                self._forget()
            self._fields[block] = fields
            self._classify(block, fields)
        return fields

    def _forget(self) -> None:
        self._fields.clear()
        self.headers.clear()
        self.trailers.clear()

    def _classify(self, block: bytes, fields: list[Header]) -> None:
        values = dict(fields)
        if (
            check_fields(fields, ANSWER_PSEUDO) is None
            and values.get(b":status") == b"200"
            and is_grpc(values)
        ):
            self.headers.add(block)
        elif (
            check_fields(fields, NO_PSEUDO) is None
            and values.get(b"grpc-status") == b"0"
            and not values.get(b"grpc-message")
        ):
            self.trailers.add(block)


def is_grpc(values: Mapping[bytes, bytes]) -> bool:
    """Whether an answer's content type is gRPC's."""
    content_type = values.get(b"content-type", b"")
    rest = content_type.removeprefix(b"application/grpc")
    return rest != content_type and rest[:1] in (b"", b"+", b";")
