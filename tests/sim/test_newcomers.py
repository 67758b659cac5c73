"""Changes of membership in virtual time: who joins late, and who must wait for a leader."""

from __future__ import annotations

import pytest

from keyraft.base import errors
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.witnessed import Habits

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("is_learner", [False, True])
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_member_that_begins_with_a_snapshot_serves_soon(seed: int, is_learner: bool) -> None:
    cluster = SimCluster(3, seed, lambda _: Habits(snapshot_count=20, catchup_entries=5))
    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
    cluster.run(6.0)  # connected for long enough to be changed
    leader = cluster.leader()
    assert leader is not None and leader.member is not None
    for number in range(2_000):
        request = rpc_pb2.PutRequest(key=b"k%d" % number, value=b"v").SerializeToString()
        leader.member.propose(internal_request.KIND_PUT, request, lambda _: None)
    cluster.run(3.0)
    assert cluster.agreed()
    new = cluster.newcomer(is_learner)
    outcome: list[object] = []
    leader.member.membership_changes.add(new, outcome.append)
    assert cluster.run_until(lambda: outcome == [None], 5.0)
    node = cluster.admit(new)
    node.start()
    member = node.member
    assert isinstance(member, Member)
    assert cluster.run_until(lambda: member.publisher.published, 3.0), "it waits for a timeout"
    assert member.store.revision > 2_000 and member.snapshotter.index > 1_000
    assert member.membership.capable and member.leadership.in_service != is_learner
    assert cluster.run_until(cluster.agreed, 2.0) and len(cluster.hashes()) == 1


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_change_waits_for_a_leader_as_long_as_any_proposal(comes_back: bool) -> None:
    cluster = SimCluster(3, 2)
    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
    cluster.run(6.0)
    staying, *going = cluster.nodes.values()
    for node in going:
        node.crash()
    member = staying.member
    assert member is not None
    assert cluster.run_until(lambda: not member.leadership.leader, 5.0)
    outcome: list[object] = []
    member.membership_changes.update(going[0].id, ["http://elsewhere:2380"], outcome.append)
    cluster.run(3.0)
    assert outcome == []
    if comes_back:
        for node in going:
            node.start()
        assert cluster.run_until(lambda: outcome == [None], 4.0)
        moved = member.membership.cluster.member(going[0].id)
        assert moved is not None and moved.peer_urls == ("http://elsewhere:2380",)
    else:
        cluster.run(5.0)
        assert [type(one) for one in outcome] == [errors.RequestTimeoutError]


@pytest.mark.parametrize("asked_of_leader", [True, False])
@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_leader_that_is_removed_leaves_others_that_go_on(
    size: int, asked_of_leader: bool
) -> None:
    """It stays until they know: two need to know that they are one."""
    cluster = SimCluster(size, size)
    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
    cluster.run(6.0)
    leader = cluster.leader()
    assert leader is not None
    rest = [node for node in cluster.nodes.values() if node is not leader]
    asked = (leader if asked_of_leader else rest[0]).member
    assert asked is not None
    outcome: list[object] = []
    asked.membership_changes.remove(leader.id, outcome.append)
    survivor = rest[0].member
    assert survivor is not None
    known = survivor.membership.cluster
    assert cluster.run_until(lambda: known.is_removed(leader.id), 1.0)
    answers: list[object] = []  # to a put that comes before anybody leads
    request = rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString()
    survivor.propose(internal_request.KIND_PUT, request, answers.append)
    assert cluster.run_until(lambda: bool(answers), 4.0), "it was lost with the old leader"
    assert isinstance(answers[0], bytes), answers
    assert cluster.run_until(lambda: leader.member is None, 2.0), "it does not stop itself"
    assert outcome == [None]
    assert [one.id for one in survivor.membership.cluster.members] == sorted(
        node.id for node in rest
    )


def test_a_newcomer_that_was_removed_before_its_first_start_hears_of_it() -> None:
    """Nobody speaks to it, and it knows no members: it asks those that it was to join."""
    cluster = SimCluster(3, 1)
    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
    cluster.run(6.0)
    leader = cluster.leader()
    assert leader is not None and leader.member is not None
    new = cluster.newcomer(is_learner=True)
    outcome: list[object] = []
    leader.member.membership_changes.add(new, outcome.append)
    assert cluster.run_until(lambda: outcome == [None], 5.0)
    node = cluster.admit(new)
    leader.member.membership_changes.remove(new.id, outcome.append)
    assert cluster.run_until(lambda: outcome == [None, None], 5.0)
    node.start()
    assert not cluster.agreed()
    assert cluster.run_until(lambda: node.removed and node.member is None, 5.0)
    assert cluster.agreed()
