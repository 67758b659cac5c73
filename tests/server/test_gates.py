"""Feature gates and flags of the member itself: each changes what it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from keyraft.base import errors
from keyraft.base.limits import APPLY_GAP_ENTRIES_MAX
from keyraft.base.log import NullLogger
from keyraft.proto import rpc_pb2
from keyraft.server.apply import internal_request
from keyraft.server.consensus.first_election import LEFT_TICKS, WAIT_S, hasten_first_election
from sim.loop import SimLoop
from tests.server.harness import OneMember


def leading(**settings: Any) -> OneMember:
    one = OneMember(**settings)
    one.run(2.0)
    assert one.member.leadership.leading
    return one


def grant(one: OneMember, lease_id: int, ttl_s: int) -> None:
    request = rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=ttl_s).SerializeToString()
    one.propose(internal_request.KIND_LEASE_GRANT, request)
    one.run(0.1)


def test_without_lease_checkpoints_none_is_proposed() -> None:
    one = leading(lease_checkpoints=False)
    grant(one, 7, 1000)
    one.run(301.0)
    assert not one.member.lessor.checkpointed(7)


def behind(one: OneMember, entries: int) -> None:
    """As if so many committed entries were not applied."""
    one.unsound = True
    one.member.committed_index = one.member.queue.applied_index + entries


@pytest.mark.parametrize("fast", [True, False])
def test_a_renewal_waits_for_the_applied_index_only_where_the_gate_is_off(fast: bool) -> None:
    one = leading(fast_lease_keep_alive=fast)
    grant(one, 7, 100)
    one.run(10.0)
    leasing = one.member.leasing
    assert leasing.may_renew_at_once(one.loop.time())
    behind(one, 1)
    outcome: list[object] = []
    leasing.renew(7, outcome.append)
    assert leasing.may_renew_at_once(one.loop.time()) == fast
    assert outcome == ([100] if fast else [])
    one.put(b"k", b"v")
    one.run(0.5)
    assert outcome == [100]


def test_revocations_have_priority_where_the_gate_is_on() -> None:
    revoke = rpc_pb2.LeaseRevokeRequest(ID=7).SerializeToString()

    def refused(one: OneMember, kind: int, request: bytes) -> bool:
        try:
            one.propose(kind, request)
        except errors.TooManyRequestsError:
            return True
        return False

    for priority in (False, True):
        one = leading(priority_request=priority)
        behind(one, APPLY_GAP_ENTRIES_MAX + 1)
        assert refused(one, internal_request.KIND_PUT, b"")
        assert refused(one, internal_request.KIND_LEASE_REVOKE, revoke) != priority
        behind(one, 2 * APPLY_GAP_ENTRIES_MAX + 1)
        assert refused(one, internal_request.KIND_LEASE_REVOKE, revoke)


class Starting:
    """A member of three that has just started; `active`: those that are connected."""

    def __init__(self, leader: int = 0) -> None:
        self.loop = SimLoop()
        self.logger = NullLogger()
        self.active: set[int] = set()
        self.ticks = 0
        self.stopped = False
        self.settings = SimpleNamespace(member_id=1, election_ticks=10)
        self.leadership = SimpleNamespace(leader=leader)
        self.membership = SimpleNamespace(state=SimpleNamespace(voters=(1, 2, 3)))
        self.network = SimpleNamespace(active_since=lambda v: 0.0 if v in self.active else None)
        self.raft = self

    def tick(self) -> None:
        self.ticks += 1

    def run(self, seconds: float) -> int:
        self.loop.run_until(self.loop.time() + seconds)
        return self.ticks


def test_the_first_election_timeout_is_shortened_once_a_quorum_is_connected() -> None:
    member: Any = Starting()
    hasten_first_election(member)
    assert member.run(1.0) == 0
    member.active = {3}
    assert member.run(0.2) == member.settings.election_ticks - LEFT_TICKS
    assert member.run(5.0) == member.settings.election_ticks - LEFT_TICKS


def test_it_is_not_shortened_for_who_hears_of_a_leader_or_meets_nobody() -> None:
    led: Any = Starting(leader=2)
    led.active = {2, 3}
    hasten_first_election(led)
    assert led.run(1.0) == 0
    lonely: Any = Starting()
    hasten_first_election(lonely)
    assert lonely.run(WAIT_S + 1.0) == 0
    lonely.active = {2, 3}
    assert lonely.run(1.0) == 0
