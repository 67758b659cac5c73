"""Peers that send anything at all: the member refuses or ignores it, and never stops or breaks."""

from __future__ import annotations

import random

import pytest

from keyraft.base.ids import UINT64_MAX
from keyraft.raft import (
    ConfChange,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    PeerMessageError,
    ProposalDroppedError,
    RaftConfig,
    RaftError,
    RawNode,
    Snapshot,
    SnapshotMeta,
    StateType,
    StepLocalMessageError,
    StepPeerNotFoundError,
    codec,
)
from keyraft.raft.invariants import check_state
from keyraft.raft.limits import ENTRIES_MAX, MEMBERS_MAX, READS_WAITING_MAX, TERM_MAX
from sim.raft.direct import storage_of

IDS = [0, 1, 2, 2, 3, 3, 4, 7]
CONTEXTS = [b"", b"CampaignTransfer", b"\x01" + bytes(7), b"short"]


HUGE = [UINT64_MAX, UINT64_MAX - 1, 1 << 63, (1 << 62) + 1, 1 << 62, (1 << 62) - 1, 1 << 33, 1_000]


def random_message(chance: random.Random, huge: float = 0.0) -> Message:
    """Any type with any numbers, most small enough to mean something to each other."""

    def small() -> int:
        return chance.choice(HUGE) if chance.random() < huge else chance.randrange(0, 6)

    def ids() -> list[int]:
        return [chance.choice(IDS) for _ in range(chance.randrange(0, 4))]

    snapshot = None
    if chance.random() < 0.4:
        snapshot = Snapshot(b"", SnapshotMeta(ConfState(ids(), ids()), small(), small()))
    index = small()
    entries = [
        Entry(
            small(),
            (index + 1 + offset) & UINT64_MAX if chance.random() < 0.8 else small(),
            chance.choice([b"", b"x", b"\xff\xff"]),
            chance.choice([0, 0, 1, 2]),
        )
        for offset in range(chance.randrange(0, 3))
    ]
    return Message(
        type=chance.randrange(0, 26),
        to=1,
        from_=chance.choice(IDS) if chance.random() > huge else chance.choice(HUGE),
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
    config = RaftConfig(id=1, random=random.Random(1), **options)  # type: ignore[arg-type]
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_any_messages_from_peers(seed: int) -> None:
    chance = random.Random(seed)
    refused = 0
    for number in range(60):
        role = chance.choice([StateType.FOLLOWER, StateType.CANDIDATE, StateType.LEADER])
        options = {"pre_vote": chance.random() < 0.5, "check_quorum": chance.random() < 0.5}
        huge = 0.15 if number % 2 else 0.0
        refused += converse(
            node_in(role, options), [random_message(chance, huge) for _ in range(10)]
        )
    assert 0 < refused < 600


def converse(node: RawNode, received: list[Message]) -> int:
    """How many of them were refused for what they say."""
    refused = 0
    for message in received:
        before = node.raft.hard_state()
        wire = codec.encode_message(message)
        try:
            node.step_from_peer(codec.decode_message(wire))
        except PeerMessageError:
            refused += 1
            assert node.raft.hard_state() == before
        except (ProposalDroppedError, StepLocalMessageError, StepPeerNotFoundError):
            pass
        check_state(node.raft)
        if chance_to_campaign(message):
            node.campaign()
        drain(node)
        check_state(node.raft)
        after = node.raft.hard_state()
        assert (after.term, after.commit) >= (before.term, before.commit)
        assert after.commit >= before.commit
        assert before.vote in (0, after.vote) or after.term > before.term
        assert codec.decode_hard_state(codec.encode_hard_state(after)) == after
    return refused


def chance_to_campaign(message: Message) -> bool:
    """Now and then: an election takes the term further, whatever it has become."""
    return message.index % 3 == 0


def heard(node: RawNode, message: Message) -> HardState:
    """What is to be kept after a message that must be refused."""
    before = node.raft.hard_state()
    with pytest.raises(PeerMessageError):
        node.step_from_peer(message)
    assert node.raft.hard_state() == before
    assert not node.has_ready(), "nothing is written, nothing is said"
    return before


@pytest.mark.parametrize("term", [UINT64_MAX, UINT64_MAX - 1, TERM_MAX + 1, 1 << 40])
@pytest.mark.parametrize("type_", [8, 3, 5, 17, 18, 4, 6, 9, 14])  # heartbeat, append, votes, ...
def test_a_term_out_of_the_blue_is_not_followed(term: int, type_: int) -> None:
    node = node_in(StateType.FOLLOWER, {})
    node.step_from_peer(Message(MessageType.HEARTBEAT.value, from_=2, to=1, term=1))
    drain(node)
    heard(node, Message(type_, from_=2, to=1, term=term, index=2, log_term=1))
    node.step_from_peer(Message(MessageType.HEARTBEAT.value, from_=2, to=1, term=2))
    assert node.raft.term == 2


def test_a_member_without_a_term_takes_any_that_there_is() -> None:
    node = node_in(StateType.FOLLOWER, {})
    assert node.raft.term == 0
    node.step_from_peer(Message(MessageType.HEARTBEAT.value, from_=2, to=1, term=TERM_MAX))
    assert node.raft.term == TERM_MAX


@pytest.mark.parametrize("pre_vote", [False, True])
def test_nobody_campaigns_behind_the_last_term(pre_vote: bool) -> None:
    node = node_in(StateType.FOLLOWER, {"pre_vote": pre_vote})
    node.raft.term = TERM_MAX
    node.campaign()
    assert node.raft.state == StateType.FOLLOWER
    assert node.raft.term == TERM_MAX


def test_a_commit_index_beyond_the_log_is_not_believed() -> None:
    node = node_in(StateType.FOLLOWER, {})
    heard(node, Message(MessageType.HEARTBEAT.value, from_=2, to=1, term=3, commit=3))
    node.step_from_peer(Message(MessageType.HEARTBEAT.value, from_=2, to=1, term=3, commit=2))
    assert node.raft.log.committed == 2


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageType.STORAGE_APPEND_RESP.value, from_=UINT64_MAX, index=2, log_term=1),
        Message(MessageType.STORAGE_APPLY_RESP.value, from_=UINT64_MAX - 1, entries=[Entry(1, 2)]),
        Message(MessageType.HEARTBEAT.value, from_=UINT64_MAX, term=1),
        Message(MessageType.HEARTBEAT.value, from_=0, term=1),
        Message(MessageType.HEARTBEAT.value, from_=1, term=1),
        Message(MessageType.HUP.value, from_=2),
        Message(MessageType.FORGET_LEADER.value, from_=2),
        Message(99, from_=2, term=5),
        Message(MessageType.PROP.value, from_=2, term=5, entries=[Entry(data=b"x")]),
        Message(MessageType.READ_INDEX.value, from_=2, term=5, entries=[Entry(data=b"x")]),
        Message(MessageType.READ_INDEX.value, from_=2, entries=[Entry(data=bytes(2_000))]),
        Message(MessageType.READ_INDEX.value, from_=2),
        Message(MessageType.HEARTBEAT.value, from_=2, term=1, context=bytes(2_000)),
        Message(MessageType.APP_RESP.value, from_=2, term=1, index=1 << 62),
        Message(MessageType.APP_RESP.value, from_=2, term=1, reject=True, reject_hint=1 << 62),
        Message(MessageType.APP.value, from_=2, term=1, commit=UINT64_MAX),
        Message(MessageType.HEARTBEAT.value, from_=2, term=1, responses=[Message()]),
    ],
    ids=lambda message: f"{message.type}-{message.from_:x}",
)
@pytest.mark.parametrize("role", [StateType.FOLLOWER, StateType.CANDIDATE, StateType.LEADER])
def test_what_no_member_says_has_no_effect(role: StateType, message: Message) -> None:
    message.to = 1
    heard(node_in(role, {}), message)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(2, 3, b"", 1),  # the log could not be read again
        Entry(2, 3, b"\xff", 1),
        Entry(2, 3, b"\x10\x07\x18\x05", 1),  # no such type of change
        Entry(2, 3, codec.encode_conf_change(ConfChange(0, UINT64_MAX)), 1),
        Entry(2, 3, b"\x12\x04\x08\x07\x10\x05", 2),
    ],
)
def test_a_leaders_change_of_configuration_that_nobody_could_make_is_not_taken(
    entry: Entry,
) -> None:
    node = node_in(StateType.FOLLOWER, {})
    message = Message(
        MessageType.APP.value, from_=2, to=1, term=2, log_term=1, index=2, entries=[entry]
    )
    heard(node, message)


@pytest.mark.parametrize(
    ("index", "term", "members"),
    [(0, 1, 3), (9, 0, 3), (1 << 62, 3, 3), (9, 4, 3), (9, 3, MEMBERS_MAX + 1)],
)
def test_a_snapshot_of_a_place_that_cannot_be_is_not_taken(
    index: int, term: int, members: int
) -> None:
    node = node_in(StateType.FOLLOWER, {})
    meta = SnapshotMeta(ConfState(list(range(1, members + 1))), index, term)
    snapshot = Snapshot(b"x", meta)
    heard(node, Message(MessageType.SNAP.value, from_=2, to=1, term=3, snapshot=snapshot))


def test_requests_for_a_read_index_do_not_gather_without_end() -> None:
    node = node_in(StateType.LEADER, {})
    request = Message(
        MessageType.READ_INDEX.value, from_=2, to=1, entries=[Entry(data=b"12345678")]
    )
    for _ in range(READS_WAITING_MAX):
        node.step_from_peer(request)
    with pytest.raises(PeerMessageError, match="too many"):
        node.step_from_peer(request)
    assert len(node.raft.pending_reads) + len(node.raft.reads) == READS_WAITING_MAX


@pytest.mark.slow
def test_messages_of_countless_parts_are_not_decoded() -> None:
    empty_entry = b"\x3a\x00"
    codec.decode_message(empty_entry * ENTRIES_MAX)
    with pytest.raises(codec.CodecError, match="entries"):
        codec.decode_message(empty_entry * (ENTRIES_MAX + 1))
    voter = b"\x08\x01"
    codec.decode_conf_state(voter * MEMBERS_MAX)
    packed = b"\x0a" + codec.encode_varint(MEMBERS_MAX + 1) + b"\x01" * (MEMBERS_MAX + 1)
    for state in (voter * (MEMBERS_MAX + 1), packed):
        with pytest.raises(codec.CodecError, match="members"):
            codec.decode_conf_state(state)


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
