"""Time and random numbers, as protocols that are handed to every part (docs/ARCHITECTURE.md).

`app` hands in the real ones, the simulator a virtual loop and a seed. An asyncio event loop
satisfies `Loop` as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Cancels the call; harmless when it has run."""


class Loop(Protocol):
    """The one thread that owns all state of a member."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any:
        """Runs `callback` in the next turn."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Runs `callback` after `delay` seconds."""


class ThreadedLoop(Loop, Protocol):
    """A loop that other threads can hand results to."""

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> Any:
        """Runs `callback` in the next turn; may be called by any thread."""


class WallClock(Protocol):
    """Wall-clock time."""

    def __call__(self) -> float:
        """Unix seconds."""


class Random(Protocol):
    """The part of `random.Random` that cores may use."""

    def randrange(self, start: int, stop: int) -> int:
        """An integer in [start, stop)."""

    def random(self) -> float:
        """A float in [0, 1)."""
