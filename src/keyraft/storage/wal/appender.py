"""Where a batch is written: on the loop itself or in the storage thread.

Handing a write to a thread costs two thread switches. Writing on the loop makes everybody else wait
for the sync. So a batch is written on the loop only when it is small, nothing else waits and the
disk has lately been fast. A disk that becomes slow holds up the loop for the few syncs that show
it; a disk that stalls does so for one. While a write is under way in the thread, further batches
gather, and the next write takes them all: one write, one sync.

Callbacks come in the order of the calls. `done` gets None once everything up to and including its
batch is durable, or the WALError after which nothing will be durable any more; it may be
called before `append` returns. Where there is no room, nobody is called: the batches wait, and are
written again every `ROOM_RETRY_S` until they fit. Time, thread and loop are handed in, so the simulator runs this
code, too.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from keyraft.raft.types import Entry, HardState
from keyraft.storage.wal.encode import WALBatch
from keyraft.storage.wal.log import WAL
from keyraft.storage.wal.record import SnapshotMark, WALError, WALFullError

INLINE_BYTES_MAX: Final = 16_384  # larger batches always go to the thread
FAST_SYNC_S: Final = 0.002  # the longest sync allowed on the loop; less than a slice of apply
FAST_SYNCS_MIN: Final = 8  # so many syncs at first, and after a stall, are done by the thread
STALL_FACTOR: Final = 20  # a sync that takes so many times FAST_SYNC_S is a stall
ROOM_RETRY_S: Final = 0.5  # between two attempts to write what there was no room for
_UP: Final = 1.5
_DOWN: Final = 1.125

Done = Callable[["WALError | None"], None]


class SyncPolicy:
    """Remembers how long syncs take, on the loop and in the thread.

    It estimates the time within which most syncs end, not the mean and not the last few times.
    Beside busy processes one sync in twenty takes 4 or 8 ms (ticks of the scheduler) even on the
    fastest disk. Handing the next syncs to the thread would make each of them wait twice more for a
    processor. `_mostly_s` grows by half after a sync that took longer, and shrinks by a factor of
    1.125 after one that did not. It settles where ln 1.125 / (ln 1.5 + ln 1.125) = 2 of 9 syncs
    take longer.
    """

    __slots__ = ("_fast_s", "_mostly_s", "_since_stall")

    def __init__(self, fast_s: float = FAST_SYNC_S) -> None:
        self._fast_s = fast_s
        self._mostly_s = 2 * fast_s
        self._since_stall = 0

    def observe(self, seconds: float) -> None:
        """One sync took so long."""
        if seconds > self._mostly_s:
            self._mostly_s *= _UP
            self._since_stall = (
                0 if seconds >= STALL_FACTOR * self._fast_s else (self._since_stall + 1)
            )
        else:
            self._since_stall += 1
            # It never falls so low that it needs many syncs to notice that the disk has become
            # slow.
            if self._mostly_s > self._fast_s / 16:
                self._mostly_s /= _DOWN

    def inline(self, batch_bytes: int, alone: bool) -> bool:
        """Whether the loop itself may write a batch; `alone`: nothing else waits for the loop."""
        return (
            alone
            and batch_bytes <= INLINE_BYTES_MAX
            and self._since_stall >= FAST_SYNCS_MIN
            and self._mostly_s <= self._fast_s
        )

    def statistics(self) -> dict[str, float]:
        """The time within which most syncs end, and how many there were since the last stall."""
        return {"sync_mostly_s": self._mostly_s, "since_stall": self._since_stall}


class Appender:
    """Writes a WAL on behalf of the loop."""

    __slots__ = (
        "_call_later",
        "_call_loop",
        "_clock",
        "_dones",
        "_failure",
        "_on_sync",
        "_policy",
        "_queue",
        "_submit",
        "_wal",
        "_writing",
        "starved",
    )

    def __init__(
        self,
        wal: WAL,
        *,
        clock: Callable[[], float],
        submit: Callable[[Callable[[], None]], None],
        call_loop: Callable[..., Any],
        call_later: Callable[..., Any],
        policy: SyncPolicy | None = None,
        on_sync: Callable[[float, int], None] | None = None,
    ) -> None:
        """`clock`: seconds. `submit`: runs a job in the storage thread, one after another.
        `call_loop`: `loop.call_soon_threadsafe`. `call_later`: the loop's. `on_sync`: seconds and bytes of each synced write.
        """
        self._wal = wal
        self._clock = clock
        self._submit = submit
        self._call_loop = call_loop
        self._call_later = call_later
        self._policy = policy or SyncPolicy()
        self._on_sync = on_sync
        self._queue: list[WALBatch] = []
        self._dones: list[Done] = []
        self._writing = False
        self._failure: WALError | None = None
        self.starved = False  # batches wait for room

    @property
    def idle(self) -> bool:
        """Whether everything handed in is durable."""
        return not self._writing and not self._queue

    def append(
        self,
        entries: Sequence[Entry],
        state: HardState | None,
        must_sync: bool,
        done: Done,
        alone: bool = False,
    ) -> None:
        """Makes entries and hard state durable; see the module about `done` and `alone`."""
        if self._failure is not None:
            done(self._failure)
            return
        try:
            batch = self._wal.encode(entries, state, must_sync)
        except WALError as error:
            self._failure = error
            done(error)
            return
        if batch is None:
            if self._writing:
                self._dones.append(done)
            else:
                done(None)
            return
        self._add(batch, done, alone)

    def save_snapshot(self, mark: SnapshotMark, done: Done) -> None:
        """Records a snapshot that is durable already."""
        if self._failure is not None:
            done(self._failure)
            return
        try:
            batch = self._wal.encode_snapshot(mark)
        except WALError as error:
            self._failure = error
            done(error)
            return
        self._add(batch, done, alone=False)

    def release_to(self, index: int) -> None:
        """`WAL.release_to`, in its turn."""
        self._submit(lambda: self._wal.release_to(index))

    def _add(self, batch: WALBatch, done: Done, alone: bool) -> None:
        if not self._writing and batch.head is None and self._policy.inline(len(batch.data), alone):
            seconds, failure = self._write((batch,))
            if isinstance(failure, WALFullError):
                self._writing = True
                self._wait_for_room([batch], [done], failure)
                return
            self._observe(seconds, len(batch.data), failure)
            done(failure)
            return
        self._queue.append(batch)
        self._dones.append(done)
        if not self._writing:
            self._start()

    def _start(self) -> None:
        self._writing = True
        batches, self._queue = self._queue, []
        dones, self._dones = self._dones, []

        def job() -> None:
            seconds, failure = self._write(batches)
            self._call_loop(self._finished, batches, dones, seconds, failure)

        self._submit(job)

    def _write(self, batches: Sequence[WALBatch]) -> tuple[float, WALError | None]:
        begin = self._clock()
        try:
            self._wal.write(batches)
        except WALError as error:
            return self._clock() - begin, error
        return self._clock() - begin, None

    def _observe(self, seconds: float, size: int, failure: WALError | None) -> None:
        if failure is not None:
            self._failure = failure
            return
        self._policy.observe(seconds)
        if self._on_sync is not None:
            self._on_sync(seconds, size)

    def _finished(
        self,
        batches: list[WALBatch],
        dones: list[Done],
        seconds: float,
        failure: WALError | None,
    ) -> None:
        if isinstance(failure, WALFullError):
            self._wait_for_room(batches, dones, failure)
            return
        self.starved = False
        self._observe(seconds, sum(len(batch.data) for batch in batches), failure)
        # The next write starts before the callbacks run, so batches that they append keep their
        # order.
        if self._queue and failure is None:
            self._start()
        else:
            self._writing = False
            if failure is not None:
                dones = dones + self._dones
                self._queue, self._dones = [], []
            elif self._dones:
                dones = dones + self._dones
                self._dones = []
        for done in dones:
            done(failure)

    def _wait_for_room(
        self, batches: list[WALBatch], dones: list[Done], failure: WALFullError
    ) -> None:
        """What was not written comes again before all that came behind it."""
        self.starved = True
        self._queue[:0] = batches[failure.written :]
        self._dones[:0] = dones
        self._call_later(ROOM_RETRY_S, self._start)


class StorageThread:
    """One thread that runs jobs in order. The owner stops it."""

    __slots__ = ("_jobs", "_thread")

    def __init__(self, name: str = "keyraft-storage") -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Runs `job` after those before it; it must not raise."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Waits for the jobs handed in so far, then ends the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
