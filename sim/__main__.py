"""`make sim`: random seeds for a minute, or one seed with `SEED=n`.

python -m sim [--seed N [--length S] [--faults 3,8]] [--runs N] [--seconds WALL] [--first N]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import replace

from sim.scenario import Run, RunSummary, Violation, plan_of
from sim.shrink import FailingRun, Shrinker


def main() -> int:
    """The exit code: 1 when a seed fails, which is then printed with its story."""
    parser = argparse.ArgumentParser(prog="sim")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--length", type=float, help="with peace after so many virtual seconds")
    parser.add_argument("--faults", help="with these faults only: numbers, or none")
    parser.add_argument("--runs", type=int, default=0, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after so long")
    parser.add_argument("--first", type=int, help="count seeds up from here")
    options = parser.parse_args()
    if options.seed is not None:
        return _replay(options.seed, options.length, options.faults)
    started_s = time.monotonic()
    outcomes: list[RunSummary] = []
    seed = options.first if options.first is not None else random.SystemRandom().randrange(1 << 31)
    while True:
        try:
            outcomes.append(Run(seed, plan_of(seed)).carry_out())
        except Violation as violation:
            _tell(FailingRun(seed, plan_of(seed), violation))
            return 1
        seed += 1
        elapsed_s = time.monotonic() - started_s
        if len(outcomes) >= options.runs if options.runs else elapsed_s >= options.seconds:
            break
    _sum_up(outcomes, time.monotonic() - started_s)
    return 0


def _replay(seed: int, seconds: float | None, faults: str | None) -> int:
    plan = plan_of(seed)
    if seconds is not None:
        plan = replace(plan, seconds=seconds)
    if faults is not None:
        numbers = [] if faults == "none" else faults.split(",")
        plan = replace(plan, only=frozenset(map(int, numbers)))
    try:
        print(Run(seed, plan).carry_out())
    except Violation as violation:
        print(violation)
        return 1
    return 0


def _tell(case: FailingRun) -> None:
    """The seed, and the shortest account of what happened."""
    print(str(case.violation).split("\n", 1)[0])
    print(f"replay it with: make sim SEED={case.seed}")
    print("looking for a shorter way to it ...", flush=True)
    short = Shrinker(case).shrink()
    print(short.violation)
    print(f"replay this with: {short.command()}")


def _sum_up(outcomes: list[RunSummary], wall_s: float) -> None:
    def total(what: str) -> int:
        return sum(getattr(outcome, what) for outcome in outcomes)

    virtual_h = sum(outcome.virtual_s for outcome in outcomes) / 3600
    print(
        f"{len(outcomes)} runs, {total('operations')} operations ({total('unknown')} of unknown "
        f"outcome), {total('events')} events watched, {total('leases')} leases ended, "
        f"{total('lives')} lives, {total('changes')} changes of membership, "
        f"{total('snapshots')} databases sent, {total('undecided')} undecided, no violation; "
        f"{virtual_h:.2f} simulated hours in {wall_s / 60:.2f} minutes "
        f"({virtual_h / (wall_s / 60):.2f} hours a minute)"
    )


if __name__ == "__main__":
    sys.exit(main())
