"""When a member compacts by itself: etcd's windows, in virtual time."""

from __future__ import annotations

import dataclasses

import pytest

from keyraft.server.upkeep.auto_compaction import HOUR_S, PeriodicRetention, RevisionRetention
from tests.server.harness import OneMember


def compactions(plan: PeriodicRetention, looks: int) -> list[tuple[int, int]]:
    """(look, revision compacted), with one revision a look, as the runner asks the plan."""
    done = []
    for look in range(1, looks + 1):
        plan.note(look)
        now_s = look * plan.interval_s
        wanted = plan.due(look, now_s)
        if wanted is not None:
            plan.done(wanted, now_s)
            done.append((look, wanted))
    return done


def test_a_retention_below_an_hour_is_also_the_interval():
    plan = PeriodicRetention(600.0, 0.0)
    assert plan.interval_s == 60.0
    assert compactions(plan, 35) == [(10, 1), (20, 10), (30, 20)]


def test_an_hour_is_kept_before_the_first_compaction():
    plan = PeriodicRetention(HOUR_S, 0.0)
    assert plan.interval_s == 360.0
    assert compactions(plan, 9) == []
    assert compactions(PeriodicRetention(HOUR_S, 0.0), 21) == [(10, 1), (20, 10)]


def test_a_day_is_kept_and_then_compacted_hourly():
    plan = PeriodicRetention(24 * HOUR_S, 0.0)
    assert plan.interval_s == 360.0
    done = compactions(plan, 270)
    assert done == [(240, 1), (250, 10), (260, 20), (270, 30)]


def test_a_failed_compaction_is_due_again_at_the_next_look():
    plan = PeriodicRetention(600.0, 0.0)
    for look in range(1, 11):
        plan.note(look)
    assert plan.due(10, 600.0) == 1
    plan.note(11)
    assert plan.due(11, 660.0) == 1  # nobody said that it was done
    plan.done(1, 660.0)
    plan.note(12)
    assert plan.due(12, 720.0) is None


def test_nothing_new_is_not_compacted_again():
    plan = PeriodicRetention(10.0, 0.0)
    for _ in range(30):
        plan.note(5)
    assert plan.due(5, 10.0) == 5
    plan.done(5, 10.0)
    plan.note(5)
    assert plan.due(5, 30.0) is None


def test_by_revision_all_but_the_newest_go():
    plan = RevisionRetention(100)
    assert plan.interval_s == 300.0
    assert plan.due(100, 0.0) is None
    assert plan.due(150, 0.0) == 50
    plan.done(50, 0.0)
    assert plan.due(150, 300.0) is None
    assert plan.due(151, 600.0) == 51


def with_settings(**changes: object) -> OneMember:
    cluster = OneMember()
    cluster.run(2.0)
    cluster.crash()
    cluster.settings = dataclasses.replace(cluster.settings, **changes)  # type: ignore[arg-type]
    cluster.start()
    cluster.run(2.0)
    return cluster


def test_a_member_compacts_periodically():
    cluster = with_settings(auto_compaction_retention=20.0)
    for _ in range(45):
        cluster.put(b"k", b"v")
        cluster.run(1.0)
    compacted = cluster.member.store.compact_revision
    assert 20 <= cluster.member.store.revision - compacted <= 45
    assert compacted > 1


def test_a_member_compacts_by_revision():
    cluster = with_settings(auto_compaction_periodic=False, auto_compaction_retention=10)
    for _ in range(50):
        cluster.put(b"k", b"v")
        cluster.run(0.1)
    assert cluster.member.store.compact_revision == -1
    cluster.run(300.0)
    assert cluster.member.store.compact_revision == cluster.member.store.revision - 10


def test_it_is_off_by_default():
    cluster = OneMember()
    assert cluster.member.auto_compaction is None


@pytest.mark.parametrize("periodic", [True, False])
def test_a_retention_below_nothing_compacts_nothing(periodic: bool) -> None:
    """The audit of 2020 (11): a negative one made etcd compact without end."""
    cluster = with_settings(auto_compaction_retention=-3600.0, auto_compaction_periodic=periodic)
    cluster.put(b"k", b"v")
    cluster.run(700.0)
    assert cluster.member.auto_compaction is None
    assert cluster.member.store.compact_revision == -1
