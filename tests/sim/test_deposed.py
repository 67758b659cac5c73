"""A leader that was deposed without noticing, and what it must not do for leases then."""

from __future__ import annotations

from collections.abc import Callable

from keyraft.base.errors import EtcdError, LeaseNotFoundError, NotLeaderError, RawError
from keyraft.base.waiters import Result
from keyraft.proto import rpc_pb2
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.node import Node
from sim.witnessed import Habits

LEASE = 7
TTL_S = 3


class Deposed:
    """Three members, a lease, a leader that stands still, and a successor that renews the lease."""

    def __init__(self, seed: int, stand_still: Callable[[Node], None]) -> None:
        self.cluster = cluster = SimCluster(3, seed)
        assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
        first = cluster.leader()
        assert first is not None
        self.first = first
        grant = rpc_pb2.LeaseGrantRequest(ID=LEASE, TTL=TTL_S)
        self.propose(internal_request.KIND_LEASE_GRANT, grant.SerializeToString())
        cluster.run(0.5)
        assert LEASE in cluster.witness.twin.leases
        stand_still(first)
        self.propose(internal_request.KIND_PUT, rpc_pb2.PutRequest(key=b"k").SerializeToString())
        assert cluster.run_until(lambda: self.successor() is not None)

    def propose(self, kind: int, request: bytes) -> None:
        def answered(_: Result) -> None:
            """What became of it, the twin knows."""

        member = self.first.member
        assert member is not None
        member.propose(kind, request, answered)

    def successor(self) -> Node | None:
        for node in self.cluster.nodes.values():
            member = node.member
            if node is not self.first and member is not None and member.lessor.primary:
                return node
        return None

    def keep_alive(self, seconds: float) -> None:
        """Renews at the successor and demands that the lease stays."""
        end_s = self.cluster.loop.time() + seconds
        while self.cluster.loop.time() < end_s:
            node = self.successor()
            assert node is not None
            assert self.renew(node) == [TTL_S]
            self.cluster.run(0.3)
            assert LEASE in self.cluster.witness.twin.leases

    def renew(self, node: Node) -> list[int | EtcdError | RawError]:
        outcome: list[int | EtcdError | RawError] = []
        assert node.member is not None
        node.member.leasing.renew(LEASE, outcome.append)
        return outcome


def test_revocations_of_a_leader_whose_disk_stood_still_do_not_reach_its_successor() -> None:
    for seed in range(1, 6):
        deposed = Deposed(seed, lambda node: node.stall(12.0))
        deposed.keep_alive(16.0)


def test_a_leader_that_was_paused_asks_before_it_revokes_or_renews() -> None:
    for seed in range(1, 6):
        deposed = Deposed(seed, lambda node: node.pause())
        deposed.keep_alive(8.0)
        deposed.first.resume()
        asked = deposed.renew(deposed.first)
        deposed.keep_alive(4.0)
        assert [type(one) for one in asked] == [NotLeaderError]


def test_the_first_tick_after_a_pause_does_not_make_a_leader_sure() -> None:
    met = 0
    for seed in range(1, 6):
        deposed = Deposed(seed, lambda node: node.pause())
        cluster, first = deposed.cluster, deposed.first
        cluster.network.cut(first.id, first.id)
        for other in cluster.nodes:
            cluster.network.cut(other, first.id)
        first._loop._waiting = [call for call in first._loop._waiting if call[0] != first.step]
        first.resume()
        cluster.run(0.001)
        member = first.member
        assert member is not None and member.leadership.leading, (
            "only its clock has come to it so far"
        )
        assert member.loop.time() - member.ticked_s < 0.01
        met += member.lessor.running(LEASE, member.loop.time())
        asked = deposed.renew(first)
        deposed.keep_alive(4.0)
        assert not any(isinstance(one, int) for one in asked)
    assert met, "the lease had run out each time"


def ask_a_leader_that_is_cut_off(seed: int) -> bool:
    """Renews and asks about a lease that only the successor knows; whether the old leader led then."""
    rates = iter([0.5, 1.5, 1.5])
    cluster = SimCluster(3, seed, lambda chance: Habits(rate=next(rates)))
    first = next(node for node in cluster.nodes.values() if node.habits.rate < 1)
    assert first.member is not None

    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.agreed())
    leader = cluster.leader()
    assert leader is not None and leader.member is not None
    leader.member.leadership_transfer.move(first.id, lambda _: None)
    assert cluster.run_until(lambda: cluster.leader() is first and cluster.agreed())
    cluster.network.partition([[first.id], [n for n in cluster.nodes if n != first.id]])
    assert cluster.run_until(lambda: cluster.leader() not in (first, None))
    second = cluster.leader()
    assert second is not None and second.member is not None
    grant = rpc_pb2.LeaseGrantRequest(ID=LEASE, TTL=TTL_S).SerializeToString()
    second.member.propose(internal_request.KIND_LEASE_GRANT, grant, lambda _: None)
    assert cluster.run_until(lambda: LEASE in cluster.witness.twin.leases)
    still_leads = first.member.leadership.leading
    asked: list[int | EtcdError | RawError] = []
    first.member.leasing.renew(LEASE, asked.append)
    told: list[rpc_pb2.LeaseTimeToLiveResponse | EtcdError | RawError] = []
    first.member.leasing.remaining(LEASE, False, told.append)
    assert not told, "it does not know the lease, and has not asked"
    cluster.run(2.0)
    assert not any(isinstance(one, LeaseNotFoundError) for one in [*asked, *told])
    return still_leads


def test_a_leader_that_is_cut_off_does_not_say_that_a_lease_is_gone() -> None:
    assert any(ask_a_leader_that_is_cut_off(seed) for seed in range(1, 6))
