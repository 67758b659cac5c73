"""The operator: adds members and learners, promotes, removes, moves; and starts what was added.

One thing is never asked for: to shrink a cluster of two voters. The one that stays may not have
heard that the other's departure is committed when it is gone for good, and two voters need both
(the original has the same hole; its handbook's answer is a new cluster by force). A removal whose
outcome is unknown may still come, so it counts as one.
"""

from __future__ import annotations

from random import Random
from typing import Final

from keyraft.base.errors import EtcdError, RawError
from keyraft.cluster import MemberRecord
from keyraft.server import Member
from keyraft.server.membership.membership import ChangeDone
from sim.cluster import SimCluster

MEMBERS_MAX: Final = 7
VOTERS_AFTER_REMOVAL_MIN: Final = 2


class Operator:
    """Changes the membership through any member, as `etcdctl member` does."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._added: dict[int, MemberRecord] = {}  # asked for, not yet members
        self._leaving: set[int] = set()  # asked to leave, not yet gone
        self._chance = Random(cluster.seed)
        self.changes = 0
        cluster.witness.on_membership = self._changed

    def act(self, chance: Random) -> None:
        """One change, whichever `chance` wants and makes sense."""
        nodes = [node for node in self._cluster.nodes.values() if node.running]
        if not nodes:
            return
        node = chance.choice(nodes)
        member = node.member
        assert member is not None, "it runs"
        witness = self._cluster.witness
        wish = chance.random()
        try:
            if witness.learners and wish < 0.5:
                self._promote(chance.choice(witness.learners))
            elif wish < 0.45 and len(witness.ids) + len(self._added) < MEMBERS_MAX:
                self._add(member, is_learner=chance.random() < 0.5)
            elif wish < 0.9:
                self._remove(member, chance)
            else:
                self._move(member, chance.choice(witness.ids))
        except (EtcdError, RawError) as refusal:
            self._cluster.tell(f"  refused: {refusal}")

    def _add(self, member: Member, is_learner: bool) -> None:
        identity = self._cluster.newcomer(is_learner)
        kind = "learner" if is_learner else "member"
        self._cluster.tell(f"{identity.name} is to join as a {kind}")
        self._added[identity.id] = identity
        try:
            # Its name comes with its first start, as in life.
            bare = MemberRecord(identity.id, identity.peer_urls, is_learner=is_learner)
            member.membership_changes.add(bare, self._answered("added"))
        except (EtcdError, RawError):
            del self._added[identity.id]
            raise

    def _remove(self, member: Member, chance: Random) -> None:
        witness = self._cluster.witness
        leaving = chance.choice(witness.ids)
        if leaving in self._leaving:
            return
        staying = len(witness.ids) - len(witness.learners) - len(self._leaving) - 1
        if leaving not in witness.learners and staying < VOTERS_AFTER_REMOVAL_MIN:
            return
        self._cluster.tell(f"{self._cluster.name(leaving)} is to leave")
        self._leaving.add(leaving)
        try:
            member.membership_changes.remove(leaving, self._answered("removed"))
        except (EtcdError, RawError):
            self._leaving.discard(leaving)
            raise

    def _promote(self, learner: int) -> None:
        leader = self._cluster.leader()
        if leader is not None and leader.member is not None:
            self._cluster.tell(f"the learner {self._cluster.name(learner)} is to get its vote")
            leader.member.membership_changes.promote(learner, self._answered("promoted"))

    def _move(self, member: Member, moved: int) -> None:
        node = self._cluster.nodes[moved]
        self._cluster.tell(f"{node.identity.name} gets another address")
        self.changes += 1
        url = f"http://{node.identity.name}.{self.changes}:2380"
        member.membership_changes.update(moved, [url], self._answered("moved"))

    def _answered(self, done: str) -> ChangeDone:
        def answer(error: EtcdError | RawError | None) -> None:
            self._cluster.tell(f"  {done}" if error is None else f"  not {done}: {error}")

        return answer

    def _changed(self) -> None:
        """The membership is another: who was added is started."""
        ids = self._cluster.witness.ids
        self._leaving &= set(ids)
        for ident in ids:
            identity = self._added.pop(ident, None)
            if identity is not None:
                self.changes += 1
                node = self._cluster.admit(identity)
                self._cluster.loop.call_later(self._chance.random() * 2, self._start, node.id)

    def _start(self, ident: int) -> None:
        node = self._cluster.nodes[ident]
        if node.member is None and not node.removed and not node.lives:
            self._cluster.tell(f"{node.identity.name} starts for the first time")
            node.start()
