"""Members whose keys differ are found and accused, in virtual time; others never are."""

from __future__ import annotations

from random import Random

import pytest

from keyraft.base import errors
from keyraft.base.waiters import Result
from keyraft.mvcc.backend import KEY
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.node import Node
from sim.witnessed import Habits

pytestmark = pytest.mark.sim

CHECK_S = 2.0


def periodic(_: Random) -> Habits:
    return Habits(corrupt_check_s=CHECK_S)


def after_compactions(_: Random) -> Habits:
    return Habits(compact_hash_check_s=CHECK_S)


def begin(habits: object, size: int = 3) -> tuple[SimCluster, Node]:
    cluster = SimCluster(size, 3, habits)  # type: ignore[arg-type]
    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
    leader = cluster.leader()
    assert leader is not None
    for number in range(20):
        put(leader, b"k%d" % (number % 7))
    assert cluster.run_until(lambda: all(one.store.revision == 21 for one in cluster.members))
    return cluster, leader


def member_of(node: Node) -> Member:
    assert node.member is not None
    return node.member


def propose(node: Node, kind: int, request: bytes) -> list[Result]:
    answers: list[Result] = []
    member_of(node).propose(kind, request, answers.append)
    return answers


def put(node: Node, key: bytes) -> list[Result]:
    request = rpc_pb2.PutRequest(key=key, value=b"v")
    return propose(node, internal_request.KIND_PUT, request.SerializeToString())


def compact(cluster: SimCluster, leader: Node, revision: int) -> None:
    request = rpc_pb2.CompactionRequest(revision=revision).SerializeToString()
    propose(leader, internal_request.KIND_COMPACTION, request)

    def compacted() -> bool:
        return all(
            member.store.compact_revision == revision and not member.store.compactions
            for member in cluster.members
        )

    assert cluster.run_until(compacted)


def damage(node: Node) -> None:
    """The newest row holds something else, as after a fault of the disk."""
    backend = member_of(node).backend
    row, stored = list(backend.range(KEY, b"", None))[-1]
    backend.put(KEY, row, stored[:-1] + b"x")


def accused(cluster: SimCluster) -> set[int]:
    found = {tuple(member.alarms.raised(2)) for member in cluster.members}
    assert len(found) == 1, found
    return {member_id for _, member_id in found.pop()}


def follower_of(cluster: SimCluster, leader: Node) -> Node:
    return next(node for node in cluster.nodes.values() if node is not leader)


def test_equal_members_are_not_accused() -> None:
    cluster, leader = begin(periodic)
    compact(cluster, leader, 9)
    for _ in range(5):
        put(leader, b"more")
        cluster.run(CHECK_S)
    assert accused(cluster) == set()


def test_a_damaged_follower_is_accused_and_nobody_writes_any_more() -> None:
    cluster, leader = begin(periodic)
    damaged = follower_of(cluster, leader)
    damage(damaged)
    cluster.run(2 * CHECK_S)
    assert accused(cluster) == {damaged.id}
    refused = put(leader, b"k")
    cluster.run(0.5)
    assert isinstance(refused[0], errors.CorruptError), refused
    assert refused[0].text == "etcdserver: corrupt cluster"


def test_who_cannot_be_reached_is_not_accused() -> None:
    cluster, leader = begin(periodic)
    damaged = follower_of(cluster, leader)
    damage(damaged)
    damaged.pause()
    cluster.run(3 * CHECK_S)
    assert accused(cluster) == set()


@pytest.mark.parametrize("leads", [True, False])
def test_a_compaction_shows_who_is_damaged(leads: bool) -> None:
    """The majority is right, even against the leader."""
    cluster, leader = begin(after_compactions)
    damaged = leader if leads else follower_of(cluster, leader)
    damage(damaged)
    compact(cluster, leader, member_of(leader).store.revision)
    cluster.run(2 * CHECK_S)
    assert accused(cluster) == {damaged.id}


def test_without_a_majority_the_whole_cluster_is_accused() -> None:
    cluster, leader = begin(after_compactions, size=2)
    damage(follower_of(cluster, leader))
    compact(cluster, leader, member_of(leader).store.revision)
    cluster.run(2 * CHECK_S)
    assert accused(cluster) == {0}


def test_hashes_of_compactions_agree() -> None:
    cluster, leader = begin(after_compactions)
    for revision in (5, 9, 14):
        compact(cluster, leader, revision)
        cluster.run(CHECK_S)
    assert accused(cluster) == set()


def initial(node: Node, cluster: SimCluster) -> str:
    told: list[str] = []
    member_of(node).corruption.initial(told.append)
    assert cluster.run_until(lambda: bool(told))
    return told[0]


def test_a_member_compares_before_it_serves() -> None:
    cluster, leader = begin(lambda _: Habits())
    follower = follower_of(cluster, leader)
    assert initial(follower, cluster) == ""
    damage(follower)
    assert initial(follower, cluster) == f"{follower.id:x} found data inconsistency with peers"
