"""Drives the member's Raft: collects a turn's input, and carries out Ready in one function.

The order is persist -> send -> apply -> acknowledge:

- an entry is applied only when it is on this member's disk, and answered only when it is applied;
- a follower's or candidate's messages are sent only after the state that they promise is on disk; a
  leader's may be sent while its disk is busy, because it counts itself only when its own write is
  done (Raft thesis §10.2.1);
- one write is under way at a time. While it syncs, proposals gather into the next batch and the
  entries of the batch before are applied and answered, so disk and interpreter work side by side.

- a follower answers the leader before it applies, because the leader waits for the answer;
- a leader's empty append with a commit index waits for the next entries (`commit_notices`);
- Raft's next steps depend on a committed configuration change, so Raft waits until it is applied.
  Mostly this is at once. Behind a transaction that takes many turns it is not; then the loop goes
  on while Raft waits, as in the original.

Proposals of one turn of the event loop become one call of `propose`, one write and one sync. While
there is no leader, or while the disk is busy, they wait. A proposal whose proposer has left is not
proposed.

No other code calls `node`: each verb here schedules a turn, so callers need not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, Protocol

from keyraft.base.clock import Loop
from keyraft.base.invariants import hold
from keyraft.base.limits import REQUEST_BYTES_MAX
from keyraft.raft import (
    ConfChange,
    ConfChangeV2,
    ConfState,
    Entry,
    MemoryStorage,
    Message,
    MessageType,
    ProgressState,
    ProposalDroppedError,
    RawNode,
    ReadState,
    Ready,
    Snapshot,
    StateType,
    Status,
)
from keyraft.server.consensus import forwarded_proposals
from keyraft.server.consensus.commit_notices import CommitNotices
from keyraft.server.consensus.leadership import Leadership
from keyraft.server.ports import DurableLog, Network, RoomGate

BATCH_ENTRIES_MAX: Final = 4_000  # of one propose; below the apply gap that refuses requests
BATCH_BYTES_MAX: Final = 16 << 20  # of one propose; a larger single proposal goes alone
QUEUE_BYTES_MAX: Final = 256 << 20  # proposals not yet taken by Raft; more is refused
_TYPE: Final = attrgetter("type")  # zero for a normal entry
_PROP: Final = MessageType.PROP.value
ALONE_ENTRIES_MAX: Final = 4  # a batch so small may be synced on the loop itself


class RaftEvents(Protocol):
    """The callbacks to the member."""

    def read_states(self, states: Sequence[ReadState]) -> None:
        """Read index rounds have been agreed."""

    def committed(self, entries: list[Entry], applied: Callable[[], None] | None) -> None:
        """Entries to apply in order.

        `applied` is given if a configuration change is among them, and is called, at once or later,
        when all are applied.
        """

    def before_snapshot(self, ready: Callable[[], None]) -> None:
        """A snapshot will be installed.

        `ready` is called, at once or later, when no entry is being applied; none is begun until
        `snapshot_installed`.
        """

    def snapshot_installed(self, snapshot: Snapshot) -> None:
        """A snapshot of the leader is durable: load its state."""

    def dropped(self, stamps: list[bytes]) -> None:
        """Raft has refused these proposals (no leader, or a transfer is under way)."""


class RaftLoop:
    """Drives one RawNode. Owned by the member's loop."""

    def __init__(
        self,
        loop: Loop,
        node: RawNode,
        storage: MemoryStorage,
        log: DurableLog,
        network: Network,
        events: RaftEvents,
        leadership: Leadership,
        stable_index: int,
        request_bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        """`request_bytes_max`: the largest request that this member's own clients may send."""
        self._loop = loop
        self.node = node
        self._storage = storage
        self._log = log
        self._network = network
        self._notices = CommitNotices(loop, network)
        self._events = events
        self._leadership = leadership
        self._stable_index = stable_index
        self._request_bytes_max = request_bytes_max
        self._queue: dict[bytes, bytes] = {}  # stamps to entries, in the order they came
        self._queue_bytes = 0
        self._leading_queue: list[tuple[int, bytes, bytes]] = []
        self._scheduled = False
        self._in_turn = False
        self._ready: Ready | None = None
        self._early: list[Entry] = []
        self._held: list[Entry] = []
        self._changes = 0  # configuration changes handed out and not yet applied
        self._persisted_fully = False  # this Ready waits for no write
        self._as_leader = False  # the Ready under way is a leader's, whose messages are sent
        self._began_s = 0.0
        self._stopped = False
        self.room: RoomGate | None = None  # while the disk is full
        self.batches = 0

    # --- in -----------------------------------------------------------------------------------

    def propose(self, stamp: bytes, data: bytes) -> bool:
        """Queues one entry for this turn's batch; False when the queue is full."""
        if self._queue_bytes > QUEUE_BYTES_MAX:
            return False
        self._queue[stamp] = data
        self._queue_bytes += len(data)
        if not self._scheduled and self._ready is None:
            self._scheduled = True
            self._loop.call_soon(self._turn)
        return True

    @property
    def queued(self) -> int:
        """Proposals that Raft has not taken."""
        return len(self._queue)

    def withdraw(self, stamp: bytes) -> bool:
        """Withdraws a proposal; False if Raft has taken it, so that it may be carried out."""
        data = self._queue.pop(stamp, None)
        if data is None:
            return False
        self._queue_bytes -= len(data)
        return True

    def propose_leading(self, stamp: bytes, data: bytes) -> None:
        """Queues an entry that only the leader of this term may propose; else it is dropped.

        Otherwise a proposal that waits for a slow disk could be forwarded to a later leader.
        """
        self._leading_queue.append((self._leadership.term, stamp, data))
        self._wake()

    def step(self, message: Message) -> None:
        """Takes a message from a peer; its result is carried out in this turn.

        Raises RaftError: PeerMessageError for an invalid message, and what Raft refuses.
        """
        if not self._stopped:
            if self.room is not None and not self.room.takes(message):
                return
            if message.type == _PROP:
                forwarded_proposals.check(message.entries, self._request_bytes_max)
            self.node.step_from_peer(message)
            if message.type == _PROP:
                # A follower's client waits for the commit of these entries.
                self._notices.awaited(self.node.raft.log.last_index())
            self._wake()

    def check_from_peer(self, message: Message) -> None:
        """Raises PeerMessageError for an invalid message."""
        self.node.check_from_peer(message)

    def tick(self) -> None:
        """One heartbeat interval has passed."""
        self.node.tick()
        if self._ready is not None and self._leadership.leading:
            self._look_at_lead()
        self._wake()

    def _look_at_lead(self) -> None:
        """Checks the leadership while the disk stalls, as no Ready is carried out meanwhile.

        No heartbeat is sent meanwhile, so the others elect another leader, and Raft steps down
        without a quorum. The member must know at once, because it still answers clients.
        """
        if self.node.raft.state != StateType.LEADER:
            self._leadership.follow(self.node.raft.soft_state(), self.node.raft.term)

    def start(self) -> None:
        """Carries out the work that a former life has left."""
        self._wake()

    def campaign(self) -> None:
        """Campaigns now."""
        self.node.campaign()
        self._wake()

    def read_index(self, context: bytes) -> None:
        """Asks a quorum who leads; `RaftEvents.read_states` gets the answer with `context`."""
        self.node.read_index(context)
        self._wake()

    def transfer(self, target: int) -> None:
        """Transfers leadership to `target`, or asks the leader to."""
        self.node.transfer_leader(target)
        self._wake()

    def propose_conf_change(self, change: ConfChange) -> None:
        """Raises ProposalDroppedError: there is no leader, or a change is under way."""
        self.node.propose_conf_change(change)
        self._wake()

    def apply_conf_change(self, change: ConfChange | ConfChangeV2, index: int) -> ConfState:
        """The change of entry `index` takes effect. Raises ConfChangeError."""
        state = self.node.apply_conf_change(change, index)
        self._wake()
        return state

    def forget(self, member_id: int) -> bool:
        """A member was removed; returns whether it led, so that there is no leader now."""
        if member_id != self.node.raft.lead:
            return False
        self.node.forget_leader()
        self._wake()
        return True

    def report_unreachable(self, member_id: int) -> None:
        """A message to this member was lost."""
        if not self._stopped:
            self.node.report_unreachable(member_id)
            self._wake()

    def report_snapshot(self, member_id: int, ok: bool) -> None:
        """A database that was sent to this member has arrived, or has not."""
        if not self._stopped:
            self.node.report_snapshot(member_id, ok)
            self._wake()

    # --- what it is asked ---------------------------------------------------------------------

    @property
    def has_leader(self) -> bool:
        """Whether Raft knows a leader, even if the member has not been told yet."""
        return self.node.raft.lead != 0

    def leads(self, term: int) -> bool:
        """Whether this member leads in `term` by Raft's own knowledge."""
        raft = self.node.raft
        return raft.state is StateType.LEADER and raft.term == term

    @property
    def sends_database(self) -> bool:
        """Whether this member leads and a follower needs a whole database."""
        raft = self.node.raft
        return raft.state is StateType.LEADER and any(
            progress.state is ProgressState.SNAPSHOT for progress in raft.tracker.progress.values()
        )

    @property
    def takes_snapshot(self) -> bool:
        """Whether Raft has taken a leader's snapshot that is not in place yet."""
        return self.node.raft.log.unstable.snapshot is not None

    def status(self) -> Status:
        """What Raft says of itself: its state and, on a leader, the progress of each member."""
        return self.node.status()

    @property
    def writing_since_s(self) -> float | None:
        """When the write that is under way began, in loop time; None when there is none."""
        writes = self._ready is not None and not self._persisted_fully
        return self._began_s if writes else None

    def _wake(self) -> None:
        """Has a turn run soon."""
        if not self._scheduled and self._ready is None:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def term_at(self, index: int) -> int:
        """The term of an entry that is still known; raises raft.StorageError."""
        return self._storage.term(index)

    @property
    def applied_index(self) -> int:
        """The applied index that Raft knows: without the entries of the Ready under way."""
        return self.node.raft.log.applied

    def stop(self) -> None:
        """Stops; only the write under way is finished."""
        self._stopped = True
        self._notices.stop()

    @property
    def writing(self) -> bool:
        """Whether a Ready is being written."""
        return self._ready is not None and not self._persisted_fully

    def check(self) -> None:
        """What Raft says of itself, and that its loop has carried out and told everything, or has a
        turn to come. Raises InvariantError."""
        self.node.check()
        size = sum(map(len, self._queue.values()))
        hold(size == self._queue_bytes, "queued bytes are counted", size, self._queue_bytes)
        hold(self._ready is not None or not (self._early or self._held), "applied with its Ready")
        hold(self._changes >= 0, "changes are counted", self._changes)
        leadership, raft = self._leadership, self.node.raft
        leadership.check(raft.term)
        if self._ready is None and not self._scheduled and not self._stopped:
            hold(not self.node.has_ready(), "a verb of Raft wakes its loop", raft.id)
            leader = (leadership.leader, leadership.leading)
            found = (raft.lead, raft.state is StateType.LEADER)
            hold(leader == found, "who leads has been told", leader, found)

    @property
    def stable_index(self) -> int:
        """The last entry that is on this member's disk."""
        return self._stable_index

    @property
    def installing(self) -> bool:
        """Whether a leader's snapshot is about to take the place of this member's state."""
        ready = self._ready
        return self.takes_snapshot or (ready is not None and ready.snapshot is not None)

    @property
    def conf_state(self) -> ConfState:
        """The configuration by which Raft counts votes."""
        return self.node.raft.tracker.config.conf_state()

    # --- the turn -----------------------------------------------------------------------------

    def _turn(self) -> None:
        self._scheduled = False
        if self._in_turn:
            return
        self._in_turn = True
        try:
            while self._ready is None and not self._stopped:
                if self._leading_queue:
                    self._take_leading()
                if self._queue and self._leadership.leader:
                    self._offer()
                if not self.node.has_ready():
                    break
                self._carry_out(self.node.ready())
        finally:
            self._in_turn = False

    def _take_leading(self) -> None:
        """Moves these proposals to the front, so that they are in the present batch."""
        waiting, self._leading_queue = self._leading_queue, []
        mine = {stamp: data for term, stamp, data in waiting if self.leads(term)}
        if len(mine) < len(waiting):
            self._events.dropped([stamp for _, stamp, _ in waiting if stamp not in mine])
        self._queue_bytes += sum(map(len, mine.values()))
        self._queue = mine | self._queue

    def _offer(self) -> None:
        """Gives one batch of proposals to Raft."""
        batch = self._queue
        if len(batch) > BATCH_ENTRIES_MAX or self._queue_bytes > BATCH_BYTES_MAX:
            size = 0
            batch = {}
            for stamp, data in self._queue.items():
                size += len(data)
                if batch and (len(batch) >= BATCH_ENTRIES_MAX or size > BATCH_BYTES_MAX):
                    size -= len(data)
                    break
                batch[stamp] = data
            for stamp in batch:
                del self._queue[stamp]
            self._queue_bytes -= size
        else:
            self._queue = {}
            self._queue_bytes = 0
        self.batches += 1
        if self.room is not None and not self.room.takes_entries(batch.values()):
            self._events.dropped(list(batch))
            return
        try:
            self.node.propose(list(batch.values()))
        except ProposalDroppedError:
            self._events.dropped(list(batch))

    def _carry_out(self, ready: Ready) -> None:
        """The one place where a Ready is carried out."""
        if ready.soft_state is not None:
            self._leadership.follow(ready.soft_state, self.node.raft.term)
        if ready.read_states:
            self._events.read_states(ready.read_states)
        self._ready = ready
        self._as_leader = self._leadership.leading
        if self._as_leader and ready.messages:
            self._notices.send(ready.messages)
        if ready.snapshot is not None:
            # The snapshot is durable before any entry behind it is.
            self._events.before_snapshot(self._install)
            return
        self._persist(ready)

    def _install(self) -> None:
        ready = self._ready
        assert ready is not None and ready.snapshot is not None, "no Ready carried a snapshot"
        if not self._stopped:
            self._log.install(ready.snapshot, ready.hard_state, self._snapshot_durable)

    def _snapshot_durable(self) -> None:
        ready = self._ready
        assert ready is not None and ready.snapshot is not None, "no Ready carried this snapshot"
        self._storage.apply_snapshot(ready.snapshot)
        self._stable_index = ready.snapshot.meta.index
        self._events.snapshot_installed(ready.snapshot)
        self._persist(ready)

    def _persist(self, ready: Ready) -> None:
        entries = ready.entries
        committed = ready.committed_entries
        early = committed
        if entries and entries[0].index <= self._stable_index:
            # The entries on the disk at these indexes are an earlier leader's, and are replaced.
            self._stable_index = entries[0].index - 1
        if committed and committed[-1].index > self._stable_index:
            # Committed by others before it was on our own disk: applied when it is.
            split = len(committed)
            while split and committed[split - 1].index > self._stable_index:
                split -= 1
            early, self._held = committed[:split], committed[split:]
        if entries or ready.hard_state is not None:
            self._early = early
            self._began_s = self._loop.time()
            # On a follower no client waits for these entries.
            waits = self._queue or (early and self._as_leader) or len(early) > ALONE_ENTRIES_MAX
            alone = len(entries) <= ALONE_ENTRIES_MAX and not waits
            if self.room is not None:
                self.room.appended()
            self._log.append(entries, ready.hard_state, ready.must_sync, self._persisted, alone)
            self._apply_early()
        else:
            self._early = early
            self._persisted()

    def _apply_early(self) -> None:
        """Applies entries that were on our disk before this Ready, mostly during its write."""
        if self._early:
            early, self._early = self._early, []
            self._apply(early)

    def _apply(self, entries: list[Entry]) -> None:
        if any(map(_TYPE, entries)):
            self._changes += 1
            self._events.committed(entries, self._change_applied)
        else:
            self._events.committed(entries, None)

    def _change_applied(self) -> None:
        self._changes -= 1
        if self._persisted_fully and not self._changes:
            self._advance()

    def _persisted(self) -> None:
        ready = self._ready
        assert ready is not None, "a write ended that no Ready carried"
        if ready.entries:
            self._storage.append(ready.entries)
            self._stable_index = ready.entries[-1].index
        if not self._as_leader and ready.messages:
            self._network.send(ready.messages)
        self._apply_early()
        if self._held:
            held, self._held = self._held, []
            self._apply(held)
        if self._changes:
            self._persisted_fully = True
        else:
            self._advance()

    def _advance(self) -> None:
        self._persisted_fully = False
        self.node.advance()
        self._ready = None
        if not self._in_turn:
            self._turn()
