"""Listing and changing the members of the cluster.

Headers carry no revision. Members are sorted by id. Whether a change is safe (strict
reconfiguration) is checked before it is proposed; whether it is valid, when it is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.cluster import MemberRecord, new_member
from keyraft.grpc import UnaryCall
from keyraft.proto import rpc_pb2
from keyraft.server.engine.slicing import when_readable

if TYPE_CHECKING:
    from keyraft.server.engine.keys import Who
    from keyraft.server.member import Member


def member_message(member: MemberRecord) -> rpc_pb2.Member:
    """A member as clients see it."""
    return rpc_pb2.Member(
        ID=member.id,
        name=member.name,
        peerURLs=member.peer_urls,
        clientURLs=member.client_urls,
        isLearner=member.is_learner,
    )


class RaftMembers:
    """`service.ports.Members` of one member."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def list(self, call: UnaryCall, linearizable: bool, who: Who | None = None) -> bytes | None:
        """See the port."""
        member = self._member

        def listed() -> bytes:
            if member.auth.enabled and (who is None or who() is None):
                raise errors.UserEmptyError
            answer = rpc_pb2.MemberListResponse(members=self._members())
            return member.header(0) + answer.SerializeToString()

        if not linearizable or member.readable:
            return listed()
        when_readable(member, call, listed)
        return None

    def add(self, call: UnaryCall, peer_urls: Sequence[str], is_learner: bool) -> None:
        """See the port; the new member's id follows from its URLs."""
        member = self._member
        added = new_member("", peer_urls, "", int(member.wall_clock()), is_learner)

        def answer() -> bytes:
            told = rpc_pb2.Member(ID=added.id, peerURLs=added.peer_urls, isLearner=added.is_learner)
            return rpc_pb2.MemberAddResponse(
                member=told, members=self._members()
            ).SerializeToString()

        take_back = member.membership_changes.add(added, self._done(call, answer))
        call.on_cancel = lambda _, code: take_back(code)

    def remove(self, call: UnaryCall, member_id: int) -> None:
        """See the port."""

        def answer() -> bytes:
            return rpc_pb2.MemberRemoveResponse(members=self._members()).SerializeToString()

        take_back = self._member.membership_changes.remove(member_id, self._done(call, answer))
        call.on_cancel = lambda _, code: take_back(code)

    def update(self, call: UnaryCall, member_id: int, peer_urls: Sequence[str]) -> None:
        """See the port."""

        def answer() -> bytes:
            return rpc_pb2.MemberUpdateResponse(members=self._members()).SerializeToString()

        take_back = self._member.membership_changes.update(
            member_id, peer_urls, self._done(call, answer)
        )
        call.on_cancel = lambda _, code: take_back(code)

    def promote(self, call: UnaryCall, member_id: int) -> None:
        """See the port: the leader does it; a follower forwards the caller's token."""
        member = self._member

        def answer() -> bytes:
            return rpc_pb2.MemberPromoteResponse(members=self._members()).SerializeToString()

        done = self._done(call, answer)
        calls = member.leader_calls
        if calls is not None and not member.leadership.leading:
            token = call.metadata.get(b"token") or call.metadata.get(b"authorization") or b""
            # Any bytes may stand in a header, and leave as they came.
            text = token.decode("utf-8", "surrogateescape")
            stop = calls.promote(member_id, text or None, done)
            call.on_cancel = lambda _, code: stop()
        else:
            take_back = member.membership_changes.promote(member_id, done)
            call.on_cancel = lambda _, code: take_back(code)

    def _members(self) -> Sequence[rpc_pb2.Member]:
        return [member_message(one) for one in self._member.membership.cluster.members]

    def _done(
        self, call: UnaryCall, answer: Callable[[], bytes]
    ) -> Callable[[EtcdError | RawError | None], None]:
        def done(error: EtcdError | RawError | None) -> None:
            if error is None:
                call.respond(self._member.header(0) + answer())
            else:
                call.fail(error.code, error.text)

        return done
