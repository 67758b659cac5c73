"""Whose turn it is to tell its watchers something.

An event of a range with ten thousand watchers is ten thousand messages. In one turn of the loop at
most `TOLD_PER_TURN` watchers are told, of all broadcasts together, and broadcasts take turns; so
other requests pass between. While nobody waits and the turn has room, telling is immediate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

TOLD_PER_TURN: Final = 500  # watchers, about 2.5 ms


class Teller(Protocol):
    """A broadcast with something to tell."""

    @property
    def busy(self) -> bool:
        """Whether somebody is yet to be told something."""

    def tell(self, most: int) -> int:
        """Tells up to `most` receivers; returns how many."""


class Deliveries:
    """The broadcasts that tell. Owned by the loop."""

    __slots__ = ("_call_soon", "_left", "_scheduled", "_waiting", "told_per_turn")

    def __init__(
        self, call_soon: Callable[[Callable[[], None]], Any], told_per_turn: int = TOLD_PER_TURN
    ) -> None:
        self.told_per_turn = told_per_turn
        self._call_soon = call_soon
        self._left = told_per_turn  # of this turn
        self._scheduled = False
        self._waiting: deque[Teller] = deque()

    def begin(self, teller: Teller) -> None:
        """It has become busy."""
        self._waiting.append(teller)
        if len(self._waiting) == 1:
            self._tell()

    def _tell(self) -> None:
        waiting = self._waiting
        while waiting and self._left > 0:
            teller = waiting[0]
            self._left -= max(teller.tell(self._left), 1)
            if waiting and waiting[0] is teller:
                waiting.popleft()
                if teller.busy:
                    waiting.append(teller)
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._left = self.told_per_turn
        if self._waiting:
            self._tell()
