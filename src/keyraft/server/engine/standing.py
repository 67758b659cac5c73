"""Whether this member serves clients, and its health."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from keyraft.base.errors import EtcdError, RawError
from keyraft.server.upkeep.alarms import NAMES, NOSPACE
from keyraft.server.upkeep.disk_waits import DiskWaits

if TYPE_CHECKING:
    from keyraft.server.member import Member

_READ: Final = b"\x0a\x01\x00\x18\x01"  # one key, as cheap as a read can be


class RaftStanding:
    """`service.ports.Standing` of one member."""

    def __init__(self, member: Member) -> None:
        self._membership = member.membership
        self.leadership = member.leadership
        self.election_s = member.settings.election_s

    @property
    def capable(self) -> bool:
        """See the port."""
        return self._membership.capable

    @property
    def is_learner(self) -> bool:
        """See the port."""
        return self._membership.is_learner


class MemberHealth:
    """`gateway.Health` of one member."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._disk = DiskWaits(member.raft, member.backend, member.loop)

    @property
    def has_leader(self) -> bool:
        """See the port."""
        return bool(self._member.leadership.leader)

    @property
    def is_learner(self) -> bool:
        """See the port."""
        return self._member.membership.is_learner

    def alarms(self) -> list[str]:
        """See the port."""
        member = self._member
        raised = [NAMES.get(kind, "UNKNOWN") for kind, _ in member.alarms.raised()]
        # A full disk is no alarm, which would stop the others; but this member takes no writes.
        return [*raised, NAMES[NOSPACE]] if member.space.disk.full else raised

    def read(self, serializable: bool, done: Callable[[str], None]) -> None:
        """See the port."""
        member = self._member

        def ready(error: EtcdError | None) -> None:
            if error is not None:
                done(error.text)
                return
            try:
                member.store.range(_READ)
            except (EtcdError, RawError) as refusal:
                done(refusal.text)
                return
            done("")

        if serializable:
            ready(None)
        else:
            member.read_index(ready)

    def disk(self) -> str:
        """See the port."""
        return self._disk.stalled()

    def versions(self) -> tuple[str, str]:
        """See the port."""
        membership = self._member.membership
        cluster = membership.cluster.version
        return str(cluster) if cluster is not None else "", membership.storage_version
