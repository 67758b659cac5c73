"""Cluster: MemberList, MemberAdd, MemberRemove, MemberUpdate, MemberPromote.

Headers carry no revision. Members are listed by id. Whether a change is wise (strict
reconfiguration) is asked before it is proposed; whether it is possible, when it is applied.
"""

from __future__ import annotations

from collections.abc import Callable

from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.base.urls import URLError, parse_urls
from keyraft.cluster import MemberRecord, new_member
from keyraft.grpc import Router, UnaryCall
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.service.guard import Guard


def member_message(member: MemberRecord) -> rpc_pb2.Member:
    """A member as clients see it."""
    return rpc_pb2.Member(
        ID=member.id,
        name=member.name,
        peerURLs=member.peer_urls,
        clientURLs=member.client_urls,
        isLearner=member.is_learner,
    )


class ClusterService:
    """Registered on a router; one per member."""

    def __init__(self, member: Member, guard: Guard) -> None:
        self._member = member
        self._guard = guard

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        for name, handle in (
            ("MemberList", self.member_list),
            ("MemberAdd", self.member_add),
            ("MemberRemove", self.member_remove),
            ("MemberUpdate", self.member_update),
            ("MemberPromote", self.member_promote),
        ):
            router.unary(f"/etcdserverpb.Cluster/{name}", handle)

    def _members(self) -> list[rpc_pb2.Member]:
        return [member_message(one) for one in self._member.membership.cluster.members]

    def member_list(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberListRequest -> MemberListResponse."""
        self._guard.admit(call)
        message = parse(rpc_pb2.MemberListRequest, request)

        def listed() -> bytes:
            self._guard.check_user(call)
            answer = rpc_pb2.MemberListResponse(members=self._members())
            return self._member.header(0) + answer.SerializeToString()

        if not message.linearizable or self._member.readable:
            return listed()

        def ready(error: EtcdError | None) -> None:
            if error is not None:
                call.fail(error.code, error.text)
                return
            try:
                call.respond(listed())
            except (EtcdError, RawError) as refusal:
                call.fail(refusal.code, refusal.text)

        self._member.read_index(ready)
        return None

    def member_add(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberAddRequest -> MemberAddResponse; the new member's id follows from its URLs."""
        self._guard.admit(call)
        message = parse(rpc_pb2.MemberAddRequest, request)
        try:
            urls = [str(url) for url in parse_urls(message.peerURLs)]
        except URLError:
            raise errors.BadPeerURLsError from None
        self._guard.check_admin(call)
        added = new_member("", urls, "", int(self._member.wall_clock()), message.isLearner)

        def answer() -> bytes:
            told = rpc_pb2.Member(ID=added.id, peerURLs=added.peer_urls, isLearner=added.is_learner)
            return rpc_pb2.MemberAddResponse(
                member=told, members=self._members()
            ).SerializeToString()

        take_back = self._member.membership_changes.add(added, self._done(call, answer))
        call.on_cancel = lambda _, code: take_back(code)
        return None

    def member_remove(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberRemoveRequest -> MemberRemoveResponse."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        message = parse(rpc_pb2.MemberRemoveRequest, request)

        def answer() -> bytes:
            return rpc_pb2.MemberRemoveResponse(members=self._members()).SerializeToString()

        take_back = self._member.membership_changes.remove(message.ID, self._done(call, answer))
        call.on_cancel = lambda _, code: take_back(code)
        return None

    def member_update(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberUpdateRequest -> MemberUpdateResponse; the URLs are not looked at."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        message = parse(rpc_pb2.MemberUpdateRequest, request)

        def answer() -> bytes:
            return rpc_pb2.MemberUpdateResponse(members=self._members()).SerializeToString()

        take_back = self._member.membership_changes.update(
            message.ID, list(message.peerURLs), self._done(call, answer)
        )
        call.on_cancel = lambda _, code: take_back(code)
        return None

    def member_promote(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberPromoteRequest -> MemberPromoteResponse."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        message = parse(rpc_pb2.MemberPromoteRequest, request)

        def answer() -> bytes:
            return rpc_pb2.MemberPromoteResponse(members=self._members()).SerializeToString()

        done = self._done(call, answer)
        calls = self._member.leader_calls
        if calls is not None and not self._member.leadership.leading:
            token = call.metadata.get(b"token") or call.metadata.get(b"authorization")
            stop = calls.promote(message.ID, token.decode() if token else None, done)
            call.on_cancel = lambda _, code: stop()
        else:
            take_back = self._member.membership_changes.promote(message.ID, done)
            call.on_cancel = lambda _, code: take_back(code)
        return None

    def _done(
        self, call: UnaryCall, answer: Callable[[], bytes]
    ) -> Callable[[EtcdError | RawError | None], None]:
        def done(error: EtcdError | RawError | None) -> None:
            if error is None:
                call.respond(self._member.header(0) + answer())
            else:
                call.fail(error.code, error.text)

        return done
