"""How much an input may cost: bytes held, seconds, and work that grows with it.

Bytes are what Python's allocator gave out at the most (`tracemalloc`); work is counted in lines
that were executed, so that it is the same on every machine. Seconds are looked at only where a
fuzzer runs for itself.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

from .target import Target

GROWTH_MAX = 6.0  # of the lines when an input is four times as long


class CostError(AssertionError):
    """An input costs more than its length allows."""


def within_memory(target: Target, data: bytes) -> None:
    """Runs an input once; raises CostError when it held too many bytes."""
    tracemalloc.start()
    try:
        target.once(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    allowed = target.held_bytes + target.held_per_byte * len(data)
    if peak > allowed:
        raise CostError(f"{target.name}: {len(data)} bytes made it hold {peak}, above {allowed}")


def within_time(target: Target, data: bytes) -> None:
    """Runs an input; raises CostError when it is too slow three times in a row."""
    allowed = target.seconds + target.seconds_per_byte * len(data)
    for _ in range(3):
        begun = time.process_time()
        target.once(data)
        took = time.process_time() - begun
        if took <= allowed:
            return
    raise CostError(f"{target.name}: {len(data)} bytes took {took:.3f} s, above {allowed:.3f}")


def lines_of(run: Callable[[], None]) -> int:
    """How many lines of the package a run executes."""
    lines = 0

    def within(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
        return within

    def entered(frame: FrameType, event: str, argument: Any) -> Any:
        return within if "/keyraft/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines


def within_growth(target: Target, family: Callable[[int], bytes], units: int) -> None:
    """Raises CostError when four times the input is more than six times the work."""
    small, large = family(units), family(4 * units)
    target.once(small)  # what is made once is not counted
    few, many = (lines_of(lambda data=data: target.once(data)) for data in (small, large))  # type: ignore[misc]
    if many > GROWTH_MAX * max(few, 200):
        raise CostError(
            f"{target.name}: {len(small)} bytes are {few} lines of work, {len(large)} are {many}"
        )
