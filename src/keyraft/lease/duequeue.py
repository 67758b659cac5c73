"""What falls due next, among many whose time keeps being put off.

A heap holds one entry (time, id) for each id; the time that counts is the owner's (`due_of`), and
the heap's may be earlier. Putting an id off is therefore free: when its old entry comes up it goes
back in at the time that counts. Ten thousand renewals a second touch no heap.

Invariants: an id that the owner gives a time has an entry no later than that time; the heap is no
longer than twice the ids that the owner has, plus a constant, however ids come and go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from heapq import heapify, heappop, heappush
from typing import Final

_STALE_ENTRIES_MIN: Final = 1_024  # below this many entries the heap is never rebuilt


class DueQueue:
    """Ids by the time they fall due, in monotonic seconds.

    `due_of(id)` is the owner's word: the time, or None for an id that is gone.
    `live()` lists the ids that have a time; it is asked when stale entries must go.
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
        """Enters an id that has no entry, or one whose time has moved forward."""
        heappush(self._heap, (due_s, item))
        if len(self._heap) >= self._rebuild_at:
            self._rebuild_at = max(_STALE_ENTRIES_MIN, 2 * len(self._live()))
            if len(self._heap) >= self._rebuild_at:
                self.rebuild()

    def rebuild(self) -> None:
        """One entry for each id that the owner gives a time."""
        due_of = self._due_of
        entries = [(due, item) for item in self._live() if (due := due_of(item)) is not None]
        heapify(entries)
        self._heap = entries
        self._rebuild_at = max(_STALE_ENTRIES_MIN, 2 * len(entries))

    def clear(self) -> list[tuple[float, int]]:
        """Forgets all entries, and returns them: freeing many takes its time."""
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

    def next_due_s(self) -> float | None:
        """No id falls due before this; None when none ever does."""
        return self._heap[0][0] if self._heap else None
