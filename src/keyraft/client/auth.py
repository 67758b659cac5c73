"""Users, roles and permissions."""

from __future__ import annotations

from typing import Final, Literal

from keyraft.client.calls import AUTHENTICATE, Calls
from keyraft.client.requests import Bytes, key_range
from keyraft.proto.lazy import auth_pb2, rpc_pb2

Access = Literal["read", "write", "readwrite"]

_SERVICE: Final = b"/etcdserverpb.Auth/"
_TYPES: Final = {"read": "READ", "write": "WRITE", "readwrite": "READWRITE"}


class Auth:
    """The authentication calls of a client.

    Names are text. Every call takes `timeout_s` (None: the client's default, 0: none).
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def authenticate(
        self, user: str, password: str, *, timeout_s: float | None = None
    ) -> rpc_pb2.AuthenticateResponse:
        """A token for `user`; a client that was given user and password does this itself."""
        request = rpc_pb2.AuthenticateRequest(name=user, password=password)
        return rpc_pb2.AuthenticateResponse.FromString(
            await self._calls.read(AUTHENTICATE, request.SerializeToString(), timeout_s)
        )

    async def enable(self, *, timeout_s: float | None = None) -> rpc_pb2.AuthEnableResponse:
        """Turns authentication on: every call needs a user. User root with role root must exist."""
        return rpc_pb2.AuthEnableResponse.FromString(
            await self._calls.write(_SERVICE + b"AuthEnable", b"", timeout_s)
        )

    async def disable(self, *, timeout_s: float | None = None) -> rpc_pb2.AuthDisableResponse:
        """No call needs a user any more."""
        return rpc_pb2.AuthDisableResponse.FromString(
            await self._calls.write(_SERVICE + b"AuthDisable", b"", timeout_s)
        )

    async def status(self, *, timeout_s: float | None = None) -> rpc_pb2.AuthStatusResponse:
        """Whether users are needed, and the revision of the auth store."""
        return rpc_pb2.AuthStatusResponse.FromString(
            await self._calls.read(_SERVICE + b"AuthStatus", b"", timeout_s)
        )

    async def user_add(
        self,
        user: str,
        password: str = "",
        *,
        no_password: bool = False,
        timeout_s: float | None = None,
    ) -> rpc_pb2.AuthUserAddResponse:
        """Adds a user; one without password can only be identified by a certificate."""
        request = rpc_pb2.AuthUserAddRequest(
            name=user, password=password, options={"no_password": no_password}
        )
        return rpc_pb2.AuthUserAddResponse.FromString(
            await self._calls.write(_SERVICE + b"UserAdd", request.SerializeToString(), timeout_s)
        )

    async def user_delete(
        self, user: str, *, timeout_s: float | None = None
    ) -> rpc_pb2.AuthUserDeleteResponse:
        """Deletes a user."""
        request = rpc_pb2.AuthUserDeleteRequest(name=user)
        return rpc_pb2.AuthUserDeleteResponse.FromString(
            await self._calls.write(
                _SERVICE + b"UserDelete", request.SerializeToString(), timeout_s
            )
        )

    async def user_change_password(
        self, user: str, password: str, *, timeout_s: float | None = None
    ) -> rpc_pb2.AuthUserChangePasswordResponse:
        """Sets a user's password."""
        request = rpc_pb2.AuthUserChangePasswordRequest(name=user, password=password)
        return rpc_pb2.AuthUserChangePasswordResponse.FromString(
            await self._calls.write(
                _SERVICE + b"UserChangePassword", request.SerializeToString(), timeout_s
            )
        )

    async def user_get(
        self, user: str, *, timeout_s: float | None = None
    ) -> rpc_pb2.AuthUserGetResponse:
        """The roles of a user."""
        request = rpc_pb2.AuthUserGetRequest(name=user)
        return rpc_pb2.AuthUserGetResponse.FromString(
            await self._calls.read(_SERVICE + b"UserGet", request.SerializeToString(), timeout_s)
        )

    async def users(self, *, timeout_s: float | None = None) -> rpc_pb2.AuthUserListResponse:
        """The names of all users."""
        return rpc_pb2.AuthUserListResponse.FromString(
            await self._calls.read(_SERVICE + b"UserList", b"", timeout_s)
        )

    async def user_grant_role(
        self, user: str, role: str, *, timeout_s: float | None = None
    ) -> rpc_pb2.AuthUserGrantRoleResponse:
        """Gives a role to a user."""
        request = rpc_pb2.AuthUserGrantRoleRequest(user=user, role=role)
        return rpc_pb2.AuthUserGrantRoleResponse.FromString(
            await self._calls.write(
                _SERVICE + b"UserGrantRole", request.SerializeToString(), timeout_s
            )
        )

    async def user_revoke_role(
        self, user: str, role: str, *, timeout_s: float | None = None
    ) -> rpc_pb2.AuthUserRevokeRoleResponse:
        """Takes a role from a user."""
        request = rpc_pb2.AuthUserRevokeRoleRequest(name=user, role=role)
        return rpc_pb2.AuthUserRevokeRoleResponse.FromString(
            await self._calls.write(
                _SERVICE + b"UserRevokeRole", request.SerializeToString(), timeout_s
            )
        )

    async def role_add(
        self, role: str, *, timeout_s: float | None = None
    ) -> rpc_pb2.AuthRoleAddResponse:
        """Adds a role without permissions."""
        request = rpc_pb2.AuthRoleAddRequest(name=role)
        return rpc_pb2.AuthRoleAddResponse.FromString(
            await self._calls.write(_SERVICE + b"RoleAdd", request.SerializeToString(), timeout_s)
        )

    async def role_delete(
        self, role: str, *, timeout_s: float | None = None
    ) -> rpc_pb2.AuthRoleDeleteResponse:
        """Deletes a role, also from the users that have it."""
        request = rpc_pb2.AuthRoleDeleteRequest(role=role)
        return rpc_pb2.AuthRoleDeleteResponse.FromString(
            await self._calls.write(
                _SERVICE + b"RoleDelete", request.SerializeToString(), timeout_s
            )
        )

    async def role_get(
        self, role: str, *, timeout_s: float | None = None
    ) -> rpc_pb2.AuthRoleGetResponse:
        """The permissions of a role."""
        request = rpc_pb2.AuthRoleGetRequest(role=role)
        return rpc_pb2.AuthRoleGetResponse.FromString(
            await self._calls.read(_SERVICE + b"RoleGet", request.SerializeToString(), timeout_s)
        )

    async def roles(self, *, timeout_s: float | None = None) -> rpc_pb2.AuthRoleListResponse:
        """The names of all roles."""
        return rpc_pb2.AuthRoleListResponse.FromString(
            await self._calls.read(_SERVICE + b"RoleList", b"", timeout_s)
        )

    async def role_grant(
        self,
        role: str,
        access: Access,
        key: Bytes,
        range_end: Bytes | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        timeout_s: float | None = None,
    ) -> rpc_pb2.AuthRoleGrantPermissionResponse:
        """Permits `access` to a key or range."""
        start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
        permission = auth_pb2.Permission(permType=_TYPES[access], key=start, range_end=end)
        request = rpc_pb2.AuthRoleGrantPermissionRequest(name=role, perm=permission)
        return rpc_pb2.AuthRoleGrantPermissionResponse.FromString(
            await self._calls.write(
                _SERVICE + b"RoleGrantPermission", request.SerializeToString(), timeout_s
            )
        )

    async def role_revoke(
        self,
        role: str,
        key: Bytes,
        range_end: Bytes | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        timeout_s: float | None = None,
    ) -> rpc_pb2.AuthRoleRevokePermissionResponse:
        """Takes back exactly the permission that was given for this key or range."""
        start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
        request = rpc_pb2.AuthRoleRevokePermissionRequest(role=role, key=start, range_end=end)
        return rpc_pb2.AuthRoleRevokePermissionResponse.FromString(
            await self._calls.write(
                _SERVICE + b"RoleRevokePermission", request.SerializeToString(), timeout_s
            )
        )
