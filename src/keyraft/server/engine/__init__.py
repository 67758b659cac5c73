"""What the services ask for, carried out with Raft: the ports of `service.ports` over a member.

The verbs of the hot path are the member's own bound methods, or read the member's parts directly:
a port costs no call of its own. Nothing of `service/` is imported here; where both meet (`app`, the
simulator, tests) mypy compares them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.server.engine.keys import Keys
from keyraft.server.engine.leases import Leases
from keyraft.server.engine.members import Members
from keyraft.server.engine.snapshot_feeds import OpenSnapshot
from keyraft.server.engine.standing import MemberHealth, Standing
from keyraft.server.engine.upkeep import Upkeep
from keyraft.server.engine.users import Users
from keyraft.server.engine.watching import Watching

if TYPE_CHECKING:
    from keyraft.server.member import Member

__all__ = ["MemberHealth", "RaftEngine"]


class RaftEngine:
    """`service.ports.Engine`: all ports of one member."""

    def __init__(self, member: Member, open_snapshot: OpenSnapshot | None = None) -> None:
        """`open_snapshot` starts the export of the database; without it there are no snapshots."""
        self.standing = Standing(member)
        self.keys = Keys(member)
        self.watching = Watching(member)
        self.leases = Leases(member)
        self.users = Users(member)
        self.members = Members(member)
        self.upkeep = Upkeep(member, open_snapshot)
