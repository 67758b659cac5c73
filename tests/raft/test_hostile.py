"""Peers that send anything at all: the member refuses, ignores or stops, and never breaks its state.

It may stop (FatalError) only where to go on could lose what was promised: a commit index beyond its
log, or entries that contradict what is committed.
"""

from __future__ import annotations

import random

import pytest

from keyraft.raft import (
    Config,
    ConfState,
    Entry,
    FatalError,
    Message,
    MessageType,
    RaftError,
    RawNode,
    Snapshot,
    SnapshotMeta,
    StateType,
    codec,
)
from keyraft.raft.invariants import check_state
from sim.raft.direct import storage_of

IDS = [0, 1, 2, 2, 3, 3, 4, 7]
CONTEXTS = [b"", b"CampaignTransfer", b"\x01" + bytes(7), b"short"]


def random_message(chance: random.Random) -> Message:
    """Any type with any numbers, all small enough to mean something to each other."""

    def small() -> int:
        return chance.randrange(0, 6)

    def ids() -> list[int]:
        return [chance.choice(IDS) for _ in range(chance.randrange(0, 4))]

    snapshot = None
    if chance.random() < 0.4:
        snapshot = Snapshot(b"", SnapshotMeta(ConfState(ids(), ids()), small(), small()))
    index = small()
    entries = [
        Entry(
            small(),
            index + 1 + offset if chance.random() < 0.8 else small(),
            chance.choice([b"", b"x", b"\xff\xff"]),
            chance.choice([0, 0, 1, 2]),
        )
        for offset in range(chance.randrange(0, 3))
    ]
    return Message(
        type=chance.randrange(0, 26),
        to=1,
        from_=chance.choice(IDS),
        term=small(),
        log_term=small(),
        index=index,
        entries=entries,
        commit=small(),
        snapshot=snapshot,
        reject=chance.random() < 0.5,
        reject_hint=small(),
        context=chance.choice(CONTEXTS),
    )


def node_in(role: StateType, options: dict[str, bool]) -> RawNode:
    storage = storage_of([1, 2, 3], [1, 1])
    config = Config(id=1, random=random.Random(1), **options)  # type: ignore[arg-type]
    node = RawNode(config, storage)
    if role != StateType.FOLLOWER:
        node.campaign()
        drain(node)
        if role == StateType.LEADER:
            for type_ in (MessageType.PRE_VOTE_RESP.value, MessageType.VOTE_RESP.value):
                node.step(Message(type_, from_=2, to=1, term=1))
                drain(node)
    return node


def drain(node: RawNode) -> None:
    storage = node.raft.log.storage
    while node.has_ready():
        ready = node.ready()
        if ready.hard_state is not None:
            storage.set_hard_state(ready.hard_state)  # type: ignore[attr-defined]
        if ready.snapshot is not None:
            storage.apply_snapshot(ready.snapshot)  # type: ignore[attr-defined]
        storage.append(ready.entries)  # type: ignore[attr-defined]
        for message in ready.messages:
            codec.encode_message(message)
        node.advance()


@pytest.mark.parametrize("seed", range(30))
def test_any_messages_from_peers(seed: int) -> None:
    chance = random.Random(seed)
    stopped = 0
    for _ in range(60):
        role = chance.choice([StateType.FOLLOWER, StateType.CANDIDATE, StateType.LEADER])
        options = {"pre_vote": chance.random() < 0.5, "check_quorum": chance.random() < 0.5}
        try:
            converse(node_in(role, options), [random_message(chance) for _ in range(10)])
        except FatalError as error:
            assert "range" in str(error) or "conflict" in str(error), error
            stopped += 1
    assert stopped < 60, "nothing but stops"


def converse(node: RawNode, received: list[Message]) -> None:
    for message in received:
        before = node.raft.hard_state()
        wire = codec.encode_message(message)
        try:
            node.step(codec.decode_message(wire))
        except FatalError:
            raise
        except RaftError:
            pass
        check_state(node.raft)
        drain(node)
        check_state(node.raft)
        after = node.raft.hard_state()
        assert (after.term, after.commit) >= (before.term, before.commit)
        assert after.commit >= before.commit
        assert before.vote in (0, after.vote) or after.term > before.term


def test_entries_that_do_not_follow_each_other_are_not_taken() -> None:
    for bad in (
        [Entry(1, 3), Entry(1, 5)],
        [Entry(1, 4)],
        [Entry(3, 3), Entry(2, 4)],
        [Entry(9, 3)],
    ):
        node = node_in(StateType.FOLLOWER, {})
        node.step(
            Message(MessageType.APP.value, from_=2, to=1, term=3, log_term=1, index=2, entries=bad)
        )
        assert node.raft.log.last_index() == 2
        assert node.ready().messages == []


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (1, b"\xff"),
        (1, b"\x0a\x00"),  # bytes where a number belongs
        (1, b"\x10\x07\x18\x05"),  # no such type of change
        (2, b"\xff"),
        (2, b"\x08\x09"),  # no such transition
        (2, b"\x12\x04\x08\x07\x10\x05"),  # no such type of change
    ],
)
def test_a_proposal_that_is_no_configuration_change_is_dropped(type_: int, data: bytes) -> None:
    node = node_in(StateType.LEADER, {})
    last = node.raft.log.last_index()
    proposal = Message(
        MessageType.PROP.value, from_=2, to=1, entries=[Entry(data=data, type=type_)]
    )
    with pytest.raises(RaftError, match="raft proposal dropped"):
        node.step(proposal)
    assert node.raft.log.last_index() == last


@pytest.mark.parametrize(
    "state",
    [
        ConfState([1, 2], [1]),  # voter and learner
        ConfState([], [1]),  # nobody votes
        ConfState([1, 1]),
        ConfState([1], learners_next=[2]),
        ConfState([1], auto_leave=True),
    ],
)
def test_a_snapshot_with_an_impossible_configuration_is_refused(state: ConfState) -> None:
    node = node_in(StateType.FOLLOWER, {})
    snapshot = Snapshot(b"", SnapshotMeta(state, 9, 3))
    node.step(Message(MessageType.SNAP.value, from_=2, to=1, term=3, snapshot=snapshot))
    check_state(node.raft)
    assert node.raft.log.committed == 0
    assert str(node.status().config) == "voters=(1 2 3)"


def test_an_empty_proposal_is_dropped() -> None:
    node = node_in(StateType.LEADER, {})
    with pytest.raises(RaftError, match="raft proposal dropped"):
        node.step(Message(MessageType.PROP.value, from_=2, to=1))
