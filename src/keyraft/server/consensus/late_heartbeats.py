"""Says when a leader's disk is so slow that its heartbeats are late.

While a write is under way no Ready is carried out, so no heartbeat is sent either. When that lasts
for an election timeout, the others elect another leader. A warning is logged before that.
"""

from __future__ import annotations

from typing import Final

from keyraft.base.log import Logger
from keyraft.server.consensus.leadership import Leadership
from keyraft.server.consensus.raft_loop import RaftLoop
from keyraft.server.counters import Counters

LATE_TICKS: Final = 2  # heartbeats that a write may delay without a warning (etcd's contention)


class LateHeartbeats:
    """Owned by the member's loop. Each write causes at most one warning."""

    def __init__(
        self,
        heartbeat_s: float,
        raft: RaftLoop,
        leadership: Leadership,
        counters: Counters,
        logger: Logger,
    ) -> None:
        self._heartbeat_s = heartbeat_s
        self._raft = raft
        self._leadership = leadership
        self._counters = counters
        self._logger = logger
        self._told_s: float | None = None  # when the write of the last warning began

    def tick(self, now_s: float) -> None:
        """Called with every Raft tick."""
        began_s = self._raft.writing_since_s
        if began_s is None or began_s == self._told_s or not self._leadership.leading:
            return
        expected_s = LATE_TICKS * self._heartbeat_s
        late_s = now_s - began_s - expected_s
        if late_s <= 0 or self._leadership.sole_voter:
            return
        self._told_s = began_s
        self._counters.heartbeat_send_failures += 1
        self._logger.warn(
            "leader failed to send out heartbeat on time; took too long, leader is overloaded "
            "likely from slow disk",
            heartbeat_interval=f"{self._heartbeat_s * 1000:g}ms",
            expected_duration=f"{expected_s * 1000:g}ms",
            exceeded_duration=f"{late_s * 1000:.3f}ms",
        )
