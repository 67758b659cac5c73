"""Threads that do the costly steps of TLS handshakes: signatures, key exchange, chains.

OpenSSL gives the interpreter's lock back while it computes, so the loop's thread goes on meanwhile.
A thread is started when there is work and none is free, and ends when it had none for a while;
nobody needs to stop it. A pool belongs to one loop's thread and usually to one listener, so that
who floods one port does not keep the handshakes of another port waiting.

What is queued is bounded by the connections that shake hands: each has at most one step under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from typing import Final, Protocol

THREADS_MAX: Final = 4
IDLE_S: Final = 5.0  # after which a thread without work ends
BEGUN_PER_TURN: Final = 4  # connections that begin in one turn of the loop; each costs about 0.3 ms


class Step(Protocol):
    """A connection that shakes hands."""

    def work(self) -> None:
        """Called in a thread: touches nothing that the loop's thread may touch meanwhile."""

    def worked(self) -> bool:
        """Called on the loop's thread afterwards; true when the connection has begun."""


def threads_max() -> int:
    """One core stays with the loop."""
    return max(1, min(THREADS_MAX, (os.cpu_count() or 1) - 1))


class Workers:
    """A pool of threads. Its methods are called on the loop's thread.

    The interpreter's lock makes each operation on the lists one; what two threads might miss of each
    other they look at again: a thread for steps after it has lain down and after it is counted out,
    the loop for what is done after it has said that it will not look.
    """

    __slots__ = (
        "_asleep",
        "_done",
        "_idle_s",
        "_lock",
        "_loop",
        "_most",
        "_scheduled",
        "_steps",
        "threads",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, most: int | None = None, idle_s: float = IDLE_S
    ) -> None:
        self._loop = loop
        self._most = threads_max() if most is None else most
        self._idle_s = idle_s
        self._lock = threading.Lock()  # for `threads`
        # Not a SimpleQueue: in Python 3.11 its `get` may wait for ever where it is woken too late.
        # Nor a Queue, which costs more than the rest of a hand-over.
        self._steps: deque[Step] = deque()
        self._asleep: list[threading.Lock] = []  # held; released to wake a thread
        self._done: deque[Step] = deque()
        self._scheduled = False  # `_report` runs soon
        self.threads = 0

    def submit(self, step: Step) -> None:
        """Has `step.work` called in a thread, then `step.worked` on the loop."""
        self._steps.append(step)
        try:
            self._asleep.pop().release()
            return
        except IndexError:  # all are at work
            pass
        with self._lock:
            start = self.threads < self._most
            self.threads += start
        if start:
            threading.Thread(target=self._run, name="tls", daemon=True).start()

    def later(self, step: Step) -> None:
        """Has `step.worked` called when it is its turn, without a thread."""
        self._done.append(step)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._report)

    def _run(self) -> None:
        steps, done = self._steps, self._done
        bed = threading.Lock()
        bed.acquire()
        while True:
            try:
                step = steps.popleft()
            except IndexError:
                if not self._sleep(bed) and self._may_end():
                    return
                continue
            step.work()
            done.append(step)
            if not self._scheduled:
                self._scheduled = True
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._report)

    def _sleep(self, bed: threading.Lock) -> bool:
        """Waits until there is a step, and may find none; False when there was none for a while."""
        self._asleep.append(bed)
        if not self._steps and bed.acquire(timeout=self._idle_s):
            return True
        try:
            self._asleep.remove(bed)
        except ValueError:  # `submit` wakes this thread this very moment
            bed.acquire()
            return True
        return bool(self._steps)

    def _may_end(self) -> bool:
        with self._lock:
            self.threads -= 1
            if self._steps:  # a step was queued this very moment
                self.threads += 1
                return False
        return True

    def _report(self) -> None:
        """On the loop: tells connections that their step is done, and lets a few begin."""
        done, left = self._done, BEGUN_PER_TURN
        while left:
            if not done:
                self._scheduled = False
                if not done or self._scheduled:
                    return
                self._scheduled = True  # one was done this very moment
            left -= done.popleft().worked()
        self._loop.call_soon(self._report)
