"""Ends a member after a fatal error: at once, with one log line.

After a failure of its disk, its database or Raft, or an unexpected error in a callback, the
member's state may be wrong. So from then on it takes no input, carries out nothing and answers
nobody. Later failures are consequences of the first and are not logged.
"""

from __future__ import annotations

from collections.abc import Callable

from keyraft.server import Member

CANNOT_GO_ON = "the member cannot go on"


class FatalStop:
    """The fatal stop of one life of a member. Owned by its loop."""

    __slots__ = ("_end", "happened", "member")

    def __init__(self, end: Callable[[str, str], None]) -> None:
        """`end(what, why)` writes the log line and ends the process; called once."""
        self._end = end
        self.happened = False
        self.member: Member | None = None  # set when the member is built

    def __call__(self, what: str, why: str) -> None:
        """A part without which a member cannot run has failed."""
        if self.happened:
            return
        self.happened = True
        if self.member is not None:
            self.member.halt()
        self._end(what, why)

    def database_failed(self, why: str) -> None:
        """The database cannot commit any more."""
        self("failed to write the database", why)

    def unexpected(self, error: BaseException) -> None:
        """A callback has raised an unexpected error: a bug, or damaged data."""
        import traceback  # not needed at a start

        self(CANNOT_GO_ON, "".join(traceback.format_exception(error)))
