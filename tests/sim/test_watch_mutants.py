"""The tester of watches is tested: each planted bug of the hub is found within a few seeds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keyraft.mvcc.hooks import Event
from keyraft.mvcc.watch import WatchHub
from keyraft.mvcc.watch_cohort import NEVER, Watcher
from keyraft.mvcc.watch_pass import CatchUp
from sim.clients import SimClient
from sim.cluster import SimCluster
from sim.scenario import Violation, run
from sim.watchers import WatchClient
from sim.watches import WatchViolation
from sim.witnessed import Habits

Patch = pytest.MonkeyPatch

SEEDS = range(1, 61)

pytestmark = pytest.mark.sim


def hunt() -> str:
    """The first violation; empty when there is none."""
    for seed in SEEDS:
        try:
            run(seed, seconds=12.0, size=3)
        except Violation as violation:
            return str(violation).split("\n", 1)[0]
    return ""


def skip_at_resume(patch: Patch) -> None:
    """A watch that goes on begins one revision late."""
    honest = CatchUp.make_ready

    def make_ready(self: CatchUp, watcher: Watcher, first: int) -> None:
        honest(self, watcher, first + 1)

    patch.setattr(CatchUp, "make_ready", make_ready)


def repeat_at_resume(patch: Patch) -> None:
    """A watch that goes on begins one revision early."""
    honest = WatchHub.add

    def add(self: WatchHub, watcher: Watcher) -> None:
        watcher.start_revision = max(0, watcher.start_revision - 1)
        honest(self, watcher)

    patch.setattr(WatchHub, "add", add)


def go_live_too_early(patch: Patch) -> None:
    """At the end of a pass what happened meanwhile is forgotten."""
    honest = CatchUp._end

    def end_pass(self: CatchUp) -> int:
        self._at = self._store.revision + 1
        return honest(self)

    patch.setattr(CatchUp, "_end", end_pass)


def forget_when_full(patch: Patch) -> None:
    """A watcher whose stream is full goes on from now, not from what it has not been sent."""
    honest = WatchHub._stall

    def stall(self: WatchHub, watcher: Watcher, first: int) -> None:
        honest(self, watcher, self._store.revision + 1)

    patch.setattr(WatchHub, "_stall", stall)


def promise_too_much(patch: Patch) -> None:
    """A progress request is answered although not everything was sent."""

    def caught_up(self: WatchHub, watcher: Watcher) -> bool:
        return True

    patch.setattr(WatchHub, "caught_up", caught_up)


def tear_revisions(patch: Patch) -> None:
    """The events of one revision are told one by one."""
    honest = WatchHub.on_events

    def on_events(self: WatchHub, revision: int, events: list[Event], more: bool = False) -> None:
        for event in events:
            honest(self, revision, [event])
            for cohort in list(self._queue):
                if cohort.job is None and cohort.pending:
                    cohort.prepare(self._store.kv_at, NEVER)
                    self._sender.send(cohort.start_job(), 1_000)

    patch.setattr(WatchHub, "on_events", on_events)


def hide_compactions(patch: Patch) -> None:
    """A watcher whose events are compacted away is sent what is left."""

    def end_compacted(self: WatchHub, watcher: Watcher) -> None:
        self._pass.make_ready(watcher, self._store.compact_revision)

    patch.setattr(WatchHub, "_end_compacted", end_compacted)


MUTANTS: list[Callable[[Patch], None]] = [
    skip_at_resume,
    repeat_at_resume,
    go_live_too_early,
    forget_when_full,
    promise_too_much,
    tear_revisions,
    hide_compactions,
]


@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_a_bug_in_watches_is_found(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    found = hunt()
    assert "watch" in found, found or "nothing"


def watch_through_a_snapshot(seed: int) -> int:
    """Followers are cut off and then mostly sent the leader's database, with watchers at all of
    them; how many were."""
    cluster = SimCluster(3, seed, lambda chance: Habits(catchup_entries=3))
    watchers = [WatchClient(cluster) for _ in range(8)]
    clients = [SimClient(cluster, number, []) for number in range(3)]
    cluster.run(6.0)
    for node in list(cluster.nodes.values()):
        cluster.network.partition([[node.id], [one for one in cluster.nodes if one != node.id]])
        cluster.run(3.0)
        cluster.network.heal()
        cluster.run(3.0)
    for client in clients:
        client.stop()
    for watcher in watchers:
        watcher.steady = True
    cluster.run(4.0)
    assert cluster.run_until(lambda: all(watcher.heard_all() for watcher in watchers))
    for watcher in watchers:
        watcher.judge()
    return cluster.witness.snapshots


def test_watchers_hear_what_came_with_a_snapshot(monkeypatch: Patch) -> None:
    assert sum(watch_through_a_snapshot(seed) for seed in range(1, 4))
    monkeypatch.setattr(WatchHub, "suspend", lambda self: None)
    with pytest.raises(WatchViolation):
        for seed in range(1, 12):
            watch_through_a_snapshot(seed)
