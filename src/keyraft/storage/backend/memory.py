"""An engine in dictionaries that loses in a crash exactly what was not committed.

`settle()` lets the commit under way reach `disk`. A member that starts after a crash gets a new
engine over the same disk. With a loop, commits settle by themselves after `latency_s`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ...base.clock import Loop
from ...mvcc.backend import BUCKETS, OWN
from .engine import Batch

Disk = dict[bytes, dict[bytes, bytes]]


class MemoryEngine:
    """`StorageEngine` for tests and the simulator."""

    __slots__ = ("_commit", "_latency_s", "_loop", "_report", "_size_bytes", "disk", "starved")

    def __init__(
        self, disk: Disk | None = None, loop: Loop | None = None, latency_s: float = 0.0
    ) -> None:
        self.disk: Disk = {name: {} for name in (*BUCKETS, OWN)} if disk is None else disk
        self._size_bytes = sum(
            len(k) + len(v) for rows in self.disk.values() for k, v in rows.items()
        )
        self._loop = loop
        self._latency_s = latency_s
        self._commit: tuple[Batch, Callable[[], None]] | None = None
        self._report: Callable[[str], None] | None = None
        self.starved = ""

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self.disk[bucket].get(key)

    def get_all(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        return list(map(self.disk[bucket].get, keys))

    def range(
        self, bucket: bytes, start: bytes, end: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        stored = self.disk[bucket]
        keys = sorted(k for k in stored if k >= start and (end is None or k < end))
        return iter([(key, stored[key]) for key in keys])

    def commit(self, batch: Batch, done: Callable[[], None]) -> None:
        assert self._commit is None, "one commit at a time"
        self._commit = batch, done
        if self._loop is not None:
            self._loop.call_later(self._latency_s, self.settle)

    def settle(self) -> None:
        """The commit under way reaches the disk."""
        done = self._take()
        if done is not None:
            done()

    def settle_silently(self) -> None:
        """The same without calling `done`, because the member has died meanwhile."""
        self._take()

    def _take(self) -> Callable[[], None] | None:
        if self._commit is None:
            return None
        batch, done = self._commit
        self._commit = None
        for bucket, changes in batch.items():
            stored = self.disk[bucket]
            for key, value in changes.items():
                before = stored.pop(key, None)
                if before is not None:
                    self._size_bytes -= len(key) + len(before)
                if value is not None:
                    self._size_bytes += len(key) + len(value)
                    stored[key] = value
        return done

    def fail(self, text: str) -> None:
        """No commit succeeds any more; what was under way is lost."""
        self._commit = None
        if self._report is not None:
            self._report(text)

    def defragment(self, done: Callable[[str | None], None]) -> None:
        self.commit({}, lambda: done(None))

    def wait(self) -> None:
        self.settle()

    def abandon(self) -> None:
        self._commit = None
        self.starved = ""

    def on_failure(self, report: Callable[[str], None]) -> None:
        self._report = report

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def size_in_use_bytes(self) -> int:
        return self.size_bytes

    def close(self) -> None:
        self._commit = None
