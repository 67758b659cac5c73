"""Leaders of yesterday in virtual time: their disk stalls, or they stood still."""

from __future__ import annotations

import pytest

from keyraft.base.waiters import Result
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.node import Node

pytestmark = pytest.mark.sim

LEASE = 7
TTL_S = 3
STALL_S = 20.0
ELECTION_S = 1.0  # so long a follower waits for a heartbeat at least, twice as long at most


def member_of(node: Node) -> Member:
    assert node.member is not None
    return node.member


def begin(seed: int = 5) -> tuple[SimCluster, Node]:
    cluster = SimCluster(3, seed)
    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
    cluster.run(3.0)
    leader = cluster.leader()
    assert leader is not None
    return cluster, leader


def propose(node: Node, kind: int, request: bytes) -> list[Result]:
    answers: list[Result] = []
    member_of(node).propose(kind, request, answers.append)
    return answers


def put(node: Node, key: bytes, lease_id: int = 0) -> list[Result]:
    request = rpc_pb2.PutRequest(key=key, value=b"v", lease=lease_id)
    return propose(node, internal_request.KIND_PUT, request.SerializeToString())


def grant(cluster: SimCluster, leader: Node, ttl_s: int = TTL_S) -> None:
    request = rpc_pb2.LeaseGrantRequest(ID=LEASE, TTL=ttl_s).SerializeToString()
    propose(leader, internal_request.KIND_LEASE_GRANT, request)
    put(leader, b"leased", LEASE)
    assert cluster.run_until(lambda: all(b"leased" in m.store.key_leases for m in cluster.members))


def renew(node: Node) -> list[object]:
    answers: list[object] = []
    member_of(node).leasing.renew(LEASE, answers.append)
    return answers


def successor(cluster: SimCluster, old: Node) -> Node:
    def other() -> bool:
        return any(m.leadership.leading for m in cluster.members if m is not old.member)

    assert cluster.run_until(other, 6 * ELECTION_S)
    return next(
        node
        for node in cluster.nodes.values()
        if node is not old and member_of(node).leadership.leading
    )


def test_a_leader_whose_disk_stalls_steps_down_before_it_comes_back() -> None:
    cluster, old = begin()
    member = member_of(old)
    old.stall(STALL_S)
    answers = put(old, b"k")
    began_s = cluster.loop.time()
    new = successor(cluster, old)
    assert cluster.run_until(lambda: not member.leadership.leading, 4 * ELECTION_S)
    assert cluster.loop.time() - began_s < 4 * ELECTION_S < STALL_S
    assert member.raft.writing_since_s is not None, "the disk was to stall still"
    assert member.leadership.leader != old.id and not member.lessor.primary
    assert member.counters.heartbeat_send_failures == 1
    done = put(new, b"other")
    assert cluster.run_until(lambda: bool(done), 2.0) and isinstance(done[0], bytes)
    cluster.run(2 * STALL_S)
    assert member.leadership.leader == new.id or member.leadership.leading
    assert cluster.agreed() and len(cluster.hashes()) == 1
    # The put had left for the others before the disk stalled; its client was told of a timeout.
    assert answers and not isinstance(answers[0], bytes)


def test_a_leader_that_was_held_up_goes_on_with_its_leases() -> None:
    cluster, leader = begin()
    grant(cluster, leader)
    leader.pause()
    cluster.run(0.6)  # too short for the others to elect anybody
    leader.resume()
    answers = renew(leader)
    assert cluster.run_until(lambda: answers == [TTL_S], 1.0)
    assert member_of(leader).leadership.leading
    assert cluster.run_until(lambda: renew(leader) == [TTL_S], 1.0)
    cluster.run(TTL_S + 2.0)
    assert b"leased" not in member_of(leader).store.key_leases, "nobody renewed it any more"
