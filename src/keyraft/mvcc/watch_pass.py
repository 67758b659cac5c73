"""How watchers that are behind catch up: all together, in passes over the rows of the store.

A pass starts at the lowest revision that any of them needs. It reads the store in chunks, up to the
revision that was current at its start, and gives every chunk to all watchers that need it. So ten
thousand watchers cost one reading. A watcher whose stream is full again leaves the pass; one that
becomes ready meanwhile waits for the next. At the end of a pass its watchers are synced, or join
the next one if the store has new revisions.

A watcher is *ready* while it waits for a pass, and *lagging* in one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Protocol

from .hooks import Event, Listener
from .revision import first_key, parse
from .watch_cohort import LAGGING, NEVER, READY, Cohort, CohortIndex, Watcher
from .watch_messages import EncodedEvent

CHUNK_ROWS: Final = 500  # read from the store at once; about 1 ms
FIRST_CHUNK_ROWS: Final = 16  # of a pass: it is not known yet how many ranges want each row
CHUNK_TOLD_MAX: Final = 4_000  # events that one portion of a chunk adds to cohorts; about 1 ms
PASS_SLICE_WATCHERS: Final = 1_000  # taken into a pass or out of it at once; about 2 ms


class History(Protocol):
    """What the hub needs of the store."""

    revision: int
    compact_revision: int

    def listen(self, listener: Listener) -> None:
        """Adds a listener."""

    def leave(self, listener: Listener) -> None:
        """Removes a listener."""

    def events(self, at: bytes, rows: int) -> tuple[list[tuple[int, list[Event]]], bytes]:
        """Events by revision from row `at` on, and the row to go on from; empty at the end."""

    def kv_at(self, key: bytes, revision: int) -> bytes | None:
        """The KeyValue as a read at `revision` sees it."""


class CatchUp:
    """The watchers that are behind, and the pass under way.

    The hub gives it `leave`, `go_live` and `end_compacted`, and the queue of cohorts that have
    something to deliver; it takes one of a chunk from there with `jobs -= 1`.
    """

    def __init__(
        self,
        store: History,
        lagging: CohortIndex,
        queue: deque[Cohort],
        leave: Callable[[Watcher], None],
        go_live: Callable[[Watcher], None],
        end_compacted: Callable[[Watcher], None],
        chunk_rows: int,
        slice_watchers: int,
    ) -> None:
        self._store = store
        self.lagging = lagging
        self.ready: dict[Watcher, None] = {}
        self.jobs = 0  # cohorts with a job of the last chunk under way
        self._queue = queue
        self._leave = leave
        self._go_live = go_live
        self._end_compacted = end_compacted
        self._chunk_rows = chunk_rows
        self._slice = slice_watchers
        self._at = 0  # the next revision that the pass reads; 0: no pass is under way
        self._row = b""  # where the next portion of the chunk begins; empty: with a chunk
        self._rows = chunk_rows  # of the next portion
        self._touched: dict[Cohort, None] = {}  # cohorts that the chunk being read concerns
        self._lowest = NEVER  # the lowest revision that a pass not yet begun needs
        self._until = 0  # the last revision that the pass reads
        self._chunk_first = 0  # the first revision of the chunk last read

    @property
    def due(self) -> bool:
        """Whether a pass is under way, or a watcher waits for one."""
        return bool(self._at or self.ready or self._lowest < NEVER)

    def make_ready(self, watcher: Watcher, first: int) -> None:
        watcher.min_revision = max(watcher.min_revision, first)
        watcher.state = READY
        self.ready[watcher] = None

    def needs(self, watcher: Watcher) -> int:
        """The next revision that a watcher in the pass needs; the chunk under way is not sent."""
        return max(watcher.min_revision, self._chunk_first)

    def advance(self) -> int:
        """Starts, goes on with, or ends the pass; only when nothing is queued. Returns the cost."""
        store = self._store
        if not self._at:
            cost = self._start()
            if not self._at:
                return cost
        else:
            cost = 1
        if self._at < store.compact_revision:
            self._forget_chunk()
            self._chunk_first = self._at
            self._drop_compacted()
        if self._at > self._until or not len(self.lagging):
            return cost + self._end()
        self._chunk_first = self._at
        at = self._row or first_key(self._at)
        revisions, next_row = store.events(at, self._rows)
        find = self.lagging.find
        touched = self._touched
        rows = told = 0
        for revision, events in revisions:
            rows += len(events)
            for event in events:
                encoded: EncodedEvent | None = None
                for variants in find(event[0]):
                    for cohort in variants.values():
                        if cohort.wants(event[2]):
                            encoded = encoded or EncodedEvent(revision, event)
                            cohort.pending.append(encoded)
                            touched[cohort] = None
                            told += 1
        # Many ranges may want each event, so the number of rows is limited to a slice of work.
        self._rows = max(1, min(self._chunk_rows, 2 * self._rows))
        if told > CHUNK_TOLD_MAX:
            self._rows = max(1, rows * CHUNK_TOLD_MAX // told)
        cost += 1 + rows // 4 + told // 8
        next_revision = parse(next_row)[0] if next_row else store.revision + 1
        if revisions and next_revision == revisions[-1][0]:
            self._row = next_row  # within a revision, which is never split
            return cost
        self._at = next_revision
        for cohort in touched:
            cohort.queued = True
            cohort.covered = next_revision - 1
            self._queue.append(cohort)
        self.jobs = len(touched)
        self._touched = {}
        self._row = b""
        return cost

    def _forget_chunk(self) -> None:
        """Drops an incomplete chunk, which will be read again."""
        for cohort in self._touched:
            cohort.drop()
        self._touched = {}
        self._row = b""

    def _start(self) -> int:
        """Takes some ready watchers into the next pass; with the last one the pass begins."""
        store = self._store
        ready = self.ready
        self._chunk_first = 0  # no chunk of this pass is under way yet
        taken = list(islice(ready, self._slice))
        for watcher in taken:
            if ready.pop(watcher, watcher) is watcher:
                continue  # ended meanwhile by a sink inside the member
            if watcher.min_revision < store.compact_revision:
                self._end_compacted(watcher)
            elif watcher.min_revision > store.revision:
                self._go_live(watcher)
            else:
                self.lagging.join(watcher)
                watcher.state = LAGGING
                self._lowest = min(self._lowest, watcher.min_revision)
        if not ready and self._lowest < NEVER:
            self._at, self._lowest = self._lowest, NEVER
            self._until = store.revision
            self._rows = min(FIRST_CHUNK_ROWS, self._chunk_rows)
        return 1 + len(taken)

    def _end(self) -> int:
        """Releases some of its watchers, which have got all before `_at`; with the last it ends."""
        self._forget_chunk()
        next_revision = self._at
        current = self._store.revision
        moved = 0
        for cohort in self.lagging.some(self._slice):
            for watcher in list(islice(cohort.watchers, self._slice - moved)):
                self._leave(watcher)
                moved += 1
                if next_revision > current:
                    watcher.min_revision = max(watcher.min_revision, next_revision)
                    self._go_live(watcher)
                else:
                    self.make_ready(watcher, next_revision)
            if moved >= self._slice:
                break
        if not len(self.lagging):
            self._at = 0
        return 1 + moved

    def _drop_compacted(self) -> None:
        """The store was compacted past the pass: some watchers' events are lost."""
        compact_revision = self._store.compact_revision
        lowest = NEVER
        for cohort in self.lagging.cohorts():
            for watcher in list(cohort.watchers):
                needs = self.needs(watcher)
                if needs < compact_revision:
                    self._leave(watcher)
                    watcher.min_revision = needs
                    self._end_compacted(watcher)
                else:
                    lowest = min(lowest, needs)
        if lowest < NEVER:
            self._at = lowest

    def give_up(self) -> None:
        """Another database has replaced the store's: drops what was read and ends the pass."""
        self._forget_chunk()
        self._at = 0
        self._lowest = NEVER

    @property
    def has_begun(self) -> bool:
        """Whether a pass is under way, or watchers were taken into one to come."""
        return bool(self._at) or self._lowest < NEVER
