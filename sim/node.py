"""One simulated machine: a disk that outlives the member, and the member's lives on it.

The member is the real one, with the real write-ahead log on a simulated disk. Only the database is
a dictionary: it keeps what was committed and loses what was not, as LMDB does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, cast

from keyraft.auth import SimpleTokens
from keyraft.base.log import NullLogger
from keyraft.cluster import MemberRecord
from keyraft.grpc import Limits, Router
from keyraft.mvcc.backend import (
    MEMBERS,
    MEMBERS_REMOVED,
    META,
    META_CONF_STATE,
    OWN,
)
from keyraft.net.server import Server
from keyraft.raft import (
    ConfState,
    Message,
)
from keyraft.server import Member, MemberSettings, RaftEngine, decode_conf_state
from keyraft.service import guard_of, register
from keyraft.shell.bootstrap import Place, found, join, reopen
from keyraft.shell.database_reception import DatabaseReception, finish_at_start
from keyraft.shell.durable_log import DiskWorld, MemberLog
from keyraft.shell.fatal_stop import FatalStop
from keyraft.shell.force_new_cluster import force_new_cluster
from keyraft.shell.inbox import Inbox
from keyraft.shell.life import Life, World
from keyraft.storage.backend import MemoryEngine, WriteBuffer
from sim.databases import SimDatabases, SimEngine
from sim.disk import PowerLost, SimDisk
from sim.loop import CoarseLoop, MemberLoop, SimLoop
from sim.network import SimNetwork
from sim.passwords import SimPasswords
from sim.peers import NodeHashes, NodeNetwork
from sim.threads import DiskClock, SimThread
from sim.transfers import SimTransfers
from sim.witness import Witness
from sim.witnessed import Habits, WitnessedMember

WAL_PATH: Final = "/data/member/wal"
SNAP_PATH: Final = "/data/member/snap"
SEGMENT_BYTES: Final = 1 << 13  # small, so that runs cut segments and remove them
EPOCH_UNIX_S: Final = 1_800_000_000.0
PURGE_S: Final = 2.0  # between two removals of old segments and snapshot files
WALS_MAX: Final = 2
SNAPSHOTS_MAX: Final = 3
DIAL_S: Final = 1.0  # between two attempts to connect to each other member


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
        self.nodes = nodes
        self._witness = witness
        self._joins = cluster_id
        self.disk = SimDisk(chance)
        self.disk.make_dirs("/data/member")
        self.disk.make_dirs(SNAP_PATH)
        self.disk.sync_dir("/")
        self.transfers = SimTransfers(self)
        self.databases = SimDatabases()
        self.databases.exchange = self._exchange
        self.member: Member | None = None
        self.inbox: Inbox | None = None  # of this life
        self.server: Server | None = None  # of this life, as `router`
        self.router = Router()
        self.lines: list[Callable[[], None]] = []  # of its clients: told when this life is over
        self._loop = MemberLoop(loop, habits.rate)
        self.backend: WriteBuffer | None = None
        self._engine: SimEngine | None = None
        self.lives = 0
        self.removed = False
        self._stalled_until_s = 0.0
        self.on_power_lost: Callable[[], None] = lambda: None  # amid a write, as was planned
        self.doomed = False  # what was done to it ends the member, as it must
        self.tell: Callable[[str], None] = lambda line: None
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
        self._loop = MemberLoop(self.loop, self.habits.rate, self._power_lost, self._unexpected)
        self.fatal = FatalStop(self._cannot_go_on)
        self.disk.refused = False
        try:
            self._begin(self._loop)
        except PowerLost:
            self._power_lost()

    def _begin(self, loop: MemberLoop) -> None:
        databases = self.databases
        self.reception = DatabaseReception(databases)
        had_log = self.disk.exists(WAL_PATH)
        if had_log:
            finish_at_start(
                self.disk,
                WAL_PATH,
                databases.indexes(),
                lambda: databases.own_index,
                databases.install,
                databases.remove,
                NullLogger(),
            )
        self._engine = self._open_database(loop)
        backend = self.backend = WriteBuffer(self._engine, loop, self.fatal.database_failed)
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
        settings = MemberSettings(
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
            self_repair=self.habits.self_repair,
            corrupt_check_s=self.habits.corrupt_check_s,
            compact_hash_check_s=self.habits.compact_hash_check_s,
        )
        world = World(
            loop,
            lambda: EPOCH_UNIX_S + self.habits.wall_offset_s + loop.time(),
            Random(self.chance.randrange(0, 1 << 30)),
            NullLogger(),
            self._disk_world(loop),
            SNAP_PATH,
            NodeNetwork(self, loop),
            SimpleTokens(loop, Random(self.id)),
            SimPasswords(loop),
        )
        put_in_place = self.reception.put_in_place
        life = Life(WitnessedMember, settings, world, opened, self.fatal, put_in_place)
        member = life.member
        member.watch(self._witness, self.habits)
        member.on_removed = self._removed
        member.rebuild.on_ready = self._rebuilt
        self._serve(member)
        member.peer_hashes = NodeHashes(self, self.nodes, loop)
        self.member = member
        self.life = life
        self.inbox = Inbox(loop.time, NullLogger(), self.fatal, self.reception.has_database)
        self.inbox.member = member
        self.network.join(self.id, self._receive)
        life.begin()
        loop.call_soon(member.verify)
        loop.call_later(DIAL_S, self._dial, member)
        self._purge(loop, life.log)

    def _purge(self, loop: MemberLoop, log: MemberLog) -> None:
        log.purge(WAL_PATH, WALS_MAX, SNAPSHOTS_MAX)
        loop.call_later(PURGE_S, self._purge, loop, log)

    def _disk_world(self, loop: MemberLoop) -> DiskWorld:
        clock = DiskClock(loop, self.sync_s)
        self.disk.on_sync = clock.synced
        threads = (SimThread(loop, self.sync_s, clock) for _ in range(2))
        return DiskWorld(self.disk, clock, loop.call_soon, loop.call_later, *threads)

    def _open_database(self, loop: MemberLoop) -> SimEngine:
        return SimEngine(self.databases.own, loop, self.habits.commit_s, self.disk)

    def _check_membership(self) -> None:
        """Who belongs to the cluster also follows from the snapshot and the log alone, as it must
        where the database is one of the original's."""
        rows = {name: dict(bucket) for name, bucket in self.databases.own.items()}
        for name in (OWN, MEMBERS, MEMBERS_REMOVED):
            rows[name] = {}
        stored = rows[META].pop(META_CONF_STATE, None)
        place = Place(
            self.disk,
            WAL_PATH,
            SNAP_PATH,
            WriteBuffer(MemoryEngine(rows), self._loop, self.fatal.database_failed),
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
            assert found == self.databases.own[name], f"{self.identity.name}: {name!r} is {found}"

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

    def stop(self, done: Callable[[], None]) -> None:
        """The process is asked to end, and does so in order; `done` unless a fault ends it first."""
        life = self.life

        def hang_up(then: Callable[[], None]) -> None:
            self._break_lines()
            then()

        def ended() -> None:
            if self.member is life.member:
                life.close()
                self.kill()
                done()

        self._loop.request(life.end, hang_up, ended)

    def _rebuilt(self, index: int) -> None:
        """It ends, and starts again with another member's database; power may go between."""
        member = self.member
        assert member is not None, "it asked for that database"
        assert self.reception.ready_index == index, "it is the newest that came"
        member.halt()
        self.tell(f"{self.identity.name} starts again with the database of another member")

        def again() -> None:
            if self.member is member:
                self.life.close()
                self.kill()
                self.databases.keep_wrong(index)
                self.start()

        self.loop.call_soon(again)

    def _break_lines(self) -> None:
        lines, self.lines = self.lines, []
        for broken in lines:
            broken()

    def _cannot_go_on(self, what: str, why: str) -> None:
        """The process ends with one line, as the real one does; nobody may end it but a fault."""
        line = f"{self.identity.name} stops: {what}: {why}"
        assert self.disk.refused or self.doomed, line
        self.tell(line)
        self.loop.call_soon(self._leave)
        self._loop.kill()

    def _unexpected(self, error: Exception) -> None:
        self.fatal.unexpected(error)

    def _end(self) -> None:
        self._loop.kill()
        self.network.leave(self.id)
        self.member = self.inbox = None
        self._break_lines()

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

    # --- messages -----------------------------------------------------------------------------

    def _receive(self, messages: list[Message]) -> None:
        self._loop.call_soon(self.step, messages)

    def step(self, messages: list[Message]) -> None:
        inbox = self.inbox
        if inbox is None:
            return
        for message in messages:
            if inbox.is_id_removed(message.from_):
                self._refuse(message.from_)
        lies = [one for one in messages if one.to != self.id]
        if not inbox.process(messages):
            assert lies, f"{self.identity.name} refuses what a member said: {messages}"

    def _refuse(self, former: int) -> None:
        """A former member is told that it is none any more (HTTP 410 in life)."""
        node = self.nodes.get(former)
        if node is not None and self.network.reachable(self.id, former):
            self.loop.call_later(0.001, node.learn_removed)

    def learn_removed(self) -> None:
        """Another member says that this one was removed."""
        if self.inbox is not None:
            self._loop.call_soon(self.inbox.removed_from_cluster)

    def _dial(self, member: Member) -> None:
        """The streams that a member keeps open to each other: there, too, it hears of its removal."""
        if self.member is not member or member.stopped:
            return
        self._loop.call_later(DIAL_S, self._dial, member)
        assert isinstance(member.network, NodeNetwork), "made by start"
        # One that joins knows those it was told of, and no members before its leader speaks to it.
        for ident in member.network.peers:
            node = self.nodes.get(ident)
            if node is None or not node.running or not self.network.reachable(self.id, ident):
                continue
            assert node.member is not None, "it runs"
            if node.member.membership.cluster.is_removed(self.id):
                node._refuse(self.id)

    def report_unreachable(self, member_id: int) -> None:
        """A message had no way."""
        if self.inbox is not None:
            self.inbox.report_unreachable(member_id)

    # --- databases ----------------------------------------------------------------------------

    def _exchange(self) -> None:
        """The member's own database is another one."""
        assert self.backend is not None

        def opened() -> MemoryEngine:
            self._engine = self._open_database(self._loop)
            return self._engine

        self.backend.exchange(opened)
