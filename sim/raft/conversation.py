"""Random conversations of a Raft group whose network and members fail, with every invariant on.

One generator decides everything: who ticks, which message arrives, is lost or comes twice, who
crashes between any two of persist, send, apply and advance, who is cut off, what is proposed. All
messages pass through their bytes. What a crash loses is what was not synced: a commit index alone
may be lost, entries, term and vote may not.

Checked after each action: `invariants.check_state` and `ChangeWatch` for the member concerned; all
of `GroupWatch` at intervals; that each member applies the same entries in the same order, again
after a restart; and that a read is answered with an index no lower than anything committed when
it was asked for. At the end faults stop, and the group must elect a leader, commit and agree.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from keyraft.base.invariants import InvariantError
from keyraft.raft import (
    ConfChange,
    ConfChangeError,
    ConfChangeSingle,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    ProposalDroppedError,
    RaftConfig,
    RawNode,
    Ready,
    Snapshot,
    SnapshotMeta,
    SnapshotTemporarilyUnavailableError,
    StateType,
    StepPeerNotFoundError,
    codec,
)
from keyraft.raft.confchange import Changer
from keyraft.raft.invariants import ChangeWatch, GroupWatch, check_state
from keyraft.raft.types import ConfChangeTransition, ConfChangeType, is_local_target

_GROUP_CHECK_ACTIONS = 7  # between two checks of the whole group
_FIRST_INDEX = 2  # of the snapshot that every first member starts from
_SETTLE_TICKS = 400
_MARKER = b"after the storm"


@dataclass(slots=True, frozen=True)
class Options:
    """What kind of group, and how bad its luck."""

    members: int = 3
    spares: int = 0  # members outside the first configuration
    async_storage: bool = False
    pre_vote: bool = False
    check_quorum: bool = False
    step_down_on_removal: bool = False
    conf_changes: bool = False
    small_limits: bool = False  # one entry an append, windows and sizes of a few entries
    is_restless: bool = False  # many campaigns and cuts
    loss: float = 0.1
    duplication: float = 0.05
    crashes: bool = True


class FreshStorage(MemoryStorage):
    """Makes the snapshot that Raft asks for from the present state of the state machine."""

    __slots__ = ("member",)

    def __init__(self, member: GroupMember) -> None:
        super().__init__()
        self.member = member

    def durable_snapshot(self) -> Snapshot:
        """The snapshot that outlives a crash."""
        return super().snapshot()

    def snapshot(self) -> Snapshot:
        member = self.member
        if member.group.random.random() < 0.2:
            raise SnapshotTemporarilyUnavailableError
        saved = self.durable_snapshot()
        if member.applied <= saved.meta.index:
            return saved
        term = member.running().raft.log.term(member.applied)
        assert term is not None, f"applied {member.applied} is not in the log"
        meta = SnapshotMeta(member.conf_state, member.applied, term)
        return Snapshot(b"state at %d" % member.applied, meta)


class GroupMember:
    """One member: what is durable outlives `node`."""

    def __init__(self, node_id: int, group: Group, is_first: bool) -> None:
        self.id = node_id
        self.group = group
        self.storage = FreshStorage(self)
        self.synced = HardState()  # what a crash leaves
        self.conf_state = ConfState()
        if is_first:
            self.conf_state = ConfState(list(range(1, group.options.members + 1)))
            self.storage.apply_snapshot(
                Snapshot(b"", SnapshotMeta(self.conf_state, _FIRST_INDEX, 1))
            )
        self.watch = ChangeWatch()
        self.node: RawNode | None = None
        self.applied = 0
        self.appends: list[Message] = []
        self.applies: list[Message] = []
        self.start()

    def start(self) -> None:
        """From what is durable; the state machine starts at the snapshot and applies again."""
        options = self.group.options
        snapshot = self.storage.durable_snapshot()
        self.applied = snapshot.meta.index
        self.conf_state = snapshot.meta.conf_state
        small = options.small_limits
        config = RaftConfig(
            id=self.id,
            random=self.group.random,
            election_ticks=6,
            heartbeat_ticks=1,
            applied=self.applied,
            async_storage_writes=options.async_storage,
            pre_vote=options.pre_vote,
            check_quorum=options.check_quorum,
            step_down_on_removal=options.step_down_on_removal,
            append_size_max=0 if small else 1 << 20,
            committed_size_max=60 if small else 1 << 20,
            uncommitted_size_max=120 if small else 0,
            inflight_messages_max=2 if small else 64,
            inflight_bytes_max=64 if small else 0,
        )
        self.node = RawNode(config, self.storage)

    def crash(self) -> None:
        """Everything that is not durable is gone."""
        self.node = None
        self.appends = []
        self.applies = []
        self.storage.set_hard_state(self.synced)
        self.watch.restarted(self.synced)

    def running(self) -> RawNode:
        assert self.node is not None, f"member {self.id} is down"
        return self.node

    # --- its work ---------------------------------------------------------------------------

    def write(
        self,
        state: HardState | None,
        entries: list[Entry],
        snapshot: Snapshot | None,
        must_sync: bool,
    ) -> None:
        """One write; a sync covers everything written before."""
        if snapshot is not None:
            self.storage.apply_snapshot(snapshot)
            self.applied = snapshot.meta.index
            self.conf_state = snapshot.meta.conf_state
            must_sync = True
        self.storage.append(entries)
        if state is not None and not state.is_empty():
            self.storage.set_hard_state(state)
        saved, _ = self.storage.initial_state()
        if must_sync and saved is not None:
            self.synced = saved

    def apply(self, entries: list[Entry]) -> None:
        """The state machine: the group remembers what was applied at each index."""
        node = self.running()
        for entry in entries:
            if entry.index <= self.applied:
                # A snapshot came while this was waiting to be applied.
                assert node.raft.log.applied >= entry.index, "applied twice"
                continue
            assert entry.index == self.applied + 1, f"{self.applied} then {entry}"
            self.group.applied_by(self.id, entry)
            # Applying a change may ask for a snapshot, which must not claim this entry yet.
            change: ConfChange | ConfChangeV2 | None = None
            if entry.type == EntryType.CONF_CHANGE:
                change = codec.decode_conf_change(entry.data)
            elif entry.type == EntryType.CONF_CHANGE_V2:
                change = codec.decode_conf_change_v2(entry.data)
            if change is not None:
                self.conf_state = node.apply_conf_change(change, entry.index)
            self.applied = entry.index

    def handle_ready(self) -> None:
        """Takes one Ready and carries it out, perhaps only to the middle."""
        node = self.running()
        if not node.has_ready():
            return
        ready = node.ready()
        for state in ready.read_states:
            self.group.answered(state.context, state.index)
        if self.group.options.async_storage:
            self._hand_out(ready.messages)
            return
        if self.group.crashes_now(self):
            return
        self.write(ready.hard_state, ready.entries, ready.snapshot, ready.must_sync)
        if self.group.crashes_now(self):
            return
        self.group.post(ready.messages)
        if self.group.crashes_now(self):
            return
        self._apply_and_advance(node, ready)

    def _apply_and_advance(self, node: RawNode, ready: Ready) -> None:
        self.apply(ready.committed_entries)
        node.advance()

    def _hand_out(self, messages: list[Message]) -> None:
        remote: list[Message] = []
        for message in messages:
            if message.type == MessageType.STORAGE_APPEND:
                self.appends.append(message)
            elif message.type == MessageType.STORAGE_APPLY:
                self.applies.append(message)
            else:
                remote.append(message)
        self.group.post(remote)

    def work(self) -> None:
        """One piece of a storage thread's work, in order within each thread."""
        queue = self.group.random.choice([self.appends, self.applies])
        if not queue:
            return
        message = queue.pop(0)
        if message.type == MessageType.STORAGE_APPEND:
            state = HardState(message.term, message.vote, message.commit)
            self.write(state, message.entries, message.snapshot, bool(message.responses))
        else:
            self.apply(message.entries)
        if self.group.crashes_now(self):
            return
        for response in message.responses:
            if response.to == self.id:
                try:
                    self.running().step(response)
                except StepPeerNotFoundError:
                    pass  # removed from the configuration meanwhile
            else:
                self.group.post([response])

    def snapshot_and_compact(self) -> None:
        """Makes a snapshot where the state machine stands and forgets some of the log."""
        storage = self.storage
        node = self.running()
        index = min(self.applied, storage.last_index(), node.raft.log.applied)
        if index <= storage.durable_snapshot().meta.index or index != self.applied:
            return
        if node.raft.log.unstable.snapshot is not None:
            # Its configuration holds already, which would not fit the older index.
            return
        if storage.initial_state()[0] is None or index > self.synced.commit:
            return
        storage.create_snapshot(index, self.conf_state, b"state at %d" % index)
        keep = self.group.random.randrange(0, 4)
        if index - keep >= storage.first_index():
            storage.compact(index - keep)


class Group:
    """All members, the messages under way, and what is known of the whole."""

    def __init__(self, seed: int, options: Options) -> None:
        self.random = random.Random(seed)
        self.options = options
        self.wire: list[bytes] = []
        self.cut: set[tuple[int, int]] = set()  # (from, to)
        self.history: dict[int, Entry] = {}
        self.reads: dict[bytes, int] = {}  # context: index that was committed when asked
        self.proposals = 0
        self.answered_reads = 0
        self.are_faults_on = True
        self.watch = GroupWatch()
        count = options.members
        self.members = {
            node_id: GroupMember(node_id, self, node_id <= count)
            for node_id in range(1, count + options.spares + 1)
        }

    # --- what members call ------------------------------------------------------------------

    def post(self, messages: list[Message]) -> None:
        for message in messages:
            assert not is_local_target(message.to), message
            self.wire.append(codec.encode_message(message))

    def crashes_now(self, member: GroupMember) -> bool:
        if self.are_faults_on and self.options.crashes and self.random.random() < 0.004:
            member.crash()
            return True
        return False

    def applied_by(self, node_id: int, entry: Entry) -> None:
        known = self.history.setdefault(entry.index, entry)
        if known != entry:
            raise InvariantError(f"member {node_id} applies {entry!r}, another {known!r}")

    def answered(self, context: bytes, index: int) -> None:
        self.answered_reads += 1
        if index < self.reads[context]:
            raise InvariantError(f"read at {index}, {self.reads[context]} was committed before")

    # --- what may happen --------------------------------------------------------------------

    def _up(self) -> list[GroupMember]:
        return [member for member in self.members.values() if member.node is not None]

    def _leader(self) -> GroupMember | None:
        leaders = [m for m in self._up() if m.running().raft.state == StateType.LEADER]
        return max(leaders, key=lambda m: m.running().raft.term) if leaders else None

    def _tick(self, member: GroupMember) -> None:
        member.running().tick()

    def _deliver(self, member: GroupMember) -> None:
        """Any message, not the oldest: the network reorders."""
        if not self.wire:
            return
        near = min(len(self.wire), 6)
        position = self.random.randrange(0, near if self.random.random() < 0.9 else len(self.wire))
        wire = self.wire[position]
        is_twice = self.are_faults_on and self.random.random() < self.options.duplication
        if not is_twice:
            del self.wire[position]
        message = codec.decode_message(wire)
        is_lost = (message.from_, message.to) in self.cut or (
            self.are_faults_on and self.random.random() < self.options.loss
        )
        target = self.members[message.to]
        if is_lost or target.node is None:
            self._report_loss(message)
            return
        if message.type == MessageType.SNAP:
            self._report_snapshot(message, ok=True)
        try:
            target.node.step(message)
        except (ProposalDroppedError, StepPeerNotFoundError):
            pass
        self._check(target)

    def _report_loss(self, message: Message) -> None:
        if message.type == MessageType.SNAP:
            self._report_snapshot(message, ok=False)
        sender = self.members[message.from_]
        if sender.node is not None and self.random.random() < 0.3:
            sender.node.report_unreachable(message.to)

    def _report_snapshot(self, message: Message, ok: bool) -> None:
        sender = self.members[message.from_]
        if sender.node is not None:
            sender.node.report_snapshot(message.to, ok)

    def _ready(self, member: GroupMember) -> None:
        member.handle_ready()

    def _work(self, member: GroupMember) -> None:
        member.work()

    def _propose(self, member: GroupMember) -> None:
        count = self.random.randrange(1, 4)
        datas = [b"%d" % (self.proposals + offset) for offset in range(count)]
        self.proposals += count
        try:
            member.running().propose(datas)
        except ProposalDroppedError:
            pass

    def _read(self, member: GroupMember) -> None:
        context = b"%d" % len(self.reads)
        self.reads[context] = max(m.running().raft.log.committed for m in self._up())
        member.running().read_index(context)

    def _crash(self, member: GroupMember) -> None:
        if self.options.crashes and self.random.random() < 0.2:
            member.crash()

    def _restart(self, member: GroupMember) -> None:
        for other in self.members.values():
            if other.node is None and self.random.random() < 0.5:
                other.start()
                self._check(other)

    def _cut(self, member: GroupMember) -> None:
        ids = list(self.members)
        shape = self.random.randrange(0, 5)
        leader = self._leader()
        if leader is not None and self.random.random() < 0.5:
            member = leader
        if self.random.random() < 0.75 and not self.options.is_restless:
            # Cuts and healed networks last for several election timeouts.
            return
        if shape <= 1:
            self.cut = set()
        elif shape == 2:  # one-way
            self.cut.add((member.id, self.random.choice(ids)))
        elif shape == 3:  # one alone
            self.cut = {(member.id, other) for other in ids} | {(o, member.id) for o in ids}
        else:  # halves
            half = {node_id for node_id in ids if self.random.random() < 0.5}
            self.cut = {(a, b) for a in ids for b in ids if (a in half) != (b in half)}

    def _compact(self, member: GroupMember) -> None:
        member.snapshot_and_compact()

    def _transfer(self, member: GroupMember) -> None:
        member.running().transfer_leader(self.random.choice(list(self.members)))

    def _campaign(self, member: GroupMember) -> None:
        member.running().campaign()

    def _forget(self, member: GroupMember) -> None:
        if self.random.random() < 0.3:
            member.running().forget_leader()

    def _change(self, member: GroupMember) -> None:
        leader = self._leader()
        if not self.options.conf_changes or leader is None:
            return
        node = leader.running()
        change = self._random_change(node)
        if change is None:
            return
        try:
            node.propose_conf_change(change)
        except ProposalDroppedError:
            pass
        self._check(leader)

    def _random_change(self, node: RawNode) -> ConfChange | ConfChangeV2 | None:
        """One that can be applied to the leader's configuration."""
        raft = node.raft
        if raft.tracker.config.is_joint():
            return ConfChangeV2()
        kinds = [kind.value for kind in ConfChangeType]
        singles = [
            ConfChangeSingle(self.random.choice(kinds), self.random.choice(list(self.members)))
            for _ in range(self.random.choice([1, 1, 2, 3]))
        ]
        changer = Changer(raft.tracker, raft.log.last_index())
        if len(singles) == 1 and self.random.random() < 0.5:
            change: ConfChange | ConfChangeV2 = ConfChange(singles[0].type, singles[0].node_id)
        else:
            transition = self.random.choice(list(ConfChangeTransition)).value
            change = ConfChangeV2(singles, transition)
        general = change.as_v2()
        try:
            if general.enters_joint():
                changer.enter_joint(general.auto_leave(), general.changes)
            else:
                changer.simple(general.changes)
        except ConfChangeError:
            return None
        return change

    # --- running ----------------------------------------------------------------------------

    def _check(self, member: GroupMember) -> None:
        if member.node is not None:
            check_state(member.node.raft)
            member.watch.check(member.node.raft)

    def check_group(self) -> None:
        self.watch.check([member.running().raft for member in self._up()])

    def run(self, actions: int) -> None:
        """So many random actions, then peace."""
        kinds: list[tuple[Callable[[GroupMember], None], int]] = [
            (self._deliver, 50),
            (self._ready, 40),
            (self._tick, 8),
            (self._work, 30 if self.options.async_storage else 0),
            (self._propose, 6),
            (self._read, 4),
            (self._compact, 2),
            (self._change, 2 if self.options.conf_changes else 0),
            (self._transfer, 1),
            (self._forget, 1),
            (self._cut, 1),
            (self._campaign, 1 if self.options.is_restless else 0),
            (self._crash, 2 if self.options.is_restless else 1),
            (self._restart, 4 if self.options.is_restless else 2),
        ]
        chosen = self.random.choices(
            [action for action, _ in kinds], [weight for _, weight in kinds], k=actions
        )
        for number, action in enumerate(chosen):
            up = self._up()
            if not up:
                self._restart(self.members[1])
                continue
            member = self.random.choice(up)
            action(member)
            self._check(member)
            if number % _GROUP_CHECK_ACTIONS == 0:
                self.check_group()
        self.settle()

    def settle(self) -> None:
        """Faults stop: a leader must be found, and what it is given must reach everybody."""
        self.are_faults_on = False
        self.cut = set()
        for member in self.members.values():
            if member.node is None:
                member.start()
        for tick in range(_SETTLE_TICKS):
            for member in self._patient():
                self._tick(member)
            self._drain()
            leader = self._leader()
            if leader is not None and tick % 20 == 10:
                self._retire(leader)
            if leader is not None and leader.node is not None and tick % 20 == 15:
                try:
                    leader.node.propose([_MARKER])
                except ProposalDroppedError:
                    pass
                if leader.node.raft.tracker.config.is_joint():
                    self._change_quietly(leader.node)
                self._drain()
            if tick % 20 == 19 and leader is not None and self._has_settled(leader):
                return
        if not self._is_stranded():
            raise InvariantError("the group does not settle")

    def _is_stranded(self) -> bool:
        """Whether a voter cannot be elected because it does not know that a change is committed.

        A configuration holds once its entry is applied (the thesis: once it is appended), so that
        voter still asks those whom the change excludes, whose logs may be longer than its own. No
        leader can then be elected; etcd's library shares this, and safety is not touched.
        """
        if self._leader() is not None or not self.options.conf_changes:
            return False
        newest = max(self._up(), key=lambda m: m.running().raft.log.applied).running().raft
        return any(
            self.members[node_id].running().raft.log.applied < newest.log.applied
            for node_id in newest.tracker.config.voters.ids()
            if self.members[node_id].node is not None
        )

    def _patient(self) -> list[GroupMember]:
        """Who may campaign: not who was removed, as its owner would have stopped it."""
        newest = max(self._up(), key=lambda m: (m.running().raft.log.applied, -m.id))
        ids = newest.running().raft.tracker.progress
        return [
            member
            for member in self._up()
            if member.id in ids or member.running().raft.state == StateType.LEADER
        ]

    def _retire(self, leader: GroupMember) -> None:
        """A leader that was removed is stopped once everybody left has heard of it."""
        raft = leader.running().raft
        if raft.id in raft.tracker.progress:
            return
        others = [self.members[node_id] for node_id in raft.tracker.progress]
        if all(m.running().raft.log.applied == raft.log.committed for m in others):
            leader.crash()

    def _change_quietly(self, node: RawNode) -> None:
        try:
            node.propose_conf_change(ConfChangeV2())
        except ProposalDroppedError:
            pass

    def _drain(self) -> None:
        is_busy = True
        while is_busy:
            is_busy = bool(self.wire)
            while self.wire:
                self._deliver(self._up()[0])
            for member in self._up():
                while member.running().has_ready() or member.appends or member.applies:
                    is_busy = True
                    member.handle_ready()
                    if self.options.async_storage:
                        member.work()
                self._check(member)

    def _has_settled(self, leader: GroupMember) -> bool:
        if leader.node is None:
            return False
        self.check_group()
        raft = leader.running().raft
        if raft.log.applied != raft.log.committed or raft.log.committed != raft.log.last_index():
            return False
        if self.history[raft.log.applied].data != _MARKER or raft.tracker.config.is_joint():
            return False
        return all(
            self.members[node_id].running().raft.log.applied == raft.log.applied
            for node_id in raft.tracker.progress
        )


def converse(seed: int, options: Options, actions: int) -> Group:
    """One conversation; raises InvariantError, or the core's own errors, when something is wrong."""
    group = Group(seed, options)
    group.run(actions)
    return group
