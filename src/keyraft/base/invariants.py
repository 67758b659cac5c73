"""How every class reports a broken invariant of its own state (`check`).

A check belongs to the class whose facts it knows, which lists them at the head of its module. It is
never run on a hot path: tests and the simulator run all of them, a live member does where
`KEYRAFT_VERIFY=1` is set (`server/verification.py`).

`check()` looks at everything at once. What grows with the data has `check_steps()` as well: a
generator that looks at CHECK_SLICE things at a time, each by itself, so that everything may change
between two of its steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Final

CHECK_SLICE: Final = 200  # things that one step looks at; about a millisecond

AT_ONCE: Final = 1 << 40  # the same, where nothing else waits: one step

Checks = Generator[None, None, None]
"""A check in steps."""


class InvariantError(AssertionError):
    """A fact does not hold: a bug of ours, or damage. The text says which, and what was found."""


def hold(fact: bool, what: str, *values: object) -> None:
    """Raises InvariantError unless `fact`; `what` says what should be, `values` what is."""
    if not fact:
        raise InvariantError(f"{what}: {', '.join(map(repr, values))}" if values else what)


def whole(steps: Iterable[None]) -> None:
    """All steps at once."""
    for _ in steps:
        pass
