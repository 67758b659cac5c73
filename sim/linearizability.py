"""Is there an order of these operations that a single machine could have executed?

The search of Wing and Gong with Lowe's memory of visited states ("Testing from traces",
2017; the algorithm of Porcupine): operations are taken in an order that respects real time, and
each answer must be what the model gives. An operation whose outcome is unknown (its client saw a
timeout or a lost connection) may have happened at any moment after its call, or never.

The model is the store as clients see it: keys with value, version, create and mod revision, and
one revision counter. Because revisions tie all keys together, histories of writes are checked
whole; `Operation.revision` (the revision an answer carried) prunes the search to almost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

NEVER: Final = float("inf")


@dataclass(slots=True)
class Operation:
    """One call of one client, from the moment of the call to the moment of the answer."""

    client: int
    call_s: float
    return_s: float  # NEVER when the outcome is unknown
    input: Any
    output: Any = None  # None when the outcome is unknown
    id: int = field(default=0)

    @property
    def known(self) -> bool:
        """Whether the client saw an answer."""
        return self.return_s != NEVER


Step = Callable[[Hashable, Any, Any], Iterable[Hashable]]
"""(state, input, output or None) → the states that may follow; none when the output is wrong."""


class Undecided(Exception):
    """The search was given up after `limit` states."""


def linearizable(
    history: list[Operation], initial: Hashable, step: Step, limit: int = 5_000_000
) -> bool:
    """Whether some order explains the history; raises Undecided past `limit` visited states."""
    events: list[tuple[float, int, int]] = []
    for number, operation in enumerate(history):
        events.append((operation.call_s, 0, number))
        if operation.known:
            events.append((operation.return_s, 1, number))
    events.sort()
    # A doubly linked list of call and return events, as arrays.
    count = len(events)
    following = list(range(1, count + 2))
    previous = list(range(-1, count + 1))
    head = count  # sentinel before the first
    following.append(0)
    following[head] = 0
    if count:
        previous[0] = head
    matching: dict[int, int] = {}
    call_of: dict[int, int] = {}
    for position, (_, kind, number) in enumerate(events):
        if kind == 0:
            call_of[number] = position
        else:
            matching[call_of[number]] = position

    def lift(position: int) -> None:
        for place in (position, matching.get(position, -1)):
            if place >= 0:
                following[previous[place]] = following[place]
                previous[following[place]] = previous[place]

    def unlift(position: int) -> None:
        for place in (matching.get(position, -1), position):
            if place >= 0:
                following[previous[place]] = place
                previous[following[place]] = place

    pending_known = sum(operation.known for operation in history)
    state: Hashable = initial
    taken = 0
    seen: set[tuple[int, Hashable]] = {(0, initial)}
    # each frame: position of the call taken, state before, remaining alternatives
    stack: list[tuple[int, Hashable, list[Hashable]]] = []
    at = following[head]
    while pending_known:
        advanced = False
        while at < count:
            _, kind, number = events[at]
            if kind == 1:
                break  # everything before this return was tried: backtrack
            operation = history[number]
            bit = 1 << number
            options = [
                after
                for after in step(state, operation.input, operation.output)
                if (taken | bit, after) not in seen
            ]
            if options:
                chosen = options.pop()
                seen.add((taken | bit, chosen))
                if len(seen) > limit:
                    raise Undecided(f"more than {limit} states")
                stack.append((at, state, options))
                state = chosen
                taken |= bit
                pending_known -= operation.known
                lift(at)
                at = following[head]
                advanced = True
                break
            at = following[at]
        if advanced:
            continue
        while True:
            if not stack:
                return False
            at, before, options = stack.pop()
            number = events[at][2]
            options = [after for after in options if (taken, after) not in seen]
            if options:
                state = options.pop()
                seen.add((taken, state))
                stack.append((at, before, options))
                at = following[head]
                break
            taken &= ~(1 << number)
            pending_known += history[number].known
            state = before
            unlift(at)
            at = following[at]
            break
    return True
