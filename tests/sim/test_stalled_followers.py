"""A follower whose disk stalls in virtual time: what it applied meanwhile, Raft has yet to hear of."""

from __future__ import annotations

import pytest

from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.node import Node
from sim.witnessed import Habits

pytestmark = pytest.mark.sim

KEPT_ENTRIES = 3
PUTS = 10 * KEPT_ENTRIES


def member_of(node: Node) -> Member:
    assert node.member is not None
    return node.member


def put(node: Node, key: bytes) -> None:
    request = rpc_pb2.PutRequest(key=key, value=b"v").SerializeToString()
    member_of(node).propose(internal_request.KIND_PUT, request, lambda _: None)


def test_it_may_look_for_votes_though_it_has_forgotten_what_it_applied() -> None:
    """The entries that become committed in one go are applied while the write behind them waits.

    Raft looks through them for changes of the membership before it campaigns.
    """
    cluster = SimCluster(3, 5, lambda _: Habits(catchup_entries=KEPT_ENTRIES, trim_entries=1))
    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
    cluster.run(1.0)
    leader = cluster.leader()
    assert leader is not None
    follower, absent = (node for node in cluster.nodes.values() if node is not leader)
    absent.crash()
    leader.stall(0.5)
    for number in range(PUTS):
        put(leader, b"%d" % number)
    cluster.run(0.3)  # the follower has them on its disk, the leader does not
    follower.stall(20.0)
    put(leader, b"one more")
    before = member_of(follower).applied_index
    assert cluster.run_until(lambda: member_of(follower).applied_index >= before + PUTS, 1.0)
    raft = member_of(follower).raft
    assert raft.writing and raft.applied_index <= before
    leader.crash()
    cluster.run(5.0)
    assert raft.writing and raft.node.raft.lead == 0, "it campaigns"
    cluster.calm()
    assert cluster.run_until(cluster.agreed, 30.0), cluster.whereabouts()
    assert len(cluster.hashes()) == 1
