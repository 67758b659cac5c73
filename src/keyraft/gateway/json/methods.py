"""Which path is which method, and its messages (the `google.api.http` rules of etcd 3.7).

RangeStream has no path, on purpose: etcd's `rpc.proto` says so.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message

from keyraft.gateway.json.encoding import SLOW_BYTES, result_line
from keyraft.gateway.json.fields import table_of
from keyraft.grpc import UNARY, Route, Router
from keyraft.proto import election_pb2, lock_pb2, rpc_pb2

_ETCD: Final = {
    "KV/Range": ("RangeRequest", "RangeResponse", "kv/range"),
    "KV/Put": ("PutRequest", "PutResponse", "kv/put"),
    "KV/DeleteRange": ("DeleteRangeRequest", "DeleteRangeResponse", "kv/deleterange"),
    "KV/Txn": ("TxnRequest", "TxnResponse", "kv/txn"),
    "KV/Compact": ("CompactionRequest", "CompactionResponse", "kv/compaction"),
    "Watch/Watch": ("WatchRequest", "WatchResponse", "watch"),
    "Lease/LeaseGrant": ("LeaseGrantRequest", "LeaseGrantResponse", "lease/grant"),
    "Lease/LeaseRevoke": (
        "LeaseRevokeRequest",
        "LeaseRevokeResponse",
        "lease/revoke",
        "kv/lease/revoke",
    ),
    "Lease/LeaseKeepAlive": ("LeaseKeepAliveRequest", "LeaseKeepAliveResponse", "lease/keepalive"),
    "Lease/LeaseTimeToLive": (
        "LeaseTimeToLiveRequest",
        "LeaseTimeToLiveResponse",
        "lease/timetolive",
        "kv/lease/timetolive",
    ),
    "Lease/LeaseLeases": (
        "LeaseLeasesRequest",
        "LeaseLeasesResponse",
        "lease/leases",
        "kv/lease/leases",
    ),
    "Cluster/MemberAdd": ("MemberAddRequest", "MemberAddResponse", "cluster/member/add"),
    "Cluster/MemberRemove": (
        "MemberRemoveRequest",
        "MemberRemoveResponse",
        "cluster/member/remove",
    ),
    "Cluster/MemberUpdate": (
        "MemberUpdateRequest",
        "MemberUpdateResponse",
        "cluster/member/update",
    ),
    "Cluster/MemberList": ("MemberListRequest", "MemberListResponse", "cluster/member/list"),
    "Cluster/MemberPromote": (
        "MemberPromoteRequest",
        "MemberPromoteResponse",
        "cluster/member/promote",
    ),
    "Maintenance/Alarm": ("AlarmRequest", "AlarmResponse", "maintenance/alarm"),
    "Maintenance/Status": ("StatusRequest", "StatusResponse", "maintenance/status"),
    "Maintenance/Defragment": (
        "DefragmentRequest",
        "DefragmentResponse",
        "maintenance/defragment",
    ),
    "Maintenance/Hash": ("HashRequest", "HashResponse", "maintenance/hash"),
    "Maintenance/HashKV": ("HashKVRequest", "HashKVResponse", "maintenance/hashkv"),
    "Maintenance/Snapshot": ("SnapshotRequest", "SnapshotResponse", "maintenance/snapshot"),
    "Maintenance/MoveLeader": (
        "MoveLeaderRequest",
        "MoveLeaderResponse",
        "maintenance/transfer-leadership",
    ),
    "Maintenance/Downgrade": ("DowngradeRequest", "DowngradeResponse", "maintenance/downgrade"),
    "Auth/AuthEnable": ("AuthEnableRequest", "AuthEnableResponse", "auth/enable"),
    "Auth/AuthDisable": ("AuthDisableRequest", "AuthDisableResponse", "auth/disable"),
    "Auth/AuthStatus": ("AuthStatusRequest", "AuthStatusResponse", "auth/status"),
    "Auth/Authenticate": ("AuthenticateRequest", "AuthenticateResponse", "auth/authenticate"),
    "Auth/UserAdd": ("AuthUserAddRequest", "AuthUserAddResponse", "auth/user/add"),
    "Auth/UserGet": ("AuthUserGetRequest", "AuthUserGetResponse", "auth/user/get"),
    "Auth/UserList": ("AuthUserListRequest", "AuthUserListResponse", "auth/user/list"),
    "Auth/UserDelete": ("AuthUserDeleteRequest", "AuthUserDeleteResponse", "auth/user/delete"),
    "Auth/UserChangePassword": (
        "AuthUserChangePasswordRequest",
        "AuthUserChangePasswordResponse",
        "auth/user/changepw",
    ),
    "Auth/UserGrantRole": (
        "AuthUserGrantRoleRequest",
        "AuthUserGrantRoleResponse",
        "auth/user/grant",
    ),
    "Auth/UserRevokeRole": (
        "AuthUserRevokeRoleRequest",
        "AuthUserRevokeRoleResponse",
        "auth/user/revoke",
    ),
    "Auth/RoleAdd": ("AuthRoleAddRequest", "AuthRoleAddResponse", "auth/role/add"),
    "Auth/RoleGet": ("AuthRoleGetRequest", "AuthRoleGetResponse", "auth/role/get"),
    "Auth/RoleList": ("AuthRoleListRequest", "AuthRoleListResponse", "auth/role/list"),
    "Auth/RoleDelete": ("AuthRoleDeleteRequest", "AuthRoleDeleteResponse", "auth/role/delete"),
    "Auth/RoleGrantPermission": (
        "AuthRoleGrantPermissionRequest",
        "AuthRoleGrantPermissionResponse",
        "auth/role/grant",
    ),
    "Auth/RoleRevokePermission": (
        "AuthRoleRevokePermissionRequest",
        "AuthRoleRevokePermissionResponse",
        "auth/role/revoke",
    ),
}
_LOCK: Final = {
    "Lock/Lock": ("LockRequest", "LockResponse", "lock/lock"),
    "Lock/Unlock": ("UnlockRequest", "UnlockResponse", "lock/unlock"),
}
_ELECTION: Final = {
    "Election/Campaign": ("CampaignRequest", "CampaignResponse", "election/campaign"),
    "Election/Proclaim": ("ProclaimRequest", "ProclaimResponse", "election/proclaim"),
    "Election/Leader": ("LeaderRequest", "LeaderResponse", "election/leader"),
    "Election/Observe": ("LeaderRequest", "LeaderResponse", "election/observe"),
    "Election/Resign": ("ResignRequest", "ResignResponse", "election/resign"),
}
_PACKAGES: Final = (
    ("etcdserverpb", rpc_pb2, _ETCD),
    ("v3lockpb", lock_pb2, _LOCK),
    ("v3electionpb", election_pb2, _ELECTION),
)


class Method:
    """One method of the router as the gateway calls it.

    `route` is None where the router has no such method. The last line of a stream is kept: many
    watches of one key send the same.
    """

    __slots__ = (
        "_last",
        "_line",
        "is_unary",
        "path",
        "reply",
        "reply_table",
        "request",
        "request_table",
        "route",
    )

    def __init__(
        self, path: bytes, route: Route | None, request: type[Message], reply: type[Message]
    ) -> None:
        self.path = path
        self.route = route
        self.is_unary = route is None or route.kind == UNARY  # one request, one answer
        self.request = request
        self.reply = reply
        self.request_table = table_of(request.DESCRIPTOR)
        self.reply_table = table_of(reply.DESCRIPTOR)
        self._last = self._line = b""

    def line(self, message: bytes) -> bytes:
        """A message of a stream as a line."""
        if message == self._last and message:
            return self._line
        line = result_line(self.reply, self.reply_table, message)
        if len(message) <= SLOW_BYTES:
            self._last, self._line = message, line
        return line


def methods_of(router: Router) -> dict[str, Method]:
    """Every path below `/v3/`, with its method."""
    methods: dict[str, Method] = {}
    for package, messages, table in _PACKAGES:
        for name, (request, reply, *paths) in table.items():
            path = f"/{package}.{name}".encode()
            method = Method(
                path, router.find(path), getattr(messages, request), getattr(messages, reply)
            )
            methods.update((f"/v3/{path}", method) for path in paths)
    return methods
