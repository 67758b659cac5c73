"""Watching: every change to whoever asked for it, complete, in order, once.

A watcher is either *synced*, and gets events as transactions end, or *behind*, and reads its
events from the store. Behind are those that start in the past, and those whose stream was full
when an event came: nothing is kept for them but the revision from which on they need events, so a
client that does not read costs one message queue (bounded by its stream) and no more, and no
writer ever waits for it.

Those behind catch up in *passes*. A pass starts at the lowest revision that any of them needs,
reads the store in chunks up to what was current when it started, and gives every chunk to all
whom it concerns, so ten thousand laggards cost one reading. A watcher whose stream is full again
drops out; one that becomes ready meanwhile waits for the next pass. At the end of a pass its
watchers are synced, or go into the next one if the store has moved on.

Work is done in slices: `deliver` spends a budget of about 2 ms and says whether more is left. The
budget is counted, not timed, so the same calls always do the same.

Invariants (`check`):
- a watcher that is not ended needs exactly the events of its range with revision >= max(its
  `min_revision`, and, in a pass, what its cohort's job and the pass have still before them);
- a synced watcher's missing events are all in its cohort's job and pending list;
- the events of one revision leave together: those of one that is told or read in portions
  (`_open`, `_pass_row`) wait for the last of them;
- the bytes held for delivery are counted in `pending_bytes` and bounded; a cohort that would
  exceed the bound falls behind as a whole.

Source: etcd `server/storage/mvcc/watchable_store.go`, `api/v3rpc/watch.go`.

DEVIATION: events of several revisions may share a message also when a watcher is synced, if they
came faster than they could be sent; etcd does so only when catching up. A revision is never split
but by fragments.
DEVIATION: while catching up, the header's revision is the last one that the message covers, not
the current one, so that a client may resume behind it.
DEVIATION: a watcher whose start is compacted does not keep its stream from answering progress
requests.
DEVIATION: the number of watchers is bounded (`WATCHERS_MAX`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Protocol

from keyraft.base.clock import Random

from . import watch_messages as messages
from .hooks import Event, Listener
from .revision import first_key, parse
from .watch_cohort import (
    ENDED,
    EVENT_OVERHEAD_BYTES,
    LAGGING,
    NEVER,
    READY,
    STALLED,
    SYNCED,
    BulkSink,
    Cohort,
    CohortIndex,
    Job,
    Watcher,
)
from .watch_messages import EncodedEvent

WATCHERS_MAX: Final = 1_000_000  # of a member; about 500 bytes each
PENDING_BYTES_MAX: Final = 67_108_864  # events waiting to be sent to synced watchers
CHUNK_ROWS: Final = 500  # read from the store at once; about 1 ms
FIRST_CHUNK_ROWS: Final = 16  # of a pass: how many ranges want each row is not known yet
CHUNK_TOLD_MAX: Final = 4_000  # events that one portion of a chunk puts into cohorts; about 1 ms
PASS_SLICE_WATCHERS: Final = 1_000  # taken into a pass or out of it at once; about 2 ms
SLICE_BUDGET: Final = 1_000  # messages in one slice; about 2 ms
BATCH_BYTES_MAX: Final = 16_384  # messages of neighbours that go out together: a frame
BATCH_MESSAGE_BYTES_MAX: Final = 4_096  # larger ones go alone
_HEAD_BYTES_MAX: Final = 16  # of a message beside header and payload: a watch id, five of gRPC's
_BUDGET_SHIFT: Final = 13  # 8 KiB of a message cost as much as a message


class History(Protocol):
    """What the hub asks of the store."""

    revision: int
    compact_revision: int

    def listen(self, listener: Listener) -> None:
        """From now on tells it what transactions change."""

    def leave(self, listener: Listener) -> None:
        """Tells it no more."""

    def events(self, at: bytes, rows: int) -> tuple[list[tuple[int, list[Event]]], bytes]:
        """Events by revision from row `at` on, and the row to go on from; empty at the end."""

    def kv_at(self, key: bytes, revision: int) -> bytes | None:
        """The KeyValue as a read at `revision` sees it."""


class WatchHub:
    """All watchers of a member. `header(revision)` is the encoded ResponseHeader field.

    `wake` is called when there is something to `deliver` and the last `deliver` had said that
    there was not.
    """

    def __init__(
        self,
        store: History,
        header: Callable[[int], bytes],
        random: Random,
        wake: Callable[[], None],
        message_bytes_max: int = 2_097_152,
        watchers_max: int = WATCHERS_MAX,
        pending_bytes_max: int = PENDING_BYTES_MAX,
        chunk_rows: int = CHUNK_ROWS,
        pass_slice: int = PASS_SLICE_WATCHERS,
    ) -> None:
        self._store = store
        self._header = header
        self._wake = wake
        self._awake = False
        self._message_bytes_max = message_bytes_max  # fragments stay below
        self._watchers_max = watchers_max
        self._pending_bytes_max = pending_bytes_max
        self._chunk_rows = chunk_rows
        self._pass_slice = pass_slice
        self._live = CohortIndex(random)
        self._lagging = CohortIndex(random)
        self._queue: deque[Cohort] = deque()
        self._ready: dict[Watcher, None] = {}
        self._open = 0  # the revision of which more events are to come; 0: none
        self._opened: dict[Cohort, None] = {}  # with events of it, and nothing else to deliver
        self._pass_at = 0  # the next revision that the pass reads; 0: no pass is under way
        self._pass_row = b""  # where the next portion of the chunk begins; empty: with a chunk
        self._pass_rows = chunk_rows  # of the next portion
        self._touched: dict[Cohort, None] = {}  # cohorts that the chunk being read concerns
        self._pass_lowest = NEVER  # what those taken into a pass not yet begun need
        self._pass_until = 0  # the last revision that the pass reads
        self._pass_jobs = 0  # cohorts that its last chunk is not yet delivered to
        self._pass_next = False  # whose turn it is: the pass's or the synced watchers'
        self._chunk_first = 0  # the first revision of the chunk last read
        self.pending_bytes = 0
        self.watchers = 0
        self.streams = 0
        self.synced = 0
        self.ended = 0  # behind the compacted revision, and not yet cancelled by the client
        self.events_total = 0

    # --- from the store -----------------------------------------------------------------------

    def on_events(self, revision: int, events: list[Event], more: bool = False) -> None:
        """The store's listener: takes the events of a transaction, sends nothing yet."""
        if more or self._open:
            self._on_portion(revision, events, more)
            return
        find = self._live.find
        queue = self._queue
        overflown: list[Cohort] = []
        for event in events:
            ranges = find(event[0])
            if not ranges:
                continue
            encoded = EncodedEvent(revision, event)
            weight = len(event[1]) + EVENT_OVERHEAD_BYTES
            for variants in ranges:
                for cohort in variants.values():
                    if cohort.variant & 3 and not cohort.wants(event[2]):
                        continue
                    cohort.pending.append(encoded)
                    cohort.weight += weight
                    self.pending_bytes += weight
                    if not cohort.queued:
                        cohort.queued = True
                        queue.append(cohort)
                    if self.pending_bytes > self._pending_bytes_max and cohort not in overflown:
                        overflown.append(cohort)
        for cohort in overflown:
            self._fall_behind(cohort)
        if queue and not self._awake:
            self._awake = True
            self._wake()

    def _on_portion(self, revision: int, events: list[Event], more: bool) -> None:
        """Some events of a revision, which wait for the others."""
        self._open = revision
        overflown: dict[Cohort, None] = {}
        for event in events:
            encoded: EncodedEvent | None = None
            for variants in self._live.find(event[0]):
                for cohort in variants.values():
                    if not cohort.wants(event[2]):
                        continue
                    encoded = encoded or EncodedEvent(revision, event)
                    weight = len(event[1]) + EVENT_OVERHEAD_BYTES
                    cohort.pending.append(encoded)
                    cohort.weight += weight
                    self.pending_bytes += weight
                    if not cohort.queued:
                        self._opened[cohort] = None
                    if self.pending_bytes > self._pending_bytes_max:
                        overflown[cohort] = None
        for cohort in overflown:
            self._fall_behind(cohort)
        if more:
            return
        self._open = 0
        for cohort in self._opened:
            if not cohort.queued:
                cohort.queued = True
                self._queue.append(cohort)
        self._opened.clear()
        self._rouse()

    def suspend(self) -> None:
        """Before the store starts over from a snapshot: all watchers fall behind, none is lost."""
        next_revision = self._store.revision + 1
        for cohort in self._live.cohorts():
            self._fall_behind(cohort, next_revision)
        for cohort in self._lagging.cohorts():
            for watcher in list(cohort.watchers):
                self._leave(watcher)
                self._make_ready(watcher, self._pass_from(watcher))
            self._drop_pending(cohort)
        self._open = 0
        self._opened.clear()
        self._forget_chunk()
        self._pass_at = 0
        self._pass_lowest = NEVER
        self._rouse()

    # --- delivery -----------------------------------------------------------------------------

    def deliver(self, budget: int = SLICE_BUDGET) -> bool:
        """One slice of sending and catching up; whether another one is wanted at once."""
        queue = self._queue
        while budget > 0:
            # The pass goes on when its last chunk is delivered, in turn with the synced.
            may_pass = not self._pass_jobs and self._pass_due
            if may_pass and (self._pass_next or not queue):
                self._pass_next = False
                budget -= self._advance_pass()
            elif queue:
                self._pass_next = True
                budget = self._serve(budget)
            else:
                break
        self._awake = bool(queue) or self._pass_due
        return self._awake

    def _serve(self, budget: int) -> int:
        """Works on the first cohort of the queue; returns what is left of the budget."""
        queue = self._queue
        cohort = queue.popleft()
        job = cohort.job
        if job is None:
            if not cohort.pending or not cohort.watchers:
                self._drop_pending(cohort)
                self._unqueue(cohort)
                return budget - 1
            if len(cohort.watchers) == 1 == len(cohort.pending) and self._send_lone(cohort):
                return budget - 1
            before = len(cohort.encoded)
            # What a pass has read is complete; what comes as it happens may not be.
            open_from = NEVER if cohort.covered or not self._open else self._open
            ready = cohort.prepare(self._store.kv_at, open_from)
            budget -= 1 + (len(cohort.encoded) - before) // 4
            if not ready:
                queue.append(cohort)
                return budget
            if not cohort.encoded:  # all it has is of a revision of which more is to come
                self._opened[cohort] = None
                self._unqueue(cohort)
                return budget
            job = cohort.start_job()
        budget = self._send(job, budget)
        if job.at < len(job.targets):
            queue.append(cohort)
            return budget
        cohort.job = None
        self.pending_bytes -= job.weight
        if cohort.pending:
            queue.append(cohort)
        else:
            self._unqueue(cohort)
        return budget

    def _send_lone(self, cohort: Cohort) -> bool:
        """The short way of the commonest case, one event for one watcher that has room; whether it
        was that."""
        event = cohort.pending[0]
        (watcher,) = cohort.watchers
        sink = watcher.sink
        if sink.writable <= 0 or (event.revision == self._open and not cohort.covered):
            return False
        payload = cohort.encode(event, self._store.kv_at)
        if len(payload) > BATCH_MESSAGE_BYTES_MAX:
            return False
        covered = cohort.covered or event.revision
        self._drop_pending(cohort)
        self._unqueue(cohort)
        if watcher.min_revision <= event.revision:
            watcher.min_revision = event.revision + 1
            watcher.sent = True
            self.events_total += 1
            sink.send(b"".join((self._header(covered), watcher.id_field, payload)))
        return True

    def _unqueue(self, cohort: Cohort) -> None:
        cohort.queued = False
        if cohort.covered:
            cohort.covered = 0
            self._pass_jobs -= 1

    def _send(self, job: Job, budget: int) -> int:
        """Sends a job to its next targets; the loop that all of a member's fan-out goes through.

        Small messages to neighbours of one stream go out together, in one frame.
        """
        targets = job.targets
        at, count = job.at, len(targets)
        first, after, payload = job.first, job.after, job.payload
        head = self._header(job.covered)
        cost = 1 + (len(payload) >> _BUDGET_SHIFT)
        message_bytes = len(head) + len(payload) + _HEAD_BYTES_MAX
        large = message_bytes >= self._message_bytes_max
        batched = message_bytes <= BATCH_MESSAGE_BYTES_MAX and not large
        heads: dict[int, bytes] = {}  # gRPC's five bytes and the header, by the id field's length
        batch: list[bytes] = []
        stream: BulkSink | None = None  # whose messages are in the batch
        room = 0  # messages that the batch may still take
        sent = 0
        while at < count and budget > 0:
            watcher = targets[at]
            at += 1
            seen = watcher.min_revision
            if seen >= after:
                continue
            bulk = watcher.bulk
            if not batched or bulk is None or seen > first:
                if batch:
                    _send_batch(stream, batch)
                stream = None
                if watcher.sink.writable <= 0:
                    self._stall(watcher, first)
                    continue
                budget -= cost
                sent += 1
                self._send_one(watcher, head, job, large)
                continue
            if bulk is not stream or not room:
                if batch:
                    _send_batch(stream, batch)
                writable = watcher.sink.writable
                if writable <= 0:
                    stream = None
                    self._stall(watcher, first)
                    continue
                stream = bulk
                room = max(1, min(writable, BATCH_BYTES_MAX) // message_bytes)
            id_field = watcher.id_field
            framed = heads.get(len(id_field))
            if framed is None:
                size = len(head) + len(id_field) + len(payload)
                framed = heads[len(id_field)] = b"\0" + size.to_bytes(4, "big") + head
            batch += framed, id_field, payload
            watcher.min_revision = after
            watcher.sent = True
            room -= 1
            budget -= 1
            sent += 1
        if batch:
            _send_batch(stream, batch)
        job.at = at
        self.events_total += sent * len(job.encoded)
        return budget

    def _send_one(self, watcher: Watcher, head: bytes, job: Job, large: bool) -> None:
        # Noted before it is sent: a sink inside the member may end its watcher on the spot.
        seen, watcher.min_revision = watcher.min_revision, job.after
        watcher.sent = True
        if seen > job.first:
            self._send_some(watcher, head, job, seen)
        elif large and watcher.fragment:
            self._send_fragments(watcher, head, job.encoded)
        elif watcher.bulk is not None and job.pieces:
            watcher.bulk.send_shared(head + watcher.id_field, job.pieces)
        else:
            watcher.sink.send(job.message(head, watcher.id_field))

    def _send_some(self, watcher: Watcher, head: bytes, job: Job, first: int) -> None:
        if watcher.fragment:
            self._send_fragments(watcher, head, job.from_revision(first))
        else:
            payload = job.payload_from(first)
            watcher.sink.send(b"".join((head, watcher.id_field, payload)))

    def _send_fragments(self, watcher: Watcher, head: bytes, encoded: list[bytes]) -> None:
        head += watcher.id_field
        for message in messages.fragments(head, encoded, self._message_bytes_max):
            watcher.sink.send(message)

    def _drop_pending(self, cohort: Cohort) -> None:
        self.pending_bytes -= cohort.weight
        cohort.weight = 0
        cohort.drop()
        if cohort.job is not None:
            self.pending_bytes -= cohort.job.weight
            cohort.job = None

    def _hasten(self, watcher: Watcher) -> bool:
        """Sends a synced watcher what its cohort still has for it; False if its stream is full."""
        cohort = watcher.cohort
        assert cohort is not None, f"synced watcher {watcher.id} has no cohort"
        if not cohort.queued:
            return True
        job = cohort.job
        if job is not None and watcher.min_revision < job.after:
            if watcher.sink.writable <= 0:
                self._stall(watcher, job.first)
                return False
            first, watcher.min_revision = watcher.min_revision, job.after
            watcher.sent = True
            self.events_total += len(job.encoded)
            self._send_some(watcher, self._header(job.covered), job, first)
        first = watcher.min_revision
        before = self._open or NEVER
        waiting = [event for event in cohort.pending if first <= event.revision < before]
        while waiting:
            if watcher.sink.writable <= 0:
                self._stall(watcher, waiting[0].revision)
                return False
            single = Cohort(watcher.start, watcher.end, watcher.variant)
            single.watchers[watcher] = None
            single.pending = waiting
            while not single.prepare(self._store.kv_at, NEVER):
                pass
            self._send(single.start_job(), 1)
            waiting = single.pending
        return True

    # --- falling behind and catching up ---------------------------------------------------------

    def _stall(self, watcher: Watcher, first: int) -> None:
        """The stream is full: from `first` on (or what it needs after that) it reads the store."""
        if watcher.state == LAGGING:
            first = max(first, self._pass_from(watcher))
        self._leave(watcher)
        watcher.min_revision = max(watcher.min_revision, first)
        watcher.state = STALLED
        watcher.stalled_with[watcher] = None

    def _make_ready(self, watcher: Watcher, first: int) -> None:
        watcher.min_revision = max(watcher.min_revision, first)
        watcher.state = READY
        self._ready[watcher] = None

    def _fall_behind(self, cohort: Cohort, next_revision: int | None = None) -> None:
        """All watchers of a live cohort read from the store what it has not yet sent."""
        first = next_revision
        if cohort.job is not None:
            first = cohort.job.first
        elif cohort.pending:
            first = cohort.pending[0].revision
        assert first is not None, "a cohort with nothing to send fell behind"
        for watcher in list(cohort.watchers):
            self._leave(watcher)
            self._make_ready(watcher, first)
        self._drop_pending(cohort)

    def _pass_from(self, watcher: Watcher) -> int:
        """What a watcher in the pass needs next: the chunk on its way counts as not seen."""
        return max(watcher.min_revision, self._chunk_first)

    def _advance_pass(self) -> int:
        """Starts, goes on with, or ends the pass; only when nothing is queued. Returns the cost."""
        store = self._store
        if not self._pass_at:
            cost = self._start_pass()
            if not self._pass_at:
                return cost
        else:
            cost = 1
        if self._pass_at < store.compact_revision:
            self._forget_chunk()
            self._chunk_first = self._pass_at
            self._drop_compacted()
        if self._pass_at > self._pass_until or not len(self._lagging):
            return cost + self._end_pass()
        self._chunk_first = self._pass_at
        at = self._pass_row or first_key(self._pass_at)
        revisions, next_row = store.events(at, self._pass_rows)
        find = self._lagging.find
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
        # Many ranges may want each event: as many rows as make a slice of work.
        self._pass_rows = max(1, min(self._chunk_rows, 2 * self._pass_rows))
        if told > CHUNK_TOLD_MAX:
            self._pass_rows = max(1, rows * CHUNK_TOLD_MAX // told)
        cost += 1 + rows // 4 + told // 8
        next_revision = parse(next_row)[0] if next_row else store.revision + 1
        if revisions and next_revision == revisions[-1][0]:
            self._pass_row = next_row  # in the middle of a revision, which is never cut
            return cost
        self._pass_at = next_revision
        for cohort in touched:
            cohort.queued = True
            cohort.covered = next_revision - 1
            self._queue.append(cohort)
        self._pass_jobs = len(touched)
        self._touched = {}
        self._pass_row = b""
        return cost

    def _forget_chunk(self) -> None:
        """What was read of a chunk that is not yet complete will be read again."""
        for cohort in self._touched:
            cohort.drop()
        self._touched = {}
        self._pass_row = b""

    def _start_pass(self) -> int:
        """Takes some of those that are ready into the pass to come; with the last it begins."""
        store = self._store
        ready = self._ready
        self._chunk_first = 0  # nothing of this pass is on its way yet
        taken = list(islice(ready, self._pass_slice))
        for watcher in taken:
            if ready.pop(watcher, watcher) is watcher:
                continue  # ended meanwhile by a sink inside the member
            if watcher.min_revision < store.compact_revision:
                self._end_compacted(watcher)
            elif watcher.min_revision > store.revision:
                self._go_live(watcher)
            else:
                self._lagging.join(watcher)
                watcher.state = LAGGING
                self._pass_lowest = min(self._pass_lowest, watcher.min_revision)
        if not ready and self._pass_lowest < NEVER:
            self._pass_at, self._pass_lowest = self._pass_lowest, NEVER
            self._pass_until = store.revision
            self._pass_rows = min(FIRST_CHUNK_ROWS, self._chunk_rows)
        return 1 + len(taken)

    def _end_pass(self) -> int:
        """Some of its watchers, all of which have seen everything before `_pass_at`, go on; with
        the last it ends."""
        self._forget_chunk()
        next_revision = self._pass_at
        current = self._store.revision
        moved = 0
        for cohort in self._lagging.some(self._pass_slice):
            for watcher in list(islice(cohort.watchers, self._pass_slice - moved)):
                self._leave(watcher)
                moved += 1
                if next_revision > current:
                    watcher.min_revision = max(watcher.min_revision, next_revision)
                    self._go_live(watcher)
                else:
                    self._make_ready(watcher, next_revision)
            if moved >= self._pass_slice:
                break
        if not len(self._lagging):
            self._pass_at = 0
        return 1 + moved

    @property
    def _pass_due(self) -> bool:
        """Whether a pass is under way, or somebody waits for one."""
        return bool(self._pass_at or self._ready or self._pass_lowest < NEVER)

    def _drop_compacted(self) -> None:
        """The store was compacted past the pass: some watchers' events are gone."""
        compact_revision = self._store.compact_revision
        lowest = NEVER
        for cohort in self._lagging.cohorts():
            for watcher in list(cohort.watchers):
                needs = self._pass_from(watcher)
                if needs < compact_revision:
                    self._leave(watcher)
                    watcher.min_revision = needs
                    self._end_compacted(watcher)
                else:
                    lowest = min(lowest, needs)
        if lowest < NEVER:
            self._pass_at = lowest

    def _end_compacted(self, watcher: Watcher) -> None:
        """Tells a watcher that its events are compacted away, once its stream has room."""
        if watcher.sink.writable <= 0:
            watcher.state = STALLED
            watcher.stalled_with[watcher] = None
            return
        watcher.state = ENDED
        watcher.min_revision = NEVER
        self.ended += 1
        watcher.sink.send(
            messages.compacted(self._header(0), watcher.id, self._store.compact_revision)
        )

    # --- groups ---------------------------------------------------------------------------------

    def _go_live(self, watcher: Watcher) -> None:
        """From now on it gets events as they happen."""
        self._live.join(watcher)
        watcher.state = SYNCED
        self._count_synced(1)

    def _leave(self, watcher: Watcher) -> None:
        """Takes a watcher out of wherever it is."""
        if watcher.state == READY:
            self._ready.pop(watcher, None)
        elif watcher.state == STALLED:
            watcher.stalled_with.pop(watcher, None)
        elif watcher.state == LAGGING:
            self._lagging.leave(watcher)
        elif watcher.state == SYNCED:
            self._live.leave(watcher)
            self._count_synced(-1)

    def _count_synced(self, change: int) -> None:
        """The store tells of events only while somebody is there to hear."""
        before = self.synced
        self.synced = before + change
        if not before and self.synced:
            self._store.listen(self.on_events)
        elif before and not self.synced:
            self._store.leave(self.on_events)

    def _rouse(self) -> None:
        if not self._awake and (self._queue or self._pass_due):
            self._awake = True
            self._wake()

    # --- from the streams -----------------------------------------------------------------------

    def full(self) -> bool:
        """Whether no further watcher is taken."""
        return self.watchers >= self._watchers_max

    def header(self, revision: int | None = None) -> bytes:
        """The header of an answer; None: of the current revision."""
        return self._header(self._store.revision if revision is None else revision)

    def add(self, watcher: Watcher) -> None:
        """Starts a watcher whose creation has been answered."""
        self.watchers += 1
        current = self._store.revision
        if watcher.start_revision == 0 or watcher.start_revision > current:
            watcher.min_revision = max(current + 1, watcher.start_revision)
            self._go_live(watcher)
        else:
            self._make_ready(watcher, watcher.start_revision)
            self._rouse()

    def end(self, watcher: Watcher) -> None:
        """Ends a watcher that its stream forgets: nothing is sent to it any more."""
        self.watchers -= 1
        if watcher.state == ENDED:
            self.ended -= 1
            return
        self._leave(watcher)
        watcher.state = ENDED
        watcher.min_revision = NEVER

    def resume(self, stalled: dict[Watcher, None]) -> None:
        """The stream of these watchers has room again."""
        for watcher in list(stalled):
            del stalled[watcher]
            self._make_ready(watcher, watcher.min_revision)
        self._rouse()

    def caught_up(self, watcher: Watcher) -> bool:
        """Whether a watcher has been sent all there is, after sending it what is on its way."""
        if self._open or watcher.state != SYNCED:
            return False
        if self._store.revision < watcher.start_revision:
            return False
        return self._hasten(watcher)

    # --- looking inside -------------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Sizes, for metrics and tests."""
        return {
            "streams": self.streams,
            "watchers": self.watchers,
            "slow_watchers": self.watchers - self.synced - self.ended,
            "ranges": len(self._live),
            "pending_bytes": self.pending_bytes,
            "pending_events": sum(
                len(cohort.pending) + (len(cohort.job.encoded) if cohort.job is not None else 0)
                for cohort in self._queue
            ),
            "events": self.events_total,
        }

    def check(self) -> None:
        """Asserts the invariants at the head of this module."""
        self._live.check()
        self._lagging.check()
        weight = synced = 0
        for cohort in self._live.cohorts():
            assert cohort.watchers, "an empty cohort is in the index"
            waits = cohort.queued or cohort in self._opened
            assert waits or (not cohort.pending and cohort.job is None)
            weight += cohort.weight + (cohort.job.weight if cohort.job is not None else 0)
            synced += len(cohort.watchers)
            for watcher in cohort.watchers:
                assert watcher.state == SYNCED and watcher.cohort is cohort
                if not cohort.queued:
                    assert watcher.min_revision <= max(
                        self._store.revision + 1, watcher.start_revision
                    )
        assert synced == self.synced, f"{synced} watchers in live cohorts, {self.synced} counted"
        for cohort in self._lagging.cohorts():
            due = self._pass_at or self._pass_lowest < NEVER
            assert due, "a cohort lags without a pass"
            assert all(watcher.state == LAGGING for watcher in cohort.watchers)
        for cohort in (*self._queue, *self._opened):
            assert cohort.queued or cohort in self._opened, "a cohort is queued and ignores it"
            if not cohort.watchers:
                weight += cohort.weight + (cohort.job.weight if cohort.job is not None else 0)
        assert weight == self.pending_bytes, f"{weight} bytes held, {self.pending_bytes} counted"
        assert all(watcher.state == READY for watcher in self._ready)


def _send_batch(stream: BulkSink | None, batch: list[bytes]) -> None:
    assert stream is not None, "messages for nobody"
    stream.send_framed(b"".join(batch), len(batch) // 3)
    batch.clear()
