"""One member: proposals in, Raft driven, entries applied, answers out.

This module joins the parts and offers the verbs that services use. Each part has its own module:
`consensus.raft_loop` carries out Ready, `apply.queue` applies entries in slices, `apply.applier`
knows what each request does, `consensus.read_index` waits for agreement, `wait_table` for results,
`membership.membership` knows the members of the cluster, `consensus.snapshotter` shortens the log,
`membership.publisher` tells the others about this member.

All of it runs on the loop's thread. Nothing here blocks, and clock and random numbers are handed
in. Callbacks are called exactly once. A write is answered after it is applied here, which is after
it is on a quorum of disks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keyraft.auth import AuthStore, Identity, TokenAheadError, TokenProvider
from keyraft.base import codes, errors
from keyraft.base.clock import Loop, Random, WallClock
from keyraft.base.errors import EtcdError
from keyraft.base.ids import RequestIDGenerator
from keyraft.base.limits import APPLY_GAP_ENTRIES_MAX, GRPC_OVERHEAD_BYTES
from keyraft.base.log import Logger
from keyraft.base.version import VERSION
from keyraft.base.waiters import Done, DoneWaiter, Waiter
from keyraft.cluster import RaftCluster, short
from keyraft.grpc import status
from keyraft.lease import Lessor, min_ttl_s
from keyraft.mvcc import Store, WatchHub
from keyraft.mvcc.backend import META, META_CONSISTENT_INDEX, META_TERM, BatchBackend
from keyraft.raft import Entry, ReadState, Snapshot
from keyraft.server.apply.applier import Applier
from keyraft.server.apply.apply_wait import ApplyWait
from keyraft.server.apply.internal_request import KIND_LEASE_REVOKE, Stamper, wrap
from keyraft.server.apply.queue import ApplyQueue
from keyraft.server.consensus.boot import Boot, build_node
from keyraft.server.consensus.late_heartbeats import LateHeartbeats
from keyraft.server.consensus.leadership import Leadership
from keyraft.server.consensus.leadership_transfer import LeadershipTransfer
from keyraft.server.consensus.raft_loop import RaftLoop
from keyraft.server.consensus.read_index import ReadDone, ReadIndex
from keyraft.server.consensus.snapshotter import Snapshotter
from keyraft.server.counters import Counters
from keyraft.server.delivery import Delivery
from keyraft.server.header import HeaderEncoder
from keyraft.server.membership.changes import MembershipChanges
from keyraft.server.membership.membership import Membership
from keyraft.server.membership.publisher import Publisher
from keyraft.server.membership.removals import Removals
from keyraft.server.ports import DurableLog, LeaderCalls, Network, Passwords, PeerHashes
from keyraft.server.settings import MemberSettings
from keyraft.server.slices import Slices
from keyraft.server.upkeep import alarms
from keyraft.server.upkeep.auto_compaction import AutoCompaction, auto_compaction
from keyraft.server.upkeep.compactor import Compactor
from keyraft.server.upkeep.corruption import CorruptionChecker
from keyraft.server.upkeep.leasing import FRESH_TICKS, Leasing
from keyraft.server.upkeep.quota import Quota
from keyraft.server.upkeep.rebuild import Rebuild
from keyraft.server.upkeep.received_database import ReceivedDatabase
from keyraft.server.upkeep.space import SpaceKeeper
from keyraft.server.wait_table import WaitTable


def _never() -> bool:
    """The default of `overloaded`: a database that always keeps up."""
    return False


class Member:
    """A running member. Made by `app` or the simulator."""

    def __init__(
        self,
        settings: MemberSettings,
        loop: Loop,
        wall_clock: WallClock,
        chance: Random,
        logger: Logger,
        backend: BatchBackend,
        log: DurableLog,
        network: Network,
        tokens: TokenProvider,
        passwords: Passwords,
        cluster: RaftCluster,
        boot: Boot,
        overloaded: Callable[[], bool] = _never,
    ) -> None:
        """`overloaded`: whether the database cannot keep up, so nothing should be applied."""
        self.settings = settings
        self.lags = overloaded
        self.loop = loop
        self.wall_clock = wall_clock
        self.logger = logger
        self.backend = backend
        self.network = network
        self.passwords = passwords
        self.counters = Counters()
        self.lessor = Lessor(
            backend, min_ttl_s(settings.election_ticks, int(settings.heartbeat_s * 1000))
        )
        self.auth = AuthStore(
            backend, self.lessor, tokens, passwords.hash_now, settings.client_cert_auth
        )
        self.lessor.on_grant = self.counters.lease_ttl_s.of().observe
        self.store = Store(
            backend,
            self.lessor,
            settings.compaction_batch_revisions,
            settings.compaction_sleep_s,
            boot.checkpoint,
        )
        boot.checkpoint = None
        self.compactor = Compactor(loop, self.store, self.counters, wall_clock, logger)
        self.watches = WatchHub(
            self.store,
            self.header,
            chance,
            self._wake_watches,
            message_bytes_max=settings.request_bytes_max + GRPC_OVERHEAD_BYTES,
        )
        self.delivery = Delivery(self)
        self.leadership = Leadership(
            settings.member_id, boot.hard_state.term, loop, logger, self.counters
        )
        self.leasing = Leasing(self)
        self.auto_compaction: AutoCompaction | None = auto_compaction(self)
        self.alarms = alarms.AlarmStore(backend)
        self.space = SpaceKeeper(self, log)
        self.quota = Quota(settings.quota_backend_bytes, backend, self.space.raise_alarm)
        self.waiting = WaitTable()
        self._stamper = Stamper(RequestIDGenerator(settings.member_id, wall_clock()))
        self.headers = HeaderEncoder(settings.cluster_id, settings.member_id)
        self._stamp = self._stamper.stamp
        self._wait = self.waiting.add
        self._give_up = self.give_up
        self._request_bytes_max = settings.request_bytes_max
        self._prior_kind = KIND_LEASE_REVOKE if settings.priority_request else -1

        self.committed_index = boot.applied_index
        self.consistent_index = boot.consistent_index
        self.ticked_s = loop.time()
        self.paused_until_s = float("-inf")  # when ticks last came again after a pause
        self.stopped = False
        self._stopping: list[Callable[[], None]] = []
        self.on_removed: Callable[[], None] | None = None
        self.leader_calls: LeaderCalls | None = None  # None without other members
        self.peer_hashes: PeerHashes | None = None  # the same

        node, storage = build_node(settings, boot, chance, logger)
        self.raft = RaftLoop(
            loop,
            node,
            storage,
            log,
            network,
            self,
            self.leadership,
            boot.last_index,
            settings.request_bytes_max,
        )
        self.applier = Applier(self)
        self.queue = ApplyQueue(
            loop,
            boot.applied_index,
            self.applier.apply,
            self._slice_done,
            settings.warning_apply_s,
            self.applier.slow,
            overloaded,
            backend.hold,
            backend.release,
        )
        self.slices = Slices(loop)
        self.received = ReceivedDatabase(self)
        self.token_waits = ApplyWait()
        self.reads = ReadIndex(loop, self, self.counters, logger, settings.request_timeout_s)
        self.membership = Membership(self, cluster, boot.conf_state)
        self.snapshotter = Snapshotter(self, storage, log, boot.snapshot.index)
        self.publisher = Publisher(self)
        self.leadership_transfer = LeadershipTransfer(
            settings, loop, self.raft, self.leadership, cluster, network, logger
        )
        self.late_heartbeats = LateHeartbeats(
            settings.heartbeat_s, self.raft, self.leadership, self.counters, logger
        )
        self.removals = Removals(self)
        self.corruption = CorruptionChecker(self)
        self.rebuild = Rebuild(self)
        self.membership_changes = MembershipChanges(self)
        self.leadership.on_leader = (
            self.reads.leader_changed,
            self.leadership_transfer.leader_changed,
            self.membership.leader_changed,
        )
        self.leadership.on_deposed = (self.leasing.demote,)
        self.leadership.on_confirmed = (
            self.leasing.promote,
            self.reads.first_commit_in_term,
            self.publisher.leads,
        )
        backend.before_commit(self._seal_batch)

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts ticking; a sole voter campaigns at once.

        DEVIATION: etcd waits one randomized election timeout even for a sole voter.
        """
        version = self.membership.cluster.version
        self.logger.info(
            "starting etcd server",
            local_member_id=f"{self.settings.member_id:x}",
            local_server_version=VERSION,
            cluster_id=f"{self.settings.cluster_id:x}",
            cluster_version=short(version) if version is not None else "to_be_decided",
        )
        self.membership.start_peers()
        self.loop.call_later(self.settings.heartbeat_s, self._tick)
        self.raft.start()
        self.loop.call_soon(self.campaign_if_alone)
        self.leasing.start()
        self.corruption.start()
        if self.auto_compaction is not None:
            self.auto_compaction.start()

    def campaign_if_alone(self) -> None:
        """Campaigns if this is the only voter and there is no leader."""
        if self.membership.sole_voter and not self.leadership.leader and not self.stopped:
            self.raft.campaign()

    def stop(self, done: Callable[[], None]) -> None:
        """Refuses all requests from now on; calls `done` when the last write has ended."""
        if self.stopped:
            return
        self.halt()
        error = errors.StoppedError()
        self.waiting.fail_all(error)
        self.reads.fail_all(error)
        self.membership.fail_all(error)
        self.leadership_transfer.fail_all(error)
        self._stopping.append(done)
        self._finish_stop()

    def halt(self) -> None:
        """Takes nothing and carries out nothing from now on; nobody is told anything."""
        self.stopped = True
        self.raft.stop()
        self.queue.end()

    def _finish_stop(self) -> None:
        if self.raft.writing:
            self.loop.call_later(0.001, self._finish_stop)
            return
        for done in self._stopping:
            done()
        self._stopping.clear()

    def _tick(self) -> None:
        if self.stopped:
            return
        self.loop.call_later(self.settings.heartbeat_s, self._tick)
        now_s = self.loop.time()
        if now_s - self.ticked_s > FRESH_TICKS * self.settings.heartbeat_s:
            self.paused_until_s = now_s
        self.ticked_s = now_s
        self.raft.tick()
        self.late_heartbeats.tick(now_s)
        self.waiting.close_batch(now_s, now_s + self.settings.request_timeout_s)
        self.waiting.expire(now_s, self._late)
        self.reads.tick(now_s)
        if self.token_waits:
            self.token_waits.expire(now_s, errors.InvalidAuthTokenError())
        self.membership.tick(now_s)
        self.publisher.tick(now_s)
        self.leadership_transfer.tick(now_s)
        self.space.tick(now_s)
        self.rebuild.tick(now_s)

    def await_token(self, ahead: TokenAheadError, done: Callable[[EtcdError | None], None]) -> None:
        """`done(None)` once the entry that made a token is applied here, or an error in time.

        If the token may belong to the next entry, it waits only as long as the leader's next
        heartbeats take.
        """
        settings = self.settings
        patience_s = settings.request_timeout_s
        if ahead.may_be:
            patience_s = FRESH_TICKS * settings.heartbeat_s
        self.token_waits.add(ahead.index, self.loop.time() + patience_s, done)

    def _late(self, stamp: bytes, waiter: Waiter, start_s: float) -> None:
        """The request timeout has passed, although the client would wait longer."""
        self.counters.proposals_failed += 1
        self.raft.withdraw(stamp)
        error = self.why_timeout(start_s)
        waiter.fail(error.code, error.text)

    def withdraw(self, waiter: Waiter) -> bool:
        """Withdraws a proposal that Raft has not taken; its waiter is not called.

        False if the proposal may be or was carried out.
        """
        if not self.raft.withdraw(waiter.ticket):
            return False
        self.waiting.pop(waiter.ticket, None)
        self.counters.proposals_failed += 1
        return True

    def give_up(self, waiter: Waiter, code: int) -> None:
        """A waiter's `on_cancel`: its client has left, or its deadline has passed.

        The proposal is withdrawn if possible. Otherwise its result is unknown; at its deadline the
        waiter gets a code after which no client tries again.
        """
        if self.withdraw(waiter) or self.waiting.pop(waiter.ticket, None) is None:
            return
        self.counters.proposals_failed += 1
        if code == status.DEADLINE_EXCEEDED:
            error = self.why_timeout(waiter.began_s)
            waiter.fail(error.code, error.text)

    def why_timeout(self, start_s: float) -> EtcdError:
        """Which timeout error fits: a lost leader, lost connections, or only slowness."""
        since_s = self.leadership.since_s
        if since_s - 2 * self.settings.election_s < start_s < since_s:
            return errors.TimeoutLeaderFailError()
        if self.leadership.leader and not self.membership.connected_since(start_s):
            return errors.TimeoutConnectionLostError()
        return errors.RequestTimeoutError()

    # --- what services ask for ----------------------------------------------------------------

    def propose(
        self,
        kind: int,
        request: bytes,
        done: Done,
        caller: Identity | None = None,
    ) -> DoneWaiter:
        """`propose_for` with a callback that gets the response or the refusal.

        Returns the waiter, for `give_up`.
        """
        waiter = DoneWaiter(done, self.ticked_s)
        self.propose_for(kind, waiter, request, caller)
        return waiter

    def propose_for(
        self, kind: int, waiter: Waiter, request: bytes, caller: Identity | None = None
    ) -> None:
        """Sends a request through the log; `waiter` gets its response or its refusal.

        From here on `waiter.on_cancel` is `give_up`. Raises TooManyRequestsError,
        RequestTooLargeError, StoppedError.
        """
        gap = self.committed_index - self.queue.applied_index
        if gap > APPLY_GAP_ENTRIES_MAX and (
            kind != self._prior_kind or gap > 2 * APPLY_GAP_ENTRIES_MAX
        ):
            raise errors.TooManyRequestsError
        if caller is None:
            stamp = self._stamp()
        else:
            stamp = self._stamper.stamp_for(caller)
        data = wrap(kind, request, stamp)
        if len(data) > self._request_bytes_max:
            raise errors.RequestTooLargeError
        if self.stopped:
            raise errors.StoppedError
        if not self.raft.propose(stamp, data):
            raise errors.TooManyRequestsError
        self._wait(stamp, waiter)
        waiter.ticket = stamp
        waiter.on_cancel = self._give_up
        self.waiting.fresh.append(stamp)

    def propose_leading(
        self, kind: int, request: bytes, done: Done, caller: Identity | None = None
    ) -> None:
        """`propose` for a request that only the leader of this term may make.

        Else it is dropped.
        """
        if caller is None:
            stamp = self._stamp()
        else:
            stamp = self._stamper.stamp_for(caller)
        self._wait(stamp, DoneWaiter(done, self.ticked_s))
        self.waiting.fresh.append(stamp)
        self.raft.propose_leading(stamp, wrap(kind, request, stamp))

    @property
    def readable(self) -> bool:
        """Whether a linearizable read may be answered now: sole voter, nothing unapplied."""
        return self.leadership.alone and self.committed_index == self.queue.applied_index

    def read_index(self, done: ReadDone) -> None:
        """`done(None)` when a linearizable read may be answered, or `done(error)`."""
        if self.stopped:
            done(errors.StoppedError())
        elif self.leadership.alone:
            if self.committed_index == self.queue.applied_index:
                done(None)
            else:
                self.reads.wait_applied(self.committed_index, done)
        else:
            self.reads.request(done)

    def header(self, revision: int) -> bytes:
        """The encoded header field of a response."""
        return self.headers.encode(revision, self.leadership.term)

    @property
    def applied_index(self) -> int:
        """The last entry applied."""
        return self.queue.applied_index

    def next_id(self) -> int:
        """An id that no other member, and no earlier life of this one, uses."""
        return self._stamper.next_id()

    def send_read_index(self, context: bytes) -> None:
        """Part of `reads`: starts a round."""
        self.raft.read_index(context)

    # --- what the Raft loop reports -----------------------------------------------------------

    def read_states(self, states: Sequence[ReadState]) -> None:
        """Read index rounds have been agreed."""
        for state in states:
            self.reads.confirmed(state.context, state.index, self.queue.applied_index)

    def committed(self, entries: list[Entry], applied: Callable[[], None] | None) -> None:
        """Entries to apply; Raft may only go on once a configuration change has been applied."""
        self.committed_index = max(self.committed_index, entries[-1].index)
        self.queue.submit(entries)
        if applied is not None:
            self.queue.when_empty(applied)

    def before_snapshot(self, ready: Callable[[], None]) -> None:
        """The database will be replaced: the entry under way is finished, no other is begun."""
        self.queue.hold(ready)

    def snapshot_installed(self, snapshot: Snapshot) -> None:
        """The leader's snapshot has replaced the database, and what was still to be applied."""
        meta = snapshot.meta
        self.snapshotter.installed(meta)
        self.committed_index = max(self.committed_index, meta.index)
        self.queue.replaced(meta.index)
        self.consistent_index = max(self.consistent_index, meta.index)
        self.watches.suspend()
        self.received.take_over(meta.index)
        self.auth.load(self.backend)
        self.compactor.resume()
        self.alarms.load(self.backend)
        self.membership.restored(meta, snapshot.data)
        self.publisher.restored()
        self.reads.applied(meta.index)
        self.token_waits.applied(meta.index)
        self.queue.release()

    def dropped(self, stamps: list[bytes]) -> None:
        """Raft has refused these proposals, for instance during a leadership transfer."""
        for stamp in stamps:
            waiter = self.waiting.pop(stamp, None)
            if waiter is not None:
                self.counters.proposals_failed += 1
                waiter.fail(codes.UNKNOWN, "raft proposal dropped")

    # --- apply --------------------------------------------------------------------------------

    def apply_other(self, entry: Entry) -> None:
        """An entry that is no request: a change of configuration, or a leader's first."""
        if entry.type:
            self.membership.apply(entry)
        else:
            self.leadership.first_applied(entry.term, self.raft.leads(entry.term))

    def _slice_done(self, applied_index: int, entries: int, seconds: float) -> None:
        self.applier.slice_done(seconds)
        self.reads.applied(applied_index)
        if self.token_waits:
            self.token_waits.applied(applied_index)
        self.snapshotter.applied(applied_index)

    def _wake_watches(self) -> None:
        self.loop.call_soon(self.delivery.deliver)

    def _seal_batch(self) -> None:
        """The consistent index goes into the batch with the writes of the entries up to it."""
        index = self.queue.applied_index
        if index > self.consistent_index:
            self.consistent_index = index
            self.backend.put(META, META_CONSISTENT_INDEX, index.to_bytes(8, "big"))
            self.backend.put(META, META_TERM, self.leadership.term.to_bytes(8, "big"))
            self.membership.seal(self.backend)
