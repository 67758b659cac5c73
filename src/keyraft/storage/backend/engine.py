"""What the write buffer needs of a database: sorted buckets, and atomic batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

Batch = dict[bytes, dict[bytes, bytes | None]]
"""Bucket -> key -> new value, None for a delete. Not changed once handed over."""


class StorageEngine(Protocol):
    """Reads see all batches whose `done` was called; the one under way may be visible already."""

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        """The value, or None."""

    def get_all(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys that are short and not empty, in their order."""

    def range(
        self, bucket: bytes, start: bytes, end: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, end) in byte order; no `end` means the rest."""

    def commit(self, batch: Batch, done: Callable[[], None]) -> None:
        """Starts to make `batch` durable, all of it or nothing, after all batches before it;
        calls `done` on the loop when it is. One at a time."""

    def defragment(self, done: Callable[[str | None], None]) -> None:
        """Starts to give the space of free pages back; like a commit, one at a time. Reads go on.
        `done` is called on the loop, with the reason when nothing was done."""

    def wait(self) -> None:
        """Returns when the commit under way is done and `done` was called (for stopping), or when it
        is `starved`."""

    @property
    def starved(self) -> str:
        """Why the commit under way waits for room on the disk; "" when it does not."""

    def abandon(self) -> None:
        """Drops the commit that waits for room, before `close`: its `done` is not called."""

    def on_failure(self, report: Callable[[str], None]) -> None:
        """`report(text)` is called on the loop, once, when no commit can succeed any more."""

    @property
    def size_bytes(self) -> int:
        """What the database takes on disk."""

    @property
    def size_in_use_bytes(self) -> int:
        """What of it holds data."""

    def close(self) -> None:
        """Ends what runs and releases the directory; nothing is committed any more."""
