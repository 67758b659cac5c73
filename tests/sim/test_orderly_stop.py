"""A member that is asked to stop ends in order: another leads, and nothing that was told is lost."""

from __future__ import annotations

import pytest

from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.node import Node

pytestmark = pytest.mark.sim


def put(member: Member, key: bytes) -> None:
    request = rpc_pb2.PutRequest(key=key, value=b"v").SerializeToString()
    member.propose(internal_request.KIND_PUT, request, lambda _: None)


def led(size: int, seed: int) -> tuple[SimCluster, Node]:
    cluster = SimCluster(size, seed)
    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
    leader = cluster.leader()
    assert leader is not None
    return cluster, leader


@pytest.mark.parametrize("seed", range(3))
def test_a_stopping_leader_hands_over_before_it_ends(seed: int) -> None:
    cluster, leader = led(3, seed)
    assert leader.member is not None
    term = leader.member.leadership.term
    stopped: list[float] = []
    began_s = cluster.loop.time()
    leader.stop(lambda: stopped.append(cluster.loop.time()))
    assert cluster.run_until(lambda: bool(stopped))
    # The next leader was there before the first one ended, long before an election timeout.
    other = cluster.leader()
    assert other is not None and other is not leader and other.member is not None
    assert other.member.leadership.term == term + 1
    assert stopped[0] - began_s < leader.habits.heartbeat_s * leader.habits.election_ticks / 2


def test_a_stopping_leader_whom_nobody_hears_ends_all_the_same() -> None:
    cluster, leader = led(3, 1)
    assert leader.member is not None
    patience_s = leader.member.settings.request_timeout_s
    others = [one.id for one in cluster.nodes.values() if one is not leader]
    cluster.network.partition([[leader.id], others])
    stopped: list[float] = []
    began_s = cluster.loop.time()
    leader.stop(lambda: stopped.append(cluster.loop.time()))
    assert cluster.run_until(lambda: bool(stopped), 4 * patience_s)
    assert stopped[0] - began_s <= 2 * patience_s + 0.1


def test_what_a_lone_member_was_given_is_in_its_database_when_it_has_stopped() -> None:
    cluster, node = led(1, 5)
    assert node.member is not None
    for number in range(30):
        put(node.member, b"k%d" % number)
    assert cluster.run_until(lambda: node.member is not None and node.member.store.revision == 31)
    index = node.member.consistent_index
    stopped: list[bool] = []
    node.stop(lambda: stopped.append(True))
    assert cluster.run_until(lambda: bool(stopped))
    assert node.databases.own_index >= index
    node.start()
    member = node.member
    assert member is not None and member.store.revision == 31
