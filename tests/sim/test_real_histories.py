"""Histories of real clusters: unknown outcomes are settled by what happened, lies are found."""

from __future__ import annotations

from sim.linearizability import NEVER, Operation, linearizable
from sim.model import EMPTY
from sim.watches import Event
from tests.support.history import settled

TRUTH = [Event(2, "a", "0-1"), Event(3, "a", "1-1"), Event(4, "a", None), Event(5, "b", "foreign")]


def explained(*history: Operation) -> bool:
    kept, model = settled(history, TRUTH)
    return linearizable(kept, EMPTY, model)


def put(start_s: float, end_s: float, value: str, output: object = None) -> Operation:
    return Operation(0, start_s, end_s, ("put", "a", value), output)


FIRST = put(0, 1, "0-1", ("rev", 2))
UNKNOWN = put(1, NEVER, "1-1")
LOST = put(1, NEVER, "1-2")
GONE = Operation(2, 3, NEVER, ("delete", "a"))


def get(start_s: float, revision: int, value: str | None, mod: int, version: int) -> Operation:
    return Operation(1, start_s, start_s + 0.5, ("get", "a"), ("kv", revision, value, mod, version))


def fresh(*operations: Operation) -> list[Operation]:
    """Copies, because settling fills outcomes in."""
    return [Operation(o.client, o.call_s, o.return_s, o.input, o.output) for o in operations]


def test_what_happened_is_explained() -> None:
    told = fresh(FIRST, UNKNOWN, LOST, get(2, 3, "1-1", 3, 2), GONE, get(5, 5, None, 0, 0))
    assert explained(*told)


def test_an_unknown_write_may_come_late_but_not_twice() -> None:
    assert explained(*fresh(FIRST, UNKNOWN, get(2, 2, "0-1", 2, 1), get(4, 3, "1-1", 3, 2), GONE))
    assert not explained(*fresh(FIRST, UNKNOWN, get(2, 3, "1-1", 3, 2), get(4, 2, "0-1", 2, 1)))


def test_a_write_that_never_happened_may_not_be_seen() -> None:
    assert not explained(*fresh(FIRST, UNKNOWN, LOST, get(2, 3, "1-2", 3, 2)))


def test_an_acknowledged_write_may_not_be_lost() -> None:
    assert not explained(*fresh(FIRST, put(1, 2, "1-9", ("rev", 3))), get(3, 2, "0-1", 2, 1))


def test_a_stale_read_is_found() -> None:
    assert not explained(*fresh(FIRST, put(1, 2, "1-1", ("rev", 3)), get(3, 2, "0-1", 2, 1)))


def test_a_deletion_happens_only_when_it_did() -> None:
    assert not explained(*fresh(FIRST, UNKNOWN, GONE), get(4, 3, None, 0, 0))
