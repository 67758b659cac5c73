"""Keys in byte order, made for many point writes and rare scans.

A list of sorted chunks with the largest key of each beside it (the layout of sortedcontainers,
without its per-item bookkeeping). New keys stay unsorted until a scan, a removal, or FRESH_KEYS_MAX
of them. So a burst of puts sorts only once.

Invariants: every chunk is sorted and not empty; chunks ascend; `_maxes[i] == _chunks[i][-1]`; a
key is here once. The caller adds only keys that are not here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

from keyraft.base.invariants import hold

CHUNK_KEYS: Final = 512  # a chunk splits at twice this
FRESH_KEYS_MAX: Final = 512  # unsorted keys; bounds the pause of sorting them in


class SortedKeys:
    """A sorted set of byte strings."""

    __slots__ = ("_chunks", "_maxes", "_size", "fresh")

    def __init__(self) -> None:
        self._chunks: list[list[bytes]] = []
        self._maxes: list[bytes] = []
        self._size = 0
        self.fresh: list[bytes] = []

    def __len__(self) -> int:
        return self._size + len(self.fresh)

    def add(self, key: bytes) -> None:
        """Adds a key that is not here."""
        fresh = self.fresh
        fresh.append(key)
        if len(fresh) >= FRESH_KEYS_MAX:
            self.settle()

    def extend(self, ascending: list[bytes]) -> None:
        """Adds keys that stand behind all that are here."""
        for first in range(0, len(ascending), CHUNK_KEYS):
            chunk = ascending[first : first + CHUNK_KEYS]
            self._chunks.append(chunk)
            self._maxes.append(chunk[-1])
        self._size += len(ascending)

    def drop_last(self, count: int) -> bool:
        """Removes about so many of the last keys; returns whether there were any."""
        self.settle()
        taken = 0
        while self._chunks and taken < count:
            taken += len(self._chunks.pop())
            self._maxes.pop()
        self._size -= taken
        return taken > 0

    def settle(self) -> None:
        """Sorts the new keys in."""
        fresh = self.fresh
        if not fresh:
            return
        fresh.sort()
        self.fresh = []
        self._size += len(fresh)
        maxes, chunks = self._maxes, self._chunks
        if not chunks or fresh[0] > maxes[-1]:
            if chunks and len(chunks[-1]) < CHUNK_KEYS:
                fresh = chunks.pop() + fresh
                maxes.pop()
            for i in range(0, len(fresh), CHUNK_KEYS):
                chunks.append(fresh[i : i + CHUNK_KEYS])
                maxes.append(chunks[-1][-1])
            return
        for key in fresh:
            i = bisect_left(maxes, key)
            if i == len(maxes):
                i -= 1
                chunk = chunks[i]
                chunk.append(key)
                maxes[i] = key
            else:
                chunk = chunks[i]
                insort(chunk, key)
            if len(chunk) >= 2 * CHUNK_KEYS:
                rest = chunk[CHUNK_KEYS:]
                del chunk[CHUNK_KEYS:]
                maxes[i] = chunk[-1]
                chunks.insert(i + 1, rest)
                maxes.insert(i + 1, rest[-1])

    def remove(self, key: bytes) -> None:
        """Removes a key that is here."""
        if self.fresh:
            self.settle()
        i = bisect_left(self._maxes, key)
        assert i < len(self._maxes), (key, "is not among the keys")
        chunk = self._chunks[i]
        at = bisect_left(chunk, key)
        assert chunk[at] == key, (key, chunk[at])
        del chunk[at]
        self._size -= 1
        if not chunk:
            del self._chunks[i]
            del self._maxes[i]
        elif at == len(chunk):
            self._maxes[i] = chunk[-1]

    def slice(self, start: bytes, end: bytes | None, limit: int = 0) -> list[bytes]:
        """The first `limit` (0: all) keys of [start, end); no `end` means the rest."""
        if self.fresh:
            self.settle()
        maxes, chunks = self._maxes, self._chunks
        i = bisect_left(maxes, start)
        out: list[bytes] = []
        if i == len(maxes) or (end is not None and end <= start):
            return out
        at = bisect_left(chunks[i], start)
        while i < len(chunks):
            chunk = chunks[i]
            if end is not None and maxes[i] >= end:
                out += chunk[at : bisect_left(chunk, end, at)]
                break
            out += chunk[at:] if at else chunk
            if limit and len(out) >= limit:
                break
            at = 0
            i += 1
        if limit and len(out) > limit:
            del out[limit:]
        return out

    def count(self, start: bytes, end: bytes | None) -> int:
        """How many keys [start, end) holds; in time of the number of chunks."""
        if self.fresh:
            self.settle()
        if end is not None and end <= start:
            return 0
        return self._rank(end) - self._rank(start)

    def _rank(self, key: bytes | None) -> int:
        if key is None:
            return self._size
        i = bisect_left(self._maxes, key)
        if i == len(self._maxes):
            return self._size
        return sum(map(len, self._chunks[:i])) + bisect_left(self._chunks[i], key)

    def __iter__(self) -> Iterator[bytes]:
        """All keys in order; the caller changes nothing meanwhile."""
        self.settle()
        for chunk in self._chunks:
            yield from chunk

    def check(self) -> None:
        """The invariants above; raises InvariantError."""
        chunks, maxes = self._chunks, self._maxes
        hold(len(chunks) == len(maxes), "a largest key for each chunk", len(chunks), len(maxes))
        count = sum(map(len, chunks))
        hold(count == self._size, "keys are counted", count, self._size)
        before = None
        for chunk, largest in zip(chunks, maxes, strict=True):
            hold(bool(chunk) and chunk[-1] == largest, "largest of its chunk", largest)
            for key in chunk:
                hold(before is None or before < key, "keys ascend", before, key)
                before = key
