"""Full disks in virtual time: no member ends of one, and nothing that was acknowledged is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keyraft.base.errors import EtcdError, NoSpaceError
from keyraft.proto import rpc_pb2
from keyraft.server import Member, MemberHealth
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.faults import Chaos
from sim.node import Node
from sim.scenario import Plan, Run

pytestmark = pytest.mark.sim


def begun(size: int = 3) -> SimCluster:
    cluster = SimCluster(size, 1)
    assert cluster.run_until(cluster.agreed)
    cluster.run(1.0)
    return cluster


def member_of(node: Node | None) -> Member:
    assert node is not None
    assert node.member is not None
    return node.member


def put(cluster: SimCluster, value: bytes = b"v") -> object:
    request = rpc_pb2.PutRequest(key=b"k", value=value).SerializeToString()
    answers: list[object] = []
    member_of(cluster.leader()).propose(internal_request.KIND_PUT, request, answers.append)
    cluster.run_until(lambda: bool(answers))
    return answers[0] if answers else None


def fill(*nodes: Node, in_place: bool = True) -> None:
    for node in nodes:
        node.disk.full = True
        node.disk.in_place = in_place


def is_full(node: Node) -> Callable[[], bool]:
    return lambda: node.member is not None and node.member.space.disk.full


def read(cluster: SimCluster, node: Node) -> list[EtcdError | None]:
    """A linearizable read's outcome."""
    told: list[EtcdError | None] = []
    member_of(node).read_index(told.append)
    cluster.run_until(lambda: bool(told))
    return told


def _holds(member: Member) -> bool:
    return member.store.kv_at(b"k", member.store.revision) is not None


def agree_when_there_is_room(cluster: SimCluster) -> None:
    for node in cluster.nodes.values():
        node.disk.full = False
    assert cluster.run_until(lambda: not any(is_full(node)() for node in cluster.nodes.values()))
    assert isinstance(put(cluster, b"later"), bytes)
    assert cluster.run_until(cluster.agreed)
    cluster.run(2.0)
    assert len(cluster.hashes()) == 1
    assert all(node.lives == 1 for node in cluster.nodes.values())


@pytest.mark.parametrize("in_place", [True, False])
def test_a_follower_whose_disk_is_full_refuses_writes_and_the_others_go_on(in_place: bool) -> None:
    cluster = begun()
    follower = next(node for node in cluster.nodes.values() if node is not cluster.leader())
    fill(follower, in_place=in_place)
    assert isinstance(put(cluster), bytes)
    assert cluster.run_until(is_full(follower))
    member = member_of(follower)
    with pytest.raises(NoSpaceError):
        member.quota.check(1)
    assert member.quota.room < 0
    assert MemberHealth(member).alarms() == ["NOSPACE"]
    assert not member.alarms.any
    for _ in range(100):  # more than any reserve holds
        assert isinstance(put(cluster, b"v" * 200), bytes)
    others = [node for node in cluster.nodes.values() if node is not follower]
    assert all(MemberHealth(member_of(node)).alarms() == [] for node in others)
    agree_when_there_is_room(cluster)
    assert member.quota.room > 0
    assert MemberHealth(member).alarms() == []


@pytest.mark.parametrize("in_place", [True, False])
def test_a_leader_whose_disk_is_full_hands_over(in_place: bool) -> None:
    cluster = begun()
    former = cluster.leader()
    assert former is not None
    fill(former, in_place=in_place)
    put(cluster)
    assert cluster.run_until(lambda: cluster.leader() not in (None, former))
    for _ in range(50):
        assert isinstance(put(cluster, b"v" * 200), bytes)
    agree_when_there_is_room(cluster)


def test_when_all_disks_are_full_reads_go_on() -> None:
    cluster = begun()
    nodes = list(cluster.nodes.values())
    leader = cluster.leader()
    assert leader is not None
    fill(*nodes)
    assert isinstance(put(cluster), bytes)  # into what is reserved
    assert cluster.run_until(lambda: all(is_full(node)() for node in nodes))
    for _ in range(60):  # who does not ask for the quota fills the reserve
        put(cluster, b"v" * 200)
    cluster.run(5.0)
    for node in nodes:
        with pytest.raises(NoSpaceError):
            member_of(node).quota.check(1)
        assert read(cluster, node) == [None]
    assert member_of(cluster.leader()).raft.room is not None
    agree_when_there_is_room(cluster)


def test_members_that_die_on_full_disks_start_on_them() -> None:
    cluster = begun()
    nodes = list(cluster.nodes.values())
    fill(*nodes)
    assert isinstance(put(cluster, b"kept"), bytes)
    assert cluster.run_until(lambda: all(is_full(node)() for node in nodes))
    for node in nodes:
        node.kill()
        node.start()
    assert cluster.run_until(lambda: cluster.leader() is not None)
    for node in nodes:
        assert read(cluster, node) == [None]
        assert _holds(member_of(node))
    for node in nodes:
        node.disk.full = False
    assert cluster.run_until(lambda: not any(is_full(node)() for node in nodes))
    assert isinstance(put(cluster, b"later"), bytes)
    assert cluster.run_until(cluster.agreed)


@pytest.mark.parametrize("seed", range(1, 5))
def test_histories_with_full_disks_are_linearizable(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choices(self: Chaos) -> list[Callable[[], None]]:
        return [self._full_disk, self._full_disk, self._full_disks, self._kill, self._crash]

    monkeypatch.setattr(Chaos, "_choices", choices)
    summary = Run(seed, Plan(seconds=12.0, size=3, fault_interval_s=1.0)).carry_out()
    assert summary.operations > 50
