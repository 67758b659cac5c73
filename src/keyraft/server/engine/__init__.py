"""The ports of the services (`service.ports`), implemented with Raft over a member.

On the hot path a verb is a bound method of the member, or reads the member's parts directly, so a
port costs no call of its own. Nothing of `service/` is imported here; where both meet (`app`, the
simulator, tests) mypy compares them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.server.engine.keys import RaftKeys
from keyraft.server.engine.leases import RaftLeases
from keyraft.server.engine.members import RaftMembers
from keyraft.server.engine.snapshot_feeds import OpenSnapshot
from keyraft.server.engine.standing import MemberHealth, RaftStanding
from keyraft.server.engine.upkeep import RaftUpkeep
from keyraft.server.engine.users import RaftUsers
from keyraft.server.engine.watching import RaftWatching

if TYPE_CHECKING:
    from keyraft.server.member import Member

__all__ = ["MemberHealth", "RaftEngine"]


class RaftEngine:
    """`service.ports.Engine`: all ports of one member."""

    def __init__(self, member: Member, open_snapshot: OpenSnapshot | None = None) -> None:
        """`open_snapshot` starts the export of the database; without it there are no snapshots."""
        self.standing = RaftStanding(member)
        self.keys = RaftKeys(member)
        self.watching = RaftWatching(member)
        self.leases = RaftLeases(member)
        self.users = RaftUsers(member)
        self.members = RaftMembers(member)
        self.upkeep = RaftUpkeep(member, open_snapshot)
