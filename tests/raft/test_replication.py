"""Sending: probing, windows, limits, snapshots (thesis §3.5, §5, §10.2.1)."""

from __future__ import annotations

import pytest

from keyraft.raft import (
    ConfState,
    Entry,
    MemoryStorage,
    Message,
    MessageType,
    ProgressState,
    ProposalDroppedError,
    Snapshot,
    SnapshotMeta,
    SnapshotTemporarilyUnavailableError,
    election,
)
from keyraft.raft.core import Raft
from sim.raft.direct import RaftNetwork, applied, persist, raft_of, settle

APP = MessageType.APP.value
APP_RESP = MessageType.APP_RESP.value
SNAP = MessageType.SNAP.value
HEARTBEAT_RESP = MessageType.HEARTBEAT_RESP.value
PROP = MessageType.PROP.value


def leader(**options: object) -> Raft:
    """Of members 1 and 2, its own empty entry at index 1."""
    raft = raft_of(1, [1, 2], **options)
    election.become_candidate(raft)
    election.become_leader(raft)
    persist(raft)
    settle(raft)
    return raft


def propose(raft: Raft, *datas: bytes) -> None:
    raft.step(Message(PROP, from_=1, to=1, entries=[Entry(data=data) for data in datas]))


def replicating(**options: object) -> Raft:
    raft = leader(**options)
    raft.step(Message(APP_RESP, from_=2, to=1, term=1, index=1))
    settle(raft)
    assert raft.tracker.progress[2].state == ProgressState.REPLICATE
    return raft


def test_a_member_is_probed_with_one_append_until_it_answers() -> None:
    raft = leader()
    for _ in range(3):
        propose(raft, b"x")
    assert [(m.index, len(m.entries)) for m in settle(raft)] == [(0, 2)]
    raft.step(Message(HEARTBEAT_RESP, from_=2, to=1, term=1))
    propose(raft, b"x")
    assert [(m.index, len(m.entries)) for m in settle(raft)] == [(0, 4)]
    raft.step(Message(APP_RESP, from_=2, to=1, term=1, index=4))
    assert raft.tracker.progress[2].state == ProgressState.REPLICATE
    assert [(m.index, len(m.entries)) for m in settle(raft)] == [(4, 1)]


def test_appends_run_ahead_within_the_window() -> None:
    raft = replicating(inflight_messages_max=3)
    for _ in range(5):
        propose(raft, b"x")
    assert [(m.index, len(m.entries)) for m in settle(raft)] == [(1, 1), (2, 1), (3, 1)]
    assert raft.tracker.progress[2].is_paused()
    raft.step(Message(APP_RESP, from_=2, to=1, term=1, index=3))
    sent = [(m.index, len(m.entries)) for m in settle(raft)]
    assert sent == [(4, 2)]


def test_a_heartbeat_answer_lets_one_empty_append_through_a_full_window() -> None:
    raft = replicating(inflight_messages_max=1)
    propose(raft, b"x")
    settle(raft)
    for _ in range(2):
        raft.step(Message(HEARTBEAT_RESP, from_=2, to=1, term=1))
        assert [(m.type, len(m.entries)) for m in settle(raft)] == [(APP, 0)]
        assert raft.tracker.progress[2].is_paused()


def test_the_window_counts_bytes_too() -> None:
    raft = replicating(inflight_bytes_max=100, append_size_max=100)
    for _ in range(5):
        propose(raft, bytes(40))
    assert sum(len(m.entries) for m in settle(raft)) == 3


def test_an_append_keeps_to_its_size() -> None:
    raft = replicating(append_size_max=250)
    propose(raft, *[bytes(100)] * 5)
    sent = settle(raft)
    assert [len(m.entries) for m in sent] == [2]
    raft.step(Message(APP_RESP, from_=2, to=1, term=1, index=3))
    assert [(m.index, len(m.entries)) for m in settle(raft) if m.entries] == [(3, 2), (5, 1)]


def test_size_zero_sends_one_entry_a_message() -> None:
    raft = replicating(append_size_max=0)
    propose(raft, b"a", b"b", b"c")
    raft.step(Message(APP_RESP, from_=2, to=1, term=1, index=2))
    assert [len(m.entries) for m in settle(raft) if m.entries] == [1, 1, 1]


def test_the_uncommitted_tail_has_a_limit() -> None:
    raft = replicating(uncommitted_size_max=100)
    propose(raft, bytes(250))  # an empty tail takes anything
    with pytest.raises(ProposalDroppedError):
        propose(raft, b"x")
    propose(raft, b"")  # an empty entry always fits
    settle(raft)
    raft.step(Message(APP_RESP, from_=2, to=1, term=1, index=3))
    entries = applied_through_step(raft)
    assert [e.index for e in entries] == [1, 2, 3]
    assert raft.uncommitted_size == 0
    propose(raft, b"x")


def applied_through_step(raft: Raft) -> list[Entry]:
    entries, size = raft.log.next_committed(True)
    raft.log.accept_applying(entries, size, True, True)
    raft.step(Message(MessageType.STORAGE_APPLY_RESP.value, to=1, entries=entries))
    return entries


def test_an_unreachable_member_is_probed_again() -> None:
    raft = replicating()
    propose(raft, b"x")
    settle(raft)
    raft.step(Message(MessageType.UNREACHABLE.value, from_=2, to=1))
    progress = raft.tracker.progress[2]
    assert (progress.state, progress.next) == (ProgressState.PROBE, 2)


# --- snapshots ------------------------------------------------------------------------------------


class SlowStorage(MemoryStorage):
    """Makes its snapshot when told so."""

    __slots__ = ("is_ready",)
    is_ready: bool

    def snapshot(self) -> Snapshot:
        if not self.is_ready:
            raise SnapshotTemporarilyUnavailableError
        return super().snapshot()


def compacted(is_ready: bool = True) -> Raft:
    """A leader that needs a snapshot for member 2."""
    raft = leader()
    for _ in range(5):
        propose(raft, b"x")
    persist(raft)
    settle(raft)
    raft.step(Message(APP_RESP, from_=2, to=1, term=1, index=6))
    settle(raft)
    applied(raft)
    storage = raft.log.storage
    assert isinstance(storage, MemoryStorage)
    storage.create_snapshot(5, ConfState([1, 2]), b"state")
    storage.compact(5)
    raft.tracker.progress[2].become_probe()
    raft.tracker.progress[2].match = 0
    raft.tracker.progress[2].next = 2
    raft.tracker.progress[2].recent_active = True
    return raft


def test_a_member_behind_the_log_gets_a_snapshot_and_nothing_else() -> None:
    raft = compacted()
    propose(raft, b"y")
    sent = settle(raft)
    assert [(m.type, m.snapshot.meta.index) for m in sent if m.snapshot] == [(SNAP, 5)]
    progress = raft.tracker.progress[2]
    assert (progress.state, progress.pending_snapshot) == (ProgressState.SNAPSHOT, 5)
    propose(raft, b"z")
    assert settle(raft) == []


def test_after_a_snapshot_the_log_goes_on() -> None:
    raft = compacted()
    propose(raft, b"y")
    settle(raft)
    raft.step(Message(APP_RESP, from_=2, to=1, term=1, index=5))
    progress = raft.tracker.progress[2]
    assert progress.state == ProgressState.REPLICATE
    assert [(m.index, len(m.entries)) for m in settle(raft)] == [(5, 2)]


@pytest.mark.parametrize(("failed", "next_"), [(False, 6), (True, 1)])
def test_a_reported_snapshot_leads_to_a_probe_after_the_next_heartbeat(
    failed: bool, next_: int
) -> None:
    raft = compacted()
    propose(raft, b"y")
    settle(raft)
    raft.step(Message(MessageType.SNAP_STATUS.value, from_=2, to=1, reject=failed))
    progress = raft.tracker.progress[2]
    assert (progress.state, progress.next) == (ProgressState.PROBE, next_)
    assert progress.is_paused()


def test_no_snapshot_to_who_was_not_heard_of() -> None:
    raft = compacted()
    raft.tracker.progress[2].recent_active = False
    propose(raft, b"y")
    assert settle(raft) == []


def test_a_snapshot_that_is_not_ready_is_asked_for_again() -> None:
    raft = compacted()
    slow = SlowStorage()
    slow.is_ready = False
    slow.apply_snapshot(Snapshot(b"state", SnapshotMeta(ConfState([1, 2]), 5, 1)))
    slow.append([Entry(1, 6)])
    raft.log.storage = slow
    propose(raft, b"y")
    assert settle(raft) == []
    assert raft.tracker.progress[2].state == ProgressState.PROBE
    slow.is_ready = True
    propose(raft, b"y")
    assert [m.type for m in settle(raft)] == [SNAP]


def snapshot_of(index: int, term: int, voters: list[int]) -> Message:
    return Message(
        SNAP,
        from_=2,
        to=1,
        term=9,
        snapshot=Snapshot(b"state", SnapshotMeta(ConfState(voters), index, term)),
    )


def test_a_received_snapshot_replaces_log_and_configuration() -> None:
    raft = raft_of(1, [1, 2, 3], terms=[1, 1])
    raft.step(snapshot_of(11, 9, [1, 2, 4]))
    assert [(m.type, m.index) for m in settle(raft)] == [(APP_RESP, 11)]
    assert (raft.log.committed, raft.log.last_id()) == (11, (9, 11))
    assert raft.tracker.config.conf_state() == ConfState([1, 2, 4])
    assert not raft.is_promotable()  # until it is durable


@pytest.mark.parametrize(
    ("message", "index", "committed"),
    [
        (snapshot_of(1, 1, [1, 2]), 1, 1),  # already committed
        (snapshot_of(2, 1, [1, 2]), 2, 2),  # the log reaches it: commit moves there
        (snapshot_of(11, 9, [2, 3]), 1, 1),  # not a member of it
        (Message(SNAP, from_=2, to=1, term=9), 1, 1),  # none at all
    ],
)
def test_snapshots_of_no_use(message: Message, index: int, committed: int) -> None:
    raft = raft_of(1, [1, 2, 3], terms=[1, 1])
    raft.log.committed = 1
    raft.step(message)
    assert [(m.type, m.index) for m in settle(raft)] == [(APP_RESP, index)]
    assert (raft.log.committed, raft.log.last_index()) == (committed, 2)


def test_a_follower_far_behind_catches_up_in_few_messages() -> None:
    lead, follower = raft_of(1, [1, 2]), raft_of(2, [1, 2])
    network = RaftNetwork(lead, follower)
    network.isolate(2)
    election.become_candidate(lead)
    election.become_leader(lead)
    persist(lead)
    settle(lead)
    for _ in range(20):
        lead.step(Message(PROP, from_=1, to=1, entries=[Entry(data=b"x")] * 50))
        persist(lead)
        settle(lead)
    network.heal()
    lead.tracker.progress[2].flow_paused = False
    network.beat(1)
    assert follower.log.last_index() == lead.log.last_index() == 1001
    assert follower.log.committed == 1001
