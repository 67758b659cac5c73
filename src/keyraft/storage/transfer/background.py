"""How an exporting process gives way to the member on the same machine.

The process is nice (`nice(2)`), which bounds its share. But a thread of the member that wakes on
the processor of the nice process still waits for the end of its time slice, a few milliseconds, or
moves to another processor, where it disturbs others. So the process becomes idle (SCHED_IDLE) if it
may become normal again (CAP_SYS_NICE, RLIMIT_NICE): the scheduler treats a processor that runs only
idle processes as free.

An idle process may starve, and an export keeps old pages of the database in use. So once it gets
less than SHARE_MIN of a processor, it is only nice from then on.
"""

from __future__ import annotations

import os
import time
from typing import Final

NICENESS: Final = 10
SHARE_MIN: Final = 0.2  # of a processor, while it computes
LOOK_S: Final = 1.0  # of computing, between two looks at the share


class Background:
    """The scheduling priority of this process."""

    __slots__ = ("_computed_s", "_cpu_s", "_niceness", "_resumed_at", "idle")

    def __init__(self) -> None:
        """Makes the process nice."""
        self._niceness = os.nice(NICENESS)
        self.idle = False
        self._computed_s = 0.0  # since the last look
        self._cpu_s = time.process_time()
        self._resumed_at = time.monotonic()

    def recede(self) -> None:
        """Makes the process idle, if it may become normal again."""
        try:
            # Leaving SCHED_IDLE needs the right to lower the nice value.
            os.setpriority(os.PRIO_PROCESS, 0, self._niceness - 1)
            os.setpriority(os.PRIO_PROCESS, 0, self._niceness)
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except OSError:
            return  # not allowed: the process stays nice
        self.idle = True
        self._computed_s = 0.0
        self._cpu_s = time.process_time()
        self.resume()

    def pause(self) -> None:
        """Call before a write that may wait for the reader; ends idle scheduling if starved."""
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
        """Call after the write."""
        self._resumed_at = time.monotonic()
