"""Leadership transfers: on a client's request, or before the leader stops.

Raft does the work (thesis §3.10). Here are those who wait for it, and their deadlines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError

if TYPE_CHECKING:
    from keyraft.server.member import Member

_UNKNOWN: Final = 2
TRANSFER_LATE: Final = "etcdserver: request timed out, leader transfer took too long"

MoveDone = Callable[[EtcdError | RawError | None], None]


class LeadershipTransfer:
    """Transfers under way. Owned by the member's loop."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._waiting: list[tuple[int, float, MoveDone]] = []

    def move(self, target: int, done: MoveDone) -> None:
        """Transfers leadership to `target`; `done(None)` when it leads.

        Raises BadLeaderTransfereeError.
        """
        member = self._member
        transferee = member.membership.cluster.member(target)
        if transferee is None or transferee.is_learner:
            raise errors.BadLeaderTransfereeError
        if target == member.leadership.leader:
            done(None)
            return
        member.logger.info(
            "leadership transfer starting",
            local_member_id=f"{member.settings.member_id:x}",
            current_leader_member_id=f"{member.leadership.leader:x}",
            transferee_member_id=f"{target:x}",
        )
        member.raft.transfer(target)
        deadline_s = member.loop.time() + member.settings.request_timeout_s
        self._waiting.append((target, deadline_s, done))

    def leader_changed(self, _before: int) -> None:
        """Somebody else leads now."""
        leader = self._member.leadership.leader
        waiting, self._waiting = self._waiting, []
        for target, deadline_s, done in waiting:
            if target == leader:
                done(None)
            else:
                self._waiting.append((target, deadline_s, done))

    def tick(self, now_s: float) -> None:
        """Times out; called with every Raft tick."""
        if self._waiting and any(deadline_s <= now_s for _, deadline_s, _ in self._waiting):
            waiting, self._waiting = self._waiting, []
            for target, deadline_s, done in waiting:
                if deadline_s <= now_s:
                    done(RawError(_UNKNOWN, TRANSFER_LATE))
                else:
                    self._waiting.append((target, deadline_s, done))

    def fail_all(self, error: EtcdError) -> None:
        """The member stops."""
        waiting, self._waiting = self._waiting, []
        for _, _, done in waiting:
            done(error)

    def best_transferee(self) -> int:
        """The voter that is connected for longest; 0 when there is none."""
        member = self._member
        since = member.network.active_since
        active = [
            (active_s, voter)
            for voter in member.membership.state.voters
            if voter != member.settings.member_id and (active_s := since(voter)) is not None
        ]
        return min(active)[1] if active else 0
