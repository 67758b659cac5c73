"""The tester is tested: each planted bug is found, and the same hunt finds nothing without it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import keyraft.server.consensus.boot as boot
from keyraft.base.waiters import Result, Waiter
from keyraft.mvcc import Event, Store, WatchHub, txn
from keyraft.net.server import Server, ServerProtocol
from keyraft.proto import rpc_pb2
from keyraft.raft import Entry, FatalError, HardState, Message, RaftConfig, Snapshot, SnapshotMeta
from keyraft.raft.config import ReadOnlyOption
from keyraft.raft.log import RaftLog
from keyraft.server import BootError, Member
from keyraft.server.apply import internal_request
from keyraft.server.consensus.raft_loop import RaftLoop
from keyraft.server.consensus.read_index import ReadDone
from keyraft.server.upkeep.leasing import Leasing
from keyraft.shell import database_reception
from keyraft.shell.database_reception import DatabaseReception
from keyraft.shell.durable_log import MemberLog
from keyraft.shell.fatal_stop import FatalStop
from keyraft.shell.inbox import Inbox
from keyraft.storage.backend import WriteBuffer
from keyraft.storage.wal import Appender, SnapshotMark, WALError
from keyraft.storage.wal.appender import Done
from keyraft.storage.wal.encode import WALBatch
from sim.cluster import SimCluster
from sim.node import Node
from sim.scenario import Violation, run
from sim.witnessed import Habits

Patch = pytest.MonkeyPatch

pytestmark = pytest.mark.sim


def hunt(seeds: range, **how: object) -> str:
    """The first violation of these seeds; empty when there is none."""
    for seed in seeds:
        try:
            run(seed, **how)  # type: ignore[arg-type]  # the keywords of `run`
        except Violation as violation:
            return str(violation)
    return ""


def test_acknowledging_before_the_sync_is_found(monkeypatch: Patch) -> None:
    def append(
        self: MemberLog,
        entries: Sequence[Entry],
        hard_state: HardState | None,
        must_sync: bool,
        done: Callable[[], None],
        alone: bool = False,
    ) -> None:
        self._appender.append(entries, hard_state, must_sync, lambda error: None)
        self._call_loop(done)

    monkeypatch.setattr(MemberLog, "append", append)
    assert hunt(range(1, 30), seconds=10.0, size=3, fault_interval_s=0.25, storm=True)


def test_acknowledging_a_write_on_the_loop_before_its_sync_is_found(monkeypatch: Patch) -> None:
    """The way of every lone client's put."""
    honest = Appender._add

    def _add(self: Appender, batch: WALBatch, done: Done, alone: bool) -> None:
        if self._writing or batch.head or not self._policy.inline(len(batch.data), alone):
            honest(self, batch, done, alone)
            return
        honest(self, batch, lambda error: None, False)
        done(None)

    monkeypatch.setattr(Appender, "_add", _add)
    assert hunt(range(1, 30), size=1, seconds=10.0, fault_interval_s=0.25)


def test_a_snapshots_mark_before_its_file_is_found(monkeypatch: Patch) -> None:
    honest = MemberLog.save_snapshot

    def save_snapshot(
        self: MemberLog,
        meta: SnapshotMeta,
        data: bytes,
        done: Callable[[], None],
        no_room: Callable[[], None] | None = None,
    ) -> None:
        mark = SnapshotMark(meta.index, meta.term, meta.conf_state)
        self._appender.save_snapshot(mark, lambda error: None)
        honest(self, meta, data, done, no_room)

    monkeypatch.setattr(MemberLog, "save_snapshot", save_snapshot)
    assert hunt(range(10, 40), size=3, fault_interval_s=0.25)


CRASHES = [(seed, writes) for seed in range(1, 11) for writes in (2, 4, 5, 8)]
"""Amid the name of the snapshot's file, its mark, the hard state behind it, and later."""


def install_and_crash(seed: int, writes: int) -> bool:
    """A follower loses power amid so many writes after Raft took a leader's snapshot; whether it
    was still to be put in its place."""
    cluster = SimCluster(3, seed, lambda _: Habits(catchup_entries=2, snapshot_count=5))
    assert cluster.run_until(cluster.agreed)
    cluster.run(1.0)
    leader = cluster.leader()
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    assert leader is not None and leader.member is not None
    cluster.network.partition([[follower.id], [n for n in cluster.nodes if n != follower.id]])
    put = rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString()
    results: list[Result] = []
    for count in range(120):  # the memory log keeps the first hundred
        leader.member.propose(internal_request.KIND_PUT, put, results.append)
        assert cluster.run_until(lambda count=count: len(results) > count)  # type: ignore[misc]  # mypy sees no default
    cluster.network.heal()
    member = follower.member
    assert member is not None
    assert cluster.run_until(lambda: member.raft.takes_snapshot)
    before = member.store.revision
    follower.disk.lose_power(writes, names_only=False)
    if not cluster.run_until(lambda: follower.member is None, 1.0):
        follower.crash()
    follower.start()
    assert cluster.run_until(cluster.agreed)
    assert len(cluster.hashes()) == 1
    return member.store.revision == before


def test_a_start_that_leaves_a_received_database_where_it_lies_is_found(monkeypatch: Patch) -> None:
    assert {install_and_crash(*how) for how in CRASHES} == {True, False}
    monkeypatch.setattr(database_reception, "newest_snapshot", lambda *_: None)
    with pytest.raises((WALError, BootError, FatalError)):
        for how in CRASHES:
            install_and_crash(*how)


def test_a_received_database_in_its_place_before_the_mark_is_found(monkeypatch: Patch) -> None:
    honest = MemberLog.save_snapshot

    def install(
        self: MemberLog, snapshot: Snapshot, hard_state: HardState | None, done: Callable[[], None]
    ) -> None:
        self._replace_database(snapshot.meta.index)
        honest(
            self,
            snapshot.meta,
            snapshot.data,
            lambda: self.append([], hard_state, True, done),
        )

    monkeypatch.setattr(MemberLog, "install", install)
    with pytest.raises((WALError, BootError, FatalError)):
        for how in CRASHES:
            install_and_crash(*how)


def test_hearing_of_a_snapshot_before_its_database_is_there_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(DatabaseReception, "has_database", lambda self, message: True)
    assert "has been received" in hunt(range(18, 50), size=3, fault_interval_s=0.25)


def test_a_database_that_is_not_the_snapshots_is_found(monkeypatch: Patch) -> None:
    """What is sent is told to be of the moment at which Raft asked for it."""
    honest = database_reception.sent_snapshot

    def sent(member: Member, index: int, *content: Any) -> Snapshot:
        snapshot = honest(member, index, *content)
        snapshot.meta.index = max(index - 3, 1)
        return snapshot

    monkeypatch.setattr("sim.transfers.sent_snapshot", sent)
    assert "a database of index" in hunt(range(14, 40), size=3, fault_interval_s=0.25)


def test_a_fatal_error_passed_over_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(FatalStop, "__call__", lambda self, what, why: None)
    assert "no agreement" in hunt(range(4, 40), size=3)


def test_hearing_what_was_said_to_another_is_found(monkeypatch: Patch) -> None:
    def process(self: Inbox, messages: list[Message]) -> bool:
        for message in messages:
            assert self.member is not None
            message.to = self.member.settings.member_id
        return honest(self, messages)

    honest = Inbox.process
    monkeypatch.setattr(Inbox, "process", process)
    assert hunt(range(13, 60), size=3, fault_interval_s=0.5)


def test_hearing_former_members_is_found(monkeypatch: Patch) -> None:
    honest = Inbox.process

    def process(self: Inbox, messages: list[Message]) -> bool:
        for message in messages:
            if self.member is not None and self.is_id_removed(message.from_):
                self.member.raft.step(message)
        return honest(self, messages)

    monkeypatch.setattr(Inbox, "process", process)
    assert "a former member" in hunt(range(1, 60), size=3)


def test_answering_a_vote_before_it_is_stored_is_found(monkeypatch: Patch) -> None:
    honest = MemberLog.append

    def append(
        self: MemberLog,
        entries: Sequence[Entry],
        hard_state: HardState | None,
        must_sync: bool,
        done: Callable[[], None],
        alone: bool = False,
    ) -> None:
        if entries or hard_state is None:
            honest(self, entries, hard_state, must_sync, done, alone)
        else:
            self._appender.append(entries, hard_state, must_sync, lambda error: None)
            self._call_loop(done)

    monkeypatch.setattr(MemberLog, "append", append)
    violation = hunt(range(42, 150), seconds=30.0, size=3, fault_interval_s=0.25, storm=True)
    assert "both lead in term" in violation


def test_reading_without_a_read_index_is_found(monkeypatch: Patch) -> None:
    def read_index(self: Member, done: ReadDone) -> None:
        done(None)

    monkeypatch.setattr(Member, "read_index", read_index)
    assert "not linearizable" in hunt(range(1, 10), size=3)


def test_reading_on_a_lease_after_a_pause_is_found(monkeypatch: Patch) -> None:
    leased = functools.partial(RaftConfig, read_only=ReadOnlyOption.LEASE_BASED)
    monkeypatch.setattr(boot, "RaftConfig", leased)
    assert "not linearizable" in hunt(range(1, 60), size=3, sleep=True)


def test_leases_in_the_hands_of_a_deposed_leader_are_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Leasing, "_leads", lambda self: self._member.lessor.primary)
    monkeypatch.setattr(Leasing, "_runs_steadily", lambda self, now_s: True)
    monkeypatch.setattr(RaftLoop, "leads", lambda self, term: True)
    assert "lease" in hunt(range(1, 60), size=3, sleep=True)


def answer_early(monkeypatch: Patch) -> None:
    """Deadlines by a clock of whole milliseconds and timers that count a millisecond too early."""

    def tick(self: ServerProtocol) -> None:
        self._timer = None
        self._timer_at = float("inf")
        if self.connection is not None:
            self.connection.tick(self.clock() + 0.001)
            self.arm()

    honest = ServerProtocol.__init__

    def made(self: ServerProtocol, server: Server) -> None:
        honest(self, server)
        self.clock = lambda: int(server.clock() * 1000) / 1000

    monkeypatch.setattr(ServerProtocol, "__init__", made)
    monkeypatch.setattr(ServerProtocol, "_tick", tick)


def give_up_silently(self: Member, waiter: Waiter, code: int) -> None:
    """What was proposed is answered with DEADLINE_EXCEEDED, by the transport."""


def test_a_deadline_answered_early_is_found(monkeypatch: Patch) -> None:
    answer_early(monkeypatch)
    monkeypatch.setattr(Member, "give_up", give_up_silently)
    assert "applied twice" in hunt(range(1, 30), size=3)


def figure_8(seed: int) -> None:
    """The Raft paper's figure 8: an old term's entry on a majority is not yet committed.

    One entry a message, so that the old entry arrives before the new leader's own.
    """
    cluster = SimCluster(3, seed)
    nodes = list(cluster.nodes.values())

    def led_by(candidates: list[Node]) -> Node:
        assert cluster.run_until(lambda: cluster.leader() in candidates), "nobody leads"
        leader = cluster.leader()
        assert leader is not None
        return leader

    def cut_off(one: Node) -> None:
        cluster.network.partition([[one.id], [n.id for n in nodes if n is not one]])

    first = led_by(nodes)
    assert cluster.run_until(cluster.agreed)
    cluster.run(1.0)
    cut_off(first)
    assert first.member is not None
    results: list[Result] = []
    put = rpc_pb2.PutRequest(key=b"k", value=b"old").SerializeToString()
    first.member.propose(internal_request.KIND_PUT, put, results.append)
    cluster.run(0.1)
    old_index = first.member.raft.node.raft.log.last_index()
    first.crash()
    others = [node for node in nodes if node is not first]
    second = led_by(others)
    cut_off(second)  # before anything of its term has left it
    cluster.run(0.1)
    second.crash()
    third = next(node for node in others if node is not second)
    cluster.network.heal()
    first.start()
    assert led_by([first, third]) is first, "its log is longer"

    def arrived() -> bool:
        return (
            third.member is not None and third.member.raft.node.raft.log.last_index() >= old_index
        )

    assert cluster.run_until(arrived)
    cluster.network.cut(first.id, third.id)  # what it says of its own term comes too late
    cluster.run(0.2)
    first.crash()
    cluster.network.heal()
    second.start()
    led_by([second, third])
    assert cluster.run_until(
        lambda: all(n.member is not None and n.member.applied_index >= old_index for n in others)
    )


def test_committing_an_old_terms_entry_by_counting_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(boot, "APPEND_BYTES_MAX", 1)
    for seed in range(1, 6):
        figure_8(seed)
    honest = RaftLog.maybe_commit

    def maybe_commit(self: RaftLog, term: int, index: int) -> bool:
        counted = self.term(index) if self.committed < index <= self.last_index() else term
        return honest(self, counted, index)

    monkeypatch.setattr(RaftLog, "maybe_commit", maybe_commit)
    with pytest.raises(AssertionError, match="applies another entry"):
        for seed in range(1, 6):
            figure_8(seed)


def test_a_batch_sealed_amid_an_entry_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(WriteBuffer, "hold", lambda self: None)
    monkeypatch.setattr(WriteBuffer, "release", lambda self: None)
    assert hunt(range(28, 100), size=1, seconds=15.0, fault_interval_s=0.3)


def test_reading_the_present_at_each_step_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Store, "read_txn_steps", lambda self, request: txn.steps(self, request))
    assert "a transaction reads" in hunt(range(1, 40), size=3)


def test_events_that_leave_before_the_others_of_their_revision_are_found(
    monkeypatch: Patch,
) -> None:
    honest = WatchHub.on_events

    def on_events(self: WatchHub, revision: int, events: list[Event], more: bool = False) -> None:
        honest(self, revision, events)

    monkeypatch.setattr(WatchHub, "on_events", on_events)
    assert hunt(range(1, 40), size=3)
