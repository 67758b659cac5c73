"""Rebuilding the store's memory from the rows (etcd `kvstore.restore`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from .backend import KEY, META, META_FINISHED_COMPACT, META_SCHEDULED_COMPACT, BackendError
from .read import parse_stored
from .revision import MalformedRevisionError, first_key, parse

if TYPE_CHECKING:
    from .store import Store


def compaction_marks(store: Store) -> tuple[int, int]:
    """(finished, scheduled) compact revisions; -1 and 0 when there were none."""
    marks = []
    for name, default in ((META_FINISHED_COMPACT, -1), (META_SCHEDULED_COMPACT, 0)):
        stored = store.backend.get(META, name)
        try:
            marks.append(default if stored is None else parse(stored)[0])
        except MalformedRevisionError as error:
            raise BackendError(f"damaged {name.decode()}: {error}") from None
    return marks[0], marks[1]


def restore(store: Store) -> None:
    """Fills index, revisions and leases; schedules a compaction that was cut short."""
    finished, scheduled = compaction_marks(store)
    store.compact_revision = finished
    leases: dict[bytes, int] = {}
    last = scan(store, 1, leases)
    store.revision = max(last, finished, scheduled, 1)
    for key, lease in leases.items():
        store.key_leases[key] = lease
        store.lessor.attach(lease, key)
    if scheduled and scheduled > finished:
        store.schedule_compaction(scheduled, whole=False)


def scan(store: Store, start: int, leases: dict[bytes, int]) -> int:
    """Takes all rows from revision `start` on into the index; the last revision seen, or 0."""
    index = store.index
    last = 0
    for row, value in store.backend.range(KEY, first_key(start)):
        try:
            main, sub, tombstone = parse(row)
            stored = parse_stored(value)
        except (MalformedRevisionError, DecodeError) as error:
            raise BackendError(f"damaged row {row.hex()}: {error}") from None
        last = main
        key = stored.key
        index.restore(key, main, sub, tombstone, stored.create_revision, stored.version)
        if tombstone or not stored.lease:
            if leases:
                leases.pop(key, None)
        else:
            leases[key] = stored.lease
    return last
