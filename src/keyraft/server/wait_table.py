"""The waiters of proposals, by stamp; they expire in batches.

All proposals of one tick share one deadline, so expiry costs one comparison a tick, not one timer
a request. A waiter is answered exactly once: with the result of apply, with a timeout, or when the
member stops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

from keyraft.base.errors import EtcdError
from keyraft.base.invariants import hold
from keyraft.base.waiters import Waiter


class WaitTable:
    """Stamps to waiters. Owned by the member's loop."""

    __slots__ = ("_batches", "_waiting", "fresh", "pop")

    def __init__(self) -> None:
        self._waiting: dict[bytes, Waiter] = {}
        self._batches: deque[tuple[float, float, list[bytes]]] = deque()
        self.fresh: list[bytes] = []  # added since the last `close_batch`, by whoever adds
        self.pop = self._waiting.pop

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, stamp: bytes, waiter: Waiter) -> None:
        """Registers one; its stamp also goes into `fresh`, unless it was here before."""
        self._waiting[stamp] = waiter

    def oldest_s(self) -> float:
        """When the request that waits longest began; infinity if none waits."""
        return min((waiter.began_s for waiter in self._waiting.values()), default=inf)

    def close_batch(self, start_s: float, deadline_s: float) -> None:
        """What is fresh was proposed up to `start_s` and expires at `deadline_s` (monotonic)."""
        if self.fresh:
            self._batches.append((start_s, deadline_s, self.fresh))
            self.fresh = []

    def expire(self, now_s: float, late: Callable[[bytes, Waiter, float], None]) -> None:
        """Removes expired waiters, and calls `late` for each with the start of its proposal."""
        waiting = self._waiting
        while self._batches:
            start_s, deadline_s, stamps = self._batches[0]
            if deadline_s > now_s and (
                stamps[-1] in waiting or not waiting.keys().isdisjoint(stamps)
            ):
                break
            self._batches.popleft()
            if deadline_s > now_s:
                continue
            for stamp in stamps:
                waiter = waiting.pop(stamp, None)
                if waiter is not None:
                    late(stamp, waiter, start_s)

    def fail_all(self, error: EtcdError) -> int:
        """Answers everybody with `error`: the member stops."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        self._batches.clear()
        for waiter in waiting:
            waiter.fail(error.code, error.text)
        return len(waiting)

    def check(self) -> None:
        """Everybody who waits has a deadline, or gets one with the next tick. Raises
        InvariantError."""
        before = inf
        dated = set(self.fresh)
        for _, deadline_s, stamps in reversed(self._batches):
            hold(deadline_s <= before, "deadlines ascend", deadline_s, before)
            before = deadline_s
            dated.update(stamps)
        lost = self._waiting.keys() - dated
        hold(not lost, "who waits has a deadline", sorted(lost)[:3])
