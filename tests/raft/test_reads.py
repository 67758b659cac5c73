"""Linearizable reads (thesis §6.4)."""

from __future__ import annotations

import random

import pytest

from keyraft.raft import (
    Entry,
    HardState,
    Message,
    MessageType,
    RaftConfig,
    RawNode,
    ReadOnlyOption,
    ReadState,
    StateType,
)
from keyraft.raft.core import Raft
from keyraft.raft.quorum import JointConfig
from keyraft.raft.read_only import ReadOnly
from sim.raft.direct import ListLogger, RaftNetwork, applied, raft_of, settle, storage_of

READ = MessageType.READ_INDEX.value
HEARTBEAT = MessageType.HEARTBEAT.value
HEARTBEAT_RESP = MessageType.HEARTBEAT_RESP.value


def network_of(count: int = 3, **options: object) -> RaftNetwork:
    return RaftNetwork(*[raft_of(i, range(1, count + 1), **options) for i in range(1, count + 1)])


def ask(network: RaftNetwork, node_id: int, context: bytes = b"ctx") -> None:
    network.send(Message(READ, to=node_id, entries=[Entry(data=context)]))


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_leader_and_followers_answer_with_the_commit_index(asked: int) -> None:
    network = network_of()
    network.campaign(1)
    for expected in (3, 5):
        network.propose(1)
        network.propose(1)
        ask(network, asked)
        raft = network.rafts[asked]
        assert raft.read_states == [ReadState(expected, b"ctx")]
        raft.read_states = []


def test_a_leader_cut_off_does_not_answer() -> None:
    network = network_of()
    network.campaign(1)
    network.isolate(1)
    ask(network, 1)
    assert network.rafts[1].read_states == []


def test_all_reads_that_wait_are_confirmed_by_one_quorum_of_answers() -> None:
    network = network_of()
    network.campaign(1)
    network.lost = {HEARTBEAT}
    for number in range(5):
        ask(network, 1, b"%d" % number)
    assert network.rafts[1].read_states == []
    network.heal()
    network.beat(1)
    assert [s.context for s in network.rafts[1].read_states] == [b"0", b"1", b"2", b"3", b"4"]


def test_answers_to_an_earlier_round_confirm_earlier_reads_alone() -> None:
    reads = ReadOnly()
    voters = JointConfig([1, 2, 3])
    first = Message(READ, entries=[Entry(data=b"1")])
    second = Message(READ, entries=[Entry(data=b"2")])
    reads.add(first, 10)
    early = reads.heartbeat_context()
    reads.add(second, 20)
    reads.receive_ack(1, reads.heartbeat_context())
    reads.receive_ack(2, early)
    assert reads.advance(voters) == [(first, 10)]
    assert reads.advance(voters) == []
    reads.receive_ack(3, reads.heartbeat_context())
    assert reads.advance(voters) == [(second, 20)]
    assert reads.heartbeat_context() == b""


@pytest.mark.parametrize("context", [b"short", b"far too long", (99).to_bytes(8, "little")])
def test_answers_to_what_was_never_sent_confirm_nothing(context: bytes) -> None:
    reads = ReadOnly()
    reads.add(Message(READ, entries=[Entry()]), 10)
    for node_id in (1, 2, 3):
        reads.receive_ack(node_id, context)
    assert reads.advance(JointConfig([1, 2, 3])) == []


def test_reads_wait_until_an_entry_of_the_term_is_committed() -> None:
    network = network_of()
    network.lost = {MessageType.APP_RESP.value}
    network.campaign(1)
    ask(network, 1)
    leader = network.rafts[1]
    assert (leader.read_states, len(leader.pending_reads)) == ([], 1)
    network.heal()
    network.beat(1)
    assert leader.read_states == [ReadState(1, b"ctx")]


def test_a_new_leader_does_not_answer_what_the_old_one_was_asked() -> None:
    network = network_of()
    network.campaign(1)
    network.lost = {HEARTBEAT}
    ask(network, 1)
    network.heal()
    network.campaign(2)
    network.campaign(1)
    network.beat(1)
    assert network.rafts[1].read_states == []


def test_a_single_voter_answers_at_once() -> None:
    network = network_of(1)
    network.campaign(1)
    ask(network, 1)
    assert network.rafts[1].read_states == [ReadState(1, b"ctx")]


def test_a_single_voter_knows_what_is_committed_only_from_its_own_term_on() -> None:
    storage = storage_of([1], [1, 1, 1], state=HardState(1, 1, 1))  # the commit index is not synced
    node = RawNode(RaftConfig(id=1, random=random.Random(1)), storage)
    node.campaign()
    node.ready()
    node.advance()
    assert node.raft.state == StateType.LEADER
    node.read_index(b"ctx")
    ready = node.ready()
    assert ready.read_states == []
    storage.append(ready.entries)
    node.advance()
    assert node.ready().read_states == [ReadState(4, b"ctx")]


def test_a_single_voter_answers_a_learner() -> None:
    rafts = [raft_of(1, [1], learners=[2]), raft_of(2, [1], learners=[2])]
    network = RaftNetwork(*rafts)
    network.campaign(1)
    ask(network, 2)
    assert rafts[1].read_states == [ReadState(1, b"ctx")]


def test_a_leader_that_was_removed_does_not_take_the_only_voter_for_itself() -> None:
    raft = leader_without_membership()
    raft.step(Message(READ, to=1, entries=[Entry(data=b"ctx")]))
    assert raft.read_states == []
    assert [m.type for m in settle(raft)] == [HEARTBEAT]
    raft.step(Message(HEARTBEAT_RESP, from_=2, to=1, term=1, context=(1).to_bytes(8, "little")))
    assert raft.read_states == [ReadState(1, b"ctx")]


def leader_without_membership() -> Raft:
    from keyraft.raft import ConfChange, ConfChangeType, membership

    network = network_of(2)
    network.campaign(1)
    raft = network.rafts[1]
    applied(raft)
    membership.apply(raft, ConfChange(ConfChangeType.REMOVE_NODE.value, 1).as_v2())
    settle(raft)
    return raft


def test_a_lease_answers_without_asking_anybody() -> None:
    network = network_of(read_only=ReadOnlyOption.LEASE_BASED, check_quorum=True)
    network.campaign(1)
    network.isolate(1)
    ask(network, 1)
    assert network.rafts[1].read_states == [ReadState(1, b"ctx")]


def test_without_a_leader_a_read_is_dropped() -> None:
    logger = ListLogger()
    raft = raft_of(1, logger=logger)
    raft.step(Message(READ, to=1, entries=[Entry(data=b"ctx")]))
    assert logger.lines[-1] == ("info", "1 no leader at term 0; dropping index reading msg")


def test_malformed_requests_and_answers_are_refused() -> None:
    network = network_of()
    network.campaign(1)
    for node_id, type_ in ((1, READ), (2, MessageType.READ_INDEX_RESP.value)):
        logger = ListLogger()
        network.rafts[node_id].logger = logger
        network.send(Message(type_, from_=3, to=node_id, term=0 if type_ == READ else 1))
        assert [level for level, _ in logger.lines] == ["error"]
        assert network.rafts[node_id].read_states == []
