"""Range: which keys, of which revision, in which order, as the bytes of a RangeResponse.

Order of work (etcd `txn/range.go`): choose revision; count and collect keys in key order; filter
by revisions; sort; cut at the limit. `count` is taken before filters and limit; `more` says that
the limit cut something off. Keys-only answers come from the index alone and therefore carry no
lease, unless sorted by value (etcd 3.7).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final

from ..base.errors import CompactedError, FutureRevisionError
from ..proto import mvcc_pb2, rpc_pb2
from .wire import KV_HEADS, key_value, varint

if TYPE_CHECKING:
    from .store import Store

SLICE_KEYS: Final = 500  # keys that one step of a range looks at: about a millisecond

_NONE: Final = rpc_pb2.RangeRequest.NONE
_DESCEND: Final = rpc_pb2.RangeRequest.DESCEND
_BY_KEY: Final = rpc_pb2.RangeRequest.KEY
_BY_VERSION: Final = rpc_pb2.RangeRequest.VERSION
_BY_CREATE: Final = rpc_pb2.RangeRequest.CREATE
_BY_MOD: Final = rpc_pb2.RangeRequest.MOD
_BY_VALUE: Final = rpc_pb2.RangeRequest.VALUE

Item = tuple[bytes, int, int, int, int]
"""(key, main, sub, create revision, version)."""

parse_stored = mvcc_pb2.KeyValue.FromString


def range_end_of(range_end: bytes) -> bytes | None:
    """The end of a range that is one: None for "to the end of the keyspace"."""
    return None if range_end == b"\x00" else range_end


def live_keys(store: Store, key: bytes, range_end: bytes, limit: int = 0) -> list[bytes]:
    """The keys of a range that exist now, changes of the running transaction included."""
    if not range_end:
        return [key] if store.index.alive(key) else []
    return store.index.live.slice(key, range_end_of(range_end), limit)


def run(store: Store, request: rpc_pb2.RangeRequest, current: int) -> bytes:
    """The RangeResponse without its header, in one go. `current` is the newest revision."""
    work = steps(store, request, current)
    while True:
        try:
            next(work)
        except StopIteration as finished:
            body: bytes = finished.value
            return body


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


def read_revision(store: Store, wanted: int, current: int) -> int:
    """The revision to read at. Raises FutureRevisionError, CompactedError."""
    if wanted > current:
        raise FutureRevisionError
    if wanted <= 0:
        wanted = current
    if wanted < store.compact_revision:
        raise CompactedError
    return wanted


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
    get = index.get
    total = 0
    while keys := index.first_keys(key, end, SLICE_KEYS):
        total += sum(get(k, at) is not None for k in keys)
        key = keys[-1] + b"\x00"
        yield None
    yield total


def steps(
    store: Store, request: rpc_pb2.RangeRequest, current: int
) -> Generator[None, None, bytes]:
    """The work of `run`, handing control back every `SLICE_KEYS` keys."""
    at = read_revision(store, request.revision, current)
    key, range_end = request.key, request.range_end
    if request.count_only:
        pin = store.pin()
        try:
            for counted in count_steps(store, key, range_end, at):
                if counted is not None:
                    return b"\x20" + varint(counted) if counted else b""
                yield
        finally:
            store.unpin(pin)
    pin = store.pin()
    try:
        filtered = has_revision_filters(request)
        limit = max(request.limit, 0)
        cut = limit + 1 if limit and is_default_order(request) and not filtered else 0
        items: list[Item] = []
        if not range_end:
            found = store.index.get(key, at)
            total = 0 if found is None else 1
            if found is not None:
                items.append((key, *found))
        else:
            total = yield from _collect(store, request, at, current, cut, items)
        if filtered:
            items = _filter(items, request)
        if request.sort_target == _BY_VALUE:
            items = yield from _sort_by_value(store, items, request)
        elif request.sort_target != _BY_KEY or request.sort_order == _DESCEND:
            _sort(items, request)
        more = bool(limit and len(items) > limit)
        if more:
            del items[limit:]
        out: list[bytes] = []
        yield from _encode(store, items, request, out)
        if more:
            out.append(b"\x18\x01")
        if total:
            out.append(b"\x20" + varint(total))
        return b"".join(out)
    finally:
        store.unpin(pin)


def _collect(
    store: Store,
    request: rpc_pb2.RangeRequest,
    at: int,
    current: int,
    cut: int,
    items: list[Item],
) -> Generator[None, None, int]:
    """Puts the keys that exist at `at` into `items`, at most `cut` (0: all); counts them all."""
    index = store.index
    start, end = request.key, range_end_of(request.range_end)
    now = at >= current
    if now and cut:
        keys = index.live.slice(start, end, cut)
        total = index.live.count(start, end)
    else:
        keys = index.keys(start, end, not now)
        total = len(keys)
    get = index.get
    gone = 0
    for first in range(0, len(keys), SLICE_KEYS):
        if first:
            yield
        for key in keys[first : first + SLICE_KEYS]:
            found = get(key, at)
            if found is None:
                gone += 1
            elif not cut or len(items) < cut:
                items.append((key, *found))
    return total - gone


def _filter(items: list[Item], request: rpc_pb2.RangeRequest) -> list[Item]:
    low_mod, high_mod = request.min_mod_revision, request.max_mod_revision
    low_create, high_create = request.min_create_revision, request.max_create_revision
    return [
        item
        for item in items
        if (not high_mod or item[1] <= high_mod)
        and (not low_mod or item[1] >= low_mod)
        and (not high_create or item[3] <= high_create)
        and (not low_create or item[3] >= low_create)
    ]


_SORT_KEYS: Final[dict[int, Callable[[Item], Any]]] = {
    _BY_KEY: lambda item: item[0],
    _BY_VERSION: lambda item: item[4],
    _BY_CREATE: lambda item: item[3],
    _BY_MOD: lambda item: item[1],
}


def _sort(items: list[Item], request: rpc_pb2.RangeRequest) -> None:
    """Sorts in place; equal items stay in key order."""
    by = _SORT_KEYS.get(request.sort_target)
    if by is not None:
        items.sort(key=by, reverse=request.sort_order == _DESCEND)


def _sort_by_value(
    store: Store, items: list[Item], request: rpc_pb2.RangeRequest
) -> Generator[None, None, list[Item]]:
    values: list[tuple[bytes, Item]] = []
    for number, item in enumerate(items):
        if number and not number % SLICE_KEYS:
            yield
        values.append((parse_stored(store.row(item[1], item[2])).value, item))
    values.sort(key=lambda pair: pair[0], reverse=request.sort_order == _DESCEND)
    return [item for _, item in values]


def _encode(
    store: Store, items: list[Item], request: rpc_pb2.RangeRequest, out: list[bytes]
) -> Generator[None, None, None]:
    keys_only = request.keys_only
    from_index = keys_only and request.sort_target != _BY_VALUE
    row = store.row
    heads = KV_HEADS
    for number, (key, main, sub, created, version) in enumerate(items):
        if number and not number % SLICE_KEYS:
            yield
        if from_index:
            stored = key_value(key, created, main, version)
        else:
            stored = row(main, sub)
            if keys_only:
                stored = key_value(key, created, main, version, b"", parse_stored(stored).lease)
        size = len(stored)
        out.append(heads[size] if size < 16384 else b"\x12" + varint(size))
        out.append(stored)
