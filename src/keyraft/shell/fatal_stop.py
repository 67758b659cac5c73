"""How a member ends that cannot go on: at once, and with one line.

What has failed (its disk, its database, Raft, or a callback that raised what it must not) puts what
the member holds in doubt. So from then on it takes nothing, carries out nothing and answers nobody;
what fails after that follows from it and is not told.
"""

from __future__ import annotations

from collections.abc import Callable

from keyraft.server import Member

CANNOT_GO_ON = "the member cannot go on"


class FatalStop:
    """Of one life of a member. Owned by its loop."""

    __slots__ = ("_end", "happened", "member")

    def __init__(self, end: Callable[[str, str], None]) -> None:
        """`end(what, why)` says the line and ends the process; called once."""
        self._end = end
        self.happened = False
        self.member: Member | None = None  # once there is one

    def __call__(self, what: str, why: str) -> None:
        """Something that a member cannot go on without has failed."""
        if self.happened:
            return
        self.happened = True
        if self.member is not None:
            self.member.halt()
        self._end(what, why)

    def database_failed(self, why: str) -> None:
        """The database can commit nothing any more."""
        self("failed to write the database", why)

    def unexpected(self, error: BaseException) -> None:
        """A callback has raised what it must not: our own bug, or damage."""
        import traceback  # a start does without

        self(CANNOT_GO_ON, "".join(traceback.format_exception(error)))
