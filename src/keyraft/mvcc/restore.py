"""Rebuilding the store's memory from the rows (etcd `kvstore.restore`)."""

from __future__ import annotations

from itertools import chain, islice
from struct import Struct
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from .backend import (
    KEY,
    LEASE,
    META,
    META_FINISHED_COMPACT,
    META_SCHEDULED_COMPACT,
    Backend,
    BackendError,
)
from .checkpoint import Checkpoint
from .index import Entry, KeyIndex, compacted, restored
from .read import parse_stored
from .revision import ROW_BYTES, MalformedRevisionError, first_key, parse
from .wire import stored_key, varint

if TYPE_CHECKING:
    from .store import Store

_ROW: Final = Struct(">QcQ")


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


def restore(store: Store, checkpoint: Checkpoint | None) -> bool:
    """Fills index, revisions and leases; schedules a compaction that was cut short.

    Returns whether it left open which keys are on leases, because there are none.
    """
    finished, scheduled = compaction_marks(store)
    store.compact_revision = finished
    with_leases = any(True for _ in store.backend.range(LEASE, limit=1))
    rows = Rows(with_leases)
    if checkpoint is not None and checkpoint.covers(finished, scheduled):
        rows.start_from(checkpoint, max(finished, scheduled))
    rows.scan(store.backend)
    rows.fill(store.index)
    store.revision = max(rows.last, finished, scheduled, 1)
    for key, lease in rows.leases.items():
        store.key_leases[key] = lease
        store.lessor.attach(lease, key)
    if scheduled and scheduled > finished:
        store.schedule_compaction(scheduled, whole=False)
    return not with_leases


class Rows:
    """What the rows say, collected row by row."""

    __slots__ = ("_dead", "_live", "_scanned", "_with_leases", "entries", "last", "leases")

    def __init__(self, with_leases: bool) -> None:
        """`with_leases`: there are leases at all; else nobody asks which key has one."""
        self._with_leases = with_leases
        self._live: list[bytes] = []
        self._dead: list[bytes] = []
        self._scanned = False
        self.entries: dict[bytes, Entry] = {}
        self.leases: dict[bytes, int] = {}
        self.last = 0

    def start_from(self, checkpoint: Checkpoint, compacted_at: int) -> None:
        """Takes over a checkpoint instead of the rows up to its revision."""
        self._live, self._dead = checkpoint.live, checkpoint.dead
        self.entries = dict(zip(chain(self._live, self._dead), checkpoint.entries, strict=True))
        self.last = checkpoint.revision
        if self._with_leases:
            self.leases = checkpoint.leases
        if compacted_at > checkpoint.compact_revision:
            self._compact(compacted_at)
            self._dead = [key for key in self._dead if key in self.entries]

    def _compact(self, at: int) -> None:
        entries = self.entries
        for key, entry in list(entries.items()):
            if not isinstance(entry, int):
                rest = compacted(entry, at)
                if rest is None:
                    del entries[key]
                else:
                    entries[key] = rest

    def scan(self, backend: Backend) -> None:
        """Adds all rows behind the last revision seen. Raises BackendError on damage."""
        entries = self.entries
        known = entries.get
        unpack = _ROW.unpack
        with_leases = self._with_leases
        created = version = 0
        main = self.last
        row = value = b""
        try:
            for row, value in backend.range(KEY, first_key(self.last + 1)):
                tombstone = len(row) != ROW_BYTES
                if tombstone:
                    main, sub, tombstone = parse(row)
                else:
                    main, mark, sub = unpack(row)
                    if mark != b"_":
                        raise MalformedRevisionError(row.hex())
                size = value[1] if value else 0
                if size < 128 and value[:1] == b"\x0a":
                    key = value[2 : size + 2]
                else:
                    key = stored_key(value)
                entry = known(key)
                if entry is None and not tombstone:
                    number = varint(main)
                    if value.startswith(
                        b"\x10" + number + b"\x18" + number + b"\x20\x01", size + 2
                    ):
                        created, version = main, 1
                    else:
                        stored = parse_stored(value)
                        created, version = stored.create_revision, stored.version
                new = restored(entry, main, sub, tombstone, created, version)
                assert new is not None
                entries[key] = new
                if with_leases:
                    lease = 0 if tombstone else parse_stored(value).lease
                    if lease:
                        self.leases[key] = lease
                    else:
                        self.leases.pop(key, None)
        except (MalformedRevisionError, DecodeError, ValueError, IndexError) as error:
            raise BackendError(f"damaged row {row.hex()}: {error}") from None
        self._scanned = main > self.last
        self.last = main

    def fill(self, index: KeyIndex) -> None:
        """Hands everything over to the index, in order."""
        entries = self.entries
        live, dead = self._live, self._dead
        if self._scanned:
            keys = live + dead
            # Keys met in the scan stand behind the others; sorting sorted runs is cheap.
            keys += sorted(islice(entries, len(keys), None))
            keys.sort()
            gone = {
                key
                for key, entry in entries.items()
                if not isinstance(entry, int) and entry[-1] & 1
            }
            live = [key for key in keys if key not in gone] if gone else keys
            dead = sorted(gone)
        index.take(entries, live, dead)
