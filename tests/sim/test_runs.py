"""Whole clusters under faults: a few seeds here, thousands behind `make sim` and `make soak`."""

from __future__ import annotations

import os

import pytest

from sim.scenario import run

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("seed", range(1, 7))
def test_a_bit_of_everything_breaks_nothing(seed: int) -> None:
    outcome = run(seed, seconds=12.0)
    assert outcome.operations > 20


@pytest.mark.parametrize("seed", range(1, 5))
def test_elections_without_end_break_nothing(seed: int) -> None:
    run(seed, seconds=8.0, size=3, fault_interval_s=0.25, storm=True)


def test_the_same_seed_is_the_same_run() -> None:
    assert run(3, seconds=8.0) == run(3, seconds=8.0)


@pytest.mark.soak
def test_two_thousand_runs_break_nothing() -> None:
    first = int(os.environ.get("SEED") or 10_000)
    for seed in range(first, first + 2_000):
        run(seed, storm=seed % 4 == 0, fault_interval_s=0.25 if seed % 4 == 0 else 1.5)
