"""The checkers find what is wrong and accept what is right."""

from __future__ import annotations

from itertools import permutations
from random import Random
from typing import Any

import pytest

from sim.linearizability import NEVER, Operation, linearizable
from sim.loop import MemberLoop, SimLoop
from sim.model import EMPTY, step
from sim.watches import Event, EventBatch, WatchViolation, check_watch


def op(client: int, call_s: float, return_s: float, call: Any, output: Any = None) -> Operation:
    return Operation(client, call_s, return_s, call, output)


def test_a_stale_read_is_found() -> None:
    history = [
        op(1, 0, 1, ("put", "a", "1"), ("rev", 2)),
        op(1, 2, 3, ("put", "a", "2"), ("rev", 3)),
        op(2, 4, 5, ("get", "a"), ("kv", 2, "1", 2, 1)),
    ]
    assert not linearizable(history, EMPTY, step)
    history[2].call_s = 1.5
    history[1].return_s = 6
    assert linearizable(history, EMPTY, step)


def test_an_unknown_write_may_have_happened_late_or_never() -> None:
    lost = op(1, 0, NEVER, ("put", "a", "1"))
    nothing = op(2, 1, 2, ("get", "a"), ("kv", 1, None, 0, 0))
    there = op(2, 3, 4, ("get", "a"), ("kv", 2, "1", 2, 1))
    gone = op(2, 5, 6, ("get", "a"), ("kv", 1, None, 0, 0))
    assert linearizable([lost, nothing], EMPTY, step)
    assert linearizable([lost, nothing, there], EMPTY, step)
    assert not linearizable([lost, nothing, there, gone], EMPTY, step)


def test_a_lost_acknowledged_write_is_found() -> None:
    history = [
        op(1, 0, 1, ("put", "a", "1"), ("rev", 2)),
        op(2, 2, 3, ("put", "b", "1"), ("rev", 2)),
    ]
    assert not linearizable(history, EMPTY, step)


def brute(history: list[Operation]) -> bool:
    """Every order that respects real time, tried one by one."""
    known = [o for o in history if o.known]
    unknown = [o for o in history if not o.known]
    for chosen in range(1 << len(unknown)):
        some = known + [o for i, o in enumerate(unknown) if chosen >> i & 1]
        for order in permutations(some):
            if any(
                order[j].return_s < order[i].call_s
                for i in range(len(order))
                for j in range(i + 1, len(order))
            ):
                continue
            states = {EMPTY}
            for o in order:
                states = {s for before in states for s in step(before, o.input, o.output)}  # type: ignore[misc]
            if states:
                return True
    return False


@pytest.mark.parametrize("seed", range(150))
def test_the_search_agrees_with_trying_every_order(seed: int) -> None:
    chance = Random(seed)
    state: Any = EMPTY
    history = []
    for number in range(chance.randrange(2, 6)):
        start = chance.random() * 4
        call: Any = chance.choice(
            [("put", "a", str(number)), ("get", "a"), ("delete", "a"), ("cas", "a", 2, "x")]
        )
        after = list(step(state, call, None))[-1]
        assert isinstance(after, tuple)
        found = {item[0]: item for item in state[1]}.get("a")
        output: Any = {
            "put": ("rev", after[0]),
            "delete": ("rev", after[0], int(found is not None)),
            "cas": ("rev", after[0], after != state),
            "get": ("kv", state[0], *((found[1], found[3], found[4]) if found else (None, 0, 0))),
        }[call[0]]
        if chance.random() < 0.25:
            history.append(op(number, start, NEVER, call))
        else:
            if chance.random() < 0.2:
                output = (output[0], output[1] + 1, *output[2:])
            history.append(op(number, start, start + chance.random() * 3, call, output))
        state = after
    assert linearizable(history, EMPTY, step) == brute(history)


TRUTH = [Event(2, "a", "1"), Event(3, "a", "2"), Event(3, "b", "1"), Event(5, "a", None)]


def test_watch_checker_accepts_the_truth_and_its_fragments() -> None:
    check_watch(TRUTH, [EventBatch(TRUTH[:1]), EventBatch(TRUTH[1:3]), EventBatch(TRUTH[3:])], 2, 5)
    check_watch(
        TRUTH, [EventBatch(TRUTH[:2], True), EventBatch(TRUTH[2:3]), EventBatch(TRUTH[3:])], 2, 5
    )
    check_watch(TRUTH, [EventBatch(TRUTH[:3])], 2, 4)


@pytest.mark.parametrize(
    "batches",
    [
        [EventBatch(TRUTH[:1]), EventBatch(TRUTH[3:])],
        [EventBatch(TRUTH[:3])],
        [EventBatch(TRUTH[:2]), EventBatch(TRUTH[2:])],
        [EventBatch(TRUTH), EventBatch(TRUTH[3:])],
        [EventBatch([TRUTH[1], TRUTH[0]])],
        [EventBatch(TRUTH), EventBatch([Event(6, "z", "9")])],
    ],
    ids=["gap", "missing end", "split revision", "repeated", "reordered", "invented"],
)
def test_watch_checker_finds(batches: list[EventBatch]) -> None:
    with pytest.raises(WatchViolation):
        check_watch(TRUTH, batches, 2, 5)


def test_virtual_time_jumps_and_keeps_order() -> None:
    loop = SimLoop()
    seen: list[tuple[float, str]] = []
    loop.call_later(5, lambda: seen.append((loop.time(), "late")))
    loop.call_later(1, lambda: seen.append((loop.time(), "first")))
    loop.call_later(1, lambda: seen.append((loop.time(), "second")))
    cancelled = loop.call_later(2, lambda: seen.append((loop.time(), "never")))
    cancelled.cancel()
    loop.run_until(10)
    assert seen == [(1, "first"), (1, "second"), (5, "late")]
    assert loop.time() == 10


def test_a_killed_member_does_nothing_more_and_a_paused_one_later() -> None:
    loop = SimLoop()
    seen: list[str] = []
    dead, slow = MemberLoop(loop), MemberLoop(loop, rate=0.5)
    dead.call_later(1, seen.append, "dead")
    slow.call_later(1, seen.append, "slow")
    dead.kill()
    slow.pause()
    loop.run_until(10)
    assert seen == []
    slow.resume()
    loop.run_until(11)
    assert seen == ["slow"]
    assert slow.time() == 5.5
