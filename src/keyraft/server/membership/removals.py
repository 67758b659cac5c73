"""What follows when a member has been removed: this one, or another that may have led."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyraft.server.member import Member

REMOVED_STAY_S: Final = 1.0  # a removed member tells the others so long (etcd `stopWithDelay`)


class Removals:
    """Owned by the member's loop."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def own(self) -> None:
        """This member was removed, as its own log says.

        It stays for a moment: a leader that removes itself may be the only one that knows, and of
        two members the other could not go on without being told.
        """
        self._member.loop.call_later(REMOVED_STAY_S, self.dismissed)

    def dismissed(self) -> None:
        """The others have gone on without this member; `on_removed` stops it."""
        member = self._member
        if member.on_removed is not None and not member.stopped:
            member.on_removed()

    def other(self, member_id: int) -> None:
        """Somebody else was removed. If it led, nothing more will come from it.

        DEVIATION: etcd goes on passing proposals to it until its election timeout ends, and they
        are lost; here they wait for the next leader.
        """
        member = self._member
        if member.raft.forget(member_id):
            member.loop.call_soon(member.campaign_if_alone)
