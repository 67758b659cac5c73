"""Changes of membership that a client asks for, checked before they are proposed.

Strict reconfiguration refuses a change that could lose the quorum: if members have not started, or
if too few were connected during the last five seconds (etcd `mayAddMember`, `mayRemoveMember`,
`mayPromoteMember`). The change is checked again when it is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from keyraft.base import errors
from keyraft.base.ids import MemberID
from keyraft.cluster import ChangeContext, MemberRecord
from keyraft.raft import ConfChange, ConfChangeType
from keyraft.server.membership.membership import ChangeDone, TakeBack

if TYPE_CHECKING:
    from keyraft.server.member import Member

HEALTH_INTERVAL_S: Final = 5.0  # connected for so long counts as healthy (etcd `HealthInterval`)
LEARNER_READY_FRACTION: Final = 0.9  # of the leader's log (etcd `readyPercentThreshold`)


class MembershipChanges:
    """Proposes changes of membership for one member. Owned by its loop."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def add(self, added: MemberRecord, done: ChangeDone) -> TakeBack:
        """A member joins. Raises NotEnoughStartedMembersError, UnhealthyError."""
        member = self._member
        cluster = member.membership.cluster
        if member.settings.strict_reconfig_check:
            if not added.is_learner:
                cluster.check_ready_to_add_voter()
            voters = len(cluster.voters)
            # The new member counts as not connected; a single member may always add one.
            if voters > 1 and self._connected() < (voters + 1) // 2 + 1:
                raise errors.UnhealthyError
        kind = ConfChangeType.ADD_LEARNER_NODE if added.is_learner else ConfChangeType.ADD_NODE
        return self._propose(kind, added.id, ChangeContext(added).to_json(), done)

    def remove(self, member_id: int, done: ChangeDone) -> TakeBack:
        """A member leaves for good. Raises NotEnoughStartedMembersError, UnhealthyError."""
        member = self._member
        cluster = member.membership.cluster
        leaving = cluster.member(member_id)
        is_learner = leaving is not None and leaving.is_learner
        if member.settings.strict_reconfig_check and not is_learner:
            cluster.check_ready_to_remove(member_id)
            own = member.settings.member_id
            if member_id == own or member.network.active_since(member_id) is not None:
                voters = len(cluster.voters)
                if self._connected() - 1 < 1 + (voters - 1) // 2:
                    raise errors.UnhealthyError
        return self._propose(ConfChangeType.REMOVE_NODE, member_id, b"", done)

    def update(self, member_id: int, peer_urls: Sequence[str], done: ChangeDone) -> TakeBack:
        """Changes a member's peer URLs."""
        moved = MemberRecord(MemberID(member_id), tuple(peer_urls))
        return self._propose(
            ConfChangeType.UPDATE_NODE, member_id, ChangeContext(moved).to_json(), done
        )

    def promote(self, member_id: int, done: ChangeDone) -> TakeBack:
        """A learner gets its vote. Raises NotLeaderError, LearnerNotReadyError."""
        member = self._member
        counters = member.counters
        try:
            self._check_promotion(member_id)
        except errors.EtcdError as refusal:
            if not isinstance(refusal, errors.NotLeaderError):
                failures = counters.learner_promote_failures
                failures[refusal.text] = failures.get(refusal.text, 0) + 1
            raise
        counters.learner_promote_successes += 1
        learner = MemberRecord(MemberID(member_id))
        context = ChangeContext(learner, is_promote=True).to_json()
        return self._propose(ConfChangeType.ADD_NODE, member_id, context, done)

    def _check_promotion(self, member_id: int) -> None:
        member = self._member
        if not member.leadership.leading:
            raise errors.NotLeaderError
        progress = member.raft.status().progress  # empty on others than the leader
        if member_id in progress and member.settings.member_id in progress:
            own = progress[member.settings.member_id].match
            if progress[member_id].match < own * LEARNER_READY_FRACTION:
                raise errors.LearnerNotReadyError
        if member.settings.strict_reconfig_check:
            member.membership.cluster.check_ready_to_promote()

    def _connected(self) -> int:
        """Voters that have been connected for the health interval, this member included."""
        member = self._member
        before_s = member.loop.time() - HEALTH_INTERVAL_S
        count = 0
        for voter in member.membership.cluster.voters:
            if voter.id == member.settings.member_id:
                count += 1
                continue
            active_s = member.network.active_since(voter.id)
            count += active_s is not None and active_s <= before_s
        return count

    def _propose(
        self, kind: ConfChangeType, node_id: int, context: bytes, done: ChangeDone
    ) -> TakeBack:
        return self._member.membership.propose(ConfChange(kind, node_id, context), done)
