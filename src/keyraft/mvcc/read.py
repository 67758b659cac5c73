"""Range: which keys, of which revision, in which order, as the bytes of a RangeResponse.

Order of work (etcd `txn/range.go`): choose revision; count and collect keys in key order; filter
by revisions; sort; cut at the limit. `count` is taken before filters and limit; `more` says that
the limit cut something off.

All work is done in steps of about a millisecond, between which others may run and write. A read has
one revision, so it does not see what is applied meanwhile, even if that is a transaction in steps
of its own. Its pin keeps the rows of that revision.

DEVIATION: keys-only answers contain the lease, as they did up to etcd 3.6. 3.7 makes them from its
index, which does not know leases; ours are made from the index too, and the store knows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from ..base.errors import CompactedError, FutureRevisionError
from ..proto import mvcc_pb2, rpc_pb2
from .index import Item
from .sorting import sort_steps
from .steps import finished
from .wire import KV_HEADS, key_value, varint

if TYPE_CHECKING:
    from .store import Store

SLICE_KEYS: Final = 500  # keys that one step of a range looks at: about a millisecond
VALUE_SHIFT: Final = 12  # every 4 KiB of a value count as one more key

_NONE: Final = rpc_pb2.RangeRequest.NONE
_DESCEND: Final = rpc_pb2.RangeRequest.DESCEND
_BY_KEY: Final = rpc_pb2.RangeRequest.KEY
_BY_VERSION: Final = rpc_pb2.RangeRequest.VERSION
_BY_CREATE: Final = rpc_pb2.RangeRequest.CREATE
_BY_MOD: Final = rpc_pb2.RangeRequest.MOD
_BY_VALUE: Final = rpc_pb2.RangeRequest.VALUE

parse_stored = mvcc_pb2.KeyValue.FromString


def range_end_of(range_end: bytes) -> bytes | None:
    """The end of a range request; None for "to the end of the keyspace"."""
    return None if range_end == b"\x00" else range_end


def run(store: Store, request: rpc_pb2.RangeRequest, current: int) -> bytes:
    """The RangeResponse without its header, in one go. `current` is the newest revision."""
    return finished(steps(store, request, current, store.compact_revision))


def is_default_order(request: rpc_pb2.RangeRequest) -> bool:
    """Whether the limit may cut before sorting: no order asked for (whatever the target), or the
    keys' own."""
    order = request.sort_order
    return bool(order == _NONE or (request.sort_target == _BY_KEY and order != _DESCEND))


def has_revision_filters(request: rpc_pb2.RangeRequest) -> bool:
    """Whether items are filtered by revision."""
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def read_revision(wanted: int, current: int, oldest: int) -> int:
    """The revision to read at, where `oldest` is the compact revision. Raises FutureRevisionError,
    CompactedError."""
    if wanted > current:
        raise FutureRevisionError
    if wanted <= 0:
        wanted = current
    if wanted < oldest:
        raise CompactedError
    return wanted


def check_readable(store: Store, at: int) -> None:
    """To be called after each pause: another database may have replaced the read's own.

    Raises CompactedError.
    """
    if at < store.readable_from:
        raise CompactedError


def chunks(store: Store, start: bytes, end: bytes | None, at: int) -> Iterator[list[Item]]:
    """The keys of [start, end) that exist at revision `at`, as many at a time as one step may look
    at. Writes may come between two steps; `at` must be pinned, or newest."""
    size = store.slice_keys
    check_readable(store, at)
    if at >= store.pending_revision:
        # Keys that are alive now; one that dies meanwhile can still be read at `at`.
        keys = store.index.live.slice(start, end)
        for first in range(0, len(keys), size):
            yield store.index.find(keys[first : first + size], at)
            check_readable(store, at)
        return
    while keys := store.index.first_keys(start, end, size):
        yield store.index.find(keys, at)
        check_readable(store, at)
        start = keys[-1] + b"\x00"


def count_steps(
    store: Store, key: bytes, range_end: bytes, at: int
) -> Generator[int | None, None, None]:
    """How many keys of the range exist at revision `at`: the last value; None before it."""
    index = store.index
    if not range_end:
        yield int(index.get(key, at) is not None)
        return
    end = range_end_of(range_end)
    if at >= store.pending_revision:
        yield index.live.count(key, end)
        return
    total = 0
    for chunk in chunks(store, key, end, at):
        total += len(chunk)
        yield None
    yield total


def steps(
    store: Store, request: rpc_pb2.RangeRequest, current: int, oldest: int
) -> Generator[None, None, bytes]:
    """The work of `run`, with a pause after every `store.slice_keys` keys.

    `current` and `oldest` are the newest and the compact revision that the caller sees.
    """
    at = read_revision(request.revision, current, oldest)
    check_readable(store, at)
    pin = store.compactions.pin()
    try:
        if request.count_only:
            for counted in count_steps(store, request.key, request.range_end, at):
                if counted is not None:
                    return b"\x20" + varint(counted) if counted else b""
                yield
        items: list[Item] = []
        total, more = yield from select_steps(store, request, at, items)
        out: list[bytes] = []
        yield from encode_steps(store, items, request, at, out)
        if more:
            out.append(b"\x18\x01")
        if total:
            out.append(b"\x20" + varint(total))
        return b"".join(out)
    finally:
        store.compactions.unpin(pin)


def select_steps(
    store: Store, request: rpc_pb2.RangeRequest, at: int, out: list[Item]
) -> Generator[None, None, tuple[int, bool]]:
    """Puts what a range answers into `out`, in its order; how many keys there are in all, and
    whether the limit cut something off."""
    filtered = has_revision_filters(request)
    limit = max(request.limit, 0)
    cut = limit + 1 if limit and is_default_order(request) and not filtered else 0
    if not request.range_end:
        found = store.index.get(request.key, at)
        if found is None:
            return 0, False
        out.append((request.key, *found))
        total = 1
    else:
        total = yield from _collect(store, request, at, cut, out)
    if filtered:
        yield from _filter(store, out, request)
    if request.sort_target == _BY_VALUE:
        yield from _sort_by_value(store, out, request, at)
    elif request.sort_target != _BY_KEY:
        by = _SORT_KEYS.get(request.sort_target)
        if by is not None:
            descending = request.sort_order == _DESCEND
            out[:] = yield from sort_steps(out, by, descending, store.slice_keys)
    elif request.sort_order == _DESCEND:
        out.reverse()
    more = bool(limit and len(out) > limit)
    if more:
        # Freeing takes time as well, so one piece is freed in each step.
        size = FREED_SLICES * store.slice_keys
        while len(out) - limit > size:
            del out[-size:]
            yield
        del out[limit:]
    return total, more


def _collect(
    store: Store, request: rpc_pb2.RangeRequest, at: int, cut: int, items: list[Item]
) -> Generator[None, None, int]:
    """Puts the keys that exist at `at` into `items`, at most `cut` (0: all); counts them all."""
    start, end = request.key, range_end_of(request.range_end)
    live = store.index.live
    total = 0
    if cut and at >= store.pending_revision:
        total = live.count(start, end)
        if total > cut:
            end = live.slice(start, end, cut)[-1] + b"\x00"
        for chunk in chunks(store, start, end, at):
            if items:
                yield
            items += chunk
        return total
    for chunk in chunks(store, start, end, at):
        if total:
            yield
        total += len(chunk)
        items += chunk
        if cut and len(items) > cut:
            del items[cut:]
    return total


def _filter(
    store: Store, items: list[Item], request: rpc_pb2.RangeRequest
) -> Generator[None, None, None]:
    low_mod, high_mod = request.min_mod_revision, request.max_mod_revision
    low_create, high_create = request.min_create_revision, request.max_create_revision
    size = store.slice_keys
    kept: list[Item] = []
    for first in range(0, len(items), size):
        if first:
            yield
        kept += [
            item
            for item in items[first : first + size]
            if (not high_mod or item[1] <= high_mod)
            and (not low_mod or item[1] >= low_mod)
            and (not high_create or item[3] <= high_create)
            and (not low_create or item[3] >= low_create)
        ]
    items[:] = kept


FREED_SLICES: Final = 4  # slices of keys whose objects are freed in one step
_SORT_KEYS: Final[dict[int, Callable[[Any], Any]]] = {
    _BY_VERSION: itemgetter(4),
    _BY_CREATE: itemgetter(3),
    _BY_MOD: itemgetter(1),
}
_FIRST: Final[Callable[[Any], Any]] = itemgetter(0)


def _sort_by_value(
    store: Store, items: list[Item], request: rpc_pb2.RangeRequest, at: int
) -> Generator[None, None, None]:
    values: list[tuple[bytes, Item]] = []
    size = weight = store.slice_keys
    for item in items:
        value = parse_stored(store.row(item[1], item[2])).value
        weight -= 1 + (len(value) >> VALUE_SHIFT)
        values.append((value, item))
        if weight <= 0:
            weight = size
            yield
            check_readable(store, at)
    ordered = yield from sort_steps(values, _FIRST, request.sort_order == _DESCEND, size)
    values = []
    items.clear()
    size *= FREED_SLICES
    ordered.reverse()
    while ordered:
        if items:
            yield
        piece = ordered[-size:]
        del ordered[-size:]
        piece.reverse()
        items += [item for _, item in piece]


def encode_steps(
    store: Store,
    items: list[Item],
    request: rpc_pb2.RangeRequest,
    at: int,
    out: list[bytes],
    bytes_max: int = 0,
    step_keys: int = 0,
) -> Generator[None, None, None]:
    """The items as the fields of a RangeResponse, head and KeyValue of each; those are the last
    that reach `bytes_max` (0: all). `step_keys`: between two pauses (0: as many as a step has)."""
    left = bytes_max
    keys_only = request.keys_only
    row = store.row
    heads = KV_HEADS
    slice_keys = weight = step_keys or store.slice_keys
    check_readable(store, at)
    for key, main, sub, created, version in items:
        if weight <= 0:
            weight = slice_keys
            yield
            check_readable(store, at)
        if keys_only:
            lease = store.lease_at(key, main, sub)
            stored = key_value(key, created, main, version, b"", lease)
        else:
            stored = row(main, sub)
        size = len(stored)
        weight -= 1 + (size >> VALUE_SHIFT)
        out.append(heads[size] if size < 16384 else b"\x12" + varint(size))
        out.append(stored)
        if bytes_max:
            left -= size
            if left <= 0:
                return
