"""Where Raft reads back what was made durable: a Protocol, and one in memory over it.

The member keeps the tail of its log in a `MemoryStorage` and the truth in its write-ahead log;
Raft never reads the disk. Everything here is O(1) or a slice of the list; a hundred thousand
entries cost their own size and eight bytes each.
"""

from __future__ import annotations

from typing import Protocol

from keyraft.raft.errors import (
    EntryUnavailableError,
    FatalError,
    LogCompactedError,
    SnapshotOutOfDateError,
)
from keyraft.raft.sizes import limit
from keyraft.raft.types import NO_LIMIT, ConfState, Entry, HardState, Snapshot, SnapshotMeta


class Storage(Protocol):
    """What Raft asks for; Raft may change the lists returned, and nobody the entries in them."""

    def initial_state(self) -> tuple[HardState | None, ConfState]:
        """What was saved last; None when nothing was."""

    def read(self, low: int, high: int, size_max: int) -> tuple[list[Entry], int]:
        """Entries [low, high), as many as `size_max` bytes allow, at least one, and their size.

        The size is that of their encodings, bytes, and 0 with NO_LIMIT. Raises LogCompactedError when
        `low` is gone, EntryUnavailableError when one is missing.
        """

    def term(self, index: int) -> int:
        """The term at `index`, first_index - 1 included; LogCompactedError, EntryUnavailableError."""

    def last_index(self) -> int:
        """The last entry's, or the snapshot's when there is none behind it."""

    def first_index(self) -> int:
        """The first entry's that can be there."""

    def snapshot(self) -> Snapshot:
        """The latest; raises SnapshotTemporarilyUnavailableError while one is being made."""


class MemoryStorage:
    """A log from `first_index` on, the entry before it known by its term alone.

    The owner appends what it has made durable, before or while Raft is told so.
    """

    __slots__ = ("_entries", "_hard_state", "_offset", "_offset_term", "_snapshot")

    def __init__(self) -> None:
        self._hard_state: HardState | None = None
        self._snapshot = Snapshot()
        self._offset = 0  # _entries[i] has index _offset + 1 + i
        self._offset_term = 0
        self._entries: list[Entry] = []

    def initial_state(self) -> tuple[HardState | None, ConfState]:
        """The hard state set last and the snapshot's configuration."""
        return self._hard_state, self._snapshot.meta.conf_state

    def set_hard_state(self, state: HardState) -> None:
        """Saves the state; the caller hands it over."""
        self._hard_state = state

    def entries(self, low: int, high: int, size_max: int = NO_LIMIT) -> list[Entry]:
        """What `read` returns, without the size."""
        return self.read(low, high, size_max)[0]

    def read(self, low: int, high: int, size_max: int) -> tuple[list[Entry], int]:
        """See Storage.read; a `high` behind the log is a broken contract."""
        if low <= self._offset:
            raise LogCompactedError
        if high > self.last_index() + 1:
            raise FatalError(f"entries' hi({high}) is out of bound lastindex({self.last_index()})")
        if not self._entries:
            raise EntryUnavailableError
        first = self._offset + 1
        return limit(self._entries, low - first, high - first, size_max)

    def term(self, index: int) -> int:
        """See Storage.term."""
        position = index - self._offset
        if position <= 0:
            if position == 0:
                return self._offset_term
            raise LogCompactedError
        if position > len(self._entries):
            raise EntryUnavailableError
        return self._entries[position - 1].term

    def last_index(self) -> int:
        """See Storage.last_index."""
        return self._offset + len(self._entries)

    def first_index(self) -> int:
        """See Storage.first_index."""
        return self._offset + 1

    def snapshot(self) -> Snapshot:
        """The snapshot made or received last; empty when there was none."""
        return self._snapshot

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Replaces the whole log by a received snapshot; SnapshotOutOfDateError if it is older."""
        own = self._snapshot.meta.index
        # Index 0 carries a configuration to start from, and may be replaced by another.
        if own and own >= snapshot.meta.index:
            raise SnapshotOutOfDateError
        self._snapshot = snapshot
        self._offset = snapshot.meta.index
        self._offset_term = snapshot.meta.term
        self._entries = []

    def create_snapshot(
        self, index: int, conf_state: ConfState | None = None, data: bytes = b""
    ) -> Snapshot:
        """Makes the snapshot at `index`, an entry that is here; the log stays.

        `conf_state` None keeps the former snapshot's. Raises SnapshotOutOfDateError.
        """
        if index <= self._snapshot.meta.index:
            raise SnapshotOutOfDateError
        if index > self.last_index():
            raise FatalError(f"snapshot {index} is out of bound lastindex({self.last_index()})")
        if conf_state is None:
            conf_state = self._snapshot.meta.conf_state
        self._snapshot = Snapshot(data, SnapshotMeta(conf_state, index, self.term(index)))
        return self._snapshot

    def compact(self, index: int) -> None:
        """Forgets entries up to and including `index`, which must have been applied.

        Raises LogCompactedError when they are gone already.
        """
        if index <= self._offset:
            raise LogCompactedError
        if index > self.last_index():
            raise FatalError(f"compact {index} is out of bound lastindex({self.last_index()})")
        count = index - self._offset
        self._offset_term = self._entries[count - 1].term
        self._offset = index
        del self._entries[:count]

    def append(self, entries: list[Entry]) -> None:
        """Adds entries, which may overwrite what is there from their first index on."""
        if not entries:
            return
        first = entries[0].index
        skipped = self._offset + 1 - first
        if skipped > 0:
            if skipped >= len(entries):
                return
            entries = entries[skipped:]
            first = self._offset + 1
        position = first - self._offset - 1
        if position > len(self._entries):
            raise FatalError(f"missing log entry [last: {self.last_index()}, append at: {first}]")
        if position < len(self._entries):
            del self._entries[position:]
        self._entries.extend(entries)
