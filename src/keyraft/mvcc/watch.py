"""Watching: every watcher gets every event of its range, once and in order.

A watcher is either *synced*, and gets events as transactions end, or *behind*, and gets its events
from the store. A watcher is behind if it starts in the past, or if its stream was full when an
event came. Only the next revision that it needs is kept for it. So a client that does not read
costs one message queue (bounded by its stream), and no writer ever waits for it.

Watchers that are behind catch up in passes (`watch_pass`); `watch_sender` sends messages.

Work is done in slices: `deliver` uses a budget of about 2 ms and returns whether more is left. The
budget is counted, not timed, so the same calls always do the same.

Invariants (`check`):
- a watcher that is not ended needs exactly the events of its range with revision >= max(its
  `min_revision`, and, in a pass, what its cohort's job and the pass have still before them);
- a synced watcher's missing events are all in its cohort's job and pending list;
- the events of one revision are sent together: if they come in portions (`_open` here, `_row` of
  the pass), they wait for the last portion;
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
from typing import Final

from keyraft.base.clock import Random
from keyraft.base.invariants import Checks

from . import watch_invariants
from . import watch_messages as messages
from .hooks import Event
from .watch_cohort import (
    ENDED,
    EVENT_OVERHEAD_BYTES,
    LAGGING,
    NEVER,
    READY,
    STALLED,
    SYNCED,
    Cohort,
    CohortIndex,
    Watcher,
)
from .watch_messages import EncodedEvent
from .watch_pass import CHUNK_ROWS, PASS_SLICE_WATCHERS, CatchUp, History
from .watch_sender import BATCH_MESSAGE_BYTES_MAX, EventSender

WATCHERS_MAX: Final = 1_000_000  # of a member; about 500 bytes each
PENDING_BYTES_MAX: Final = 67_108_864  # events waiting to be sent to synced watchers
SLICE_BUDGET: Final = 1_000  # messages in one slice; about 2 ms


class WatchHub:
    """All watchers of a member. `header(revision)` is the encoded ResponseHeader field.

    `wake` is called when there is something to `deliver`, after a `deliver` that returned False.
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
        self._held = False
        self._watchers_max = watchers_max
        self._pending_bytes_max = pending_bytes_max
        self._live = CohortIndex(random)
        self._queue: deque[Cohort] = deque()
        self._open = 0  # the revision that has more events to come; 0: none
        self._opened: dict[Cohort, None] = {}  # with events of it, and nothing else to deliver
        self._pass_next = False  # whether the pass has the next turn, else the synced watchers
        self._pass = CatchUp(
            store,
            CohortIndex(random),
            self._queue,
            self._leave,
            self._go_live,
            self._end_compacted,
            chunk_rows,
            pass_slice,
        )
        self._sender = EventSender(header, self._stall, message_bytes_max)
        self.pending_bytes = 0
        self.watchers = 0
        self.streams = 0
        self.synced = 0
        self.ended = 0  # behind the compacted revision, and not yet cancelled by the client

    # --- from the store -----------------------------------------------------------------------

    def on_events(self, revision: int, events: list[Event], more: bool = False) -> None:
        """The store's listener: takes the events of a transaction; sends nothing yet."""
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
        for cohort in self._pass.lagging.cohorts():
            for watcher in list(cohort.watchers):
                self._leave(watcher)
                self._pass.make_ready(watcher, self._pass.needs(watcher))
            self._drop_pending(cohort)
        self._open = 0
        self._opened.clear()
        self._pass.give_up()
        self._rouse()

    # --- delivery -----------------------------------------------------------------------------

    def deliver(self, budget: int = SLICE_BUDGET) -> bool:
        """Does one slice of sending and catching up; returns whether more is left to do now."""
        if self._held:
            self._awake = False
            return False
        queue = self._queue
        while budget > 0:
            # The pass continues when its last chunk is delivered, in turn with synced watchers.
            may_pass = not self._pass.jobs and self._pass.due
            if may_pass and (self._pass_next or not queue):
                self._pass_next = False
                budget -= self._pass.advance()
            elif queue:
                self._pass_next = True
                budget = self._serve(budget)
            else:
                break
        self._awake = bool(queue) or self._pass.due
        return self._awake

    def hold(self) -> None:
        """No event is delivered until `release`; those that come are kept, as for slow readers."""
        self._held = True

    def release(self) -> None:
        """Goes on."""
        self._held = False
        self._rouse()

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
            # Revisions that a pass has read are complete; a live one may not be yet.
            open_from = NEVER if cohort.covered or not self._open else self._open
            ready = cohort.prepare(self._store.kv_at, open_from)
            budget -= 1 + (len(cohort.encoded) - before) // 4
            if not ready:
                queue.append(cohort)
                return budget
            if not cohort.encoded:  # it only has events of a revision that is not complete
                self._opened[cohort] = None
                self._unqueue(cohort)
                return budget
            job = cohort.start_job()
        budget = self._sender.send(job, budget)
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
        """The fast path: one event for one watcher that has room; returns whether it applied."""
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
            self._sender.events_total += 1
            sink.send(b"".join((self._header(covered), watcher.id_field, payload)))
        return True

    def _unqueue(self, cohort: Cohort) -> None:
        cohort.queued = False
        if cohort.covered:
            cohort.covered = 0
            self._pass.jobs -= 1

    def _drop_pending(self, cohort: Cohort) -> None:
        self.pending_bytes -= cohort.weight
        cohort.weight = 0
        cohort.drop()
        if cohort.job is not None:
            self.pending_bytes -= cohort.job.weight
            cohort.job = None

    def _hasten(self, watcher: Watcher) -> bool:
        """Sends a synced watcher all that its cohort still has for it.

        False if its stream is full.
        """
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
            self._sender.events_total += len(job.encoded)
            self._sender.send_some(watcher, self._header(job.covered), job, first)
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
            self._sender.send(single.start_job(), 1)
            waiting = single.pending
        return True

    # --- falling behind and catching up ---------------------------------------------------------

    def _stall(self, watcher: Watcher, first: int) -> None:
        """The stream is full: from `first` on (or later, if it needs less) it reads the store."""
        if watcher.state == LAGGING:
            first = max(first, self._pass.needs(watcher))
        self._leave(watcher)
        watcher.min_revision = max(watcher.min_revision, first)
        watcher.state = STALLED
        watcher.stalled_with[watcher] = None

    def _fall_behind(self, cohort: Cohort, next_revision: int | None = None) -> None:
        """All watchers of a live cohort fall behind: they get its unsent events from the store."""
        first = next_revision
        if cohort.job is not None:
            first = cohort.job.first
        elif cohort.pending:
            first = cohort.pending[0].revision
        assert first is not None, "a cohort with nothing to send fell behind"
        for watcher in list(cohort.watchers):
            self._leave(watcher)
            self._pass.make_ready(watcher, first)
        self._drop_pending(cohort)

    def _end_compacted(self, watcher: Watcher) -> None:
        """Cancels a watcher whose events are compacted, once its stream has room."""
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
        """Makes a watcher synced."""
        self._live.join(watcher)
        watcher.state = SYNCED
        self._count_synced(1)

    def _leave(self, watcher: Watcher) -> None:
        """Takes a watcher out of wherever it is."""
        if watcher.state == READY:
            self._pass.ready.pop(watcher, None)
        elif watcher.state == STALLED:
            watcher.stalled_with.pop(watcher, None)
        elif watcher.state == LAGGING:
            self._pass.lagging.leave(watcher)
        elif watcher.state == SYNCED:
            self._live.leave(watcher)
            self._count_synced(-1)

    def _count_synced(self, change: int) -> None:
        """Listens to the store only while there are synced watchers."""
        before = self.synced
        self.synced = before + change
        if not before and self.synced:
            self._store.listen(self.on_events)
        elif before and not self.synced:
            self._store.leave(self.on_events)

    def _rouse(self) -> None:
        if not self._awake and (self._queue or self._pass.due):
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
            self._pass.make_ready(watcher, watcher.start_revision)
            self._rouse()

    def end(self, watcher: Watcher) -> None:
        """Ends a watcher of a stream: nothing is sent to it any more."""
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
            self._pass.make_ready(watcher, watcher.min_revision)
        self._rouse()

    def caught_up(self, watcher: Watcher) -> bool:
        """Sends a watcher what is under way; returns whether it has then got everything."""
        if self._open or self._held or watcher.state != SYNCED:
            return False
        if self._store.revision < watcher.start_revision:
            return False
        return self._hasten(watcher)

    # --- looking inside -------------------------------------------------------------------------

    def sent(self) -> tuple[int, int]:
        """Messages and events so far."""
        return self._sender.messages_total, self._sender.events_total

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
            "events": self._sender.events_total,
            "messages": self._sender.messages_total,
        }

    def check(self) -> None:
        """The invariants at the head of this module; raises InvariantError."""
        watch_invariants.whole_hub(self)

    def check_steps(self) -> Checks:
        """What can be said of each cohort and watcher by itself, in steps."""
        return watch_invariants.hub_steps(self)
