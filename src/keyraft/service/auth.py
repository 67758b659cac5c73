"""Auth: users, roles, permissions, Authenticate; each method is passed on to the engine.

The engine checks the caller's permissions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message

from keyraft.base.parsing import parse
from keyraft.grpc import Router, UnaryCall
from keyraft.proto import rpc_pb2
from keyraft.service.guard import Guard
from keyraft.service.ports import Users

METHODS: Final[dict[str, type[Message]]] = {
    "AuthEnable": rpc_pb2.AuthEnableRequest,
    "AuthDisable": rpc_pb2.AuthDisableRequest,
    "AuthStatus": rpc_pb2.AuthStatusRequest,
    "Authenticate": rpc_pb2.AuthenticateRequest,
    "UserAdd": rpc_pb2.AuthUserAddRequest,
    "UserGet": rpc_pb2.AuthUserGetRequest,
    "UserList": rpc_pb2.AuthUserListRequest,
    "UserDelete": rpc_pb2.AuthUserDeleteRequest,
    "UserChangePassword": rpc_pb2.AuthUserChangePasswordRequest,
    "UserGrantRole": rpc_pb2.AuthUserGrantRoleRequest,
    "UserRevokeRole": rpc_pb2.AuthUserRevokeRoleRequest,
    "RoleAdd": rpc_pb2.AuthRoleAddRequest,
    "RoleGet": rpc_pb2.AuthRoleGetRequest,
    "RoleList": rpc_pb2.AuthRoleListRequest,
    "RoleDelete": rpc_pb2.AuthRoleDeleteRequest,
    "RoleGrantPermission": rpc_pb2.AuthRoleGrantPermissionRequest,
    "RoleRevokePermission": rpc_pb2.AuthRoleRevokePermissionRequest,
}


class AuthService:
    """Registered on a router."""

    def __init__(self, users: Users, guard: Guard) -> None:
        self._users = users
        self._guard = guard

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        for method, kind in METHODS.items():
            router.unary(f"/etcdserverpb.Auth/{method}", self._asking(method, kind))

    def _asking(
        self, method: str, kind: type[Message]
    ) -> Callable[[UnaryCall, bytes], bytes | None]:
        def handle(call: UnaryCall, request: bytes) -> bytes | None:
            self._guard.admit(call)
            parse(kind, request)
            self._users.ask(method, call, request, self._guard.who(call), call.peer)
            return None

        return handle
