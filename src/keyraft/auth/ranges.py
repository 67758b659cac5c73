"""Which keys a set of permissions covers: intervals, merged until none touch.

A permission is one key, the interval [key, end), or everything from a key on. What a user may read
(or write) is the union of such intervals over all roles. `end` None means "to the end of the
keyspace", which requests spell as a range end of one zero byte.

Source: etcd `server/auth/range_perm_cache.go`, `pkg/adt/interval_tree.go` (the rules, not the tree).

DEVIATION: a request whose range ends before it begins is granted if its key is. The original's tree
search does the same, but misses the interval when a node on its way lies between the two ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Final

from keyraft.base.intervals import Intervals

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


def _test_of(keys: Intervals) -> Callable[[bytes], bool]:
    """Whether a key is in one of them; most roles have one interval, where two comparisons do."""
    intervals = list(keys)
    if len(intervals) != 1:
        return keys.has
    begin, end = intervals[0]
    if end is None:
        return begin.__le__
    bound = end

    def has(key: bytes) -> bool:
        return begin <= key < bound

    return has


class Ranges:
    """A set of keys made of intervals; changed by nobody."""

    __slots__ = ("_keys", "has")

    def __init__(self, intervals: Iterable[Interval]) -> None:
        """Intervals in any order; one without a key, or that ends before its key, is empty."""
        some = [each for each in intervals if each[0]]
        some.sort(key=itemgetter(0))
        self._keys = Intervals.union_of(some)
        self.has = _test_of(self._keys)  # whether one key is

    def has_range(self, key: bytes, range_end: bytes) -> bool:
        """Whether every key of a request's range is; an empty `range_end` means the key alone."""
        if range_end == OPEN_END:
            return bool(key) and self._keys.has_all(key, None)
        if range_end <= key:
            return self._keys.has(key)
        return self._keys.has_all(key, range_end)

    def same(self, other: Ranges) -> bool:
        """Whether both hold the same keys."""
        return self._keys.same(other._keys)

    def check(self) -> None:
        """The invariants of `base.intervals`; raises InvariantError."""
        self._keys.check()
