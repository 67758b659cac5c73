"""Cluster: MemberList, MemberAdd, MemberRemove, MemberUpdate, MemberPromote."""

from __future__ import annotations

from keyraft.base import errors
from keyraft.base.parsing import parse
from keyraft.base.urls import URLError, parse_urls
from keyraft.grpc import Router, UnaryCall
from keyraft.proto import rpc_pb2
from keyraft.service.guard import Guard
from keyraft.service.ports import Members


class ClusterService:
    """Registered on a router."""

    def __init__(self, members: Members, guard: Guard) -> None:
        self._members = members
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

    def member_list(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberListRequest -> MemberListResponse."""
        self._guard.admit(call)
        message = parse(rpc_pb2.MemberListRequest, request)
        return self._members.list(call, message.linearizable, self._guard.who(call))

    def member_add(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberAddRequest -> MemberAddResponse."""
        self._guard.admit(call)
        message = parse(rpc_pb2.MemberAddRequest, request)
        try:
            urls = [str(url) for url in parse_urls(message.peerURLs)]
        except URLError:
            raise errors.BadPeerURLsError from None
        self._guard.check_admin(call)
        self._members.add(call, urls, message.isLearner)
        return None

    def member_remove(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberRemoveRequest -> MemberRemoveResponse."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        self._members.remove(call, parse(rpc_pb2.MemberRemoveRequest, request).ID)
        return None

    def member_update(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberUpdateRequest -> MemberUpdateResponse; the URLs are not checked."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        message = parse(rpc_pb2.MemberUpdateRequest, request)
        self._members.update(call, message.ID, list(message.peerURLs))
        return None

    def member_promote(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MemberPromoteRequest -> MemberPromoteResponse."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        self._members.promote(call, parse(rpc_pb2.MemberPromoteRequest, request).ID)
        return None
