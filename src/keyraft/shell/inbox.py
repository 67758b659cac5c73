"""Messages from other members: given to Raft, refused, ignored, or the end of this member.

Refused: messages that no member sends. These are a message to another member, one that breaks a
bound of Raft (`raft.bounds`), and a snapshot whose database was not received. They have no effect.
The sender is told (`process` returns False). They are logged at most once a second, so that no
stranger can fill the log.

Ignored: messages that members may send, but that have no effect now. These are messages of a
removed member, proposals while they cannot be taken, and messages that Raft does not need.

The end: `FatalError` of Raft stops the member (its log was lost, or contradicts committed entries).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from keyraft.base.log import Logger
from keyraft.raft import (
    FatalError,
    Message,
    MessageType,
    PeerMessageError,
    ProposalDroppedError,
    RaftError,
)
from keyraft.server import REBUILD_CONTEXT, Member
from keyraft.shell.fatal_stop import CANNOT_GO_ON

_SNAP: Final = int(MessageType.SNAP)
REFUSALS_REPORT_S: Final = 1.0  # refused messages are logged at most so often


class Inbox:
    """A `peer.transport.RaftReceiver`: one member's. Owned by its loop."""

    def __init__(
        self,
        now: Callable[[], float],
        log: Logger,
        fatal: Callable[[str, str], None],
        has_database: Callable[[Message], bool],
    ) -> None:
        """`now`: monotonic seconds. `fatal(what, why)` stops the member. `has_database`: whether what
        a snapshot message stands for has been received."""
        self._now = now
        self._log = log
        self._fatal = fatal
        self._has_database = has_database
        self._refused = 0  # refused messages since the last log line
        self._refusals_told_s = float("-inf")
        self.member: Member | None = None  # until then messages are dropped

    def process(self, messages: list[Message]) -> bool:
        """Takes messages for this member, in order; False if one was refused."""
        member = self.member
        if member is None or member.stopped:
            return True
        step = member.raft.step
        own = member.settings.member_id
        believed = True
        for message in messages:
            if message.to != own:
                self._refuse(f"a message to {message.to:x}, who is not here")
                believed = False
                continue
            if message.type == _SNAP and not self._has_database(message):
                self._refuse(f"a snapshot from {message.from_:x} without its database")
                believed = False
                continue
            if message.type == _SNAP and message.context == REBUILD_CONTEXT:
                member.rebuild.received(message)  # nothing for Raft, whoever sent it
                continue
            if member.membership.cluster.is_removed(message.from_):
                self._log.warn(
                    "rejected Raft message from removed member",
                    local_member_id=f"{own:x}",
                    removed_member_id=f"{message.from_:x}",
                )
                continue
            try:
                step(message)
            except ProposalDroppedError:
                continue  # the proposal times out at its member, and the client tries again
            except FatalError as error:
                self._fatal(CANNOT_GO_ON, f"raft: {error}")
                return True
            except PeerMessageError as error:
                self._refuse(str(error))
                believed = False
            except RaftError as error:
                self._log.warn("failed to process Raft message", error=str(error))
        return believed

    def check_snapshot(self, message: Message) -> Member:
        """Checks a snapshot message before its database is received; returns the member.

        Raises ValueError where `process` would refuse the message, whatever came with it.
        """
        member = self.member
        if member is None or member.stopped:
            raise ValueError("the member is not there")
        try:
            member.raft.check_from_peer(message)
        except PeerMessageError as error:
            raise ValueError(str(error)) from None
        return member

    def _refuse(self, why: str) -> None:
        now_s = self._now()
        self._refused += 1
        if now_s - self._refusals_told_s >= REFUSALS_REPORT_S:
            self._log.warn(
                "refused Raft messages that no member sends", count=self._refused, last=why
            )
            self._refusals_told_s = now_s
            self._refused = 0

    def is_id_removed(self, member_id: int) -> bool:
        """Whether the id belongs to a former member."""
        member = self.member
        return member is not None and member.membership.cluster.is_removed(member_id)

    def report_unreachable(self, member_id: int) -> None:
        """A message was lost."""
        if self.member is not None:
            self.member.raft.report_unreachable(member_id)

    def report_snapshot(self, member_id: int, ok: bool) -> None:
        """The transfer of a database to this member ended."""
        if self.member is not None:
            self.member.raft.report_snapshot(member_id, ok)

    def removed_from_cluster(self) -> None:
        """Other members say that this member was removed."""
        if self.member is not None:
            self.member.removals.dismissed()
