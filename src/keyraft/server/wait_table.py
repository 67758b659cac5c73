"""Who waits for which proposal: stamps to waiters, forgotten together when their time is over.

All proposals of one tick share one deadline, so expiry costs one comparison a tick, not one timer
a request. A waiter is answered exactly once: with the result of apply, with a timeout, or when the
member stops. A gRPC call is a waiter as it is, so the hot path makes no object for one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from keyraft.base.errors import BY_TEXT, EtcdError, RawError

Result = bytes | EtcdError | RawError
"""What apply answers: the encoded response, or the refusal."""

Done = Callable[[Result], None]


class Waiter(Protocol):
    """Whoever wants the answer; a gRPC call is one as it is."""

    on_cancel: Callable[[Any, int], None] | None
    """The member's, from the proposal on: to be called with the waiter and a status code when it
    gives up."""

    ticket: bytes  # the stamp of its proposal; the member's, too
    began_s: float  # when it began to wait, on the loop's clock

    def respond(self, message: bytes) -> None:
        """It was applied, and this is the encoded response."""

    def fail(self, code: int, text: str) -> None:
        """It was refused."""


class DoneWaiter:
    """A waiter that passes the result, whichever it is, to one callback."""

    __slots__ = ("_done", "began_s", "on_cancel", "ticket")

    ticket: bytes

    def __init__(self, done: Done, began_s: float) -> None:
        self._done = done
        self.began_s = began_s
        self.on_cancel: Callable[[Any, int], None] | None = None

    def respond(self, message: bytes) -> None:
        """The response."""
        self._done(message)

    def fail(self, code: int, text: str) -> None:
        """The refusal, as the kind of error that its text stands for."""
        kind = BY_TEXT.get(text)
        self._done(kind() if kind is not None else RawError(code, text))


class WaitTable:
    """Stamps to waiters. Owned by the member's loop."""

    __slots__ = ("_batches", "_waiting", "pop")

    def __init__(self) -> None:
        self._waiting: dict[bytes, Waiter] = {}
        self._batches: deque[tuple[float, float, list[bytes]]] = deque()
        self.pop = self._waiting.pop

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, stamp: bytes, waiter: Waiter) -> None:
        """Registers one; the batch it belongs to is closed by `close_batch`."""
        self._waiting[stamp] = waiter

    def close_batch(self, start_s: float, deadline_s: float, stamps: list[bytes]) -> None:
        """`stamps` were proposed at `start_s` and expire at `deadline_s` (monotonic)."""
        self._batches.append((start_s, deadline_s, stamps))

    def expire(self, now_s: float, late: Callable[[bytes, Waiter, float], None]) -> None:
        """Forgets what is overdue, and hands it to `late` with the start of its proposal."""
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
