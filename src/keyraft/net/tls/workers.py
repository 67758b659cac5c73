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
import queue
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
    """A pool of threads. Its methods are called on the loop's thread."""

    __slots__ = (
        "_busy",
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
        self._lock = threading.Lock()
        # Not a SimpleQueue: in Python 3.11 its `get` may wait for ever where it is woken too late.
        self._steps: queue.Queue[Step] = queue.Queue()
        self._done: deque[Step] = deque()
        self._scheduled = False  # `_report` runs soon
        self._busy = 0  # steps queued or under way
        self.threads = 0

    def submit(self, step: Step) -> None:
        """Has `step.work` called in a thread, then `step.worked` on the loop."""
        with self._lock:
            self._busy += 1
            start = self._busy > self.threads and self.threads < self._most
            if start:
                self.threads += 1
        self._steps.put(step)
        if start:
            threading.Thread(target=self._run, name="tls", daemon=True).start()

    def later(self, step: Step) -> None:
        """Has `step.worked` called when it is its turn, without a thread."""
        self._done.append(step)
        with self._lock:
            report, self._scheduled = not self._scheduled, True
        if report:
            self._loop.call_soon(self._report)

    def _run(self) -> None:
        take, done = self._steps.get, self._done
        while True:
            try:
                step = take(True, self._idle_s)
            except queue.Empty:
                with self._lock:
                    if self._busy >= self.threads:
                        continue  # a step was queued this very moment
                    self.threads -= 1
                return
            step.work()
            done.append(step)
            with self._lock:
                self._busy -= 1
                report, self._scheduled = not self._scheduled, True
            if report:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._report)

    def _report(self) -> None:
        """On the loop: tells connections that their step is done, and lets a few begin."""
        done, left = self._done, BEGUN_PER_TURN
        while left:
            with self._lock:
                if not done:
                    self._scheduled = False
                    return
            left -= done.popleft().worked()
        self._loop.call_soon(self._report)
