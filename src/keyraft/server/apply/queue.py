"""Applies committed entries, one after another, in slices that never hold the loop for long.

Entries are applied in log order. Most take one call each. One whose work grows with the data
(`Work`) is carried out in steps, over several turns of the loop. Between two slices the loop serves
sockets, ticks and syncs. No other entry is applied before this one has ended, and readers see the
state before it meanwhile (see `mvcc.Store`).

The consistent index in the database tells what was applied before a crash: entries up to it change
only state in memory. The index and the writes of an entry are in the same batch of the database.
Batches are sealed between entries and never within one; `open_entry` and `close_entry` keep the
batch open while an entry takes several turns. The index counts an entry only when all of it is
done. So a crash within an entry loses the whole entry from the database, and the log has it.

Invariant: `applied_index` only grows, by one an entry, or with a snapshot to that of the snapshot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Final

from keyraft.base.clock import Loop
from keyraft.base.invariants import hold
from keyraft.base.limits import LOOP_SLICE_S
from keyraft.raft import Entry

Work = Generator[None, None, None]
"""The rest of an entry that takes several steps, each of about a millisecond."""

_CHUNK_ENTRIES: Final = 64  # between two readings of the clock
HOLD_S: Final = 0.01  # between two checks of a database that cannot keep up


class ApplyQueue:
    """Entries that wait to be applied. Owned by the member's loop."""

    __slots__ = (
        "_apply",
        "_at",
        "_close_entry",
        "_done",
        "_ended",
        "_held",
        "_holders",
        "_loop",
        "_open_entry",
        "_overloaded",
        "_queue",
        "_running",
        "_scheduled",
        "_slow",
        "_slow_s",
        "_waiting",
        "_work",
        "_work_s",
        "applied_index",
        "began_s",
        "steps_max",
    )

    def __init__(
        self,
        loop: Loop,
        applied_index: int,
        apply: Callable[[Entry], Work | None],
        done: Callable[[int, int, float], None],
        slow_s: float,
        slow: Callable[[int, int, float], None],
        overloaded: Callable[[], bool],
        open_entry: Callable[[], None],
        close_entry: Callable[[], None],
    ) -> None:
        """`apply` applies one entry, or returns the rest of its work. `done(applied index, entries,
        seconds)` is called after every slice in which an entry was finished.

        `slow(first index, last index, seconds)` is called when at most a few dozen entries took
        longer than `slow_s` together. While `overloaded()` no entry is begun, so that the
        database's buffer does not grow. `open_entry` is called when a slice ends within an entry,
        `close_entry` when that entry is done.
        """
        self._loop = loop
        self._apply = apply
        self._done = done
        self._slow_s = slow_s
        self._slow = slow
        self._overloaded = overloaded
        self._open_entry = open_entry
        self._close_entry = close_entry
        self._queue: deque[list[Entry]] = deque()
        self._at = 0
        self._scheduled = False
        self._running = False
        self._held = 0
        self._ended = False
        self._holders: list[Callable[[], None]] = []  # wait until no entry is under way
        self._waiting: list[Callable[[], None]] = []  # wait for the queue to be empty
        self._work: Work | None = None  # of the first entry, when it is under way
        self._work_s = 0.0  # when that began
        self.began_s = 0.0  # when what is being applied now was begun
        self.applied_index = applied_index
        self.steps_max = 0  # of one entry in one slice; 0: as many as there is time for

    def __len__(self) -> int:
        return sum(map(len, self._queue)) - self._at

    def submit(self, entries: list[Entry]) -> None:
        """Queues committed entries and applies a first slice."""
        self._queue.append(entries)
        if not self._scheduled and not self._running:
            self._slice()

    def hold(self, held: Callable[[], None]) -> None:
        """Begins no entry until `release` was called as often.

        `held` is called once none is under way, mostly at once.
        """
        self._held += 1
        if self._work is None:
            held()
        else:
            self._holders.append(held)

    def release(self) -> None:
        """Ends one `hold`."""
        assert self._held > 0, self._held
        self._held -= 1
        self._wake()

    @property
    def busy(self) -> bool:
        """Whether an entry is under way."""
        return self._work is not None

    def end(self) -> None:
        """Applies nothing any more; the next life applies an entry under way again."""
        self._ended = True

    @property
    def _stopped(self) -> bool:
        """Whether no entry may be begun; entries that Raft waits for are begun anyway."""
        return self._held > 0 and not self._waiting

    def when_empty(self, done: Callable[[], None]) -> None:
        """Calls `done` when all that is queued now is applied: at once, if there is nothing."""
        if self._queue:
            self._waiting.append(done)
            if not self._scheduled and not self._running:
                self._scheduled = True
                self._loop.call_soon(self._slice)
        else:
            done()

    def replaced(self, index: int) -> None:
        """A snapshot up to `index` has replaced the entries that were to be applied."""
        assert self._work is None, "a snapshot in the middle of an entry"
        self._queue.clear()
        self._at = 0
        self.applied_index = index
        self._tell_empty()

    def _wake(self) -> None:
        if not self._held and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._slice)

    def _slice(self) -> None:
        self._scheduled = False
        if not self._queue or self._running or self._ended:
            return
        if self._work is None:
            if self._held and self._stopped:
                return
            if self._overloaded() and not self._waiting:
                self._scheduled = True
                self._loop.call_later(HOLD_S, self._slice)
                return
        self._run(self._loop.time() + LOOP_SLICE_S)
        if self._queue:
            if not self._scheduled and (self._work is not None or not self._stopped):
                self._scheduled = True
                self._loop.call_soon(self._slice)
        elif self._waiting:
            self._tell_empty()

    def _tell_empty(self) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def _run(self, until_s: float) -> None:
        apply = self._apply
        queue = self._queue
        time = self._loop.time
        self.began_s = start_s = now_s = time()
        count = 0
        self._running = True
        try:
            if self._work is not None:
                self.began_s = self._work_s
                if not self._go_on(self._work, until_s):
                    return
                count = self._finish_entry()
                now_s = time()
            while queue and now_s < until_s and not (self._held and self._stopped):
                entries = queue[0]
                first = self._at
                stop = min(first + _CHUNK_ENTRIES, len(entries))
                for entry in entries[first:stop]:
                    work = apply(entry)
                    if work is not None and not self._go_on(work, until_s):
                        stop = entry.index - entries[first].index + first
                        self._work = work
                        self._work_s = time()
                        self._open_entry()
                        break
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
                if self._work is not None:
                    break
        finally:
            self._running = False
        if count:
            self._done(self.applied_index, count, now_s - start_s)

    def _go_on(self, work: Work, until_s: float) -> bool:
        """Works on an entry until the slice is over; returns whether the entry is finished."""
        time = self._loop.time
        steps = self.steps_max
        for _ in work:
            steps -= 1
            if not steps or time() >= until_s:
                return False
        return True

    def _finish_entry(self) -> int:
        """The entry under way is finished."""
        self._work = None
        entries = self._queue[0]
        entry = entries[self._at]
        self._at += 1
        if self._at == len(entries):
            self._queue.popleft()
            self._at = 0
        self.applied_index = entry.index
        self._close_entry()
        took_s = self._loop.time() - self._work_s
        if took_s > self._slow_s:
            self._slow(entry.index, entry.index, took_s)
        holders, self._holders = self._holders, []
        for held in holders:
            held()
        return 1

    def check(self, committed_index: int) -> None:
        """What waits goes from the entry behind `applied_index` to the one committed last. Raises
        InvariantError."""
        index = self.applied_index
        for number, entries in enumerate(self._queue):
            first = entries[0 if number else self._at].index
            hold(first == index + 1, "entries are applied in order", first, index)
            index = entries[-1].index
        hold(index == committed_index, "what is committed waits", index, committed_index)
        hold(self._held >= 0, "holds are counted", self._held)
        hold(self._work is None or bool(self._queue), "an entry under way is in the queue", index)
        hold(self._work is not None or not self._holders, "nobody waits for no entry", index)
        comes = self._scheduled or self._running or self._held > 0 or self._ended
        hold(comes or not self._queue, "what waits will be applied", index)
