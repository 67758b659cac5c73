"""Leases and watches against the original: every answer and every event compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.differential.watches import run_watches
from tests.support.server import ORACLE, OURS, Server, needs_oracle


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[tuple[str, str]]:
    servers = [
        Server(ORACLE, tmp_path / "original").start(),
        Server(OURS, tmp_path / "ours").start(),
    ]
    yield servers[0].endpoint, servers[1].endpoint
    for server in servers:
        server.stop()


def check(seed: int, count: int, endpoints: tuple[str, str]) -> None:
    report, watches = run_watches(seed, count, *endpoints)
    print(f"{report}\n{watches.compared} events compared; watchers: {watches.counts}")
    assert not report.difference, report.difference
    assert watches.compared > count
    assert all(watches.counts[what] for what in ("created", "compacted", "cancelled", "progress"))


@pytest.mark.real
@needs_oracle()
def test_random_operations_with_watches(endpoints: tuple[str, str]) -> None:
    check(1, 1_500, endpoints)


@pytest.mark.soak
@needs_oracle()
def test_many_random_operations_with_watches(endpoints: tuple[str, str]) -> None:
    check(2, 20_000, endpoints)
