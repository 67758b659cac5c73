"""Whole clusters under faults: a few seeds here, thousands behind `make sim` and `make soak`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.faults import Chaos
from sim.scenario import Plan, Run, Violation, plan_of, run
from sim.shrink import FailingRun, Shrinker

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("seed", range(1, 7))
def test_a_bit_of_everything_breaks_nothing(seed: int) -> None:
    outcome = run(seed, seconds=12.0)
    assert outcome.operations > 20


@pytest.mark.parametrize("seed", range(1, 5))
def test_elections_without_end_break_nothing(seed: int) -> None:
    run(seed, seconds=8.0, size=3, fault_interval_s=0.25, storm=True)


def test_the_same_seed_is_the_same_run() -> None:
    here = run(3, seconds=8.0)
    assert here == run(3, seconds=8.0)
    # Also where sets and dictionaries of bytes come in another order.
    elsewhere = subprocess.run(
        [sys.executable, "-m", "sim", "--seed", "3", "--length", "8"],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT / "src")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout.strip() == str(here)


def test_a_failing_run_is_cut_down_to_the_faults_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that shows with the second full disk, whatever else goes wrong."""
    honest = Chaos._full_disk

    def full_disk(self: Chaos) -> None:
        honest(self)
        self.full = getattr(self, "full", 0) + 1  # type: ignore[attr-defined]
        assert self.full < 2, "it fell over"  # type: ignore[attr-defined]

    monkeypatch.setattr(Chaos, "_full_disk", full_disk)
    plan = Plan(seconds=30.0, fault_interval_s=0.5)
    seed, found = next(filter(None, (violated(seed, plan) for seed in range(6, 40))))
    assert "it fell over" in str(found)
    short = Shrinker(FailingRun(seed, plan, found), tries_max=12).shrink()
    assert short.violation.kind == "it fell"
    assert len(short.violation.faults) < len(found.faults) / 2
    with pytest.raises(Violation, match="it fell over"):
        Run(seed, short.plan).carry_out()


def violated(seed: int, plan: Plan) -> tuple[int, Violation] | None:
    """The seed with its violation, if it has one."""
    try:
        Run(seed, plan).carry_out()
    except Violation as violation:
        return seed, violation
    return None


@pytest.mark.soak
def test_two_thousand_runs_break_nothing() -> None:
    first = int(os.environ.get("SEED") or 10_000)
    virtual_s = 0.0
    for seed in range(first, first + 2_000):
        virtual_s += Run(seed, plan_of(seed)).carry_out().virtual_s
        if seed % 100 == 99:
            print(
                f"seed {seed}: no violation in {virtual_s / 3600:.1f} simulated hours", flush=True
            )
