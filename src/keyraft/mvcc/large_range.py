"""A range whose answer is too large to hold: measured first, then read again while it is sent.

A gRPC message begins with its length. So the rows are read twice, both times at the revision of the
first step, which a pin keeps: once to add up their sizes, and once, piece by piece, as fast as the
client takes them. In memory are one piece, and of a range in another order than that of the keys
the list of its keys. An answer of up to `WHOLE_BYTES_MAX` is made in one go, as all were.

Answers without values are made whole, since the lease of a key may change between the two passes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from ..proto import rpc_pb2
from .index import Item
from .read import (
    check_readable,
    chunks,
    encode_steps,
    has_revision_filters,
    is_default_order,
    range_end_of,
    read_revision,
    select_steps,
)
from .wire import varint

if TYPE_CHECKING:
    from .store import Store

_BY_KEY: Final = rpc_pb2.RangeRequest.KEY
WHOLE_BYTES_MAX: Final = 4 * 1024 * 1024  # of an answer that is made in one go
STEP_KEYS: Final = 256  # of the first walk; counted in the same way
PIECE_KEYS: Final = 64  # a piece has so many keys, each 4 KiB of a value counted as one more


class LargeRange:
    """A RangeResponse without its header, of which only the size is known. Owned by who sends it."""

    __slots__ = ("_pieces", "_pin", "_store", "size", "tail")

    def __init__(
        self, store: Store, pin: int, pieces: Iterator[bytes], size: int, tail: bytes
    ) -> None:
        self._store = store
        self._pin: int | None = pin
        self._pieces = pieces
        self.size = size
        self.tail = tail  # the answer without its keys: whether there are more, and how many in all

    def next(self) -> bytes | None:
        """The next piece, b"" if none is ready yet, None behind the last.

        Raises CompactedError when another database has replaced the one that was measured.
        """
        return next(self._pieces, None)

    def close(self) -> None:
        """It is sent, or no longer wanted."""
        if self._pin is not None:
            self._store.compactions.unpin(self._pin)
            self._pin = None
            self._pieces = iter(())


def large_range_steps(
    store: Store, request: rpc_pb2.RangeRequest
) -> Generator[None, None, bytes | LargeRange]:
    """As `Store.range_steps`; the value is the answer, or the way to it if it is large."""
    if request.count_only or request.keys_only or not request.range_end:
        return (yield from store.range_steps(request))
    store.ranges += 1
    at = read_revision(request.revision, store.revision, store.compact_revision)
    check_readable(store, at)
    pin = store.compactions.pin()
    kept = False
    try:
        work = _Measured(store, request, at)
        yield from work.measure()
        if work.whole is not None:
            return b"".join(work.whole) + work.tail
        kept = True
        return LargeRange(store, pin, work.pieces(), work.size + len(work.tail), work.tail)
    finally:
        if not kept:
            store.compactions.unpin(pin)


class _Measured:
    """One range at one revision, which can be walked twice."""

    def __init__(self, store: Store, request: rpc_pb2.RangeRequest, at: int) -> None:
        self._store = store
        self._request = request
        self._at = at
        self._items: list[Item] | None = None  # of a range that was sorted or filtered
        self._end = range_end_of(request.range_end)
        self.whole: list[bytes] | None = []
        self.size = 0
        self.tail = b""

    def measure(self) -> Generator[None, None, None]:
        """The first walk: `size` and `tail`, and `whole` while it is small."""
        request, store, at = self._request, self._store, self._at
        limit = max(request.limit, 0)
        in_order = request.sort_target == _BY_KEY and is_default_order(request)
        if in_order and not has_revision_filters(request):
            total = counted = 0
            if limit and at >= store.pending_revision:
                counted = store.index.live.count(request.key, self._end)
                if counted > limit:
                    self._end = store.index.live.slice(request.key, self._end, limit)[-1] + b"\x00"
            for chunk in chunks(store, request.key, self._end, at):
                if total:
                    yield
                left = limit - total if limit else len(chunk)
                total += len(chunk)
                if left > 0:
                    if total > len(chunk):
                        yield
                    yield from self._take(chunk[:left])
            total = counted or total
            more = bool(limit and total > limit)
        else:
            items: list[Item] = []
            total, more = yield from select_steps(store, request, at, items)
            self._items = items
            yield from self._take(items)
        self.tail = (b"\x18\x01" if more else b"") + (b"\x20" + varint(total) if total else b"")

    def _take(self, items: list[Item]) -> Generator[None, None, None]:
        out: list[bytes] = []
        for _ in encode_steps(self._store, items, self._request, self._at, out, 0, STEP_KEYS):
            self._count(out)
            yield
        self._count(out)

    def _count(self, out: list[bytes]) -> None:
        self.size += sum(map(len, out))
        if self.whole is not None:
            self.whole += out
            if self.size > WHOLE_BYTES_MAX:
                self.whole = None
        out.clear()

    def pieces(self) -> Iterator[bytes]:
        """The second walk, behind it the tail."""
        out: list[bytes] = []
        sent = 0
        for items in self._lists():
            for first in range(0, len(items), PIECE_KEYS):
                part = items[first : first + PIECE_KEYS]
                for _ in encode_steps(
                    self._store, part, self._request, self._at, out, 0, PIECE_KEYS
                ):
                    piece = b"".join(out)
                    out.clear()
                    sent += len(piece)
                    yield piece
                piece = b"".join(out)
                out.clear()
                sent += len(piece)
                yield piece
        assert sent == self.size, (sent, self.size)
        yield self.tail

    def _lists(self) -> Iterator[list[Item]]:
        if self._items is not None:
            yield self._items
            return
        found = chunks(self._store, self._request.key, self._end, self._at)
        limit = max(self._request.limit, 0)
        if not limit:
            yield from found
            return
        for chunk in found:
            yield list(islice(chunk, limit))
            limit -= len(chunk)
            if limit <= 0:
                return
