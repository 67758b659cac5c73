"""What holds of all watchers and the cohorts they are in: the list is at the head of `watch`."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from keyraft.base.invariants import AT_ONCE, CHECK_SLICE, Checks, hold, whole

from .watch_cohort import LAGGING, READY, SYNCED, Cohort, CohortIndex, Watcher
from .watch_pass import CatchUp, History


class HubState(Protocol):
    """What is looked at of a `WatchHub`."""

    _live: CohortIndex
    _opened: dict[Cohort, None]
    _pass: CatchUp
    _queue: deque[Cohort]
    _store: History
    ended: int
    pending_bytes: int
    synced: int
    watchers: int


def whole_hub(hub: HubState) -> None:
    """Everything at once. Raises InvariantError."""
    hub._live.check()
    hub._pass.lagging.check()
    weight = synced = 0
    for cohort in hub._live.cohorts():
        weight += _weight(cohort)
        synced += len(cohort.watchers)
    hold(synced == hub.synced, "synced watchers are counted", synced, hub.synced)
    for cohort in (*hub._queue, *hub._opened):
        known = cohort.queued or cohort in hub._opened
        hold(known, "a cohort knows that it is queued", cohort.start)
        if not cohort.watchers:
            weight += _weight(cohort)
    hold(weight == hub.pending_bytes, "held bytes are counted", weight, hub.pending_bytes)
    whole(hub_steps(hub, AT_ONCE))


def hub_steps(hub: HubState, size: int = CHECK_SLICE) -> Checks:
    """What can be said of each cohort and watcher by itself, in steps."""
    hold(hub.synced + hub.ended <= hub.watchers, "watchers are counted", hub.synced, hub.watchers)
    left = size
    for index, state in ((hub._live, SYNCED), (hub._pass.lagging, LAGGING)):
        for cohort in index.cohorts():
            there = index.has(cohort)
            if there:
                _check_cohort(hub, cohort, state)
            left -= 1
            for watcher in list(cohort.watchers):
                if left <= 0:
                    yield
                    left = size
                    there = index.has(cohort)
                left -= 1
                if there and watcher.cohort is cohort:
                    _check_watcher(hub, watcher, state)
    yield
    for watcher in list(hub._pass.ready)[:size]:
        hold(watcher.state == READY, "who waits for a pass is ready", watcher.id, watcher.state)


def _weight(cohort: Cohort) -> int:
    return cohort.weight + (cohort.job.weight if cohort.job is not None else 0)


def _check_cohort(hub: HubState, cohort: Cohort, state: int) -> None:
    if state == SYNCED:
        waits = cohort.queued or cohort in hub._opened
        idle = not cohort.pending and cohort.job is None
        hold(waits or idle, "a cohort that has something is queued", cohort.start)
    else:
        hold(hub._pass.has_begun, "who lags has a pass to come", cohort.start)


def _check_watcher(hub: HubState, watcher: Watcher, state: int) -> None:
    hold(watcher.state == state, "a watcher's state is its index's", watcher.id, watcher.state)
    cohort = watcher.cohort
    if state == SYNCED and cohort is not None and not cohort.queued:
        next_revision = max(hub._store.revision + 1, watcher.start_revision)
        waits = watcher.min_revision <= next_revision
        hold(waits, "a synced watcher has missed nothing", watcher.id, watcher.min_revision)
