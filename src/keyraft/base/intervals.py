"""Disjoint intervals of keys, merged until none touch, so that a question costs one bisection.

An interval is [begin, end); `end` None means to the end of the keyspace.

Invariants (`check`): begins and ends alternate strictly; what is open at the end comes last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise

from keyraft.base.invariants import hold


class Intervals:
    """The union of the intervals that were added."""

    __slots__ = ("_begins", "_ends", "_open_from")

    def __init__(self) -> None:
        self._begins: list[bytes] = []
        self._ends: list[bytes] = []
        self._open_from: bytes | None = None

    @classmethod
    def union_of(cls, ascending: Iterable[tuple[bytes, bytes | None]]) -> Intervals:
        """The same as adding them one by one, for intervals in the order of their begins."""
        made = cls()
        begins, ends = made._begins, made._ends
        last = b""
        for begin, end in ascending:
            if end is None:
                if begins and begin <= last:
                    begin = begins.pop()
                    ends.pop()
                made._open_from = begin
                break  # all others begin behind it
            if end <= begin:
                continue
            if not begins or begin > last:
                begins.append(begin)
                ends.append(end)
                last = end
            elif end > last:
                ends[-1] = last = end
        return made

    def add(self, begin: bytes, end: bytes | None) -> None:
        """One that ends before it begins is empty."""
        if end is not None and end <= begin:
            return
        begins, ends, open_from = self._begins, self._ends, self._open_from
        if open_from is not None and (end is None or end >= open_from):
            begin, end = min(begin, open_from), None
        low = bisect_right(begins, begin)
        if low and ends[low - 1] >= begin:
            low -= 1
            begin = begins[low]
        if end is None:
            del begins[low:], ends[low:]
            self._open_from = begin
            return
        high = bisect_right(begins, end)
        if high > low:
            end = max(end, ends[high - 1])
        begins[low:high] = [begin]
        ends[low:high] = [end]

    def has(self, key: bytes) -> bool:
        """Whether one of them holds the key."""
        at = bisect_right(self._begins, key)
        if at and key < self._ends[at - 1]:
            return True
        return self._open_from is not None and key >= self._open_from

    def has_all(self, begin: bytes, end: bytes | None) -> bool:
        """Whether every key of an interval that is not empty is held."""
        if self._open_from is not None and begin >= self._open_from:
            return True
        at = bisect_right(self._begins, begin)
        return at > 0 and end is not None and end <= self._ends[at - 1]

    def __iter__(self) -> Iterator[tuple[bytes, bytes | None]]:
        """In order."""
        yield from zip(self._begins, self._ends, strict=True)
        if self._open_from is not None:
            yield self._open_from, None

    def same(self, other: Intervals) -> bool:
        """Whether both hold the same keys."""
        return list(self) == list(other)

    def check(self) -> None:
        """The invariants at the head of this module; raises InvariantError."""
        points = [point for pair in self for point in pair if point is not None]
        ascend = all(one < other for one, other in pairwise(points))
        hold(ascend, "begins and ends alternate", points)
