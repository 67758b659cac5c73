"""How every class reports a broken invariant of its own state (`check`).

A check belongs to the class whose facts it knows, which lists them at the head of its module. It is
never run on a hot path: tests and the simulator run all of them, a live member does where
`KEYRAFT_VERIFY=1` is set (`server/upkeep/verification.py`).
"""

from __future__ import annotations


class InvariantError(AssertionError):
    """A fact does not hold: a bug of ours, or damage. The text says which, and what was found."""


def hold(fact: bool, what: str, *values: object) -> None:
    """Raises InvariantError unless `fact`; `what` says what should be, `values` what is."""
    if not fact:
        raise InvariantError(f"{what}: {', '.join(map(repr, values))}" if values else what)
