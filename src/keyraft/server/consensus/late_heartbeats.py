"""Says when a leader's disk is so slow that its heartbeats are late.

While a write is under way no Ready is carried out, so no heartbeat is sent either. When that lasts
for an election timeout, the others elect another leader. A warning is logged before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyraft.server.member import Member

LATE_TICKS: Final = 2  # heartbeats that a write may delay without a warning (etcd's contention)


class LateHeartbeats:
    """Owned by the member's loop. Each write causes at most one warning."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._told_s: float | None = None  # when the write of the last warning began

    def tick(self, now_s: float) -> None:
        """Called with every Raft tick."""
        member = self._member
        began_s = member.raft.writing_since_s
        if began_s is None or began_s == self._told_s or not member.leadership.leading:
            return
        expected_s = LATE_TICKS * member.settings.heartbeat_s
        late_s = now_s - began_s - expected_s
        if late_s <= 0 or member.membership.sole_voter:
            return
        self._told_s = began_s
        member.counters.heartbeat_send_failures += 1
        member.logger.warn(
            "leader failed to send out heartbeat on time; took too long, leader is overloaded "
            "likely from slow disk",
            heartbeat_interval=f"{member.settings.heartbeat_s * 1000:g}ms",
            expected_duration=f"{expected_s * 1000:g}ms",
            exceeded_duration=f"{late_s * 1000:.3f}ms",
        )
