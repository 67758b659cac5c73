"""Which id is due next, among many ids whose due times are often moved to later.

A heap holds one entry (time, id) for each id. The owner knows the true time (`due_of`); the heap's
time may be earlier. So moving an id to a later time costs nothing: when its old entry comes up, it
is put back with the true time. Ten thousand renewals a second do not touch the heap.

Invariants: each id that has a due time has an entry no later than that time; the heap has at most
twice as many entries as the owner has ids, plus a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from heapq import heapify, heappop, heappush
from typing import Final

_STALE_ENTRIES_MIN: Final = 1_024  # below this many entries the heap is never rebuilt


class DueQueue:
    """Ids by the time they fall due, in monotonic seconds.

    `due_of(id)` returns the true time, or None for an id that is gone. `live()` lists the ids that
    have a time; it is called to remove stale entries.
    """

    __slots__ = ("_due_of", "_heap", "_live", "_rebuild_at")

    def __init__(
        self, due_of: Callable[[int], float | None], live: Callable[[], Collection[int]]
    ) -> None:
        self._due_of = due_of
        self._live = live
        self._heap: list[tuple[float, int]] = []
        self._rebuild_at = _STALE_ENTRIES_MIN

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, due_s: float, item: int) -> None:
        """Enters an id that has no entry, or one whose time is now earlier."""
        heappush(self._heap, (due_s, item))
        if len(self._heap) >= self._rebuild_at:
            self._rebuild_at = max(_STALE_ENTRIES_MIN, 2 * len(self._live()))
            if len(self._heap) >= self._rebuild_at:
                self.rebuild()

    def rebuild(self) -> None:
        """Makes the heap anew, with one entry for each id that has a time."""
        due_of = self._due_of
        entries = [(due, item) for item in self._live() if (due := due_of(item)) is not None]
        heapify(entries)
        self._heap = entries
        self._rebuild_at = max(_STALE_ENTRIES_MIN, 2 * len(entries))

    def clear(self) -> list[tuple[float, int]]:
        """Removes all entries and returns them, because freeing many takes time."""
        heap, self._heap = self._heap, []
        self._rebuild_at = _STALE_ENTRIES_MIN
        return heap

    def pop_due(self, now: float) -> int | None:
        """Takes out and returns an id whose time is not after `now`, or None."""
        heap = self._heap
        due_of = self._due_of
        while heap and heap[0][0] <= now:
            _, item = heappop(heap)
            due = due_of(item)
            if due is None:
                continue
            if due <= now:
                return item
            heappush(heap, (due, item))
        return None
