"""RangeStream: a range in chunks, all of one revision (etcd 3.7 `EtcdServer.rangeStream`).

The first chunk has up to ten keys. Each following one has twice or half as many, so that its size
comes near `target_bytes`. No chunk has more than twice that and one key (DEVIATION: in etcd ten
keys, of any size). Every message carries only keys and values but the last, which also carries
header, `more` and `count`. A chunk reads only the keys that it needs; writes meanwhile do not
matter. A compaction beyond the revision ends the stream with CompactedError, as in etcd.

A sort target without an order means ascending, as for Range (etcd `sortRangeResults`); then all
keys are read before the first chunk. DEVIATION: etcd sorts each chunk by itself and continues
behind the last key in it, so keys come twice or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final

from ..base.errors import CompactedError
from ..proto import rpc_pb2
from .index import Item
from .read import (
    check_readable,
    count_steps,
    encode_steps,
    range_end_of,
    read_revision,
    select_steps,
)
from .wire import KV_HEADS, field, key_value, varint

if TYPE_CHECKING:
    from .store import Store

FIRST_CHUNK_KEYS: Final = 10
_NO_LIMIT: Final = (1 << 63) - 1


def range_stream(
    store: Store,
    request: rpc_pb2.RangeRequest,
    header: Callable[[int], bytes],
    target_bytes: int,
) -> Generator[bytes, None, None]:
    """RangeStreamResponses, one at a time; b"" means that nothing is ready yet.

    `header` encodes the header field of a response at a revision. Raises FutureRevisionError,
    CompactedError, the latter also in the middle.
    """
    current = store.revision
    at = read_revision(request.revision, current, store.compact_revision)
    start, end = request.key, request.range_end
    if request.count_only:
        total = yield from _count(store, start, end, at)
        yield field(b"\x0a", header(current) + _tail(False, total))
        return
    if request.sort_target != rpc_pb2.RangeRequest.KEY:
        yield from _sorted(store, request, header(current), at, target_bytes)
        return
    left = request.limit if request.limit > 0 else _NO_LIMIT
    limit = min(FIRST_CHUNK_KEYS, left)
    sent = 0
    while True:
        if at < store.compact_revision:
            raise CompactedError
        chunk: list[bytes] = []
        next_key = yield from _chunk(
            store, start, end, at, limit, 2 * target_bytes, request.keys_only, chunk
        )
        keys = len(chunk) // 2
        sent += keys
        left -= keys
        body = b"".join(chunk)
        if next_key is None or not left:
            rest = 0
            if next_key is not None:
                rest = yield from _count(store, next_key, end, at)
            yield field(b"\x0a", header(current) + body + _tail(next_key is not None, sent + rest))
            return
        yield field(b"\x0a", body)
        limit = min(_next_limit(limit, len(body), target_bytes), left)
        start = next_key


def _next_limit(limit: int, body_bytes: int, target_bytes: int) -> int:
    if body_bytes < target_bytes // 2:
        return limit * 2
    if body_bytes > target_bytes * 2:
        return max(limit // 2, 1)
    return limit


def _sorted(
    store: Store, request: rpc_pb2.RangeRequest, head: bytes, at: int, target_bytes: int
) -> Generator[bytes, None, None]:
    """A stream in another order than that of the keys."""
    pin = store.compactions.pin()
    try:
        items: list[Item] = []
        total = 0
        more = False
        for result in _passed(select_steps(store, request, at, items)):
            if result is None:
                yield b""
            else:
                total, more = result
        limit = FIRST_CHUNK_KEYS
        first = 0
        while True:
            if at < store.compact_revision:
                raise CompactedError
            out: list[bytes] = []
            chunk = items[first : first + limit]
            for _ in encode_steps(store, chunk, request, at, out, 2 * target_bytes):
                yield b""
            first += len(out) // 2
            body = b"".join(out)
            if first >= len(items):
                yield field(b"\x0a", head + body + _tail(more, total))
                return
            yield field(b"\x0a", body)
            limit = _next_limit(limit, len(body), target_bytes)
    finally:
        store.compactions.unpin(pin)


def _passed(
    work: Generator[None, None, tuple[int, bool]],
) -> Generator[tuple[int, bool] | None, None, None]:
    """None for each step, then the value."""
    value = yield from work
    yield value


def _tail(more: bool, total: int) -> bytes:
    return (b"\x18\x01" if more else b"") + (b"\x20" + varint(total) if total else b"")


def _count(store: Store, start: bytes, end: bytes, at: int) -> Generator[bytes, None, int]:
    for total in count_steps(store, start, end, at):
        if total is not None:
            return total
        yield b""
    raise AssertionError("counting ends with a count")


def _chunk(
    store: Store,
    start: bytes,
    end: bytes,
    at: int,
    limit: int,
    bytes_max: int,
    keys_only: bool,
    out: list[bytes],
) -> Generator[bytes, None, bytes | None]:
    """Puts up to `limit` encoded keys into `out`, fewer once they have `bytes_max`; the next
    existing key behind them, if any."""
    index = store.index
    row = store.row
    found_keys = total = 0
    looked = 0
    while True:
        if end:
            keys = index.first_keys(start, range_end_of(end), min(limit + 1, store.slice_keys))
        else:
            keys = [start]
        for key in keys:
            found = index.get(key, at)
            if found is None:
                continue
            if found_keys == limit or total >= bytes_max:
                return key
            found_keys += 1
            main, sub, created, version = found
            if keys_only:
                lease = store.lease_at(key, main, sub)
                stored = key_value(key, created, main, version, b"", lease)
            else:
                stored = row(main, sub)
            size = len(stored)
            total += size
            out.append(KV_HEADS[size] if size < 16384 else b"\x12" + varint(size))
            out.append(stored)
        if not end or not keys:
            return None
        start = keys[-1] + b"\x00"
        looked += len(keys)
        if looked >= store.slice_keys:
            looked = 0
            yield b""
            check_readable(store, at)
            index = store.index
