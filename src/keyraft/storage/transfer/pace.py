"""How fast a snapshot leaves a busy member.

Making, sending and storing a snapshot takes processor time in proportion to its speed. On a small
machine that time is taken from writers. So while the member's loop is busy with other work, a
snapshot goes at BUSY_BYTES_PER_S, which on two processors costs puts less than a tenth of their
rate (the original goes at 11 to 13 MiB/s under the same puts, and costs them a fifth). While the
loop is not busy, it goes as fast as the client reads. The pace never falls below BUSY_BYTES_PER_S,
so a save always ends.

The processor time of the loop's thread tells how busy the loop is. The snapshot's own part of it is
10 to 20 % at full speed and almost nothing at the slow pace, so it stays below BUSY_SHARE.
"""

from __future__ import annotations

from typing import Final

BUSY_BYTES_PER_S: Final = 10 << 20
BUSY_SHARE: Final = 0.5  # of the time, the loop's thread computes: then the loop is busy
LOOK_S: Final = 0.1  # over which the share is measured


class Pace:
    """The pace of one snapshot. Times in seconds: `now` of a steady clock, `cpu_s` of the loop's
    thread."""

    __slots__ = ("_cpu_s", "_due", "_looked_at", "busy")

    def __init__(self, now: float, cpu_s: float) -> None:
        self._due = self._looked_at = now
        self._cpu_s = cpu_s
        self.busy = False

    def pause_s(self, now: float, cpu_s: float, block_bytes: int) -> float:
        """How long to wait after a block of so many bytes; 0 when the loop has time to spare."""
        passed_s = now - self._looked_at
        if passed_s >= LOOK_S:
            self.busy = cpu_s - self._cpu_s > passed_s * BUSY_SHARE
            self._looked_at, self._cpu_s = now, cpu_s
        if not self.busy:
            self._due = now
            return 0.0
        # After a late block the next one may come early, but no more than one.
        block_s = block_bytes / BUSY_BYTES_PER_S
        self._due = max(self._due, now - block_s) + block_s
        return max(self._due - now, 0.0)
