"""`--force-new-cluster` in virtual time: the survivor goes on alone, with all that was acknowledged."""

from __future__ import annotations

import pytest

from keyraft.base.waiters import Result
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.node import Node

pytestmark = pytest.mark.sim


def member_of(node: Node) -> Member:
    assert node.member is not None
    return node.member


def put(node: Node, key: bytes) -> list[Result]:
    answers: list[Result] = []
    request = rpc_pb2.PutRequest(key=key, value=b"v").SerializeToString()
    member_of(node).propose(internal_request.KIND_PUT, request, answers.append)
    return answers


def keys(node: Node) -> list[bytes]:
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString()
    return [
        kv.key for kv in rpc_pb2.RangeResponse.FromString(member_of(node).store.range(request)).kvs
    ]


@pytest.mark.parametrize("seed", range(1, 9))
@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_last_survivor_leads_alone(size: int, seed: int) -> None:
    cluster = SimCluster(size, seed)
    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
    leader = cluster.leader()
    assert leader is not None
    wanted = [b"k%03d" % number for number in range(10 + 20 * (seed % 3))]
    for key in wanted:
        done = put(leader, key)
        assert cluster.run_until(lambda done=done: bool(done))  # type: ignore[misc]
        assert isinstance(done[0], bytes), done
    survivor = leader if seed % 2 else next(n for n in cluster.nodes.values() if n is not leader)
    assert cluster.run_until(cluster.agreed)
    cluster.run(0.5)  # the database of a follower tells what was committed, the log may not
    if seed % 2:
        # The survivor has entries that nobody else has, and that nobody was told of.
        for other in cluster.nodes.values():
            if other is not survivor:
                other.crash()
        put(survivor, b"never")
        cluster.run(0.2)
        survivor.crash()
    else:
        for node in cluster.nodes.values():
            node.crash()
    survivor.forced = True
    survivor.start()
    member = member_of(survivor)
    assert cluster.run_until(lambda: member.leadership.leading, 10.0)
    cluster.run(1.0)
    assert [one.id for one in member.membership.cluster.members] == [survivor.id]
    assert member.membership.cluster.removed == {n for n in cluster.nodes if n != survivor.id}
    assert member.settings.cluster_id == cluster.cluster_id
    assert keys(survivor) == wanted
    done = put(survivor, b"z")
    assert cluster.run_until(lambda: bool(done), 2.0) and isinstance(done[0], bytes)
    # The next start is a plain one, and needs nobody either.
    survivor.crash()
    survivor.forced = False
    survivor.start()
    again = member_of(survivor)
    assert cluster.run_until(
        lambda: again.leadership.leading and keys(survivor) == [*wanted, b"z"], 10.0
    )
