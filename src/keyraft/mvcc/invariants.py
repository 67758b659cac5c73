"""What holds between the key index, the rows, and the keys' leases.

- A key that is live in the index has its newest row, with the key, the revisions, the version and
  the lease that index and `key_leases` say.
- A row behind the compact revision is in the index; a tombstone's key is at least known (of a
  foreign database a tombstone may follow a tombstone).
- A key is on a lease only while it lives.

All of it also holds amid a transaction, whose changes have the revision to come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keyraft.base.invariants import AT_ONCE, CHECK_SLICE, Checks, hold, whole

from ..proto import mvcc_pb2
from .backend import KEY
from .index import holds
from .revision import first_key, parse, row_key
from .wire import stored_key

if TYPE_CHECKING:
    from .store import Store

Attached = Callable[[int, bytes], bool]
"""(lease, key) -> whether the lease knows the key, or is not there."""


def anywhere(_lease_id: int, _key: bytes) -> bool:
    """Nobody is asked which keys are on a lease."""
    return True


def whole_store(store: Store, attached: Attached) -> None:
    """Everything at once. Raises InvariantError."""
    store.index.live.check()
    store.index.dead.check()
    whole(store_steps(store, attached, AT_ONCE))
    for key, lease in store.key_leases.items():
        hold(bool(lease) and store.index.alive(key), "a key on a lease lives", key, lease)


def store_steps(store: Store, attached: Attached, size: int = CHECK_SLICE) -> Checks:
    """The same in steps, as far as it can be seen key by key and row by row."""
    hold(
        store.compact_revision <= store.revision,
        "compacted up to now at most",
        store.compact_revision,
        store.revision,
    )
    yield from store.index.check_steps(size)
    more, at = True, b""
    while more:
        keys = store.index.live.slice(at, None, size)
        more = len(keys) == size
        for key in keys:
            _check_key(store, key, attached)
            at = key + b"\0"
        yield
    more, at = True, first_key(max(store.compact_revision, 0) + 1)
    while more:
        rows = list(store.backend.range(KEY, at, None, size))
        more = len(rows) == size
        for row, stored in rows:
            _check_row(store, row, stored)
            at = row + b"\0"
        yield


def _check_key(store: Store, key: bytes, attached: Attached) -> None:
    """A live key: its row, as the transaction under way has it."""
    found = store.index.get(key, store.revision + 1)
    hold(found is not None, "a live key is found now", key, store.revision)
    if found is None:
        return
    main, sub, created, version = found
    stored = store.backend.get(KEY, row_key(main, sub))
    hold(stored is not None, "a live key has its row", key, main, sub)
    lease = store.key_leases.get(key, 0)
    if stored:  # empty: of a restore that has bumped the revision
        row = mvcc_pb2.KeyValue.FromString(stored)
        told = (row.key, row.mod_revision, row.create_revision, row.version, row.lease)
        hold(told == (key, main, created, version, lease), "row and index agree", told, found)
    if lease:
        hold(attached(lease, key), "the lease knows its key", lease, key)


def _check_row(store: Store, row: bytes, stored: bytes) -> None:
    main, sub, tombstone = parse(row)
    if main <= store.compact_revision:
        return  # compacted meanwhile
    key = stored_key(stored)
    entry = store.index.entries.get(key)
    hold(entry is not None, "a row's key is in the index", key, main, sub)
    if entry is not None and not tombstone:
        hold(holds(entry, main, sub, tombstone, main), "a row is in the index", key, main, sub)
