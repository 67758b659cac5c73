"""Carries out the walks of `mvcc.UsageWalk` beside requests, and answers with what they found.

A step is followed by a rest three times as long, so that the walk takes a quarter of the loop's time
at most, and a request waits for one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from keyraft.base.errors import TooManyRequestsError
from keyraft.mvcc import PrefixRows, UsageWalk

if TYPE_CHECKING:
    from keyraft.server.member import Member

REST: Final = 3.0  # times what the step took
REST_S_MIN: Final = 0.001
WARNED_DEPTH: Final = 2
WARNED_TOP: Final = 5

Found = Callable[[UsageWalk, float], None]
"""Gets the walk and how many seconds it took."""


class UsageWalker:
    """At most one walk at a time. Owned by the member's loop."""

    __slots__ = ("_busy", "_member")

    def __init__(self, member: Member) -> None:
        self._member = member
        self._busy = False

    def walk(
        self,
        prefix: bytes,
        depth: int,
        interval_s: float,
        found: Found,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Calls `found`, unless it is `cancelled` before. Raises TooManyRequestsError."""
        if self._busy:
            raise TooManyRequestsError
        self._busy = True
        loop = self._member.loop
        walk = UsageWalk(self._member.store, prefix, depth)
        began_s = loop.time()
        again = False

        def step() -> None:
            nonlocal again
            if cancelled() or self._member.stopped:
                self._busy = False
                return
            at_s = loop.time()
            if not walk.step():
                loop.call_later(max(REST * (loop.time() - at_s), REST_S_MIN), step)
            elif not again:  # what was written meanwhile
                again = True
                loop.call_later(max(began_s + interval_s - loop.time(), 0.0), catch_up)
            else:
                self._busy = False
                found(walk, loop.time() - began_s)

        def catch_up() -> None:
            walk.go_on()
            step()

        loop.call_soon(step)

    def warn(self) -> None:
        """Tells the largest prefixes, for the warning that the database is nearly full."""

        def found(walk: UsageWalk, seconds: float) -> None:
            largest, others, total = walk.largest(WARNED_TOP)
            self._member.logger.warn(
                "the largest prefixes of the database",
                prefixes=[_described(prefix, group) for prefix, group in largest],
                other_bytes=others.size,
                total_bytes=total.size,
            )

        try:
            self.walk(b"", WARNED_DEPTH, 0.0, found)
        except TooManyRequestsError:
            pass  # somebody is looking


def _described(prefix: bytes, group: PrefixRows) -> str:
    name = prefix.decode("utf-8", "backslashreplace")
    return (
        f"{name}: {group.keys} keys, {group.bytes} bytes, "
        f"{group.history_bytes} bytes of history in {group.revisions} revisions"
    )
