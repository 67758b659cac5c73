"""What a member does when it, or another that may have led, has been removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyraft.server.member import Member

REMOVED_STAY_S: Final = 1.0  # how long a removed member stays (etcd `stopWithDelay`)


class Removals:
    """Owned by the member's loop."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def own(self) -> None:
        """This member was removed, as its own log says.

        It stays for a moment. A leader that removes itself may be the only one that knows of it,
        and the other one of two members could not continue without being told.
        """
        self._member.loop.call_later(REMOVED_STAY_S, self.dismissed)

    def dismissed(self) -> None:
        """Other members say that this one was removed; `on_removed` stops it."""
        member = self._member
        if member.on_removed is not None and not member.stopped:
            member.on_removed()

    def other(self, member_id: int) -> None:
        """Another member was removed. If it led, there is no leader now.

        DEVIATION: etcd forwards proposals to it until the election timeout, and they are lost. Here
        they wait for the next leader.
        """
        member = self._member
        if member.raft.forget(member_id):
            member.loop.call_soon(member.campaign_if_alone)
