"""Calls that wait until this member has applied an entry whose index a client gave.

The index comes from the client, as part of a simple token, so it may never come. So each wait has a
time limit. One waiter is one open call, and those are limited.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

from keyraft.base.errors import EtcdError

Waiting = Callable[[EtcdError | None], None]


class ApplyWait:
    """Waiters by the index that they wait for. Owned by the member's loop."""

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, float, Waiting]] = []  # index, order, deadline, waiter
        self._order = count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, index: int, deadline_s: float, done: Waiting) -> None:
        """`done(None)` once `index` is applied."""
        heappush(self._heap, (index, next(self._order), deadline_s, done))

    def applied(self, index: int) -> None:
        """Everything up to `index` is."""
        heap = self._heap
        while heap and heap[0][0] <= index:
            heappop(heap)[3](None)

    def expire(self, now_s: float, error: EtcdError) -> None:
        """Calls `done(error)` of those that have waited too long."""
        late = [each for each in self._heap if each[2] <= now_s]
        if late:
            self._heap = [each for each in self._heap if each[2] > now_s]
            heapify(self._heap)
            for _, _, _, done in sorted(late, key=lambda each: each[1]):
                done(error)
