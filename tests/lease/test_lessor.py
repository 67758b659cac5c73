"""The lessor: rules one by one, and against a twin that looks at everything every time."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyraft.base import errors
from keyraft.lease import (
    PROMOTED_EXPIRIES_PER_S,
    PROMOTION_SLICE_LEASES,
    TTL_MAX_S,
    Lessor,
    NotPrimaryError,
    min_ttl_s,
)
from keyraft.lease.lessor import TOLD_SLICE
from keyraft.lease.spread import Spread
from keyraft.mvcc import MemoryBackend, finished
from tests.support.examples import examples


def primary() -> Lessor:
    lessor = Lessor(MemoryBackend(), 2)
    lessor.promote(0.0, 0.0)
    return lessor


def revoke(lessor: Lessor, lease_id: int) -> list[bytes]:
    """What apply does; the keys that were deleted."""
    keys = lessor.keys_to_revoke(lease_id)
    for key in keys:
        lessor.detach(lease_id, key)
    lessor.revoke(lease_id)
    return sorted(keys)


def test_minimum_ttl_is_an_election_and_a_half():
    assert min_ttl_s(10, 100) == 2
    assert min_ttl_s(50, 100) == 8
    assert min_ttl_s(11, 100) == 2
    assert min_ttl_s(3, 100) == 1


def test_grant_raises_short_ttls_and_refuses_long_ones():
    lessor = primary()
    assert lessor.grant(1, 0, 0.0) == 2
    assert lessor.grant(2, -5, 0.0) == 2
    assert lessor.grant(3, TTL_MAX_S, 0.0) == TTL_MAX_S
    with pytest.raises(errors.LeaseTTLTooLargeError):
        lessor.grant(4, TTL_MAX_S + 1, 0.0)
    with pytest.raises(errors.LeaseExistsError):
        lessor.grant(3, 10, 0.0)
    with pytest.raises(errors.LeaseNotFoundError):
        lessor.grant(0, 10, 0.0)
    lessor.check()


def test_revoke_tells_the_keys_to_be_deleted_before():
    lessor = primary()
    lessor.grant(7, 10, 0.0)
    lessor.grant(8, 10, 0.0)
    for key in (b"c", b"a", b"b"):
        lessor.attach(7, key)
    assert revoke(lessor, 7) == [b"a", b"b", b"c"]
    assert revoke(lessor, 8) == []
    with pytest.raises(errors.LeaseNotFoundError):
        lessor.keys_to_revoke(7)
    with pytest.raises(errors.LeaseNotFoundError):
        lessor.revoke(7)
    lessor.check()


def test_keys_come_and_go_and_unknown_leases_hold_none():
    lessor = primary()
    lessor.grant(1, 10, 0.0)
    lessor.attach(1, b"k")
    lessor.attach(9, b"k")
    assert (lessor.keys(1), lessor.keys(9)) == ([b"k"], [])
    lessor.detach(1, b"k")
    lessor.detach(1, b"k")
    lessor.detach(9, b"k")
    assert lessor.keys(1) == []
    lessor.check()


def test_remaining_time_is_cut_off_and_the_expired_stay_until_revoked():
    lessor = primary()
    lessor.grant(1, 10, 0.0)
    assert lessor.time_to_live(1, 0.5) == (9, 10)
    assert lessor.expired(9.9) == []
    assert lessor.expired(10.0) == [1]
    assert lessor.expired(10.1) == []  # handed out already
    assert lessor.expired(17.0) == [1]  # and again after the retry time
    assert lessor.exists(1)
    assert lessor.time_to_live(1, 11.5) == (-1, 10)


def test_renewing_an_expired_lease_waits_for_its_revocation():
    lessor = primary()
    lessor.grant(1, 10, 0.0)
    lessor.grant(2, 10, 0.0)
    assert lessor.renew(1, 9.0) == 10
    assert lessor.renew(2, 10.0) == 0
    told: list[bool] = []
    lessor.await_revocation(2, told.append)
    revoke(lessor, 2)
    assert told == [True]
    with pytest.raises(errors.LeaseNotFoundError):
        lessor.renew(2, 10.0)
    assert lessor.renew(1, 19.0) == 0
    lessor.await_revocation(1, told.append)
    lessor.demote()
    assert told == [True, False]
    with pytest.raises(NotPrimaryError):
        lessor.renew(1, 19.0)


def test_a_waiter_that_goes_away_is_not_called():
    lessor = primary()
    lessor.grant(1, 2, 0.0)
    told: list[bool] = []
    lessor.await_revocation(1, told.append)
    lessor.forget_waiter(1, told.append)
    revoke(lessor, 1)
    assert told == []
    assert lessor.statistics()["waiters"] == 0


def test_a_follower_expires_nothing_and_a_new_primary_starts_anew():
    lessor = Lessor(MemoryBackend(), 2)
    lessor.grant(1, 10, 0.0)
    assert lessor.expired(1e9) == []
    with pytest.raises(NotPrimaryError):
        lessor.time_to_live(1, 0.0)
    lessor.promote(100.0, 1.0)
    assert lessor.expired(110.9) == []
    assert lessor.expired(111.0) == [1]


def test_checkpoints_carry_the_remaining_time_over_a_restart():
    backend = MemoryBackend()
    lessor = Lessor(backend, 2)
    lessor.promote(0.0, 0.0)
    lessor.grant(1, 3600, 0.0)
    lessor.grant(2, 300, 0.0)  # not longer than the interval: never checkpointed
    assert lessor.due_checkpoints(299.0) == []
    assert lessor.due_checkpoints(300.0) == [(1, 3300)]
    lessor.checkpoint(1, 3300, 300.5)
    assert lessor.due_checkpoints(301.0) == []
    assert lessor.due_checkpoints(600.0) == [(1, 3000)]
    backend.flush()

    reborn = Lessor(MemoryBackend(backend.crash()), 2)
    reborn.check()
    reborn.promote(0.0, 1.0)
    assert reborn.time_to_live(1, 0.0) == (3301, 3600)
    assert reborn.checkpointed(1)
    reborn.checkpoint(1, 0, 0.0)
    assert reborn.renew(1, 0.0) == 3600
    assert reborn.time_to_live(1, 0.0) == (3600, 3600)


def test_a_lease_renewed_just_in_time_is_checkpointed_later():
    lessor = primary()
    lessor.grant(1, 600, 0.0)
    lessor.renew(1, 300.0)
    assert lessor.due_checkpoints(300.0) == []  # nothing has run off
    assert lessor.due_checkpoints(600.0) == [(1, 300)]
    for _ in range(50):  # neither renewals nor checkpoints pile up entries
        lessor.checkpoint(1, 400, 600.0)
        lessor.checkpoint(1, 0, 600.0)
    assert lessor.statistics()["checkpoint_entries"] == 1


def test_a_promotion_spreads_what_would_expire_together():
    lessor = Lessor(MemoryBackend(), 2)
    for lease_id in range(1, 5001):
        lessor.grant(lease_id, 10, 0.0)
    lessor.promote(0.0, 1.0)
    while lessor.promotion_step(0.0):
        pass
    counts: list[int] = []
    now = 11.0
    while len(lessor) > 0:
        second = 0
        for _ in range(2):
            for lease_id in lessor.expired(now):
                revoke(lessor, lease_id)
                second += 1
            now += 0.5
        counts.append(second)
    assert sum(counts) == 5000
    assert max(counts[:-1]) == PROMOTED_EXPIRIES_PER_S
    assert len(counts) == math.ceil(5000 / PROMOTED_EXPIRIES_PER_S)


def test_expiry_hands_out_no_more_than_the_pace_allows():
    lessor = primary()
    for lease_id in range(1, 1201):
        lessor.grant(lease_id, 10, 0.0)
    assert [len(lessor.expired(10.0 + i / 2)) for i in range(4)] == [500, 500, 200, 0]


def test_granting_and_revoking_for_ever_leaves_no_entries_behind():
    lessor = primary()
    for _ in range(10_000):
        lessor.grant(5, 9_000_000, 0.0)
        revoke(lessor, 5)
    assert lessor.statistics()["expiry_entries"] <= 1_024
    assert lessor.statistics()["checkpoint_entries"] <= 1_024


def test_leases_are_listed_by_what_remains():
    lessor = primary()
    for lease_id, ttl in ((1, 30), (2, 10), (3, 20)):
        lessor.grant(lease_id, ttl, 0.0)
    assert lessor.ids() == [2, 3, 1]
    assert lessor.renew(2, 9.0) == 10
    assert lessor.renew(3, 14.0) == 20
    assert lessor.ids() == [2, 1, 3]


def test_negative_ids_are_ids():
    backend = MemoryBackend()
    Lessor(backend, 2).grant(-3, 10, 0.0)
    backend.flush()
    assert Lessor(MemoryBackend(backend.crash()), 2).ids() == [-3]


class Twin(RuleBasedStateMachine):
    """The lessor beside dictionaries that are searched from end to end each time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.backend = MemoryBackend()
        self.lessor = Lessor(self.backend, 2, checkpoint_interval_s=20.0, revoke_retry_s=5.0)
        self.primary = False
        self.ttl: dict[int, int] = {}
        self.remaining: dict[int, int] = {}
        self.deadline: dict[int, float] = {}
        self.quiet_until: dict[int, float] = {}
        self.keys: dict[bytes, int] = {}

    ids = st.integers(-2, 12)
    names = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])

    @rule(passed=st.integers(0, 40))
    def pass_time(self, passed: int) -> None:
        self.now += passed / 4

    @rule(lease=ids, ttl=st.integers(-1, 60))
    def grant(self, lease: int, ttl: int) -> None:
        if lease == 0:
            with pytest.raises(errors.LeaseNotFoundError):
                self.lessor.grant(lease, ttl, self.now)
        elif lease in self.ttl:
            with pytest.raises(errors.LeaseExistsError):
                self.lessor.grant(lease, ttl, self.now)
        else:
            self.ttl[lease] = self.lessor.grant(lease, ttl, self.now)
            assert self.ttl[lease] == max(2, ttl)
            self.remaining[lease] = 0
            self.deadline[lease] = self.now + self.ttl[lease]
            self.quiet_until[lease] = 0.0

    def end(self, lease: int) -> None:
        expected = sorted(key for key, owner in self.keys.items() if owner == lease)
        assert revoke(self.lessor, lease) == expected
        self.keys = {key: owner for key, owner in self.keys.items() if owner != lease}
        for table in (self.ttl, self.remaining, self.deadline, self.quiet_until):
            del table[lease]

    @rule(lease=ids)
    def revoke(self, lease: int) -> None:
        if lease in self.ttl:
            self.end(lease)
        else:
            with pytest.raises(errors.LeaseNotFoundError):
                revoke(self.lessor, lease)

    @rule(lease=ids, key=names)
    def attach(self, lease: int, key: bytes) -> None:
        self.drop(key)
        self.lessor.attach(lease, key)
        if lease in self.ttl:
            self.keys[key] = lease

    @rule(key=names)
    def detach(self, key: bytes) -> None:
        self.drop(key)

    def drop(self, key: bytes) -> None:
        if key in self.keys:
            self.lessor.detach(self.keys.pop(key), key)

    @rule(lease=ids)
    def renew(self, lease: int) -> None:
        if not self.primary:
            with pytest.raises(NotPrimaryError):
                self.lessor.renew(lease, self.now)
        elif lease not in self.ttl:
            with pytest.raises(errors.LeaseNotFoundError):
                self.lessor.renew(lease, self.now)
        elif self.deadline[lease] <= self.now:
            assert self.lessor.renew(lease, self.now) == 0
        else:
            assert self.lessor.checkpointed(lease) == (self.remaining[lease] > 0)
            self.note(lease, 0)
            assert self.lessor.renew(lease, self.now) == self.ttl[lease]
            self.deadline[lease] = self.now + self.ttl[lease]

    def note(self, lease: int, remaining: int) -> None:
        self.lessor.checkpoint(lease, remaining, self.now)
        if lease in self.ttl:
            self.remaining[lease] = remaining

    @rule(lease=ids, remaining=st.integers(0, 50))
    def checkpoint(self, lease: int, remaining: int) -> None:
        self.note(lease, remaining)

    @rule(revoked=st.booleans(), limit=st.integers(1, 3))
    def expire(self, revoked: bool, limit: int) -> None:
        due = {
            lease
            for lease in self.ttl
            if self.primary and max(self.deadline[lease], self.quiet_until[lease]) <= self.now
        }
        handed_out = self.lessor.expired(self.now, limit)
        assert set(handed_out) <= due
        assert len(handed_out) == min(limit, len(due))
        for lease in handed_out:
            self.quiet_until[lease] = self.now + 5.0
            if revoked:
                self.end(lease)

    @rule()
    @precondition(lambda self: self.primary)
    def take_checkpoints(self) -> None:
        for lease, remaining in self.lessor.due_checkpoints(self.now):
            assert remaining == math.ceil(self.deadline[lease] - self.now)
            assert 0 < remaining < self.ttl[lease]
            self.note(lease, remaining)

    @rule(extend=st.integers(0, 3))
    def promote(self, extend: int) -> None:
        self.lessor.promote(self.now, extend)
        self.primary = True
        for lease, ttl in self.ttl.items():
            self.deadline[lease] = self.now + extend + (self.remaining[lease] or ttl)
            self.quiet_until[lease] = 0.0

    @rule()
    def demote(self) -> None:
        self.lessor.demote()
        self.primary = False

    @rule()
    def restart(self) -> None:
        self.backend.flush()
        self.backend = MemoryBackend(self.backend.crash())
        self.lessor = Lessor(self.backend, 2, checkpoint_interval_s=20.0, revoke_retry_s=5.0)
        for key, lease in self.keys.items():
            self.lessor.attach(lease, key)
        self.primary = False

    @invariant()
    def same_as_the_twin(self) -> None:
        self.lessor.check()
        assert sorted(self.lessor.ids()) == sorted(self.ttl)
        for lease in self.ttl:
            on_it = sorted(key for key, owner in self.keys.items() if owner == lease)
            assert sorted(self.lessor.keys(lease)) == on_it
            assert finished(self.lessor.keys_steps(lease)) == on_it
            if self.primary:
                expected = int(self.deadline[lease] - self.now), self.ttl[lease]
                assert self.lessor.time_to_live(lease, self.now) == expected


TestTwin = Twin.TestCase
TestTwin.settings = examples(60, stateful_step_count=40)


def many_followers(count: int, ttl_s: int) -> Lessor:
    lessor = Lessor(MemoryBackend(), 2)
    for lease_id in range(1, count + 1):
        lessor.grant(lease_id, ttl_s, 0.0)
    return lessor


def test_a_promotion_goes_in_slices_and_no_lease_notices():
    lessor = many_followers(3 * PROMOTION_SLICE_LEASES, 600)
    lessor.promote(0.0, 1.0)
    lessor.check()
    first, last, last_s = 1, 3 * PROMOTION_SLICE_LEASES, 601  # spread: 750 a second
    assert lessor.time_to_live(first, 1.0) == (600, 600)  # its turn has not come
    assert lessor.running(first, 1.0) and lessor.time_to_live(last, 1.0) == (last_s, 600)
    assert lessor.renew(first, 300.0) == 600
    assert lessor.renew_at_once(2, 300.0) == 600
    revoke(lessor, 3)
    lessor.grant(3, 5, 300.0)
    lessor.checkpoint(4, 100, 300.0)
    steps = 1
    while lessor.promotion_step(301.0):
        lessor.check()
        steps += 1
    assert steps == 2
    lessor.check()
    assert lessor.time_to_live(first, 300.0) == lessor.time_to_live(2, 300.0) == (600, 600)
    assert lessor.time_to_live(3, 300.0) == (5, 5)
    assert lessor.statistics()["expiry_entries"] <= last + 1
    assert lessor.expired(305.0) == [4, 3]


def test_a_promotion_cut_short_leaves_no_deadline():
    lessor = many_followers(2 * PROMOTION_SLICE_LEASES, 10)
    lessor.promote(0.0, 0.0)
    lessor.demote()
    lessor.check()
    assert not lessor.promotion_step(1.0)
    assert lessor.expired(1e9) == []
    lessor.promote(100.0, 0.0)
    lessor.promote(200.0, 0.0)
    while lessor.promotion_step(200.0):
        pass
    lessor.check()
    assert lessor.expired(209.9) == []
    assert len(lessor.expired(210.0)) == 500


def test_a_demotion_forgets_in_slices_and_tells_who_waits_in_slices():
    lessor = many_followers(3 * PROMOTION_SLICE_LEASES, 10)
    lessor.promote(0.0, 0.0)
    while lessor.promotion_step(0.0):
        pass
    told: list[bool] = []
    for lease_id in range(1, 3 * TOLD_SLICE + 1):
        lessor.await_revocation(lease_id, told.append)
    lessor.demote()
    assert len(told) == TOLD_SLICE
    with pytest.raises(NotPrimaryError):
        lessor.renew(1, 5.0)
    assert lessor.expired(1e9) == [] and lessor.due_checkpoints(1e9) == []
    steps = 1
    while lessor.demotion_step():
        lessor.check()
        steps += 1
    assert steps == 2 and told == [False] * (3 * TOLD_SLICE)
    assert lessor.statistics()["waiters"] == 0
    lessor.check()


def test_who_is_promoted_amid_a_demotion_has_no_deadline_of_before():
    count = 4 * PROMOTION_SLICE_LEASES
    lessor = many_followers(count, 10)
    lessor.promote(0.0, 0.0)
    while lessor.promotion_step(0.0):
        pass
    lessor.demote()
    assert lessor.demotion_step()
    lessor.promote(1_000.0, 0.0)
    lessor.check()
    while lessor.promotion_step(1_000.0):
        pass
    assert lessor.expired(1_009.9) == []
    assert all(lessor.running(lease_id, 1_009.9) for lease_id in range(1, count + 1))


@examples(60)
@given(st.lists(st.integers(0, 6), max_size=60), st.integers(1, 5))
def test_spread_deadlines_are_late_only_where_it_is_full(seconds: list[int], most: int):
    spread = Spread(10.0, most)
    placed = [spread.place(10.25 + second) for second in seconds]
    counts = Counter(int(deadline - 10.0) for deadline in placed)
    assert all(count <= most for count in counts.values())
    for second, deadline in zip(seconds, placed):
        assert deadline >= 10.25 + second
        assert all(counts[between] == most for between in range(second, int(deadline - 10.0)))
