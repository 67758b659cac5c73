"""`make sim`: random seeds for a minute, or one seed with `SEED=n`.

python -m sim [--seed N] [--runs N] [--seconds WALL] [--first N]
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from sim.scenario import Outcome, Violation, run


def main() -> int:
    """The exit code: 1 when a seed fails, which is then printed with its story."""
    parser = argparse.ArgumentParser(prog="sim")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--runs", type=int, default=0, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after so long")
    parser.add_argument("--first", type=int, help="count seeds up from here")
    options = parser.parse_args()
    started_s = time.monotonic()
    outcomes: list[Outcome] = []
    seed = options.first if options.first is not None else random.SystemRandom().randrange(1 << 31)
    try:
        while True:
            outcomes.append(run(options.seed if options.seed is not None else seed))
            seed += 1
            if options.seed is not None or (options.runs and len(outcomes) >= options.runs):
                break
            if not options.runs and time.monotonic() - started_s >= options.seconds:
                break
    except Violation as violation:
        print(violation)
        print(f"replay it with: make sim SEED={options.seed if options.seed is not None else seed}")
        return 1
    wall_s = time.monotonic() - started_s
    virtual_s = sum(outcome.virtual_s for outcome in outcomes)
    print(
        f"{len(outcomes)} runs, {sum(o.operations for o in outcomes)} operations "
        f"({sum(o.unknown for o in outcomes)} of unknown outcome), "
        f"{sum(o.lives for o in outcomes)} lives, {sum(o.undecided for o in outcomes)} undecided, "
        f"no violation; {virtual_s / 3600:.2f} simulated hours in {wall_s / 60:.2f} minutes "
        f"({virtual_s / 3600 / (wall_s / 60):.2f} hours a minute)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
