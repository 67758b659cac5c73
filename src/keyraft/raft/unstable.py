"""What the log holds that is not durable yet: entries, and perhaps a received snapshot.

`entries[i]` has index `offset + i`; entries below `offset_in_progress` have been handed out to be
written. `offset` may lie below the end of Storage: the next write then overwrites what is there.
They stay here until the write is reported done, so that a reader never sees a gap.
"""

from __future__ import annotations

from keyraft.base.log import Logger
from keyraft.raft.errors import FatalError
from keyraft.raft.types import Entry, Snapshot


class Unstable:
    """The end of a log that is still on its way to the disk."""

    __slots__ = (
        "entries",
        "logger",
        "offset",
        "offset_in_progress",
        "snapshot",
        "snapshot_in_progress",
    )

    def __init__(self, offset: int, logger: Logger) -> None:
        self.snapshot: Snapshot | None = None
        self.snapshot_in_progress = False
        self.entries: list[Entry] = []
        self.offset = offset
        self.offset_in_progress = offset
        self.logger = logger

    def last_index(self) -> int | None:
        """The last entry's or the snapshot's, None when there is neither."""
        if self.entries:
            return self.offset + len(self.entries) - 1
        if self.snapshot is not None:
            return self.snapshot.meta.index
        return None

    def term(self, index: int) -> int | None:
        """The term at `index`, None when it is not here."""
        position = index - self.offset
        if position < 0:
            if self.snapshot is not None and self.snapshot.meta.index == index:
                return self.snapshot.meta.term
            return None
        if position >= len(self.entries):
            return None
        return self.entries[position].term

    def has_next_entries(self) -> bool:
        """Whether entries wait to be handed out."""
        return len(self.entries) > self.offset_in_progress - self.offset

    def next_entries(self) -> list[Entry]:
        """The entries to hand out next; a copy of the list."""
        return self.entries[self.offset_in_progress - self.offset :]

    def next_snapshot(self) -> Snapshot | None:
        """The snapshot to hand out next, if any."""
        return None if self.snapshot_in_progress else self.snapshot

    def accept_in_progress(self) -> None:
        """Everything that is here has been handed out."""
        if self.entries:
            self.offset_in_progress = self.offset + len(self.entries)
        if self.snapshot is not None:
            self.snapshot_in_progress = True

    def stable_to(self, term: int, index: int) -> None:
        """The log up to (term, index) is durable, and no write under way can change that.

        Ignored when another entry stands there by now.
        """
        own = self.term(index)
        if own is None:
            self.logger.info(f"entry at index {index} missing from unstable log; ignoring")
            return
        if index < self.offset:
            self.logger.info(f"entry at index {index} matched unstable snapshot; ignoring")
            return
        if own != term:
            self.logger.info(
                f"entry at (index,term)=({index},{term}) mismatched with "
                f"entry at ({index},{own}) in unstable log; ignoring"
            )
            return
        count = index + 1 - self.offset
        if count == len(self.entries):
            self.entries = []
        else:
            del self.entries[:count]
        self.offset = index + 1
        self.offset_in_progress = max(self.offset_in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        """The snapshot at `index` is durable."""
        if self.snapshot is not None and self.snapshot.meta.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    def restore(self, snapshot: Snapshot) -> None:
        """Everything is replaced by a snapshot."""
        self.offset = snapshot.meta.index + 1
        self.offset_in_progress = self.offset
        self.entries = []
        self.snapshot = snapshot
        self.snapshot_in_progress = False

    def truncate_and_append(self, entries: list[Entry]) -> None:
        """Entries from their first index on take the place of whatever was there."""
        first = entries[0].index
        position = first - self.offset
        if position == len(self.entries):
            self.entries.extend(entries)
        elif position <= 0:
            self.logger.info(f"replace the unstable entries from index {first}")
            self.entries = list(entries)
            self.offset = first
            self.offset_in_progress = first
        elif position < len(self.entries):
            self.logger.info(f"truncate the unstable entries before index {first}")
            del self.entries[position:]
            self.entries.extend(entries)
            self.offset_in_progress = min(self.offset_in_progress, first)
        else:
            raise FatalError(
                f"unstable.slice[{self.offset},{first}) out of bound "
                f"[{self.offset},{self.offset + len(self.entries)}]"
            )
