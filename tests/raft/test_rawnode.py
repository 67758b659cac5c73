"""The contract of Ready and advance, of asynchronous storage writes, and of starting."""

from __future__ import annotations

import random

import pytest

from keyraft.raft import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    BootstrapPeer,
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    FatalError,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    ProposalDroppedError,
    RaftConfig,
    RaftConfigError,
    RaftError,
    RawNode,
    ReadOnlyOption,
    ReadState,
    Ready,
    SoftState,
    StateType,
    StepLocalMessageError,
    StepPeerNotFoundError,
    codec,
)
from sim.raft.direct import ListLogger, storage_of


def config_of(node_id: int = 1, **options: object) -> RaftConfig:
    return RaftConfig(id=node_id, random=random.Random(node_id), **options)  # type: ignore[arg-type]


def write(storage: MemoryStorage, ready: Ready) -> None:
    if ready.hard_state is not None:
        storage.set_hard_state(ready.hard_state)
    storage.append(ready.entries)


def run(node: RawNode, storage: MemoryStorage) -> list[Ready]:
    """Everything there is to do."""
    done: list[Ready] = []
    while node.has_ready():
        ready = node.ready()
        write(storage, ready)
        for entry in ready.committed_entries:
            if entry.type == EntryType.CONF_CHANGE:
                node.apply_conf_change(codec.decode_conf_change(entry.data), entry.index)
            elif entry.type == EntryType.CONF_CHANGE_V2:
                node.apply_conf_change(codec.decode_conf_change_v2(entry.data), entry.index)
        node.advance()
        node.check()
        done.append(ready)
    return done


def single(**options: object) -> tuple[RawNode, MemoryStorage]:
    """A member alone, leading."""
    storage = storage_of([1])
    node = RawNode(config_of(**options), storage)
    node.campaign()
    run(node, storage)
    return node, storage


def test_a_single_voter_from_campaign_to_commit() -> None:
    storage = storage_of([1])
    node = RawNode(config_of(), storage)
    assert not node.has_ready()
    node.campaign()
    first = node.ready()
    assert first.soft_state == SoftState(0, StateType.CANDIDATE)
    assert (first.hard_state, first.must_sync) == (HardState(1, 1, 0), True)
    write(storage, first)
    node.advance()
    second = node.ready()
    assert second.soft_state == SoftState(1, StateType.LEADER)
    assert (second.entries, second.must_sync) == ([Entry(1, 1)], True)
    assert second.committed_entries == []
    write(storage, second)
    node.advance()
    third = node.ready()
    assert (third.hard_state, third.must_sync) == (HardState(1, 1, 1), False)
    assert third.committed_entries == [Entry(1, 1)]
    write(storage, third)
    node.advance()
    assert not node.has_ready()


def test_a_batch_of_proposals_is_one_batch_of_entries() -> None:
    node, storage = single()
    datas = [b"%d" % number for number in range(1000)]
    node.propose(datas)
    ready = node.ready()
    assert [(e.term, e.index, e.data) for e in ready.entries] == [
        (1, 2 + number, data) for number, data in enumerate(datas)
    ]
    write(storage, ready)
    node.advance()
    assert [e.data for e in node.ready().committed_entries] == datas


def test_a_follower_forwards_a_batch_in_one_message() -> None:
    node = RawNode(config_of(2), storage_of([1, 2]))
    with pytest.raises(ProposalDroppedError):
        node.propose([b"a"])
    node.step(Message(MessageType.HEARTBEAT.value, from_=1, to=2, term=1))
    node.ready()
    node.advance()
    node.propose([b"a", b"b"])
    message = node.ready().messages[0]
    assert (message.type, message.to, message.from_, message.term) == (MessageType.PROP, 1, 2, 0)
    assert [entry.data for entry in message.entries] == [b"a", b"b"]


def test_a_follower_may_be_told_not_to_forward() -> None:
    node = RawNode(config_of(2, disable_proposal_forwarding=True), storage_of([1, 2]))
    node.step(Message(MessageType.HEARTBEAT.value, from_=1, to=2, term=1))
    with pytest.raises(ProposalDroppedError):
        node.propose([b"a"])


def test_answers_wait_for_the_write_of_the_same_ready() -> None:
    node = RawNode(config_of(2), storage_of([1, 2]))
    entry = Entry(1, 1, b"x")
    node.step(Message(MessageType.APP.value, from_=1, to=2, term=1, entries=[entry], commit=1))
    ready = node.ready()
    assert ready.entries == [entry]
    assert [(m.type, m.index) for m in ready.messages] == [(MessageType.APP_RESP, 1)]
    assert ready.committed_entries == [entry]
    assert ready.must_sync


def test_two_readies_need_an_advance_between_them() -> None:
    node, _ = single()
    node.propose([b"a"])
    node.ready()
    node.propose([b"b"])
    with pytest.raises(FatalError, match="two accepted Ready structs"):
        node.ready()


def test_what_comes_between_ready_and_advance_is_in_the_next() -> None:
    node, storage = single()
    node.propose([b"a"])
    ready = node.ready()
    node.propose([b"b"])
    write(storage, ready)
    node.advance()
    after = node.ready()
    assert [e.data for e in after.entries] == [b"b"]
    assert [e.data for e in after.committed_entries] == [b"a"]


def test_committed_entries_come_in_pieces_of_a_limited_size() -> None:
    size = codec.entry_size(Entry(1, 2, bytes(100)))
    node, storage = single(committed_size_max=3 * size)
    node.propose([bytes(100)] * 10)
    pieces = [len(ready.committed_entries) for ready in run(node, storage)]
    assert [count for count in pieces if count] == [3, 3, 3, 1]


def test_a_restart_goes_on_where_it_stopped() -> None:
    entries = [Entry(1, 1), Entry(1, 2, b"foo")]
    storage = storage_of([1, 2], state=HardState(1, 0, 1))
    storage.append(entries)
    node = RawNode(config_of(), storage)
    ready = node.ready()
    assert (ready.hard_state, ready.committed_entries, ready.must_sync) == (
        None,
        entries[:1],
        False,
    )
    node.advance()
    assert not node.has_ready()
    assert node.raft.state == StateType.FOLLOWER


def test_what_is_applied_is_not_handed_out_again() -> None:
    storage = storage_of([1], [1, 1, 1], state=HardState(1, 1, 3))
    node = RawNode(config_of(applied=2), storage)
    assert [e.index for e in node.ready().committed_entries] == [3]


@pytest.mark.parametrize("commit", [0, 5])
def test_a_commit_index_outside_the_log_stops_the_member(commit: int) -> None:
    storage = storage_of([1], [1] * 4, state=HardState(1, 1, commit))
    storage.compact(2)
    with pytest.raises(FatalError, match="is out of range"):
        RawNode(config_of(), storage)


def test_a_restart_keeps_a_joint_configuration() -> None:
    storage = MemoryStorage()
    state = ConfState([1, 2], [5], [2, 3, 4], [3], True)
    from keyraft.raft import Snapshot, SnapshotMeta

    storage.apply_snapshot(Snapshot(meta=SnapshotMeta(state, 7, 1)))
    node = RawNode(config_of(applied=7), storage)
    assert str(node.status().config) == (
        "voters=(1 2)&&(2 3 4) learners=(5) learners_next=(3) autoleave"
    )


def test_bootstrap_makes_first_members_of_committed_changes() -> None:
    storage = MemoryStorage()
    node = RawNode(config_of(), storage)
    node.bootstrap([BootstrapPeer(1, b"one")])
    ready = node.ready()
    assert [(e.term, e.index, e.type) for e in ready.entries] == [(1, 1, EntryType.CONF_CHANGE)]
    assert codec.decode_conf_change(ready.entries[0].data).context == b"one"
    assert ready.committed_entries == ready.entries
    assert ready.hard_state == HardState(1, 0, 1)
    write(storage, ready)
    node.apply_conf_change(codec.decode_conf_change(ready.entries[0].data), 1)
    node.advance()
    node.campaign()
    run(node, storage)
    assert node.status().soft_state.state == StateType.LEADER
    with pytest.raises(RaftError, match="nonempty"):
        node.bootstrap([BootstrapPeer(1)])
    with pytest.raises(RaftError, match="at least one peer"):
        RawNode(config_of(), MemoryStorage()).bootstrap([])


def test_reads_come_with_the_next_ready() -> None:
    node, _ = single()
    node.read_index(b"ctx")
    assert node.has_ready()
    assert node.ready().read_states == [ReadState(1, b"ctx")]
    node.advance()
    assert not node.has_ready()


# --- what comes from outside ----------------------------------------------------------------------


def test_local_messages_from_outside_are_refused() -> None:
    node, _ = single()
    for kind in MessageType:
        message = Message(kind.value, from_=7, to=1, term=1)
        if kind.name in (
            "HUP",
            "BEAT",
            "UNREACHABLE",
            "SNAP_STATUS",
            "CHECK_QUORUM",
        ) or kind.name.startswith("STORAGE"):
            with pytest.raises(StepLocalMessageError):
                node.step(message)
        elif kind.name.endswith("RESP"):
            with pytest.raises(StepPeerNotFoundError):
                node.step(message)


def test_a_type_nobody_knows_is_ignored() -> None:
    node, _ = single()
    node.step(Message(99, from_=1, to=1, term=1))
    assert not node.has_ready()


# --- configuration changes ------------------------------------------------------------------------


def test_adding_and_removing_members() -> None:
    node, storage = single()
    node.propose_conf_change(ConfChange(ConfChangeType.ADD_LEARNER_NODE.value, 2))
    run(node, storage)
    assert str(node.status().config) == "voters=(1) learners=(2)"
    node.propose_conf_change(ConfChange(ConfChangeType.REMOVE_NODE.value, 2))
    run(node, storage)
    assert str(node.status().config) == "voters=(1)"


def test_a_change_through_joint_consensus_leaves_by_itself() -> None:
    node, storage = single()
    changes = [
        ConfChangeSingle(ConfChangeType.ADD_LEARNER_NODE.value, 2),
        ConfChangeSingle(ConfChangeType.ADD_LEARNER_NODE.value, 3),
    ]
    node.propose_conf_change(ConfChangeV2(changes))
    done = run(node, storage)
    assert str(node.status().config) == "voters=(1) learners=(2 3)"
    types = [e.type for ready in done for e in ready.committed_entries]
    assert types == [EntryType.CONF_CHANGE_V2] * 2


def test_an_explicit_joint_configuration_waits_to_be_left() -> None:
    node, storage = single()
    changes = [ConfChangeSingle(ConfChangeType.ADD_LEARNER_NODE.value, 2)]
    node.propose_conf_change(ConfChangeV2(changes, ConfChangeTransition.JOINT_EXPLICIT.value))
    run(node, storage)
    assert str(node.status().config) == "voters=(1)&&(1) learners=(2)"
    node.propose_conf_change(ConfChange(ConfChangeType.ADD_LEARNER_NODE.value, 3))
    run(node, storage)
    assert str(node.status().config) == "voters=(1)&&(1) learners=(2)"
    node.propose_conf_change(ConfChangeV2())
    run(node, storage)
    assert str(node.status().config) == "voters=(1) learners=(2)"


def test_one_change_at_a_time() -> None:
    logger = ListLogger()
    node, storage = single(logger=logger)
    node.propose_conf_change(ConfChange(ConfChangeType.ADD_LEARNER_NODE.value, 2))
    node.propose_conf_change(ConfChange(ConfChangeType.ADD_LEARNER_NODE.value, 3))
    done = run(node, storage)
    types = [e.type for ready in done for e in ready.entries]
    assert types == [EntryType.CONF_CHANGE, EntryType.NORMAL]
    assert (
        "info",
        "1 ignoring conf change transition:ConfChangeTransitionAuto "
        "changes:{type:ConfChangeAddLearnerNode node_id:3} at config voters=(1): "
        "possible unapplied conf change at index 2 (applied to 1)",
    ) in logger.lines


def test_a_change_that_a_snapshot_has_overtaken_is_left_out() -> None:
    node = RawNode(config_of(2), storage_of([1, 2]))
    from keyraft.raft import Snapshot, SnapshotMeta

    snapshot = Snapshot(b"", SnapshotMeta(ConfState([1, 2]), 10, 1))
    node.step(Message(MessageType.SNAP.value, from_=1, to=2, term=1, snapshot=snapshot))
    change = ConfChange(ConfChangeType.ADD_NODE.value, 3)
    assert node.apply_conf_change(change, 9).voters == [1, 2]
    assert node.apply_conf_change(change, 11).voters == [1, 2, 3]


# --- asynchronous storage writes ------------------------------------------------------------------


def test_writes_are_messages_and_their_answers_follow() -> None:
    storage = storage_of([1, 2])
    node = RawNode(config_of(2, async_storage_writes=True), storage)
    entry = Entry(1, 1, b"x")
    node.step(Message(MessageType.APP.value, from_=1, to=2, term=1, entries=[entry], commit=1))
    ready = node.ready()
    (append,) = ready.messages
    assert (append.type, append.to) == (MessageType.STORAGE_APPEND, LOCAL_APPEND_THREAD)
    assert (append.entries, append.term, append.commit) == ([entry], 1, 1)
    assert [(r.type, r.to) for r in append.responses] == [
        (MessageType.APP_RESP, 1),
        (MessageType.STORAGE_APPEND_RESP, 2),
    ]
    assert not node.has_ready()  # committed, but not durable here
    storage.append(append.entries)
    node.step(append.responses[1])
    (apply,) = node.ready().messages
    assert (apply.type, apply.to, apply.entries) == (
        MessageType.STORAGE_APPLY,
        LOCAL_APPLY_THREAD,
        [entry],
    )
    assert node.raft.log.applied == 0
    node.step(apply.responses[0])
    assert node.raft.log.applied == 1
    with pytest.raises(FatalError, match="AsyncStorageWrites"):
        node.advance()


def test_several_writes_may_be_under_way() -> None:
    storage = storage_of([1])
    node = RawNode(config_of(async_storage_writes=True), storage)
    node.campaign()
    queue: list[Message] = []
    for round_ in range(40):
        if round_ < 20:
            queue += node.ready().messages if node.has_ready() else []
            if node.raft.state == StateType.LEADER:
                node.propose([b"%d" % round_])
        if queue and round_ % 3:
            message = queue.pop(0)
            storage.append(message.entries if message.type == MessageType.STORAGE_APPEND else [])
            for response in message.responses:
                node.step(response)
        node.check()
    while queue or node.has_ready():
        queue += node.ready().messages if node.has_ready() else []
        message = queue.pop(0)
        storage.append(message.entries if message.type == MessageType.STORAGE_APPEND else [])
        for response in message.responses:
            node.step(response)
    log = node.raft.log
    assert log.applied == log.committed == log.last_index() == storage.last_index() > 10


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"node_id": 0}, "cannot use none as id"),
        ({"node_id": LOCAL_APPLY_THREAD}, "cannot use local target as id"),
        ({"heartbeat_ticks": 0}, "heartbeat tick must be greater than 0"),
        ({"election_ticks": 1}, "election tick must be greater than heartbeat tick"),
        ({"inflight_messages_max": 0}, "max inflight messages must be greater than 0"),
        ({"inflight_bytes_max": 5}, "max inflight bytes must be >= max message size"),
        ({"read_only": ReadOnlyOption.LEASE_BASED}, "CheckQuorum must be enabled"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(RaftConfigError, match=text):
        RawNode(config_of(**options), storage_of([1]))  # type: ignore[arg-type]


def test_status_is_a_copy() -> None:
    node, _ = single()
    status = node.status()
    status.config.voters.incoming.add(9)
    status.progress[1].match = 99
    assert str(node.status().config) == "voters=(1)"
    assert node.status().progress[1].match == 1
    assert (status.id, status.applied, status.soft_state.lead) == (1, 1, 1)
