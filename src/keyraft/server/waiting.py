"""Who waits for which proposal: stamps to callbacks, forgotten together when their time is over.

All proposals of one turn share one deadline, so expiry costs one comparison a turn, not one timer
a request. A callback is called exactly once: with the result of apply, with a timeout, or when the
member stops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from keyraft.base.errors import EtcdError, RawError

Result = bytes | EtcdError | RawError
"""What apply answers: the encoded response, or the refusal."""

Done = Callable[[Result], None]


class WaitTable:
    """Stamps to callbacks. Owned by the member's loop."""

    __slots__ = ("_batches", "_waiting", "pop")

    def __init__(self) -> None:
        self._waiting: dict[bytes, Done] = {}
        self._batches: deque[tuple[float, float, list[bytes]]] = deque()
        self.pop = self._waiting.pop

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, stamp: bytes, done: Done) -> None:
        """Registers one; the batch it belongs to is closed by `close_batch`."""
        self._waiting[stamp] = done

    def close_batch(self, start_s: float, deadline_s: float, stamps: list[bytes]) -> None:
        """`stamps` were proposed at `start_s` and expire at `deadline_s` (monotonic)."""
        self._batches.append((start_s, deadline_s, stamps))

    def waits(self, stamp: bytes) -> bool:
        """Somebody here wants the answer to it."""
        return stamp in self._waiting

    def expire(self, now_s: float, why: Callable[[float], EtcdError]) -> int:
        """Fails what is overdue with `why(start of the proposal)`; returns how many."""
        count = 0
        waiting = self._waiting
        while self._batches:
            start_s, deadline_s, stamps = self._batches[0]
            if deadline_s > now_s and (
                stamps[-1] in waiting or any(stamp in waiting for stamp in stamps)
            ):
                break
            self._batches.popleft()
            for stamp in stamps:
                done = waiting.pop(stamp, None)
                if done is not None:
                    count += 1
                    done(why(start_s))
        return count

    def fail_all(self, error: EtcdError) -> int:
        """Answers everybody with `error`: the member stops."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        self._batches.clear()
        for done in waiting:
            done(error)
        return len(waiting)
