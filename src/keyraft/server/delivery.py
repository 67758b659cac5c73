"""The delivery of events to watchers: a slice a turn, as long as there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyraft.server.member import Member


class Delivery:
    """One member's. Owned by its loop."""

    __slots__ = ("_member", "_watches")

    def __init__(self, member: Member) -> None:
        self._member = member
        self._watches = member.watches

    def deliver(self) -> None:
        """Delivers one slice of events, and comes again if that was not all."""
        member = self._member
        if member.stopped:
            return
        loop, watches = member.loop, self._watches
        began_s = loop.time()
        messages, events = watches.sent()
        if watches.deliver():
            loop.call_soon(self.deliver)
        member.counters.request_times.delivered(
            began_s, loop.time(), messages, events, *watches.sent()
        )
