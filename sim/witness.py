"""Facts about the whole cluster that no single member can check.

- One leader a term (Raft thesis §3.2).
- One entry an index, on every member that applies it (State Machine Safety, §3.6.3).
- The same membership behind the same configuration change, on every member.
- A lease does not run out before its TTL has passed since it was last renewed.

The first to apply an entry also feeds it to the twin, which tells what the clients must see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from keyraft.raft import Entry, EntryType
from keyraft.server import Member
from sim.twin import Expiry, Twin

Membership = tuple[tuple[int, bool], ...]
"""(member's id, is a learner), sorted."""


@dataclass(slots=True)
class Promise:
    """What a client was told of its lease."""

    until_s: float  # virtual seconds; the lease must stand up to here
    given_up: bool = False  # the client has asked for its end


@dataclass(slots=True)
class Revoked:
    """A lease that is gone."""

    at_s: float
    expiry: Expiry


class Witness:
    """Sees every entry that any member applies."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._leaders: dict[int, int] = {}
        self._applied: list[tuple[int, bytes]] = []  # term and data of index 1, 2, ...
        self._memberships: dict[int, Membership] = {}
        self.twin = Twin()
        self.membership: Membership = ()
        self.changes = 0  # of the membership
        self.snapshots = 0  # installed
        self.promises: dict[int, Promise] = {}
        self.revoked: dict[int, Revoked] = {}
        self.on_membership: Callable[[], None] | None = None

    def leads(self, member_id: int, term: int) -> None:
        """Raises AssertionError when somebody else led in this term."""
        other = self._leaders.setdefault(term, member_id)
        assert other == member_id, f"{other:x} and {member_id:x} both lead in term {term}"

    def applies(self, member_id: int, entry: Entry) -> None:
        """Raises AssertionError when somebody has applied something else at this index."""
        mine = (entry.term, entry.data)
        count = len(self._applied)
        if entry.index <= count:
            first = self._applied[entry.index - 1]
            assert first == mine, f"{member_id:x} applies another entry at index {entry.index}"
            return
        assert entry.index == count + 1, f"{member_id:x} applies {entry.index} behind {count}"
        self._applied.append(mine)
        if entry.type == EntryType.NORMAL and entry.data:
            expiry = self.twin.apply(entry.data)
            if expiry is not None:
                self._revoke(expiry)

    def changed(self, member: Member, entry: Entry) -> None:
        """A configuration change has been applied: all must make the same of it."""
        members = member.membership.cluster.members
        now = tuple((one.id, one.is_learner) for one in members)
        first = self._memberships.setdefault(entry.index, now)
        assert first == now, (
            f"{member.settings.member_id:x} has {now} at {entry.index}, not {first}"
        )
        if entry.index == len(self._applied) and now != self.membership:
            self.membership = now
            self.changes += 1
            if self.on_membership is not None:
                self.on_membership()

    @property
    def ids(self) -> list[int]:
        """All members, sorted by id."""
        return [ident for ident, _ in self.membership]

    @property
    def learners(self) -> list[int]:
        """Those without a vote."""
        return [ident for ident, is_learner in self.membership if is_learner]

    def promise(self, lease: int, until_s: float) -> None:
        """A client was told that its lease stands up to a moment."""
        promise = self.promises.setdefault(lease, Promise(until_s))
        promise.until_s = max(promise.until_s, until_s)
        gone = self.revoked.get(lease)
        if gone is not None:
            self._judge(lease, gone.at_s)

    def _revoke(self, expiry: Expiry) -> None:
        self.revoked[expiry.lease] = Revoked(self._now(), expiry)
        self._judge(expiry.lease, self._now())

    def _judge(self, lease: int, gone_s: float) -> None:
        promise = self.promises.get(lease)
        if promise is None or promise.given_up:
            return
        assert gone_s >= promise.until_s, (
            f"lease {lease:x} was promised up to {promise.until_s:.3f} and gone at {gone_s:.3f}"
        )
