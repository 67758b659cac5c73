"""Cuts a failing run down to what it needs: an earlier peace, and as few faults as still fail alike.

Faults are numbered and independent of each other (`sim.faults`), so they can be left out; then
everything else may come differently, and only a try tells whether the failure stays. The search is
the one of delta debugging (Zeller and Hildebrandt, 2002): halves, quarters, ... single ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sim.scenario import Plan, Run, Violation

TRIES_MAX: Final = 60  # runs; about half a minute


@dataclass(slots=True)
class FailingRun:
    """A failing run: how it goes, and how it ends."""

    seed: int
    plan: Plan
    violation: Violation

    def command(self) -> str:
        """What replays it."""
        parts = [f"python -m sim --seed {self.seed} --length {self.plan.seconds:g}"]
        if self.plan.only is not None:
            parts.append("--faults " + (",".join(map(str, sorted(self.plan.only))) or "none"))
        return " ".join(parts)


class Shrinker:
    """Tries runs until the tries are used up; `best` is the smallest that failed alike."""

    def __init__(self, case: FailingRun, tries_max: int = TRIES_MAX) -> None:
        self.best = case
        self._kind = case.violation.kind
        self._tries_left = tries_max

    def shrink(self) -> FailingRun:
        """The smallest run that was found."""
        self._earlier_peace()
        self._fewer_faults()
        return self.best

    def _fails(self, plan: Plan) -> bool:
        """Whether a run fails alike; then it is the best so far."""
        if not self._tries_left:
            return False
        self._tries_left -= 1
        try:
            Run(self.best.seed, plan).carry_out()
        except Violation as violation:
            if violation.kind == self._kind:
                self.best = FailingRun(self.best.seed, plan, violation)
                return True
        return False

    def _earlier_peace(self) -> None:
        plan, at_s = self.best.plan, self.best.violation.at_s
        lengths_s = [plan.seconds * part for part in (0.2, 0.4, 0.6, 0.8)]
        if at_s < plan.seconds:
            lengths_s.append(at_s)
        for seconds in sorted(lengths_s):
            if self._fails(replace(plan, seconds=float(round(seconds, 3)))):
                return

    def _fewer_faults(self) -> None:
        kept = list(self.best.violation.faults)
        parts = 2
        while kept and self._tries_left:
            size = max(1, -(-len(kept) // parts))
            for start in range(0, len(kept), size):
                rest = kept[:start] + kept[start + size :]
                if self._fails(replace(self.best.plan, only=frozenset(rest))):
                    kept = rest
                    parts = max(2, parts - 1)
                    break
            else:
                if size == 1:
                    return
                parts = min(len(kept), parts * 2)
