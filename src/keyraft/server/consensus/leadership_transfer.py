"""Leadership transfers: on a client's request, or before the leader stops.

Raft does the work (thesis §3.10). Here are those who wait for it, and their deadlines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from keyraft.base import errors
from keyraft.base.clock import Loop
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.log import Logger
from keyraft.cluster import RaftCluster
from keyraft.server.consensus.leadership import Leadership
from keyraft.server.consensus.raft_loop import RaftLoop
from keyraft.server.ports import Network
from keyraft.server.settings import MemberSettings

_UNKNOWN: Final = 2
TRANSFER_LATE: Final = "etcdserver: request timed out, leader transfer took too long"

MoveDone = Callable[[EtcdError | RawError | None], None]


class LeadershipTransfer:
    """Transfers under way. Owned by the member's loop."""

    def __init__(
        self,
        settings: MemberSettings,
        loop: Loop,
        raft: RaftLoop,
        leadership: Leadership,
        cluster: RaftCluster,
        network: Network,
        logger: Logger,
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._raft = raft
        self._leadership = leadership
        self._cluster = cluster
        self._network = network
        self._logger = logger
        self._waiting: list[tuple[int, float, MoveDone]] = []

    def move(self, target: int, done: MoveDone) -> None:
        """Transfers leadership to `target`; `done(None)` when it leads.

        Raises BadLeaderTransfereeError.
        """
        transferee = self._cluster.member(target)
        if transferee is None or transferee.is_learner:
            raise errors.BadLeaderTransfereeError
        if target == self._leadership.leader:
            done(None)
            return
        self._logger.info(
            "leadership transfer starting",
            local_member_id=f"{self._settings.member_id:x}",
            current_leader_member_id=f"{self._leadership.leader:x}",
            transferee_member_id=f"{target:x}",
        )
        self._raft.transfer(target)
        deadline_s = self._loop.time() + self._settings.request_timeout_s
        self._waiting.append((target, deadline_s, done))

    def leader_changed(self, _before: int) -> None:
        """Somebody else leads now."""
        leader = self._leadership.leader
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
        active = self._active()
        return min(active)[1] if active else 0

    def most_caught_up(self) -> int:
        """Of the voters that are connected, on a leader, the one that has most of the log; 0 when
        there is none."""
        progress = self._raft.status().progress
        active = [
            (-progress[voter].match if voter in progress else 0, since_s, voter)
            for since_s, voter in self._active()
        ]
        return min(active)[2] if active else 0

    def _active(self) -> list[tuple[float, int]]:
        """The other voters that are connected, and since when."""
        since = self._network.active_since
        return [
            (active_s, voter)
            for voter in self._raft.conf_state.voters
            if voter != self._settings.member_id and (active_s := since(voter)) is not None
        ]
