"""Rebuilding the store's memory from the rows (etcd `kvstore.restore`).

A start does it at once, because nobody waits for it. A member that receives its leader's database
reads it in steps, beside its work, and uses the result when that database has replaced its own. The
old state is freed in steps, too, because freeing a million keys takes time.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import chain, islice
from struct import Struct
from typing import Final

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
from .sorting import sort_steps
from .steps import FREED_ITEMS, emptied, finished
from .wire import stored_key, varint

_ROW: Final = Struct(">QcQ")


RESTORED_ROWS: Final = 100  # read in one step; a large value is copied out of the database
SLICE_KEYS: Final = 500  # of the index that one step puts in order
_ALL: Final = 1 << 62


class Restored:
    """The state in memory that belongs to a database. `Store.reset` takes it over.

    `finished` and `scheduled` are compact revisions, -1 and 0 when there were none; `no_leases`:
    there are no leases, so keys on leases were not collected.
    """

    __slots__ = ("finished", "index", "key_leases", "no_leases", "revision", "scheduled")

    def __init__(self, finished: int, scheduled: int, no_leases: bool) -> None:
        self.finished = finished
        self.scheduled = scheduled
        self.no_leases = no_leases
        self.revision = 1
        self.index = KeyIndex()
        self.key_leases: dict[bytes, int] = {}


def compaction_marks(backend: Backend) -> tuple[int, int]:
    """(finished, scheduled) compact revisions; -1 and 0 when there were none."""
    marks = []
    for name, default in ((META_FINISHED_COMPACT, -1), (META_SCHEDULED_COMPACT, 0)):
        stored = backend.get(META, name)
        try:
            marks.append(default if stored is None else parse(stored)[0])
        except MalformedRevisionError as error:
            raise BackendError(f"damaged {name.decode()}: {error}") from None
    return marks[0], marks[1]


def restore(backend: Backend, checkpoint: Checkpoint | None = None) -> Restored:
    """Reads a database at once; `checkpoint` spares the rows it covers. Raises BackendError."""
    return finished(restore_steps(backend, checkpoint, _ALL, _ALL))


def restore_steps(
    backend: Backend,
    checkpoint: Checkpoint | None = None,
    slice_rows: int = RESTORED_ROWS,
    slice_keys: int = SLICE_KEYS,
) -> Generator[None, None, Restored]:
    """The same in steps. Nobody may write to the database meanwhile."""
    compacted_at, scheduled = compaction_marks(backend)
    with_leases = any(True for _ in backend.range(LEASE, limit=1))
    restored = Restored(compacted_at, scheduled, not with_leases)
    rows = Rows(with_leases)
    if checkpoint is not None and checkpoint.covers(compacted_at, scheduled):
        rows.start_from(checkpoint, max(compacted_at, scheduled))
    yield from rows.scan_steps(backend, slice_rows)
    yield from rows.fill_steps(restored.index, slice_keys)
    restored.revision = max(rows.last, compacted_at, scheduled, 1)
    restored.key_leases = rows.leases
    return restored


def free_steps(
    index: KeyIndex, key_leases: dict[bytes, int], slice_keys: int = FREED_ITEMS
) -> Generator[None, None, None]:
    """Frees unused state in steps, so that no single step frees all of it."""
    yield from emptied(key_leases, slice_keys)
    yield from emptied(index.entries, slice_keys)
    for keys in (index.live, index.dead):
        while keys.drop_last(slice_keys):
            yield


class Rows:
    """Collects the state row by row."""

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

    def scan_steps(self, backend: Backend, slice_rows: int) -> Generator[None, None, None]:
        """Adds all rows behind the last revision seen. Raises BackendError on damage."""
        found = iter(backend.range(KEY, first_key(self.last + 1)))
        before = self.last
        while self._scan(islice(found, slice_rows)):
            yield
        self._scanned = self.last > before

    def _scan(self, found: Iterator[tuple[bytes, bytes]]) -> bool:
        """Adds rows; returns whether there were any."""
        entries = self.entries
        known = entries.get
        unpack = _ROW.unpack
        with_leases = self._with_leases
        created = version = 0
        main = self.last
        row = value = b""
        try:
            for row, value in found:
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
        self.last = main
        return bool(row)

    def fill_steps(self, index: KeyIndex, slice_keys: int) -> Generator[None, None, None]:
        """Hands everything over to the index, in order."""
        entries = self.entries
        live, dead = self._live, self._dead
        if self._scanned:
            keys = live + dead
            # Keys met in the scan stand behind the others; sorting sorted runs is cheap.
            keys += sorted(islice(entries, len(keys), None)) if keys else list(entries)
            yield
            keys = yield from sort_steps(keys, None, False, slice_keys)
            gone: set[bytes] = set()
            items = iter(entries.items())
            for _ in range(0, len(entries), slice_keys):
                for key, entry in islice(items, slice_keys):
                    if not isinstance(entry, int) and entry[-1] & 1:
                        gone.add(key)
                yield
            live = keys
            if gone:
                live = []
                for first in range(0, len(keys), slice_keys):
                    live += [key for key in keys[first : first + slice_keys] if key not in gone]
                    yield
                dead = yield from sort_steps(list(gone), None, False, slice_keys)
        index.entries = entries
        for keys, ordered in ((live, index.live), (dead, index.dead)):
            for first in range(0, len(keys), slice_keys):
                ordered.extend(keys[first : first + slice_keys])
                yield
