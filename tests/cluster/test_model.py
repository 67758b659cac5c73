"""The cluster's members: what may change, what is stored, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.errors import (
    EtcdError,
    MemberExistsError,
    MemberNotFoundError,
    MemberNotLearnerError,
    NotEnoughStartedMembersError,
    PeerURLExistsError,
    TooManyLearnersError,
)
from keyraft.base.ids import ClusterID, MemberID
from keyraft.cluster import (
    ChangeContext,
    Downgrade,
    MemberRecord,
    MembershipDataError,
    RaftCluster,
    parse_version,
)
from keyraft.mvcc import MemoryBackend
from keyraft.mvcc.backend import CLUSTER, MEMBERS, MEMBERS_REMOVED
from keyraft.raft.types import ConfChangeType

ADD, REMOVE, UPDATE, LEARNER = (
    ConfChangeType.ADD_NODE,
    ConfChangeType.REMOVE_NODE,
    ConfChangeType.UPDATE_NODE,
    ConfChangeType.ADD_LEARNER_NODE,
)


def member(id: int, name: str = "", learner: bool = False) -> MemberRecord:
    return MemberRecord(MemberID(id), (f"http://m{id}:1",), name, (), learner)


def cluster(*members: MemberRecord) -> RaftCluster:
    made = RaftCluster(ClusterID(1), MemberID(1), MemoryBackend())
    for each in members:
        made.add(each)
    return made


def change(made: RaftCluster, kind: ConfChangeType, id: int, context: bytes) -> None:
    made.apply(kind, id, made.validate(kind, id, context))
    made.check()


def promotion(id: int) -> bytes:
    return ChangeContext(MemberRecord(MemberID(id)), True).to_json()


def test_members_live_in_the_database() -> None:
    backend = MemoryBackend()
    first = RaftCluster(ClusterID(1), MemberID(1), backend)
    change(first, ADD, 1, member(1).to_json())
    first.update_attributes(MemberID(1), "one", ["http://c:1"])
    change(first, LEARNER, 2, member(2, learner=True).to_json())
    change(first, REMOVE, 2, b"")
    first.set_version(parse_version("3.7.0"))
    first.set_downgrade(Downgrade("3.6.0", True))
    assert backend.get(MEMBERS, b"1") == (
        b'{"id":1,"peerURLs":["http://m1:1"],"name":"one","clientURLs":["http://c:1"]}'
    )
    assert backend.get(MEMBERS_REMOVED, b"2") == b"removed"
    assert backend.get(CLUSTER, b"clusterVersion") == b"3.7.0"
    assert backend.get(CLUSTER, b"downgrade") == b'{"target-version":"3.6.0","enabled":true}'

    again = RaftCluster(ClusterID(1), MemberID(1), backend)
    again.load()
    assert again.members == first.members
    assert again.removed == {2}
    assert (again.version, again.downgrade) == (first.version, first.downgrade)
    assert again.local == first.local


@pytest.mark.parametrize(
    ("kind", "id", "context", "error"),
    [
        (ADD, 1, member(1).to_json(), MemberExistsError),
        (ADD, 9, b'{"id":9,"peerURLs":["http://m1:1"]}', PeerURLExistsError),
        (ADD, 4, member(4).to_json(), MemberNotFoundError),
        (REMOVE, 9, b"", MemberNotFoundError),
        (REMOVE, 4, b"", MemberNotFoundError),
        (UPDATE, 9, member(9).to_json(), MemberNotFoundError),
        (UPDATE, 2, b'{"id":2,"peerURLs":["http://m1:1"]}', PeerURLExistsError),
        (ADD, 9, promotion(9), MemberNotFoundError),
        (ADD, 1, promotion(1), MemberNotLearnerError),
        (LEARNER, 9, member(9, learner=True).to_json(), TooManyLearnersError),
    ],
)
def test_changes_that_make_no_sense(
    kind: ConfChangeType, id: int, context: bytes, error: type[EtcdError]
) -> None:
    made = cluster(member(1, "a"), member(2, "b"), member(3, "c", learner=True), member(4))
    made.remove(MemberID(4))
    with pytest.raises(error):
        made.validate(kind, id, context)


def test_a_learner_is_promoted_and_a_member_moves() -> None:
    made = cluster(member(1, "a"), member(2, "b", learner=True))
    assert made.conf_ids() == ([1], [2])
    change(made, ADD, 2, promotion(2))
    assert made.conf_ids() == ([1, 2], [])
    change(made, UPDATE, 2, b'{"id":2,"peerURLs":["http://new:1"]}')
    moved = made.member(2)
    assert moved is not None
    assert (moved.peer_urls, moved.name) == (("http://new:1",), "b")


def test_strict_reconfiguration_keeps_a_quorum_started() -> None:
    one = cluster(member(1, "a"))
    one.check_ready_to_add_voter()
    two = cluster(member(1, "a"), member(2))
    with pytest.raises(NotEnoughStartedMembersError):
        two.check_ready_to_add_voter()
    two.check_ready_to_remove(2)
    with pytest.raises(NotEnoughStartedMembersError):
        two.check_ready_to_remove(1)
    three = cluster(member(1, "a"), member(2, "b"), member(3))
    with pytest.raises(NotEnoughStartedMembersError):
        three.check_ready_to_remove(1)
    with_learner = cluster(member(1, "a"), member(2), member(3, "c", learner=True))
    with_learner.check_ready_to_remove(3)
    with_learner.check_ready_to_promote()
    with pytest.raises(NotEnoughStartedMembersError):
        cluster(
            member(1, "a"), member(2), member(3), member(4, learner=True)
        ).check_ready_to_promote()


def test_attributes_of_a_removed_member_are_passed_over_and_of_a_stranger_refused() -> None:
    made = cluster(member(1, "a"), member(2))
    made.remove(MemberID(2))
    made.update_attributes(MemberID(2), "b", [])
    assert made.member(2) is None
    with pytest.raises(MembershipDataError):
        made.update_attributes(MemberID(9), "b", [])


@given(
    st.lists(
        st.tuples(st.sampled_from((ADD, REMOVE, UPDATE, LEARNER)), st.integers(1, 5), st.booleans())
    )
)
def test_random_changes_keep_the_invariants(
    changes: list[tuple[ConfChangeType, int, bool]],
) -> None:
    made = cluster(member(1, "a"))
    gone: set[int] = set()
    for kind, id, promote in changes:
        context = member(id, learner=kind is LEARNER).to_json()
        if promote and kind is ADD:
            context = promotion(id)
        try:
            change(made, kind, id, b"" if kind is REMOVE else context)
        except EtcdError:
            continue
        if kind is REMOVE:
            gone.add(id)
        assert gone.isdisjoint(each.id for each in made.members)
        assert sum(each.is_learner for each in made.members) <= made.max_learners
