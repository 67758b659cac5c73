"""A request is not a call longer than it was: counted, because times are not to be trusted."""

from __future__ import annotations

import pytest

from bench.calls import count

ROUNDS = 60

# Calls and modules. They may go down, and up only for a reason that the commit names.
MOST = {
    "put": (220, 52),
    "range": (29, 21),
    "JSON put": (272, 62),
    "JSON range": (84, 31),
    "keep-alive": (33, 21),
    "put, event": (252, 62),
}


@pytest.mark.real
def test_a_request_takes_no_more_calls_than_before() -> None:
    found = count(ROUNDS)
    taken = {kind: (row["calls"], row["modules"]) for kind, row in found.items()}
    longer = {
        kind: taken[kind] for kind, most in MOST.items() if any(map(int.__gt__, taken[kind], most))
    }
    assert not longer, {kind: found[kind]["functions"] for kind in longer}
