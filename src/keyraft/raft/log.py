"""One member's log: what is durable (Storage) followed by what is not yet (Unstable).

    first_index ... applied <= applying <= committed <= last_index

Invariants: `committed` and `applied` never fall; entries up to `committed` never change; an entry
is handed out for application once. While a received snapshot waits to be written, nothing is
applied. Source: Raft thesis §3.5, §5; etcd-io/raft `log.go`, `log_unstable.go`.
"""

from __future__ import annotations

from collections import deque

from keyraft.base.log import Logger
from keyraft.raft.errors import EntryUnavailableError, FatalError, LogCompactedError, StorageError
from keyraft.raft.sizes import limit, payload_size
from keyraft.raft.storage import Storage
from keyraft.raft.types import NO_LIMIT, Entry, Snapshot
from keyraft.raft.unstable import Unstable


class RaftLog:
    """The log as Raft sees it. Sizes are encoded bytes, except the payload sizes."""

    __slots__ = (
        "_in_flight",
        "applied",
        "applying",
        "applying_paused",
        "applying_size",
        "applying_size_max",
        "committed",
        "logger",
        "storage",
        "unstable",
    )

    def __init__(self, storage: Storage, logger: Logger, applying_size_max: int = NO_LIMIT) -> None:
        first = storage.first_index()
        self.storage = storage
        self.unstable = Unstable(storage.last_index() + 1, logger)
        self.committed = first - 1  # known to be on the disks of a quorum
        self.applying = first - 1  # handed out for application
        self.applied = first - 1  # applied by the application
        self.applying_size_max = applying_size_max
        self.applying_size = 0  # of what was handed out and is not applied yet
        self.applying_paused = False
        # (last index, encoded size, payload size) of each piece handed out and not yet applied
        self._in_flight: deque[tuple[int, int, int]] = deque()
        self.logger = logger

    def __str__(self) -> str:
        unstable = self.unstable
        return (
            f"committed={self.committed}, applied={self.applied}, applying={self.applying}, "
            f"unstable.offset={unstable.offset}, "
            f"unstable.offsetInProgress={unstable.offset_in_progress}, "
            f"len(unstable.Entries)={len(unstable.entries)}"
        )

    # --- bounds and terms -------------------------------------------------------------------

    def first_index(self) -> int:
        """The first index that can still be read."""
        snapshot = self.unstable.snapshot
        if snapshot is not None:
            return snapshot.meta.index + 1
        return self.storage.first_index()

    def last_index(self) -> int:
        """The last entry's index, durable or not."""
        unstable = self.unstable
        if unstable.entries:
            return unstable.offset + len(unstable.entries) - 1
        if unstable.snapshot is not None:
            return unstable.snapshot.meta.index
        return self.storage.last_index()

    def last_id(self) -> tuple[int, int]:
        """(term, index) of the last entry."""
        index = self.last_index()
        term = self.term(index)
        if term is None:
            raise FatalError(f"unexpected error when getting the last term at {index}")
        return term, index

    def term(self, index: int) -> int | None:
        """The term at `index`, first_index - 1 included; None when compacted or not there yet."""
        term = self.unstable.term(index)
        if term is not None:
            return term
        if index + 1 < self.first_index() or index > self.last_index():
            return None
        try:
            return self.storage.term(index)
        except (LogCompactedError, EntryUnavailableError):
            return None

    # --- reading ----------------------------------------------------------------------------

    def entries(self, low: int, size_max: int) -> list[Entry]:
        """From `low` to the end within `size_max` bytes, at least one; raises LogCompactedError."""
        last = self.last_index()
        if low > last:
            return []
        return self.slice(low, last + 1, size_max)[0]

    def slice(self, low: int, high: int, size_max: int) -> tuple[list[Entry], int]:
        """Entries [low, high) within `size_max` bytes, at least one, with their encoded size.

        The size is 0 with NO_LIMIT. Raises LogCompactedError.
        """
        if low > high:
            raise FatalError(f"invalid slice {low} > {high}")
        first = self.first_index()
        if low < first:
            raise LogCompactedError
        last = self.last_index()
        if high > last + 1:
            raise FatalError(f"slice[{low},{high}) out of bound [{first},{last}]")
        if low == high:
            return [], 0
        unstable = self.unstable
        offset = unstable.offset
        if low >= offset:
            return limit(unstable.entries, low - offset, high - offset, size_max)
        cut = min(high, offset)
        try:
            entries, size = self.storage.read(low, cut, size_max)
        except EntryUnavailableError:
            raise FatalError(f"entries[{low}:{cut}) is unavailable from storage") from None
        if high <= offset or len(entries) < cut - low or size >= size_max:
            return entries, size
        more, more_size = limit(unstable.entries, 0, high - offset, size_max - size)
        if size + more_size > size_max:
            # Only the one entry that is always returned can exceed what is left.
            return entries, size
        entries.extend(more)
        return entries, size + more_size

    def snapshot(self) -> Snapshot:
        """The latest; raises SnapshotTemporarilyUnavailableError."""
        if self.unstable.snapshot is not None:
            return self.unstable.snapshot
        return self.storage.snapshot()

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """(i, its term): the largest i <= `index` whose term is at most `term`, or not known.

        Leader and follower skip whole terms with it after a rejection; an unknown term is 0.
        """
        while index > 0:
            own = self.term(index)
            if own is None:
                return index, 0
            if own <= term:
                return index, own
            index -= 1
        return 0, 0

    # --- appending and committing -----------------------------------------------------------

    def append(self, entries: list[Entry]) -> int:
        """Puts entries where their indexes say, over what is there; returns the last index."""
        if entries:
            after = entries[0].index - 1
            if after < self.committed:
                raise FatalError(f"after({after}) is out of range [committed({self.committed})]")
            self.unstable.truncate_and_append(entries)
        return self.last_index()

    def maybe_append(
        self, previous_term: int, previous_index: int, entries: list[Entry], commit: int
    ) -> int | None:
        """A follower's append: None unless the previous entry is here, else the last new index."""
        if self.term(previous_index) != previous_term:
            return None
        last_new = previous_index + len(entries)
        conflict = self._find_conflict(entries)
        if conflict:
            if conflict <= self.committed:
                raise FatalError(
                    f"entry {conflict} conflict with committed entry [committed({self.committed})]"
                )
            skip = conflict - previous_index - 1
            self.append(entries[skip:] if skip else entries)
        self.commit_to(min(commit, last_new))
        return last_new

    def _find_conflict(self, entries: list[Entry]) -> int:
        """The index of the first entry that is not here or is here with another term, or 0."""
        last = self.last_index()
        if entries and entries[0].index > last:
            return entries[0].index
        for entry in entries:
            own = self.term(entry.index)
            if own != entry.term:
                if entry.index <= last:
                    self.logger.info(
                        f"found conflict at index {entry.index} "
                        f"[existing term: {own or 0}, conflicting term: {entry.term}]"
                    )
                return entry.index
        return 0

    def maybe_commit(self, term: int, index: int) -> bool:
        """Commits up to `index` if that is news and the entry there is of `term` (§3.6.2)."""
        if term and index > self.committed and self.term(index) == term:
            self.commit_to(index)
            return True
        return False

    def commit_to(self, index: int) -> None:
        """Commits up to `index`; never goes back."""
        if self.committed < index:
            last = self.last_index()
            if last < index:
                raise FatalError(
                    f"tocommit({index}) is out of range [lastIndex({last})]. "
                    "Was the raft log corrupted, truncated, or lost?"
                )
            self.committed = index

    def restore(self, snapshot: Snapshot) -> None:
        """Replaces the whole log by a snapshot that a leader sent."""
        meta = snapshot.meta
        self.logger.info(
            f"log [{self}] starts to restore snapshot [index: {meta.index}, term: {meta.term}]"
        )
        self.committed = meta.index
        self.unstable.restore(snapshot)

    # --- applying ---------------------------------------------------------------------------

    def _appliable(self, allow_unstable: bool) -> int:
        """The last index that may be applied; with `allow_unstable` also before it is durable
        here."""
        if allow_unstable:
            return self.committed
        return min(self.committed, self.unstable.offset - 1)

    def has_next_committed(self, allow_unstable: bool) -> bool:
        """Whether there is something to apply."""
        if self.applying_paused or self.unstable.snapshot is not None:
            return False
        return self.applying < self._appliable(allow_unstable)

    def next_committed(self, allow_unstable: bool) -> tuple[list[Entry], int]:
        """The entries to apply next, within the size limit, and their encoded size."""
        if not self.has_next_committed(allow_unstable):
            return [], 0
        room = self.applying_size_max
        if room < NO_LIMIT:
            room -= self.applying_size
            if room <= 0:
                raise FatalError(
                    f"applying entry size ({self.applying_size_max}-{self.applying_size})="
                    f"{room} not positive"
                )
        try:
            return self.slice(self.applying + 1, self._appliable(allow_unstable) + 1, room)
        except StorageError as error:
            raise FatalError(
                f"unexpected error when getting unapplied entries ({error})"
            ) from error

    def accept_applying(
        self, entries: list[Entry], size: int, allow_unstable: bool, count_payload: bool
    ) -> None:
        """`entries`, of `size` encoded bytes, were handed out for application."""
        index = entries[-1].index
        if self.committed < index:
            raise FatalError(
                f"applying({index}) is out of range "
                f"[prevApplying({self.applying}), committed({self.committed})]"
            )
        self.applying = index
        self.applying_size += size
        self._in_flight.append((index, size, payload_size(entries) if count_payload else 0))
        # Paused when what is out reaches the limit, or when this piece was cut short by it.
        self.applying_paused = self.applying_size >= self.applying_size_max or (
            index < self._appliable(allow_unstable)
        )

    def release_to(self, index: int) -> int:
        """What was handed out up to `index` is applied; returns its payload bytes."""
        payload = 0
        in_flight = self._in_flight
        while in_flight and in_flight[0][0] <= index:
            _, size, piece = in_flight.popleft()
            self.applying_size -= size
            payload += piece
        return payload

    def applied_to(self, index: int) -> None:
        """The application has come to `index`."""
        if self.committed < index or index < self.applied:
            raise FatalError(
                f"applied({index}) is out of range "
                f"[prevApplied({self.applied}), committed({self.committed})]"
            )
        self.applied = index
        if self.applying < index:
            self.applying = index
        self.applying_paused = self.applying_size >= self.applying_size_max
