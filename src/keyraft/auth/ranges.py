"""Which keys a set of permissions covers: intervals, merged until none touch.

A permission is one key, the interval [key, end), or everything from a key on. What a user may read
(or write) is the union of such intervals over all roles, kept as disjoint intervals in order, so a
question costs one bisection. `end` None means "to the end of the keyspace", which requests spell
as a range end of one zero byte.

Invariants (`check`): begins and ends alternate strictly; only the last interval may have no end.

Source: etcd `server/auth/range_perm_cache.go`, `pkg/adt/interval_tree.go` (the rules, not the tree).

DEVIATION: a request whose range ends before it begins is granted if its key is. The original's tree
search does the same, but misses the interval when a node on its way lies between the two ends.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

OPEN_END: Final = b"\0"
"""A range end that means "to the end of the keyspace"."""

Interval = tuple[bytes, bytes | None]


def interval(key: bytes, range_end: bytes) -> Interval:
    """The interval of a permission as it is stored."""
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == OPEN_END else range_end


def is_valid(key: bytes, range_end: bytes) -> bool:
    """Whether a permission may be granted on this range."""
    return bool(key) and (not range_end or key < range_end or range_end == OPEN_END)


class Ranges:
    """An immutable set of keys, made of intervals."""

    __slots__ = ("_begins", "_ends", "_open_from")

    def __init__(self, intervals: Iterable[Interval]) -> None:
        """Intervals in any order; one without a key, or that ends before its key, is empty."""
        ordered = sorted(
            ((begin, end) for begin, end in intervals if begin and (end is None or begin < end)),
            key=lambda each: each[0],
        )
        self._begins: list[bytes] = []
        self._ends: list[bytes] = []
        self._open_from: bytes | None = None
        for begin, end in ordered:
            if self._ends and begin <= self._ends[-1]:
                begin, last = self._begins.pop(), self._ends.pop()
                if end is not None:
                    end = max(end, last)
            if end is None:
                self._open_from = begin
                break
            self._begins.append(begin)
            self._ends.append(end)

    def has_key(self, key: bytes) -> bool:
        """Whether the key is in the set."""
        at = bisect_right(self._begins, key)
        if at and key < self._ends[at - 1]:
            return True
        return self._open_from is not None and key >= self._open_from

    def has_range(self, key: bytes, range_end: bytes) -> bool:
        """Whether every key of a request's range is; an empty `range_end` means the key alone."""
        if not range_end:
            return self.has_key(key)
        if range_end == OPEN_END:
            return bool(key) and self._open_from is not None and key >= self._open_from
        if range_end <= key:
            return self.has_key(key)
        if self._open_from is not None and key >= self._open_from:
            return True
        at = bisect_right(self._begins, key)
        return at > 0 and range_end <= self._ends[at - 1]

    def check(self) -> None:
        """Asserts the invariants at the head of this module."""
        points = [point for pair in zip(self._begins, self._ends, strict=True) for point in pair]
        if self._open_from is not None:
            points.append(self._open_from)
        assert all(a < b for a, b in pairwise(points)), points
