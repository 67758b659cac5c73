"""What a crash has interrupted between a leader's snapshot in the log and its database in place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from keyraft.shell import database_reception
from keyraft.shell.database_reception import finish_at_start


@pytest.mark.parametrize(
    ("stored", "received", "installed", "told"),
    [
        (5, [9], [9], [("Recovering from snapshot backend", 5, 9)]),
        (9, [9], [], []),
        (5, [7], [], []),
    ],
)
def test_the_database_of_the_newest_snapshot_is_put_in_place(
    monkeypatch: pytest.MonkeyPatch,
    stored: int,
    received: list[int],
    installed: list[int],
    told: list[tuple[str, int, int]],
) -> None:
    """With the original's line, which its own tests wait for."""
    monkeypatch.setattr(database_reception, "newest_snapshot", lambda *_: SimpleNamespace(index=9))
    put_in_place: list[int] = []
    removed: list[int] = []
    lines: list[Any] = []
    log = SimpleNamespace(
        info=lambda text, consistent_index, snapshot_index: lines.append(
            (text, consistent_index, snapshot_index)
        )
    )
    finish_at_start(
        cast(Any, None),
        "wal",
        received,
        lambda: stored,
        put_in_place.append,
        removed.append,
        cast(Any, log),
    )
    assert (put_in_place, lines) == (installed, told)
    assert removed == [each for each in received if each == 9]
