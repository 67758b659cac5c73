"""The leader's lease work in virtual time: expiry, checkpoints and renewals through the log."""

from __future__ import annotations

from itertools import pairwise

import pytest

from keyraft.base import errors
from keyraft.lease import PROMOTION_SLICE_LEASES
from keyraft.proto import rpc_pb2
from keyraft.server.apply import internal_request
from tests.server.harness import OneMember


def leading() -> OneMember:
    cluster = OneMember()
    cluster.run(2.0)
    assert cluster.member.leadership.leading
    return cluster


def grant(cluster: OneMember, lease_id: int, ttl_s: int) -> None:
    request = rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=ttl_s).SerializeToString()
    answers = cluster.propose(internal_request.KIND_LEASE_GRANT, request)
    cluster.run(0.1)
    assert isinstance(answers.results[0], bytes)


def put(cluster: OneMember, key: bytes, lease_id: int) -> None:
    request = rpc_pb2.PutRequest(key=key, value=b"v", lease=lease_id).SerializeToString()
    cluster.propose(internal_request.KIND_PUT, request)
    cluster.run(0.1)


def renew(cluster: OneMember, lease_id: int) -> list[object]:
    outcome: list[object] = []
    cluster.member.leasing.renew(lease_id, outcome.append)
    return outcome


def test_a_lease_that_runs_out_takes_its_keys_with_it():
    cluster = leading()
    grant(cluster, 7, 10)
    put(cluster, b"b", 7)
    put(cluster, b"a", 7)
    revision = cluster.member.store.revision
    cluster.run(9.0)
    assert cluster.get(b"a") == b"v"
    cluster.run(2.0)
    assert cluster.get(b"a") is None and cluster.get(b"b") is None
    assert cluster.member.store.revision == revision + 1  # one revision for both
    assert not cluster.member.lessor.exists(7)
    assert cluster.member.leasing.expired_total == 1
    cluster.member.lessor.check()


def test_a_lease_kept_alive_stays():
    cluster = leading()
    grant(cluster, 7, 10)
    put(cluster, b"a", 7)
    for _ in range(6):
        cluster.run(5.0)
        assert renew(cluster, 7) == [10]
    assert cluster.get(b"a") == b"v"


def test_renewing_what_has_run_out_waits_for_the_revocation():
    cluster = leading()
    grant(cluster, 7, 10)
    cluster.run(9.95)  # it is handed out at the next scan, up to half a second later
    lessor = cluster.member.lessor
    while lessor.running(7, cluster.loop.time()):
        cluster.run(0.01)
    outcome = renew(cluster, 7)
    assert outcome == []
    cluster.run(1.0)
    assert [type(each) for each in outcome] == [errors.LeaseNotFoundError]
    assert [type(each) for each in renew(cluster, 7)] == [errors.LeaseNotFoundError]


def test_a_renewal_taken_back_is_not_answered():
    cluster = leading()
    grant(cluster, 7, 10)
    lessor = cluster.member.lessor
    while lessor.running(7, cluster.loop.time()):
        cluster.run(0.01)
    outcome: list[object] = []
    take_back = cluster.member.leasing.renew(7, outcome.append)
    assert take_back is not None
    take_back()
    cluster.run(1.0)
    assert outcome == []


def test_a_checkpoint_survives_a_restart_and_a_renewal_takes_it_back():
    cluster = leading()
    grant(cluster, 7, 1000)
    cluster.run(301.0)
    assert cluster.member.lessor.checkpointed(7)
    cluster.crash()
    cluster.start()
    cluster.run(3.0)
    remaining_s, granted_s = cluster.member.lessor.time_to_live(7, cluster.loop.time())
    assert granted_s == 1000
    assert 695 <= remaining_s <= 701
    outcome = renew(cluster, 7)
    assert outcome == []  # the checkpoint is taken back through the log first
    cluster.run(0.1)
    assert outcome == [1000]
    assert not cluster.member.lessor.checkpointed(7)
    assert cluster.member.lessor.time_to_live(7, cluster.loop.time())[0] >= 999


def test_a_thousand_leases_go_at_the_pace_of_the_limit():
    cluster = leading()
    for lease_id in range(1, 1_201):
        request = rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=20).SerializeToString()
        cluster.propose(internal_request.KIND_LEASE_GRANT, request)
    cluster.run(19.5)
    left = [len(cluster.member.lessor)]
    while left[-1]:
        cluster.run(0.5)
        left.append(len(cluster.member.lessor))
    gone = [before - after for before, after in pairwise(left)]
    assert sum(gone) == 1_200
    assert max(gone) <= 500


def test_a_leader_again_gives_deadlines_once_the_old_ones_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Deposed and elected with many leases: a step a turn, first of forgetting, then of giving."""
    cluster = leading()
    member = cluster.member
    lessor = member.lessor
    count = 3 * PROMOTION_SLICE_LEASES
    for lease_id in range(1, count + 1):
        lessor.grant(lease_id, 600, cluster.loop.time())
    steps: list[tuple[str, float]] = []
    forget, give = lessor.demotion_step, lessor.promotion_step

    def forgetting() -> bool:
        more = forget()
        if more or (steps and steps[-1][0] == "forget"):
            steps.append(("forget", cluster.loop.time()))
        return more

    def giving(now: float) -> bool:
        steps.append(("give", now))
        return give(now)

    monkeypatch.setattr(lessor, "demotion_step", forgetting)
    monkeypatch.setattr(lessor, "promotion_step", giving)
    member.leasing.promote()  # as one who was not told that it had been deposed
    assert not lessor.primary
    cluster.run(1.0)
    assert lessor.primary and not lessor.promotion_step(cluster.loop.time())
    kinds = [kind for kind, _ in steps]
    assert kinds == sorted(kinds, key=("forget", "give").index)
    # Both queues of deadlines have an entry for each.
    assert 6 <= kinds.count("forget") <= 8 and 3 <= kinds.count("give") <= 5
    assert lessor.expired(cluster.loop.time()) == []
    lessor.check()
    # And one that is deposed again in between gives none.
    cluster.unsound = True  # only its leases believe it
    member.leasing.promote()
    member.leasing.demote()
    cluster.run(1.0)
    assert not lessor.primary
    lessor.check()
    member.leasing.promote()
    cluster.run(1.0)
    assert lessor.primary
