"""Methods of which nothing need be understood: requests and answers go on as bytes.

`READS` may be carried out twice (etcd `client/v3/retry.go` names them), the others may not.
Source: etcd `server/proxy/grpcproxy/{auth,maintenance,lock,election,cluster,lease}.go`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from keyraft.base.errors import RawError
from keyraft.grpc import SERVER_STREAM, Router, ServerStream, StreamHandler, UnaryCall, status
from keyraft.proxy.grpcproxy.upstream import Piped, Upstream

READS: Final = (
    "/etcdserverpb.Auth/AuthStatus",
    "/etcdserverpb.Auth/RoleGet",
    "/etcdserverpb.Auth/RoleList",
    "/etcdserverpb.Auth/UserGet",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/Status",
    "/v3electionpb.Election/Leader",
)
WRITES: Final = (
    "/etcdserverpb.Auth/AuthDisable",
    "/etcdserverpb.Auth/Authenticate",
    "/etcdserverpb.Auth/RoleAdd",
    "/etcdserverpb.Auth/RoleDelete",
    "/etcdserverpb.Auth/RoleGrantPermission",
    "/etcdserverpb.Auth/RoleRevokePermission",
    "/etcdserverpb.Auth/UserAdd",
    "/etcdserverpb.Auth/UserChangePassword",
    "/etcdserverpb.Auth/UserDelete",
    "/etcdserverpb.Auth/UserGrantRole",
    "/etcdserverpb.Auth/UserRevokeRole",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Defragment",
    "/etcdserverpb.Maintenance/Downgrade",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/v3electionpb.Election/Campaign",
    "/v3electionpb.Election/Proclaim",
    "/v3electionpb.Election/Resign",
    "/v3lockpb.Lock/Lock",
    "/v3lockpb.Lock/Unlock",
)
AUTH_ENABLE: Final = "/etcdserverpb.Auth/AuthEnable"
STREAMS: Final = (
    "/etcdserverpb.Maintenance/Snapshot",
    "/v3electionpb.Election/Observe",
)


def register(router: Router, upstream: Upstream, users_on: Callable[[], None]) -> None:
    """Makes them callable; `users_on` is called when users may have been switched on."""
    for path in READS:
        _pass_on(router, upstream, path, safe=True)
    for path in WRITES:
        _pass_on(router, upstream, path, safe=False)
    for path in STREAMS:
        _pipe(router, upstream, path)
    _pass_on(router, upstream, AUTH_ENABLE, safe=False, after=users_on)
    router.unary("/etcdserverpb.Cluster/MemberPromote", _promote)
    router.stream("/etcdserverpb.KV/RangeStream", _range_stream, kind=SERVER_STREAM)


def _pass_on(
    router: Router,
    upstream: Upstream,
    path: str,
    safe: bool,
    after: Callable[[], None] | None = None,
) -> None:
    method = path.encode()

    def handle(call: UnaryCall, request: bytes) -> None:
        if after is None:
            upstream.ask(call, method, request, safe)
        else:
            upstream.ask_for(call, method, request, safe, partial(_told, call, after))

    router.unary(path, handle)


def _told(call: UnaryCall, after: Callable[[], None], code: int, text: str, reply: bytes) -> None:
    call.on_cancel = None
    after()
    if code:
        call.fail(code, text)
    else:
        call.respond(reply)


def _pipe(router: Router, upstream: Upstream, path: str) -> None:
    method = path.encode()

    def begin(stream: ServerStream) -> StreamHandler:
        return Piped(upstream, method, stream)

    router.stream(path, begin, kind=SERVER_STREAM)


def _promote(call: UnaryCall, request: bytes) -> None:
    raise RawError(status.UNKNOWN, "not implemented")


def _range_stream(stream: ServerStream) -> StreamHandler:
    raise RawError(status.UNIMPLEMENTED, "RangeStream is not supported by the gRPC proxy")
