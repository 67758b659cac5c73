"""Committed entries, one after another, in slices that never hold the loop for long.

Entries are applied in log order, each whole; between two slices the loop serves sockets, ticks and
syncs. What was applied before a crash is told by the consistent index in the database: up to it
entries touch nothing but what lives in memory. It and the writes of an entry land in the same
batch of the database, because batches are sealed between entries, never within one; the index
counts an entry only once all of it is done.

Invariant: `applied_index` only grows, by one an entry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from keyraft.base.clock import Loop
from keyraft.base.limits import LOOP_SLICE_S
from keyraft.raft import Entry

_CHUNK_ENTRIES: Final = 64  # between two looks at the clock
HOLD_S: Final = 0.01  # between two looks at a database that cannot keep up


class ApplyQueue:
    """Entries that wait for their turn. Owned by the member's loop."""

    __slots__ = (
        "_apply",
        "_at",
        "_done",
        "_held",
        "_loop",
        "_overloaded",
        "_queue",
        "_running",
        "_scheduled",
        "_slow",
        "_slow_s",
        "applied_index",
    )

    def __init__(
        self,
        loop: Loop,
        applied_index: int,
        apply: Callable[[Entry], None],
        done: Callable[[int, int, float], None],
        slow_s: float,
        slow: Callable[[int, int, float], None],
        overloaded: Callable[[], bool],
    ) -> None:
        """`apply` takes one entry; `done(applied index, entries, seconds)` follows every slice.

        `slow(first index, last index, seconds)` is told of entries that together took longer
        than `slow_s` although there were no more than a few dozen. While `overloaded` nothing is
        applied: the database lags so far behind that its buffer must not grow.
        """
        self._loop = loop
        self._apply = apply
        self._done = done
        self._slow_s = slow_s
        self._slow = slow
        self._overloaded = overloaded
        self._queue: deque[list[Entry]] = deque()
        self._at = 0
        self._scheduled = False
        self._running = False
        self._held = 0
        self.applied_index = applied_index

    def __len__(self) -> int:
        return sum(map(len, self._queue)) - self._at

    def submit(self, entries: list[Entry]) -> None:
        """Queues committed entries and applies a first slice of what waits."""
        self._queue.append(entries)
        if not self._scheduled and not self._running:
            self._slice()

    def hold(self) -> None:
        """Applies nothing more until as many calls of `release` have come."""
        self._held += 1

    def release(self) -> None:
        """Takes one `hold` back."""
        assert self._held > 0, self._held
        self._held -= 1
        if not self._held and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._slice)

    def drain(self) -> None:
        """Applies everything now: the next step depends on it (a configuration change)."""
        while self._queue:
            self._run(float("inf"))

    def _slice(self) -> None:
        self._scheduled = False
        if self._queue and not self._running:
            if self._held:
                return
            if self._overloaded():
                self._scheduled = True
                self._loop.call_later(HOLD_S, self._slice)
                return
            self._run(self._loop.time() + LOOP_SLICE_S)
            if self._queue and not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._slice)

    def _run(self, until_s: float) -> None:
        apply = self._apply
        queue = self._queue
        time = self._loop.time
        start_s = now_s = time()
        count = 0
        self._running = True
        try:
            while queue and now_s < until_s:
                entries = queue[0]
                first = self._at
                stop = min(first + _CHUNK_ENTRIES, len(entries))
                for entry in entries[first:stop]:
                    apply(entry)
                    self.applied_index = entry.index
                count += stop - first
                if stop == len(entries):
                    queue.popleft()
                    self._at = 0
                else:
                    self._at = stop
                before_s, now_s = now_s, time()
                if now_s - before_s > self._slow_s:
                    first_index = self.applied_index - (stop - first) + 1
                    self._slow(first_index, self.applied_index, now_s - before_s)
        finally:
            self._running = False
        self._done(self.applied_index, count, now_s - start_s)
