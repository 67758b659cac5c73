"""`grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests")."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from math import ceil
from typing import Final

_UNITS_S: Final = {
    0x48: 3600.0,  # H
    0x4D: 60.0,  # M
    0x53: 1.0,  # S
    0x6D: 1e-3,  # m
    0x75: 1e-6,  # u
    0x6E: 1e-9,  # n
}
DIGITS_MAX: Final = 8
_ROUNDING: Final = 1e-6  # of a unit: what floating point may add to a whole number
_SLACK_ENTRIES: Final = 64  # below this many dead entries the heap is not made anew


def parse_timeout(value: bytes) -> float | None:
    """Seconds, or None when the value is malformed."""
    digits = value[:-1]
    if not 1 <= len(digits) <= DIGITS_MAX or not digits.isdigit():
        return None
    unit = _UNITS_S.get(value[-1])
    return None if unit is None else int(digits) * unit


def format_timeout(seconds: float) -> bytes:
    """The finest unit that fits eight digits, rounded up; nothing left is one nanosecond."""
    if seconds <= 0:
        return b"1n"
    for suffix, per_second in ((b"n", 1e9), (b"u", 1e6), (b"m", 1e3), (b"S", 1.0)):
        count = ceil(seconds * per_second - _ROUNDING)
        if count < 10**DIGITS_MAX:
            return b"%d%s" % (max(count, 1), suffix)
    return b"%dH" % min(ceil(seconds / 3600.0), 10**DIGITS_MAX - 1)


class Deadlines:
    """The deadlines of streams: a heap, in which entries of ended streams stay.

    Most calls end long before their deadline, and removing an entry from a heap is expensive. So
    entries stay, and when there are twice as many dead as living ones, the heap is made anew.
    """

    __slots__ = ("heap",)

    def __init__(self) -> None:
        self.heap: list[tuple[float, int]] = []

    def add(self, at: float, stream_id: int, living: Mapping[int, object]) -> None:
        """Notes a deadline; `living` holds the streams that are still open."""
        heap = self.heap
        if len(heap) > _SLACK_ENTRIES + 2 * len(living):
            heap = self.heap = [entry for entry in heap if entry[1] in living]
            heapify(heap)
        heappush(heap, (at, stream_id))

    def due(self, now: float, most: int) -> list[int]:
        """Removes and returns up to `most` streams past their deadline, the earliest first."""
        heap: list[tuple[float, int]] = self.heap
        found: list[int] = []
        while heap and heap[0][0] <= now and len(found) < most:
            found.append(heappop(heap)[1])
        return found
