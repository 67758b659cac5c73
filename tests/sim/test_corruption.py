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
    return Habits(corrupt_check_s=CHECK_S, self_repair=False)


def after_compactions(_: Random) -> Habits:
    return Habits(compact_hash_check_s=CHECK_S, self_repair=False)


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
    cluster, leader = begin(lambda _: Habits(self_repair=False))
    follower = follower_of(cluster, leader)
    assert initial(follower, cluster) == ""
    damage(follower)
    assert initial(follower, cluster) == f"{follower.id:x} found data inconsistency with peers"


# --- rebuilding itself ----------------------------------------------------------------------------


def repairing(_: Random) -> Habits:
    return Habits(corrupt_check_s=CHECK_S)


def repairing_after_compactions(_: Random) -> Habits:
    return Habits(compact_hash_check_s=CHECK_S)


def whole(cluster: SimCluster) -> bool:
    """Nobody is accused or fenced, and everybody writes."""
    if not cluster.agreed() or any(one.leadership.fenced for one in cluster.members):
        return False
    return not any(one.alarms.corrupt for one in cluster.members)


def rebuilt(cluster: SimCluster, node: Node) -> None:
    """It is found out, rebuilt, and nobody is accused any more; the others have lived on."""
    assert cluster.run_until(lambda: any(one.alarms.corrupt for one in cluster.members))
    assert cluster.run_until(lambda: node.lives == 2 and node.member is not None)
    assert cluster.run_until(lambda: whole(cluster))
    assert len(cluster.hashes()) == 1
    assert len(node.databases.wrong) == 1
    assert all(one.lives == 1 for one in cluster.nodes.values() if one is not node)
    answers = put(cluster.leader() or node, b"later")
    assert cluster.run_until(lambda: bool(answers))
    assert isinstance(answers[0], bytes)


def test_a_damaged_follower_is_rebuilt_by_itself_under_load() -> None:
    cluster, leader = begin(repairing)
    damaged = follower_of(cluster, leader)
    damage(damaged)
    answers: list[Result] = []

    def load() -> None:
        now = cluster.leader()
        if now is not None and now.member is not None and not now.member.stopped:
            request = rpc_pb2.PutRequest(key=b"load", value=b"v").SerializeToString()
            now.member.propose(internal_request.KIND_PUT, request, answers.append)
        cluster.loop.call_later(0.02, load)

    load()
    rebuilt(cluster, damaged)
    refused = [one for one in answers if isinstance(one, errors.CorruptError)]
    assert 0 < len(refused) < len(answers)


@pytest.mark.parametrize("leads", [True, False])
def test_whoever_is_damaged_is_rebuilt_from_the_majority(leads: bool) -> None:
    """A leader hands over before it asks for the other's database."""
    cluster, leader = begin(repairing if leads else repairing_after_compactions)
    damaged = leader if leads else follower_of(cluster, leader)
    damage(damaged)
    if not leads:
        compact(cluster, leader, member_of(leader).store.revision)
    rebuilt(cluster, damaged)


def test_a_member_that_is_damaged_while_it_is_down_is_never_read() -> None:
    """It finds itself out after its start, without an alarm for the others."""
    cluster, leader = begin(lambda _: Habits())
    damaged = follower_of(cluster, leader)
    cluster.run(1.0)
    damaged.kill()
    rows = damaged.databases.own[KEY]
    row = max(rows)
    rows[row] = rows[row][:-1] + b"x"
    damaged.start()
    assert cluster.run_until(lambda: damaged.lives == 3 and damaged.member is not None)
    assert cluster.run_until(lambda: whole(cluster))
    assert len(cluster.hashes()) == 1
    assert len(damaged.databases.wrong) == 1


@pytest.mark.parametrize("size", [2, 3])
def test_nobody_is_rebuilt_where_it_is_not_clear_who_is_wrong(size: int) -> None:
    cluster, _ = begin(repairing, size)
    for number, node in enumerate(list(cluster.nodes.values())[: size - 1]):
        backend = member_of(node).backend
        row, stored = list(backend.range(KEY, b"", None))[-1]
        backend.put(KEY, row, stored[:-1] + b"xy"[number : number + 1])
    assert cluster.run_until(lambda: any(one.alarms.corrupt for one in cluster.members))
    cluster.run(20.0)
    assert all(node.lives == 1 for node in cluster.nodes.values())
    assert all(one.alarms.corrupt for one in cluster.members)
    assert not any(one.leadership.fenced for one in cluster.members)


def test_a_fenced_member_serves_nobody() -> None:
    cluster, leader = begin(repairing)
    damaged = follower_of(cluster, leader)
    damage(damaged)
    for node in cluster.nodes.values():
        cluster.network.cut(node.id, damaged.id)  # no database reaches it
    member = member_of(damaged)
    cluster.network.heal()
    assert cluster.run_until(lambda: member.leadership.fenced)
    assert not member.leadership.in_service
    assert not member.rebuild.trusted
