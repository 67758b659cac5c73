"""What a watch promises, checked against the history of the store.

Given the true sequence of events (from `sim.twin`, or read back from a member) and what a watcher
received over all its connections: events are ordered by revision, none is repeated, none within
the watched span is missing, the events of one revision come together, and after a break the
watcher resumes where it was (etcd "KV API guarantees", Watch). A revision that a message or a
progress notification covers is one behind which the watcher may resume, so everything up to it
must have come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Event:
    """One change of one key; the fields behind `value` are those of a put."""

    revision: int
    key: str
    value: str | None  # None for a deletion
    create: int = 0
    version: int = 0
    lease: int = 0
    previous: str | None = None  # the value before; None when there was none, or nobody asked


@dataclass(slots=True)
class EventBatch:
    """The events of one response; `fragment` says that more of the same revision follow."""

    events: list[Event]
    fragment: bool = False


class WatchViolation(AssertionError):
    """A watcher saw what it must not see."""


def check_watch(
    truth: Sequence[Event],
    batches: Sequence[EventBatch],
    first_revision: int,
    last_revision: int,
    prefix: str = "",
) -> None:
    """Raises WatchViolation unless `batches` is exactly the truth from first to last revision.

    `last_revision` is the last one that the watcher is known to have been told of; events above it
    may or may not have come, but must be right when they came.
    """
    expected = [
        event
        for event in truth
        if event.revision >= first_revision and event.key.startswith(prefix)
    ]
    received: list[Event] = []
    open_revision = 0
    for batch in batches:
        if not batch.events:
            continue
        for event in batch.events:
            if received and event.revision < received[-1].revision:
                raise WatchViolation(f"revision fell to {event.revision} at {event}")
        if batch.events[0].revision != open_revision and received:
            if batch.events[0].revision == received[-1].revision:
                raise WatchViolation(f"revision {batch.events[0].revision} was split")
        received += batch.events
        open_revision = batch.events[-1].revision if batch.fragment else 0
    for position, event in enumerate(received):
        if position >= len(expected):
            raise WatchViolation(f"event that never was: {event}")
        if event != expected[position]:
            raise WatchViolation(f"got {event} where {expected[position]} was due")
    missing = expected[len(received) :]
    if missing and missing[0].revision <= last_revision:
        raise WatchViolation(f"{missing[0]} never came (told of {last_revision})")
    whole = len(received) == len(expected) or not open_revision
    if received and missing and missing[0].revision == received[-1].revision and whole:
        raise WatchViolation(f"{missing[0]} is missing from its revision")
