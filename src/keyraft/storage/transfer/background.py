"""How a process that exports takes second place to the member beside it.

It is nice, which bounds its share. But on a processor that it holds a waking thread of the member
still waits for the end of a slice, a few milliseconds, and goes looking for another processor,
where it is in somebody's way. So a process that may come back from it (CAP_SYS_NICE, RLIMIT_NICE)
becomes idle (SCHED_IDLE): processors that only it uses count as free. An idle process may starve,
and an export holds the database's old pages: once it gets less than SHARE_MIN of a processor it
is merely nice again, for good.
"""

from __future__ import annotations

import os
import time
from typing import Final

NICENESS: Final = 10
SHARE_MIN: Final = 0.2  # of a processor, while it computes
LOOK_S: Final = 1.0  # of computing, between two looks at the share


class Background:
    """The place of this process among others."""

    __slots__ = ("_computed_s", "_cpu_s", "_niceness", "_resumed_at", "idle")

    def __init__(self) -> None:
        """Nice from now on."""
        self._niceness = os.nice(NICENESS)
        self.idle = False
        self._computed_s = 0.0  # since the last look
        self._cpu_s = time.process_time()
        self._resumed_at = time.monotonic()

    def recede(self) -> None:
        """Idle from now on, if there is a way back."""
        try:
            # The way back from idle takes the right to go below one's niceness.
            os.setpriority(os.PRIO_PROCESS, 0, self._niceness - 1)
            os.setpriority(os.PRIO_PROCESS, 0, self._niceness)
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except OSError:
            return  # not allowed: nice is all that can be done
        self.idle = True
        self._computed_s = 0.0
        self._cpu_s = time.process_time()
        self.resume()

    def pause(self) -> None:
        """Before a write that may wait for the reader; comes back to the fore if starved."""
        self._computed_s += time.monotonic() - self._resumed_at
        if self._computed_s < LOOK_S:
            return
        cpu_s = time.process_time()
        share = (cpu_s - self._cpu_s) / self._computed_s
        self._computed_s, self._cpu_s = 0.0, cpu_s
        if self.idle and share < SHARE_MIN:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            self.idle = False

    def resume(self) -> None:
        """After the write."""
        self._resumed_at = time.monotonic()
