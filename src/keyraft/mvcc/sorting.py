"""Sorting in steps, for a list that is too long to be sorted at once.

Runs of some thousand items are sorted, one in each step. Then pivots are chosen from a sample of
all runs. In each further step the items between two pivots are collected from all runs and sorted.
Equal items stay in their order. Items equal to a pivot need no sorting, so a step is short even if
all are equal.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

RUN_SLICES: Final = 8  # slices of keys that one run has: sorting is cheaper than reading
SAMPLE: Final = 32  # one item of so many is a candidate for a pivot

T = TypeVar("T")


def sort_steps(
    unsorted: list[T], by: Callable[[Any], Any] | None, descending: bool, slice_keys: int
) -> Generator[None, None, list[T]]:
    """`sorted(unsorted, key=by, reverse=descending)`, handing control back between steps; no `by`:
    items are sorted by themselves."""
    items: list[Any] = unsorted
    run_items = RUN_SLICES * slice_keys
    if len(items) <= run_items:
        return sorted(items, key=by, reverse=descending)
    if descending:
        # Equal items must keep their order also in a descending sort. So the list is sorted
        # ascending from its end, and the result is reversed.
        items = items[::-1]
    runs: list[list[Any]] = []
    for first in range(0, len(items), run_items):
        runs.append(sorted(items[first : first + run_items], key=by))
        yield
    some: list[Any] = [item for run in runs for item in run[::SAMPLE]]
    sample = sorted(map(by, some) if by is not None else some)
    yield
    # An item so frequent that a piece would hold too many of it is among the pivots.
    pivots = dict.fromkeys(sample[:: max(1, run_items // (2 * SAMPLE))])
    out: list[Any] = []
    starts = [0] * len(runs)
    for pivot in pivots:
        piece: list[Any] = []
        alike: list[Any] = []
        for number, run in enumerate(runs):
            start = starts[number]
            low = bisect_left(run, pivot, start, key=by)
            high = bisect_right(run, pivot, low, key=by)
            piece += run[start:low]
            alike += run[low:high]
            starts[number] = high
        piece.sort(key=by)
        out += piece
        out += alike
        yield
    piece = []
    for start, run in zip(starts, runs, strict=True):
        piece += run[start:]
    piece.sort(key=by)
    out += piece
    if descending:
        out.reverse()
    return out
