"""Spreads deadlines: at most so many in any second, and none is moved to an earlier time.

A new leader starts all leases anew, so those of equal TTL would run out together. Each deadline is
placed in its own second, or in the first later one that has room. The leases come in any order and
one by one, so that a promotion may be done in slices. A full second points to the next one that may
have room, and the pointers are shortened while they are followed (union-find), so the cost of a
placement is nearly constant.

Invariant: a second without a pointer has room.
"""

from __future__ import annotations


class Spread:
    """Seconds from `start_s` on, monotonic, and how many deadlines each has."""

    __slots__ = ("_counts", "_full", "_per_second_max", "_start_s")

    def __init__(self, start_s: float, per_second_max: int) -> None:
        self._start_s = start_s
        self._per_second_max = per_second_max
        self._counts: dict[int, int] = {}
        self._full: dict[int, int] = {}  # a full second -> the next to try

    def place(self, deadline_s: float) -> float:
        """The deadline, moved later by whole seconds while they are full."""
        second = int(deadline_s - self._start_s)
        free = second
        full = self._full
        while (onward := full.get(free)) is not None:
            free = onward
        count = self._counts[free] = self._counts.get(free, 0) + 1
        if count >= self._per_second_max:
            full[free] = free + 1
        if free == second:
            return deadline_s
        at = second
        while at < free:
            onward = full[at]
            full[at] = free
            at = onward
        return deadline_s + (free - second)
