"""Space that heals itself: a warning before the database is full, and the end of NOSPACE.

A member whose database is full has the NOSPACE alarm raised for itself; all members then refuse
what makes databases grow. When deletes and a compaction have made room again, the same member has
its alarm disarmed, and writing goes on. Between the two there is a gap, so that a database at its
limit does not go back and forth with every write, nor one into which a large value did not fit.

DEVIATION: with the original an operator has to defragment and to disarm the alarm;
`--nospace-auto-disarm=false` leaves the alarm to the operator here, too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from keyraft.base.errors import EtcdError
from keyraft.server.apply.internal_request import KIND_ALARM
from keyraft.server.ports import DurableLog
from keyraft.server.upkeep import alarms
from keyraft.server.upkeep.disk_room import DiskRoom

if TYPE_CHECKING:
    from keyraft.server.member import Member
    from keyraft.server.upkeep.usage import UsageWalker

WARNED_FROM: Final = 0.8  # of the quota in use
WARNED_AGAIN_BELOW: Final = 0.7
RELIEVED_BELOW: Final = 0.9  # of what was in use when the alarm was raised
PROPOSED_EACH_S: Final = 1.0


class SpaceKeeper:
    """One member's. Owned by its loop."""

    __slots__ = ("_full", "_member", "_proposed_s", "_usage", "_warned", "disk")

    def __init__(self, member: Member, log: DurableLog) -> None:
        self._member = member
        self._usage: UsageWalker | None = None
        self.disk = DiskRoom(member, log)
        self._warned = False
        own = member.settings.member_id
        # What was in use when the alarm was raised; 0: somebody else asked for it, and disarms it.
        self._full = 1.0 if member.alarms.is_raised(alarms.NOSPACE, own) else 0.0
        self._proposed_s = float("-inf")

    @property
    def usage(self) -> UsageWalker:
        """Who tells what is stored under which prefix."""
        if self._usage is None:
            from keyraft.server.upkeep.usage import UsageWalker  # asked for seldom

            self._usage = UsageWalker(self._member)
        return self._usage

    def raise_alarm(self) -> None:
        """Proposes NOSPACE for this member: a request did not fit."""
        self._full = self._member.quota.used
        self._propose(alarms.activation)

    def tick(self, now_s: float) -> None:
        """Looks at the size of the database."""
        self.disk.tick(now_s)
        member = self._member
        quota = member.quota
        quota.refresh()
        used = quota.used
        if used >= WARNED_FROM and not self._warned:
            self._warned = True
            member.logger.warn(
                "the database is nearly full",
                in_use_bytes=member.backend.size_in_use_bytes,
                quota_backend_bytes=quota.bytes_max,
                compact_revision=member.store.compact_revision,
                current_revision=member.store.revision,
            )
            self.usage.warn()
        elif used < WARNED_AGAIN_BELOW:
            self._warned = False
        if (
            member.alarms.nospace
            and used < RELIEVED_BELOW * self._full
            and member.settings.nospace_auto_disarm
            and now_s >= self._proposed_s + PROPOSED_EACH_S
            and member.alarms.is_raised(alarms.NOSPACE, member.settings.member_id)
        ):
            self._proposed_s = now_s
            self._propose(alarms.deactivation)

    def _propose(self, request: alarms.OfMember) -> None:
        member = self._member
        with suppress(EtcdError):
            member.propose(
                KIND_ALARM,
                request(alarms.NOSPACE, member.settings.member_id),
                lambda _: None,
            )
