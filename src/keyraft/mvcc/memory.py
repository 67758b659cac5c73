"""A database in dictionaries that loses in a crash exactly what was not committed.

Three layers, newest first: the batch being filled, sealed batches on their way to the disk, and
the disk. `crash()` drops the first two and keeps the third; `settle(n)` commits the oldest n sealed
batches. The next life of a member gets the same `disk`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .backend import BUCKETS, OWN

Batch = dict[bytes, dict[bytes, bytes | None]]
Disk = dict[bytes, dict[bytes, bytes]]


def empty_disk() -> Disk:
    """A new disk with all buckets."""
    return {name: {} for name in (*BUCKETS, OWN)}


class MemoryBackend:
    """`Backend` without files. With `auto_settle` a flush is durable at once."""

    starved = ""

    def __init__(self, disk: Disk | None = None, auto_settle: bool = True) -> None:
        self.disk = empty_disk() if disk is None else disk
        self.auto_settle = auto_settle
        self._batch: Batch = {}
        self._sealed: list[tuple[Batch, list[Callable[[], None]]]] = []
        self._hooks: list[Callable[[], None]] = []
        self._held = False
        self._late: list[Callable[[], None] | None] = []  # flushes that wait for `release`

    @property
    def size_bytes(self) -> int:
        return sum(len(k) + len(v) for bucket in self.disk.values() for k, v in bucket.items())

    @property
    def size_in_use_bytes(self) -> int:
        return self.size_bytes

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        changes = self._batch.get(bucket)
        if changes is not None and key in changes:
            return changes[key]
        for batch, _ in reversed(self._sealed):
            changes = batch.get(bucket)
            if changes is not None and key in changes:
                return changes[key]
        return self.disk[bucket].get(key)

    def get_all(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(bucket, key) for key in keys]

    def range(
        self, bucket: bytes, start: bytes = b"", end: bytes | None = None, limit: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        merged: dict[bytes, bytes | None] = dict(self.disk[bucket])
        for batch, _ in self._sealed:
            merged.update(batch.get(bucket, {}))
        merged.update(self._batch.get(bucket, {}))
        found = [
            (key, value)
            for key, value in merged.items()
            if value is not None and key >= start and (end is None or key < end)
        ]
        found.sort()
        return iter(found[:limit] if limit else found)

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        assert bucket in self.disk, bucket
        self._batch.setdefault(bucket, {})[key] = value

    def delete(self, bucket: bytes, key: bytes) -> None:
        self._batch.setdefault(bucket, {})[key] = None

    def before_commit(self, hook: Callable[[], None]) -> None:
        self._hooks.append(hook)

    busy_since_s: float | None = None

    def hold(self) -> None:
        assert not self._held, "an entry within an entry"
        self._held = True

    def release(self) -> None:
        assert self._held, "nothing is held"
        self._held = False
        late, self._late = self._late, []
        for done in late:
            self.flush(done)

    def defragment(self, done: Callable[[str | None], None]) -> None:
        self.flush(lambda: done(None))

    def flush(self, done: Callable[[], None] | None = None) -> None:
        if self._held:
            self._late.append(done)
            return
        for hook in self._hooks:
            hook()
        self._sealed.append((self._batch, [done] if done else []))
        self._batch = {}
        if self.auto_settle:
            self.settle(len(self._sealed))

    def settle(self, batches: int) -> None:
        """The oldest `batches` sealed batches reach the disk."""
        for _ in range(batches):
            batch, waiting = self._sealed.pop(0)
            for bucket, changes in batch.items():
                target = self.disk[bucket]
                for key, value in changes.items():
                    if value is None:
                        target.pop(key, None)
                    else:
                        target[key] = value
            for done in waiting:
                done()

    def crash(self) -> Disk:
        """The database after a crash: everything that was settled, and nothing else."""
        self._batch = {}
        self._sealed = []
        return self.disk
