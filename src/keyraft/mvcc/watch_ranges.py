"""Which watched ranges contain a key; needed for every event.

There are three kinds, each with its own structure: single keys in a dictionary; ranges without an
end in a list sorted by start, of which all up to the key match; ranges [start, end) in an interval
treap, a search tree by (start, end) in which each node knows the greatest end below it, kept
balanced by priorities drawn at random (Cormen et al., "Interval trees"; Seidel, Aragon).

The bounds of all ranges, sorted, cut the keyspace into *segments*, and all keys of a segment lie in
the same ranges. So the ranges of a segment are searched once and remembered until a range is added
or removed; a binary search finds the segment of a key. With very many ranges, keeping the bounds
sorted would cost more than it saves; then every key is searched.

Invariants (`check`): tree order by (start, end); heap order by priority; `max_end` of a node is
the greatest end in its subtree; every range is found under exactly one shape; the bounds are those
of the ranges there, each once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from itertools import chain, islice
from typing import Final, Generic, TypeVar

from keyraft.base.clock import Random
from keyraft.base.invariants import hold

OPEN: Final = b""
"""The end of a range that goes to the end of the keyspace; no range end is empty otherwise."""

BOUNDS_MAX: Final = 65_536  # an insertion into so many moves 256 KiB, 10 µs
SEGMENT_VALUES_MAX: Final = 16  # answers with more ranges are not remembered

T = TypeVar("T")
_PRIORITY_MAX: Final = 1 << 62


class _Node(Generic[T]):
    """One range [start, end) and the subtree below it."""

    __slots__ = ("end", "left", "max_end", "priority", "right", "start", "value")

    def __init__(self, start: bytes, end: bytes, value: T, priority: int) -> None:
        self.start = start
        self.end = end
        self.value = value
        self.priority = priority
        self.left: _Node[T] | None = None
        self.right: _Node[T] | None = None
        self.max_end = end


class RangeIndex(Generic[T]):
    """Ranges of keys, each with a value; a range is (start, end).

    `end` None: the one key `start`; OPEN: all keys from `start`; else start < end.
    """

    __slots__ = (
        "_bound_uses",
        "_bounds",
        "_bounds_max",
        "_keys",
        "_open",
        "_open_starts",
        "_random",
        "_ranges",
        "_root",
        "_segments",
    )

    def __init__(self, random: Random, bounds_max: int = BOUNDS_MAX) -> None:
        self._random = random
        self._keys: dict[bytes, T] = {}
        self._open: dict[bytes, T] = {}
        self._open_starts: list[bytes] = []
        self._ranges: dict[tuple[bytes, bytes], T] = {}
        self._root: _Node[T] | None = None
        self._bounds_max = bounds_max
        self._bound_uses: dict[bytes, int] = {}  # how many ranges start or end there
        self._bounds: list[bytes] | None = []  # the same, sorted; None: too many
        self._segments: dict[int, tuple[T, ...]] = {}  # by the number of bounds not above

    def __len__(self) -> int:
        return len(self._keys) + len(self._open) + len(self._ranges)

    def get(self, start: bytes, end: bytes | None) -> T | None:
        """The value of exactly this range."""
        if end is None:
            return self._keys.get(start)
        if end == OPEN:
            return self._open.get(start)
        return self._ranges.get((start, end))

    def add(self, start: bytes, end: bytes | None, value: T) -> None:
        """Enters a range that is not there."""
        assert self.get(start, end) is None, f"range {start!r}..{end!r} is there"
        if end is None:
            self._keys[start] = value
        elif end == OPEN:
            self._open[start] = value
            insort(self._open_starts, start)
            self._bound(start)
        else:
            assert start < end, f"empty range {start!r}..{end!r}"
            self._ranges[(start, end)] = value
            priority = self._random.randrange(0, _PRIORITY_MAX)
            self._root = _insert(self._root, _Node(start, end, value, priority))
            self._bound(start)
            self._bound(end)

    def remove(self, start: bytes, end: bytes | None) -> None:
        """Takes out a range that is there."""
        if end is None:
            del self._keys[start]
        elif end == OPEN:
            del self._open[start]
            del self._open_starts[bisect_left(self._open_starts, start)]
            self._unbound(start)
        else:
            del self._ranges[(start, end)]
            self._root = _remove(self._root, start, end)
            self._unbound(start)
            self._unbound(end)

    def find(self, key: bytes) -> tuple[T, ...]:
        """The values of all ranges that hold `key`; the order is the same for the same ranges."""
        value = self._keys.get(key)
        bounds = self._bounds
        if bounds is None:
            found = self._covering(key)
        else:
            segment = bisect_right(bounds, key)
            known = self._segments.get(segment)
            if known is None:
                found = self._covering(key)
                if len(found) <= SEGMENT_VALUES_MAX:
                    self._segments[segment] = found
            else:
                found = known
        return found if value is None else (value, *found)

    def _covering(self, key: bytes) -> tuple[T, ...]:
        """The values of the ranges that are more than one key."""
        values: list[T] = []
        if self._open:
            starts = self._open_starts
            values += [self._open[start] for start in starts[: bisect_right(starts, key)]]
        if self._root is not None:
            _stab(self._root, key, values)
        return tuple(values)

    def _bound(self, at: bytes) -> None:
        """A range starts or ends there."""
        self._segments.clear()
        uses = self._bound_uses[at] = self._bound_uses.get(at, 0) + 1
        if uses == 1 and self._bounds is not None:
            if len(self._bounds) < self._bounds_max:
                insort(self._bounds, at)
            else:
                self._bounds = None

    def _unbound(self, at: bytes) -> None:
        """A range that started or ended there is gone."""
        self._segments.clear()
        uses = self._bound_uses.pop(at) - 1
        if uses:
            self._bound_uses[at] = uses
        elif self._bounds is not None:
            del self._bounds[bisect_left(self._bounds, at)]
        elif len(self._bound_uses) <= self._bounds_max // 2:
            self._bounds = sorted(self._bound_uses)

    def values(self) -> list[T]:
        """All values."""
        return [*self._keys.values(), *self._open.values(), *self._ranges.values()]

    def some(self, count: int) -> list[T]:
        """As many values, or all there are."""
        values = chain(self._keys.values(), self._open.values(), self._ranges.values())
        return list(islice(values, count))

    def check(self) -> None:
        """The invariants at the head of this module; raises InvariantError."""
        starts = self._open_starts
        hold(starts == sorted(self._open), "open ranges are listed in order", starts)
        seen: list[tuple[bytes, bytes]] = []
        if self._root is not None:
            _check(self._root, seen)
        hold(seen == sorted(self._ranges), "tree and dictionary agree", len(seen))
        bounds = Counter(chain(self._open, *self._ranges))
        hold(self._bound_uses == bounds, "the bounds are those of the ranges", len(bounds))
        if self._bounds is None:
            hold(len(bounds) > self._bounds_max // 2, "few bounds are sorted", len(bounds))
        else:
            hold(self._bounds == sorted(bounds), "the sorted bounds are of now", len(bounds))


def _stab(root: _Node[T], key: bytes, values: list[T]) -> None:
    """Appends the values of the ranges that contain `key`; skips subtrees without any."""
    stack = [root]
    while stack:
        node = stack.pop()
        left = node.left
        if left is not None and left.max_end > key:
            stack.append(left)
        if node.start <= key:
            if key < node.end:
                values.append(node.value)
            right = node.right
            if right is not None and right.max_end > key:
                stack.append(right)


def _update(node: _Node[T]) -> None:
    greatest = node.end
    if node.left is not None and node.left.max_end > greatest:
        greatest = node.left.max_end
    if node.right is not None and node.right.max_end > greatest:
        greatest = node.right.max_end
    node.max_end = greatest


def _split(
    node: _Node[T] | None, start: bytes, end: bytes
) -> tuple[_Node[T] | None, _Node[T] | None]:
    """The nodes before (start, end) and those after it."""
    if node is None:
        return None, None
    if (node.start, node.end) < (start, end):
        node.right, after = _split(node.right, start, end)
        _update(node)
        return node, after
    before, node.left = _split(node.left, start, end)
    _update(node)
    return before, node


def _merge(before: _Node[T] | None, after: _Node[T] | None) -> _Node[T] | None:
    """One tree of two, of which the first is all before the second."""
    if before is None:
        return after
    if after is None:
        return before
    if before.priority > after.priority:
        before.right = _merge(before.right, after)
        _update(before)
        return before
    after.left = _merge(before, after.left)
    _update(after)
    return after


def _insert(root: _Node[T] | None, node: _Node[T]) -> _Node[T]:
    before, after = _split(root, node.start, node.end)
    merged = _merge(_merge(before, node), after)
    assert merged is not None
    return merged


def _remove(root: _Node[T] | None, start: bytes, end: bytes) -> _Node[T] | None:
    assert root is not None, f"range {start!r}..{end!r} is not in the tree"
    if (root.start, root.end) == (start, end):
        return _merge(root.left, root.right)
    if (start, end) < (root.start, root.end):
        root.left = _remove(root.left, start, end)
    else:
        root.right = _remove(root.right, start, end)
    _update(root)
    return root


def _check(node: _Node[T], seen: list[tuple[bytes, bytes]]) -> None:
    greatest = node.end
    for child in (node.left, node.right):
        if child is not None:
            above = child.priority <= node.priority
            hold(above, "a parent's priority is above its child's", child.priority)
            greatest = max(greatest, child.max_end)
    hold(node.max_end == greatest, "a node knows its subtree's end", node.max_end, greatest)
    if node.left is not None:
        _check(node.left, seen)
    hold(not seen or seen[-1] < (node.start, node.end), "the tree is in order", node.start)
    seen.append((node.start, node.end))
    if node.right is not None:
        _check(node.right, seen)
