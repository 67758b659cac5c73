"""Hashes of the rows, equal on every member with the same data (etcd `mvcc/hash.go`).

HashKV at R with compact revision C: crc32c over the text "key", then over key and value of every
row of bucket `key` in order, leaving out rows after R; rows up to C that a compaction at R would
not keep (when it would keep anything at all); and a tombstone of exactly C, which old versions
deleted and new ones keep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..base.crc import crc32c
from ..base.errors import CompactedError, FutureRevisionError
from .backend import (
    BUCKETS,
    KEY,
    META,
    META_CONSISTENT_INDEX,
    META_STORAGE_VERSION,
    META_TERM,
    Backend,
    BackendError,
)
from .index import Entry, compacted, holds, kept_for_hash
from .revision import MalformedRevisionError, first_key, parse
from .wire import stored_key

if TYPE_CHECKING:
    from .store import Store

HASHES_KEPT: Final = 10  # of compactions, newest revisions (etcd hashStorageMaxSize)
HASH_ROWS: Final = 500  # rows per slice: about a millisecond

_UNHASHED: Final = frozenset(
    (META_CONSISTENT_INDEX, META_TERM, META_STORAGE_VERSION)
)  # differ between equal members


class KVHash:
    """A hash with what it covers: rows up to `revision`, compacted at `compact_revision`."""

    __slots__ = ("compact_revision", "hash", "revision")

    def __init__(self, value: int, compact_revision: int, revision: int) -> None:
        self.hash = value
        self.compact_revision = compact_revision
        self.revision = revision

    def __repr__(self) -> str:
        return f"KVHash({self.hash:#x}, {self.compact_revision}, {self.revision})"


class HashStorage:
    """The hashes that finished compactions left, ascending by revision."""

    __slots__ = ("hashes",)

    def __init__(self) -> None:
        self.hashes: list[KVHash] = []

    def store(self, value: KVHash) -> None:
        """Adds one and forgets the oldest beyond `HASHES_KEPT`."""
        self.hashes.append(value)
        self.hashes.sort(key=lambda h: h.revision)
        del self.hashes[:-HASHES_KEPT]

    def find(self, revision: int) -> KVHash | None:
        """The one of exactly this revision."""
        for value in self.hashes:
            if value.revision == revision:
                return value
        return None


class Hasher:
    """The running crc32c over rows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int = crc32c(b"key")

    def add(self, row: bytes, stored: bytes) -> None:
        """Adds a row."""
        self.value = crc32c(stored, crc32c(row, self.value))


class AnyKey:
    """Searches for a key whose entry meets a condition.

    Nearly always the first does; otherwise all are read, `HASH_ROWS` in a step. Writes and
    compactions meanwhile must not change the result.
    """

    __slots__ = ("_at", "_store", "_test", "found")

    def __init__(self, store: Store, test: Callable[[Entry], object]) -> None:
        self._store = store
        self._test = test
        self._at = b""
        self.found = False

    def step(self) -> bool:
        """Reads some more keys; returns whether the result is known."""
        index, test = self._store.index, self._test
        keys = index.first_keys(self._at, None, HASH_ROWS)
        self.found = any(test(index.entries[key]) for key in keys)
        if self.found or len(keys) < HASH_ROWS:
            return True
        self._at = keys[-1] + b"\x00"
        return False


class HashKVJob:
    """One HashKV, carried out in slices; compactions scheduled meanwhile wait for it."""

    __slots__ = (
        "_at",
        "_hasher",
        "_keeps",
        "_keeps_known",
        "_life",
        "_pin",
        "_store",
        "compact_revision",
        "result",
        "revision",
    )

    def __init__(self, store: Store, revision: int, result: KVHash | None = None) -> None:
        self._store = store
        self.revision = revision
        self.compact_revision = store.compact_revision
        self.result = result
        self._life = store.lives
        self._pin = store.compactions.pin() if result is None else -1
        self._hasher = Hasher()
        self._at = b""
        self._keeps = AnyKey(store, lambda entry: kept_for_hash(entry, revision))
        self._keeps_known = self.compact_revision <= 0  # nobody asks

    def step(self) -> bool:
        """Hashes `HASH_ROWS` more rows; returns whether `result` is ready.

        Raises CompactedError when another database has replaced the one that it reads.
        """
        if self.result is not None:
            return True
        store = self._store
        if store.lives != self._life:
            self.close()
            raise CompactedError
        if not self._keeps_known:
            self._keeps_known = self._keeps.step()
            return False
        end = first_key(self.revision + 1)
        rows = 0
        for row, stored in store.backend.range(KEY, self._at, end, HASH_ROWS):
            rows += 1
            self._at = row + b"\x00"
            main, sub, tombstone = _parse(row)
            if main <= self.compact_revision:
                if tombstone and main == self.compact_revision:
                    continue
                if not self._counts(_key_of(stored), main, sub, tombstone):
                    continue
            self._hasher.add(row, stored)
        if rows < HASH_ROWS:
            self.result = KVHash(self._hasher.value, self.compact_revision, self.revision)
            self.close()
            return True
        return False

    def run(self) -> KVHash:
        """All of it at once."""
        while not self.step():
            pass
        assert self.result is not None
        return self.result

    def close(self) -> None:
        """Cancels the job; harmless after the end."""
        if self._pin >= 0:
            self._store.compactions.unpin(self._pin)
            self._pin = -1

    def _counts(self, key: bytes, main: int, sub: int, tombstone: bool) -> bool:
        """Whether a row up to the compact revision belongs to the hash."""
        entry = self._store.index.entries.get(key)
        if self._keeps.found:
            return entry is not None and kept_for_hash(entry, self.revision) == (main, sub)
        # Nothing to keep: all rows count. DEVIATION: etcd then also counts rows that a compaction
        # still under way has not removed yet, so equal members may differ for that while.
        if entry is None:
            return False
        rest = compacted(entry, self.compact_revision)
        return rest is not None and holds(rest, main, sub, tombstone, self.compact_revision)


def hash_kv(store: Store, revision: int) -> HashKVJob:
    """Starts a HashKV at `revision`, 0 for now. Raises CompactedError, FutureRevisionError."""
    if revision:
        known = store.hashes.find(revision)
        if known is not None:
            return HashKVJob(store, revision, known)
    if 0 < revision < store.compact_revision:
        raise CompactedError
    if revision > store.revision:
        raise FutureRevisionError
    if revision < 0:  # as in etcd: a revision before all rows, the hash of no rows
        return HashKVJob(store, revision, KVHash(Hasher().value, store.compact_revision, revision))
    return HashKVJob(store, revision or store.revision)


class HashAllJob:
    """Maintenance.Hash: crc32c over the name and all rows of every bucket, in slices.

    It leaves out values that differ between equal members: consistent index, term, storage version.
    The caller must prevent writes meanwhile.
    """

    __slots__ = ("_at", "_backend", "_buckets", "value")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._buckets = list(BUCKETS)
        self._at: bytes | None = None  # where to go on in the first of them; None: not begun
        self.value: int = 0

    def step(self) -> bool:
        """Hashes about `HASH_ROWS` more rows; whether `value` is the whole hash."""
        rows = 0
        while self._buckets and rows < HASH_ROWS:
            bucket = self._buckets[0]
            if self._at is None:
                self.value = crc32c(bucket, self.value)
                self._at = b""
            before = rows
            for key, stored in self._backend.range(bucket, self._at, None, HASH_ROWS):
                rows += 1
                self._at = key + b"\x00"
                if bucket != META or key not in _UNHASHED:
                    self.value = crc32c(stored, crc32c(key, self.value))
            if rows - before < HASH_ROWS:
                del self._buckets[0]
                self._at = None
        return not self._buckets


def hash_all(backend: Backend) -> int:
    """Maintenance.Hash in one go."""
    job = HashAllJob(backend)
    while not job.step():
        pass
    return job.value


def _parse(row: bytes) -> tuple[int, int, bool]:
    try:
        return parse(row)
    except MalformedRevisionError as error:
        raise BackendError(f"damaged row {row.hex()}: {error}") from None


def _key_of(stored: bytes) -> bytes:
    try:
        return stored_key(stored)
    except ValueError as error:
        raise BackendError(f"damaged row: {error}") from None
