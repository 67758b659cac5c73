"""Linearizable reads that waited together are answered in order and in slices."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from keyraft.base.errors import EtcdError, LeaderChangedError, StoppedError
from keyraft.base.log import NullLogger
from keyraft.server.consensus.read_index import ANSWERS_PER_TURN, ReadIndex
from keyraft.server.counters import Counters

READERS = 3 * ANSWERS_PER_TURN + 7


class World:
    """Loop and Raft at once; a turn runs what was to be called soon."""

    def __init__(self) -> None:
        self.soon: deque[Callable[[], None]] = deque()
        self.contexts: list[bytes] = []
        self.answers: list[tuple[int, EtcdError | None]] = []
        here: Any = self
        self.reads = ReadIndex(here, here, Counters(), NullLogger(), 7.0)

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def send_read_index(self, context: bytes) -> None:
        self.contexts.append(context)

    def next_id(self) -> int:
        return len(self.contexts) + 1

    def turn(self) -> int:
        before = len(self.answers)
        for _ in range(len(self.soon)):
            self.soon.popleft()()
        return len(self.answers) - before

    def ask(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.reads.request(lambda error, number=number: self.answers.append((number, error)))  # type: ignore[misc]


def confirm(world: World) -> None:
    world.reads.confirmed(world.contexts[-1], 5, 5)


def apply(world: World) -> None:
    world.reads.confirmed(world.contexts[-1], 5, 4)
    assert not world.answers
    world.reads.applied(5)


def depose(world: World) -> None:
    world.reads.leader_changed(7)


@pytest.mark.parametrize("how", [confirm, apply, depose])
def test_many_readers_are_answered_in_slices_and_in_order(how: Callable[[World], None]) -> None:
    world = World()
    world.ask(0, READERS)
    world.turn()
    how(world)
    assert len(world.answers) == ANSWERS_PER_TURN
    assert len(world.reads) == READERS - ANSWERS_PER_TURN
    world.ask(READERS, 2)
    while len(world.answers) < READERS:
        assert 0 < world.turn() <= ANSWERS_PER_TURN
    if len(world.answers) == READERS:
        how_many = len(world.contexts)
        world.turn()
        assert len(world.contexts) >= how_many
        world.reads.confirmed(world.contexts[-1], 6, 6)
    assert [number for number, _ in world.answers] == list(range(READERS + 2))
    assert {type(error) for _, error in world.answers[:READERS]} == {
        LeaderChangedError if how is depose else type(None)
    }
    assert len(world.reads) == 0


def test_a_member_that_stops_answers_all_at_once() -> None:
    world = World()
    world.ask(0, READERS)
    world.turn()
    confirm(world)
    world.ask(READERS, 3)
    world.reads.fail_all(StoppedError())
    assert [number for number, _ in world.answers] == list(range(READERS + 3))
    assert {type(error) for _, error in world.answers[ANSWERS_PER_TURN:]} == {StoppedError}
    assert len(world.reads) == 0
    world.turn()
    assert len(world.answers) == READERS + 3
