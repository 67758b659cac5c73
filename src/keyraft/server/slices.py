"""Long reads, done in slices so that a turn of the loop stays short.

All jobs together get `READ_SLICE_S` in each turn of the loop, so a put waits no longer for ten
readers than for one. A job is a `step` that works for about a millisecond and returns whether it is
done; the jobs do steps in turn. A job that nobody waits for any more ends itself at its next step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from keyraft.base.clock import Loop

READ_SLICE_S: Final = 0.001  # of a turn, besides applying and delivering

Step = Callable[[], bool]


class Slices:
    """The readers of one member. Owned by the member's loop."""

    __slots__ = ("_jobs", "_loop", "_scheduled", "steps_max")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._jobs: deque[Step] = deque()
        self._scheduled = False
        self.steps_max = 0  # in one slice; 0: as many as there is time for

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, step: Step) -> None:
        """Calls `step` in coming slices until it returns that all is done."""
        self._jobs.append(step)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._slice)

    def _slice(self) -> None:
        jobs = self._jobs
        time = self._loop.time
        until_s = time() + READ_SLICE_S
        steps = self.steps_max
        while jobs:
            step = jobs.popleft()
            if not step():
                jobs.append(step)
            steps -= 1
            if not steps or time() >= until_s:
                break
        self._scheduled = bool(jobs)
        if jobs:
            self._loop.call_soon(self._slice)
