"""A member that cannot go on stops at once, with one line; the others go on without it."""

from __future__ import annotations

import pytest

from keyraft.proto import rpc_pb2
from keyraft.raft import FatalError, Message
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.node import Node

pytestmark = pytest.mark.sim


def follower_of(cluster: SimCluster) -> Node:
    assert cluster.run_until(cluster.agreed)
    cluster.run(1.0)
    return next(node for node in cluster.nodes.values() if node is not cluster.leader())


def put(cluster: SimCluster) -> None:
    leader = cluster.leader()
    assert leader is not None and leader.member is not None
    request = rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString()
    answers: list[object] = []
    leader.member.propose(internal_request.KIND_PUT, request, answers.append)
    assert cluster.run_until(lambda: bool(answers))


def ends(cluster: SimCluster) -> list[str]:
    return [line.split(" ", 1)[1] for line in cluster.story if " stops: " in line]


def test_a_member_that_hears_what_raft_cannot_survive_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = SimCluster(3, 1)
    follower = follower_of(cluster)
    assert follower.member is not None
    follower.doomed = True
    member = follower.member
    heard: list[Message] = []

    def step(message: Message) -> None:
        heard.append(message)
        raise FatalError("entry 3 conflicts with a committed one")

    monkeypatch.setattr(member.raft, "step", step)
    assert cluster.run_until(lambda: follower.member is None)
    (line,) = ends(cluster)
    assert line.endswith("the member cannot go on: raft: entry 3 conflicts with a committed one")
    assert len(heard) == 1 and member.stopped
    put(cluster)


@pytest.mark.parametrize("doubtful", ["log", "database"])
def test_a_member_whose_disk_is_broken_stops_and_loses_nothing(doubtful: str) -> None:
    cluster = SimCluster(3, 1)
    follower = follower_of(cluster)
    cluster.run(1.0)
    if doubtful == "log":
        follower.disk.failing = True
        put(cluster)
    else:
        put(cluster)
        cluster.run(0.02)  # its log has the entry, its database is about to
        follower.disk.failing = True
    assert cluster.run_until(lambda: follower.member is None)
    (line,) = ends(cluster)
    what = "save Raft hard state and entries" if doubtful == "log" else "write the database"
    assert f"failed to {what}" in line and "nput/output error" in line
    follower.mend()
    follower.start()
    assert cluster.run_until(cluster.agreed)
    assert len(cluster.hashes()) == 1


def test_what_a_callback_raises_stops_the_member(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = SimCluster(3, 1)
    follower = follower_of(cluster)
    assert follower.member is not None
    follower.doomed = True

    def applied(index: int) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(follower.member.snapshotter, "applied", applied)
    put(cluster)
    assert cluster.run_until(lambda: follower.member is None)
    (line,) = ends(cluster)
    assert "the member cannot go on" in line and "a bug" in line


def test_nobody_stops_without_a_reason() -> None:
    cluster = SimCluster(3, 1)
    follower = follower_of(cluster)
    with pytest.raises(AssertionError, match=r"m. stops: it fell over: of itself"):
        follower.fatal("it fell over", "of itself")
