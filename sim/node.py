"""One simulated machine: a disk that outlives the member, and the member's lives on it.

The member is the real one, with the real write-ahead log on a simulated disk. Only the database is
a dictionary: it keeps what was committed and loses what was not, as LMDB does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, cast

from keyraft.auth import SimpleTokens
from keyraft.base.errors import EtcdError
from keyraft.base.log import NullLogger
from keyraft.base.version import VERSION
from keyraft.cluster import MemberRecord
from keyraft.grpc import Limits, Router
from keyraft.mvcc import MemoryBackend
from keyraft.mvcc.backend import (
    MEMBERS,
    MEMBERS_REMOVED,
    META,
    META_CONF_STATE,
    META_CONSISTENT_INDEX,
    OWN,
)
from keyraft.net.server import Server
from keyraft.raft import (
    ConfState,
    Entry,
    FatalError,
    Message,
    MessageType,
    PeerMessageError,
    RaftError,
    Snapshot,
    SnapshotMeta,
)
from keyraft.raft.errors import StorageError
from keyraft.server import Member, MemberSettings, PeerHash, RaftEngine, decode_conf_state
from keyraft.server.apply.queue import Work
from keyraft.server.membership.v2_tree import encode_rows
from keyraft.service import guard_of, register
from keyraft.shell.bootstrap import Opened, Place, found, join, reopen
from keyraft.shell.durable_log import DiskWorld, MemberLog
from keyraft.shell.force_new_cluster import force_new_cluster
from keyraft.storage.backend import MemoryEngine, WriteBuffer
from keyraft.storage.backend.memory import Disk
from keyraft.storage.wal import valid_snapshots
from sim.disk import PowerLost, SimDisk
from sim.loop import CoarseLoop, MemberLoop, SimLoop, SimTimer
from sim.network import MemberNetwork, SimNetwork
from sim.passwords import SimPasswords
from sim.threads import DiskClock, SimThread
from sim.witness import Witness

WAL_PATH: Final = "/data/member/wal"
SNAP_PATH: Final = "/data/member/snap"
SEGMENT_BYTES: Final = 1 << 17  # small, so that runs cut segments
EPOCH_UNIX_S: Final = 1_800_000_000.0
DIAL_S: Final = 1.0  # between two attempts to connect to each other member


@dataclass(slots=True)
class Habits:
    """How a member of this run behaves; small numbers make rare things happen often."""

    snapshot_count: int = 40
    catchup_entries: int = 10
    sync_min_s: float = 0.0002
    sync_max_s: float = 0.004
    commit_s: float = 0.003
    rate: float = 1.0  # of the member's clock
    heartbeat_s: float = 0.1
    election_ticks: int = 10
    wall_offset_s: float = 0.0  # of its calendar
    strict_reconfig: bool = True
    compaction_batch: int = 1_000  # revisions
    watch_rows: int = 500  # read from the store at once for watchers that are behind
    watch_message_bytes: int = 2_097_152  # larger ones are fragmented
    watch_pending_bytes: int = 67_108_864  # above it watchers fall behind
    corrupt_check_s: float = 0.0
    compact_hash_check_s: float = 0.0
    watch_budget: int = 1_000  # of one slice of delivery
    watch_slice_s: float = 0.0  # how long the next slice waits: others run meanwhile
    slice_keys: int = 500  # that one step of a transaction or a read looks at
    slice_s: float = 0.0  # between two such steps: others run meanwhile
    trim_entries: int = 1  # the memory log is shortened in steps of so many


class SlowTurns:
    """A member's loop for those who work in slices: the next turn waits a little."""

    def __init__(self, loop: MemberLoop, pause_s: float) -> None:
        self._loop = loop
        self._pause_s = pause_s
        self.time = loop.time
        self.call_later = loop.call_later
        self.call_at = loop.call_at

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Not quite."""
        return self._loop.call_later(self._pause_s, callback, *args)


class WitnessedMember(Member):
    """The real member, looked at."""

    witness: Witness
    habits: Habits

    def _wake_watches(self) -> None:
        self.loop.call_later(self.habits.watch_slice_s, self._deliver)

    def _deliver(self) -> None:
        """As the real one, but other work comes in between."""
        if not self.stopped and self.watches.deliver(self.habits.watch_budget):
            self.loop.call_later(self.habits.watch_slice_s, self._deliver)

    def snapshot_installed(self, snapshot: Snapshot) -> None:
        """The leader's database is in place."""
        super().snapshot_installed(snapshot)
        self.witness.snapshots += 1

    def watch(self, witness: Witness, habits: Habits) -> None:
        """Everything that this member applies is witnessed; called before it starts."""
        self.witness = witness
        self.habits = habits
        self.snapshotter.trim_entries = habits.trim_entries
        self.snapshotter.release_s = 0.0  # a whole run is shorter
        self.store.slice_keys = habits.slice_keys
        if habits.slice_s:
            assert isinstance(self.loop, MemberLoop), "made by start"
            turns = SlowTurns(self.loop, habits.slice_s)
            for worker in (self.queue, self.slices):
                worker._loop = turns
                worker.steps_max = 1
        hub = self.watches
        hub._chunk_rows = habits.watch_rows
        hub._message_bytes_max = habits.watch_message_bytes
        hub._pending_bytes_max = habits.watch_pending_bytes
        apply = self.queue._apply
        own = self.settings.member_id
        leadership = self.leadership

        def leads(_before: int = 0) -> None:
            if leadership.leading:
                witness.leads(own, leadership.term)

        leadership.on_leader = (leads, *leadership.on_leader)
        leadership.on_confirmed = (leads, *leadership.on_confirmed)

        def witnessed(entry: Entry) -> Work | None:
            witness.applies(own, entry)
            work = apply(entry)
            if entry.type:
                witness.changed(self, entry)
            return work

        self.queue._apply = witnessed


class NodeNetwork(MemberNetwork):
    """Snapshots take their database with them."""

    def __init__(self, node: Node, loop: MemberLoop) -> None:
        super().__init__(node.network, loop, node.identity.id, node.report_unreachable, VERSION)
        self._node = node

    def send(self, messages: Sequence[Message]) -> None:
        """Sends each to its receiver."""
        plain = []
        for message in messages:
            if message.type == MessageType.SNAP:
                self._node.send_snapshot(message)
            else:
                plain.append(message)
        super().send(plain)


class NodeHashes:
    """The hashes of all other members that can be reached; a `PeerHashes`."""

    def __init__(self, node: Node, nodes: dict[int, Node], loop: MemberLoop) -> None:
        self._node = node
        self._nodes = nodes
        self._loop = loop

    def ask(self, revision: int, done: Callable[[Sequence[PeerHash]], None]) -> None:
        """Asks all of them; the answers come back after a while."""

        def answer() -> None:
            found = [
                self._one(node, revision) for node in self._nodes.values() if node is not self._node
            ]
            self._loop.call_later(0.01, done, found)

        self._loop.call_later(0.01, answer)

    def _one(self, node: Node, revision: int) -> PeerHash:
        member, network = node.member, self._node.network
        there, back = (self._node.id, node.id), (node.id, self._node.id)
        nobody = PeerHash(node.id, node.identity.peer_urls)
        if member is None or not node.running:
            return nobody
        if not (network.reachable(*there) and network.reachable(*back)):
            return nobody
        try:
            found = member.store.hash_kv(revision).run()
        except EtcdError as error:
            return PeerHash(node.id, node.identity.peer_urls, error=error)
        return PeerHash(node.id, node.identity.peer_urls, member.store.revision, found)


@dataclass(slots=True)
class Database:
    """A database on its way, or received."""

    index: int
    content: Disk = field(default_factory=dict)


class Node:
    """A machine of the cluster."""

    def __init__(
        self,
        loop: SimLoop,
        network: SimNetwork,
        chance: Random,
        identity: MemberRecord,
        founders: Sequence[MemberRecord],
        habits: Habits,
        nodes: dict[int, Node],
        witness: Witness,
        *,
        cluster_id: int = 0,
    ) -> None:
        """`cluster_id` is given for a member that joins; a founder's follows from the founders."""
        self.loop = loop
        self.network = network
        self.chance = chance
        self.identity = identity
        self._founders = list(founders)
        self.habits = habits
        self._nodes = nodes
        self._witness = witness
        self._joins = cluster_id
        self.disk = SimDisk(chance)
        self.disk.make_dirs("/data/member")
        self.disk.make_dirs(SNAP_PATH)
        self.disk.sync_dir("/")
        self._database = MemoryEngine().disk
        self._received: dict[int, Database] = {}
        self.member: Member | None = None
        self.server: Server | None = None  # of this life, as `router`
        self.router = Router()
        self.lines: list[Callable[[], None]] = []  # of its clients: told when this life is over
        self._loop = MemberLoop(loop, habits.rate)
        self.backend: WriteBuffer | None = None
        self._engine: MemoryEngine | None = None
        self.lives = 0
        self.removed = False
        self._stalled_until_s = 0.0
        self.on_power_lost: Callable[[], None] = lambda: None  # amid a write, as was planned
        self.forced = False  # starts with --force-new-cluster

    @property
    def id(self) -> int:
        """The member's id."""
        return self.identity.id

    @property
    def running(self) -> bool:
        """Whether a member lives here and is not paused."""
        return self.member is not None and not self._loop.paused

    @property
    def hears(self) -> bool:
        """Whether a member lives here that would hear of its removal.

        One that joined and started again before its leader spoke to it knows nobody (as with the
        original: whom it was told of at first is written nowhere).
        """
        if self.member is None:
            return False
        assert isinstance(self.member.network, NodeNetwork), "made by start"
        return bool(self.member.network.peers)

    def sync_s(self) -> float:
        """How long this sync takes."""
        habits = self.habits
        usual_s = habits.sync_min_s + self.chance.random() * (habits.sync_max_s - habits.sync_min_s)
        return usual_s + max(0.0, self._stalled_until_s - self.loop.time())

    def stall(self, seconds: float) -> None:
        """No sync ends before so many seconds have passed."""
        self._stalled_until_s = self.loop.time() + seconds

    def mend(self) -> None:
        """The disk has room and answers again."""
        self._stalled_until_s = 0.0
        self.disk.mend()

    def later_in(
        self, member: Member | None, callback: Callable[..., object], *args: object
    ) -> None:
        """The same for what was sent to one life of the member."""
        if self.member is member:
            self._loop.request(callback, *args)

    def later(self, callback: Callable[..., object], *args: object) -> None:
        """A client's request reaches this life of the member, unless it ends before."""
        self._loop.request(callback, *args)

    # --- lives --------------------------------------------------------------------------------

    def start(self) -> None:
        """A new life on the same disk."""
        assert self.member is None, "a member lives here already"
        self.lives += 1
        self._loop = MemberLoop(self.loop, self.habits.rate, self._power_lost)
        try:
            self._begin(self._loop)
        except PowerLost:
            self._power_lost()

    def _begin(self, loop: MemberLoop) -> None:
        had_log = self.disk.exists(WAL_PATH)
        if had_log:
            self._finish_transfer()
        self._engine = MemoryEngine(self._database, loop, self.habits.commit_s)
        backend = self.backend = WriteBuffer(self._engine, loop, self._database_failed)
        place = Place(
            self.disk, WAL_PATH, SNAP_PATH, backend, NullLogger(), segment_bytes=SEGMENT_BYTES
        )
        if had_log:
            self._check_membership()
            opened = reopen(place)
            if self.forced:
                force_new_cluster(opened, NullLogger())
        elif self._joins:
            others = [one for one in self._founders if one.id != self.id]
            opened = join(place, self.identity, self._joins, others)
        else:
            opened = found(place, self.identity, self._founders)
        member = WitnessedMember(
            MemberSettings(
                member_id=self.id,
                cluster_id=opened.cluster_id,
                name=self.identity.name,
                client_urls=(f"http://{self.identity.name}:2379",),
                heartbeat_s=self.habits.heartbeat_s,
                election_ticks=self.habits.election_ticks,
                snapshot_count=self.habits.snapshot_count,
                snapshot_catchup_entries=self.habits.catchup_entries,
                strict_reconfig_check=self.habits.strict_reconfig,
                compaction_batch_revisions=self.habits.compaction_batch,
                corrupt_check_s=self.habits.corrupt_check_s,
                compact_hash_check_s=self.habits.compact_hash_check_s,
            ),
            loop,
            lambda: EPOCH_UNIX_S + self.habits.wall_offset_s + loop.time(),
            Random(self.chance.randrange(0, 1 << 30)),
            NullLogger(),
            backend,
            self._log(opened, loop),
            NodeNetwork(self, loop),
            SimpleTokens(loop, Random(self.id)),
            SimPasswords(loop),
            opened.cluster,
            opened.boot,
        )
        member.watch(self._witness, self.habits)
        member.on_removed = self._removed
        self._serve(member)
        member.peer_hashes = NodeHashes(self, self._nodes, loop)
        self.member = member
        for other in opened.others:
            member.network.add_peer(other.id, other.peer_urls)
        self.network.join(self.id, self._receive)
        member.start()
        loop.call_later(DIAL_S, self._dial, member)

    def _log(self, opened: Opened, loop: MemberLoop) -> MemberLog:
        clock = DiskClock(loop, self.sync_s)
        self.disk.on_sync = clock.synced
        threads = (SimThread(loop, self.sync_s, clock) for _ in range(2))
        world = DiskWorld(self.disk, clock, loop.call_soon, *threads)
        return MemberLog(
            opened.wal,
            SNAP_PATH,
            world,
            NullLogger(),
            lambda what, why: self.disk_failed(),
            self.put_in_place,
        )

    def _check_membership(self) -> None:
        """Who belongs to the cluster also follows from the snapshot and the log alone, as it must
        where the database is one of the original's."""
        rows = {name: dict(bucket) for name, bucket in self._database.items()}
        for name in (OWN, MEMBERS, MEMBERS_REMOVED):
            rows[name] = {}
        stored = rows[META].pop(META_CONF_STATE, None)
        place = Place(
            self.disk,
            WAL_PATH,
            SNAP_PATH,
            WriteBuffer(MemoryEngine(rows), self._loop, self._database_failed),
            NullLogger(),
            segment_bytes=SEGMENT_BYTES,
        )
        opened = reopen(place)
        opened.wal.close()
        state = opened.boot.conf_state
        wanted = decode_conf_state(stored) if stored is not None else ConfState()
        assert state.is_equivalent(wanted), f"{self.identity.name}: {state}, not {wanted}"
        for name in (MEMBERS, MEMBERS_REMOVED):
            found = dict(place.backend.range(name))
            assert found == self._database[name], f"{self.identity.name}: {name!r} is {found}"

    def _serve(self, member: Member) -> None:
        """Every service of the real one."""
        engine = RaftEngine(member)
        guard = guard_of(engine, member.loop)
        self.router = Router()
        register(self.router, engine, guard, self.chance)
        # Deadlines are told by a clock that is right, but in whole milliseconds, like uvloop's.
        loop = cast("asyncio.AbstractEventLoop", CoarseLoop(self._loop))
        self.server = Server(loop, self.router, Limits(), None, clock=self.loop.time)

    def crash(self) -> None:
        """Power off: the disk keeps what was synced, the database what was committed."""
        self._end()
        self.disk.crash()
        if self._engine is not None and self.chance.random() < 0.5:
            # The commit under way has reached the disk, but nobody was told.
            engine, self._engine = self._engine, None
            engine.settle_silently()

    def _power_lost(self) -> None:
        self.crash()
        self.on_power_lost()

    def kill(self) -> None:
        """The process dies, the machine lives: what was written stays written."""
        self._end()
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine.settle_silently()
        self.disk.release_locks()

    def disk_failed(self) -> None:
        """The log cannot be written: the process ends, as the real one does."""
        self.loop.call_soon(self._leave)
        self._loop.kill()

    def _end(self) -> None:
        self._loop.kill()
        self.network.leave(self.id)
        self.member = None
        lines, self.lines = self.lines, []
        for broken in lines:
            broken()

    def pause(self) -> None:
        """The process is stopped; the world goes on."""
        self._loop.pause()

    def resume(self) -> None:
        """It goes on where it was."""
        self._loop.resume(requests_first=self.chance.random() < 0.5)

    def _removed(self) -> None:
        self.removed = True
        self.loop.call_soon(self._leave)

    def _leave(self) -> None:
        if self.member is not None:
            self.kill()

    def _database_failed(self, why: str) -> None:
        raise AssertionError(f"the simulated database failed: {why}")

    # --- messages -----------------------------------------------------------------------------

    def _receive(self, messages: list[Message]) -> None:
        self._loop.call_soon(self._step, messages)

    def _step(self, messages: list[Message]) -> None:
        member = self.member
        if member is None or member.stopped:
            return
        for message in messages:
            if member.membership.cluster.is_removed(message.from_):
                self._refuse(message.from_)
                continue
            try:
                member.raft.step(message)
            except (PeerMessageError, FatalError):
                raise  # nobody here says what no member says, or loses a log
            except RaftError:
                continue

    def _refuse(self, former: int) -> None:
        """A former member is told that it is none any more (HTTP 410 in life)."""
        node = self._nodes.get(former)
        if node is not None and self.network.reachable(self.id, former):
            self.loop.call_later(0.001, node.learn_removed)

    def learn_removed(self) -> None:
        """Another member says that this one was removed."""
        if self.member is not None:
            self._loop.call_soon(self.member.removals.dismissed)

    def _dial(self, member: Member) -> None:
        """The streams that a member keeps open to each other: there, too, it hears of its removal."""
        if self.member is not member or member.stopped:
            return
        self._loop.call_later(DIAL_S, self._dial, member)
        assert isinstance(member.network, NodeNetwork), "made by start"
        # One that joins knows those it was told of, and no members before its leader speaks to it.
        for ident in member.network.peers:
            node = self._nodes.get(ident)
            if node is None or not node.running or not self.network.reachable(self.id, ident):
                continue
            assert node.member is not None, "it runs"
            if node.member.membership.cluster.is_removed(self.id):
                node._refuse(self.id)

    def report_unreachable(self, member_id: int) -> None:
        """A message had no way."""
        if self.member is not None:
            self.member.raft.report_unreachable(member_id)

    # --- databases ----------------------------------------------------------------------------

    def send_snapshot(self, message: Message) -> None:
        """Commits, copies, sends; Raft is told what became of it."""
        member, backend = self.member, self.backend
        assert member is not None and backend is not None

        def committed() -> None:
            content = {name: dict(bucket) for name, bucket in self._database.items()}
            content[OWN] = {}
            index = int.from_bytes(content[META].get(META_CONSISTENT_INDEX, b""), "big")
            try:
                meta = SnapshotMeta(
                    decode_conf_state(content[META][META_CONF_STATE]),
                    index,
                    member.raft.term_at(index),
                )
            except StorageError:
                self._report_snapshot(message.to, False)
                return
            message.snapshot = Snapshot(encode_rows(content), meta)
            self.loop.call_later(
                0.01 + self.chance.random() * 0.2, self._arrive, message, Database(index, content)
            )

        backend.flush(committed)

    def _arrive(self, message: Message, database: Database) -> None:
        target = self._nodes.get(message.to)
        if (
            target is None
            or not target.running
            or not self.network.reachable(self.id, message.to)
            or not self.network.reachable(message.to, self.id)
        ):
            self._report_snapshot(message.to, False)
            return
        target._take_in(message, database, lambda ok: self._report_snapshot(message.to, ok))

    def _take_in(self, message: Message, database: Database, told: Callable[[bool], None]) -> None:
        """Reads a database that has come, then tells Raft, as `app.peer_port` does."""
        member = self.member
        assert member is not None, "it runs"
        if member.raft.takes_snapshot:
            told(False)
            return
        open_calls = [told]  # the sender's call, which ends with the member at the latest

        def read(problem: Exception | None) -> None:
            if problem is None and open_calls and self.member is member:
                open_calls.clear()
                self._received[database.index] = database
                self._step([message])
                if not member.raft.takes_snapshot:
                    member.received.forget()
                told(True)

        def look() -> None:
            if open_calls and self.member is not member:
                open_calls.clear()
                told(False)
            elif open_calls:
                self.loop.call_later(DIAL_S, look)

        self.loop.call_later(DIAL_S, look)
        member.received.read(database.index, MemoryBackend(database.content), read)

    def _report_snapshot(self, member_id: int, ok: bool) -> None:
        def report() -> None:
            if self.member is not None:
                self.member.raft.report_snapshot(member_id, ok)

        self._loop.call_soon(report)

    def put_in_place(self, index: int) -> None:
        """The received database takes the place of ours."""
        database = self._received[index]
        backend = self.backend
        assert backend is not None

        def replaced() -> MemoryEngine:
            self._database = database.content
            self._engine = MemoryEngine(self._database, self._loop, self.habits.commit_s)
            return self._engine

        backend.exchange(replaced)
        self._forget(index)

    def _finish_transfer(self) -> None:
        marks = valid_snapshots(self.disk, WAL_PATH)
        if not marks or marks[-1].index not in self._received:
            return
        database = self._received[marks[-1].index]
        stored = self._database[META].get(META_CONSISTENT_INDEX, b"")
        if int.from_bytes(stored, "big") < database.index:
            self._database = database.content
        self._forget(database.index)

    def _forget(self, index: int) -> None:
        for older in [one for one in self._received if one <= index]:
            del self._received[older]
