"""Changes too large for one step: deleting many keys, and delivering many events.

They belong to the transaction under way, and no other write may come between two steps. Reads may:
they see the revision before the transaction.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from ..proto import rpc_pb2
from . import read
from .events import read_portion
from .revision import first_key
from .sorting import sort_steps
from .wire import field, varint

if TYPE_CHECKING:
    from .store import Store


def delete_steps(store: Store, request: rpc_pb2.DeleteRangeRequest) -> Generator[None, None, bytes]:
    """Deletes within the transaction; the value is the response without its header."""
    key, range_end = request.key, request.range_end
    if range_end:
        keys = store.index.live.slice(key, read.range_end_of(range_end))
    else:
        keys = [key] if store.index.alive(key) else []
    previous: list[bytes] = []
    with_previous = request.prev_kv
    size = left = store.slice_keys
    for key in keys:
        if left <= 0:
            left = size
            yield
        left -= 1
        if with_previous:
            stored = store.latest(key)
            assert stored is not None, key
            left -= 1 + (len(stored) >> read.VALUE_SHIFT)
            previous.append(field(b"\x1a", stored))
        store.delete_key(key)
    body = b"\x10" + varint(len(keys)) if keys else b""
    return body + b"".join(previous)


def delete_range_steps(
    store: Store, request: rpc_pb2.DeleteRangeRequest
) -> Generator[None, None, bytes]:
    """A DeleteRange as a transaction of its own."""
    body = yield from delete_steps(store, request)
    yield from end_steps(store)
    return body


def delete_keys_steps(store: Store, keys: Iterable[bytes]) -> Generator[None, None, int]:
    """Deletes those of `keys` that exist, in order and in one transaction; returns how many."""
    size = left = store.slice_keys
    deleted = 0
    ordered = yield from sort_steps(list(keys), None, False, size)
    for key in ordered:
        if left <= 0:
            left = size
            yield
        left -= 1
        if store.index.alive(key):
            store.delete_key(key)
            deleted += 1
    yield from end_steps(store)
    return deleted


def end_steps(store: Store) -> Generator[None, None, None]:
    """Ends the transaction as `Store.end` does; many events are delivered in portions.

    From then on its changes are visible. The events of a large transaction are read back from its
    rows, because a listener may have come after it began.
    """
    size = store.slice_keys
    if store.end_at_once(size):
        return
    listener = store.listener
    if listener is None:
        return
    revision = store.revision
    listener(revision, [], True)  # before the revision is visible and counts as delivered
    at = first_key(revision)
    more = True
    while more:
        yield
        revisions, at = read_portion(store.backend, at, revision, size)
        more = bool(at)
        for _, events in revisions:
            listener(revision, events, more)
