"""A store that is too simple to be wrong: every change in a list, every read a walk over it."""

from __future__ import annotations

from keyraft.base.errors import CompactedError, FutureRevisionError


class TwinKV:
    """A key as one read sees it."""

    def __init__(self, key: bytes, created: int, modified: int, version: int, value: bytes) -> None:
        self.key = key
        self.created = created
        self.modified = modified
        self.version = version
        self.value = value


class Twin:
    """Changes as (revision, sub, key, value or None for a delete)."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = -1
        self.changes: list[tuple[int, int, bytes, bytes | None]] = []
        self._sub = 0

    def put(self, key: bytes, value: bytes) -> None:
        self.changes.append((self.revision + 1, self._sub, key, value))
        self._sub += 1

    def delete(self, start: bytes, end: bytes | None, point: bool) -> int:
        keys = [kv.key for kv in self.state(self.revision + 1) if inside(kv.key, start, end, point)]
        for key in keys:
            self.changes.append((self.revision + 1, self._sub, key, None))
            self._sub += 1
        return len(keys)

    def end(self) -> None:
        if self._sub:
            self.revision += 1
        self._sub = 0

    def state(self, at: int) -> list[TwinKV]:
        """Every key that exists at revision `at`, in order."""
        now: dict[bytes, TwinKV] = {}
        for revision, _, key, value in self.changes:
            if revision > at:
                break
            if value is None:
                del now[key]
            elif key in now:
                old = now[key]
                now[key] = TwinKV(key, old.created, revision, old.version + 1, value)
            else:
                now[key] = TwinKV(key, revision, revision, 1, value)
        return [now[key] for key in sorted(now)]

    def read(self, start: bytes, end: bytes | None, point: bool, at: int = 0) -> list[TwinKV]:
        if at > self.revision:
            raise FutureRevisionError
        at = at if at > 0 else self.revision
        if at < self.compacted:
            raise CompactedError
        return [kv for kv in self.state(at) if inside(kv.key, start, end, point)]

    def compact(self, at: int) -> None:
        if at <= self.compacted:
            raise CompactedError
        if at > self.revision:
            raise FutureRevisionError
        self.compacted = at


def inside(key: bytes, start: bytes, end: bytes | None, point: bool) -> bool:
    """Whether `key` is in the range; `end` None: to the end of the keyspace."""
    if point:
        return key == start
    return key >= start and (end is None or key < end)
