"""Adding, changing and deleting users and roles: the answer to each request, or its refusal.

Permissions of the caller were checked before (`server/apply/user_requests.py`). The order of the
checks is the original's, because a client sees the first refusal.

Source: etcd `server/auth/store.go`.

DEVIATION: permissions on the same key keep the order they were granted in. The original sorts
unstably, beyond twelve permissions of a role today and beyond six when 3.5.1 was compiled.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator
from operator import attrgetter
from typing import Final, Protocol

from keyraft.auth.ranges import OPEN_END, is_valid
from keyraft.auth.records import Records
from keyraft.auth.tokens import TokenProvider
from keyraft.base import errors
from keyraft.base.errors import RawError
from keyraft.mvcc.backend import AUTH_ROLES, AUTH_USERS
from keyraft.mvcc.wire import field
from keyraft.proto import auth_pb2, rpc_pb2

Steps = Generator[None, None, bytes]
"""A request that looks at all users or roles, some a step; the value is its answer without header."""

_KEY: Final = attrgetter("key")

ROOT: Final = "root"
"""The name of the user, and of the role, that may do everything."""

NO_PASSWORD_USER: Final = (
    2,
    "auth: authentication failed, password was given for no password user",
)


class AccountStore(Protocol):
    """The store that the accounts are part of."""

    records: Records
    tokens: TokenProvider
    enabled: bool

    def changed(self) -> None:
        """Users or roles were changed: counts a revision, and permissions are looked up anew."""

    def lessened(self, username: str | None) -> None:
        """After `changed`: a user, or None for anybody, may do less than before."""


class Accounts:
    """The changes that apply makes. Raises errors of `base.errors` before anything is changed."""

    def __init__(self, store: AccountStore, hash_password: Callable[[bytes], bytes]) -> None:
        self._store = store
        self._hash_password = hash_password

    # --- users ----------------------------------------------------------------------------------

    def user_add(self, request: rpc_pb2.AuthUserAddRequest) -> rpc_pb2.AuthUserAddResponse:
        """A user without roles. Raises UserEmptyError, UserExistsError."""
        if not request.name:
            raise errors.UserEmptyError
        if self._store.records.user(request.name) is not None:
            raise errors.UserExistsError
        user = auth_pb2.User(name=request.name.encode(), options=request.options)
        if not request.options.no_password:
            user.password = self._password(request.password, request.hashedPassword)
        self._store.records.put_user(user)
        self._store.changed()
        return rpc_pb2.AuthUserAddResponse()

    def user_delete(self, request: rpc_pb2.AuthUserDeleteRequest) -> rpc_pb2.AuthUserDeleteResponse:
        """Deletes a user; root cannot be deleted while authentication is on."""
        if self._store.enabled and request.name == ROOT:
            raise errors.InvalidAuthManagementError
        self._find_user(request.name)
        self._store.records.delete_user(request.name)
        self._store.changed()
        self._store.tokens.forget(request.name)
        self._store.lessened(request.name)
        return rpc_pb2.AuthUserDeleteResponse()

    def user_change_password(
        self, request: rpc_pb2.AuthUserChangePasswordRequest
    ) -> rpc_pb2.AuthUserChangePasswordResponse:
        """Stores a new hash; a user without password keeps none."""
        user = self._find_user(request.name)
        if user.options.no_password:
            user.ClearField("password")
        else:
            user.password = self._password(request.password, request.hashedPassword)
        self._store.records.put_user(user)
        self._store.changed()
        self._store.tokens.forget(request.name)
        return rpc_pb2.AuthUserChangePasswordResponse()

    def user_get(self, request: rpc_pb2.AuthUserGetRequest) -> rpc_pb2.AuthUserGetResponse:
        """A user's roles."""
        return rpc_pb2.AuthUserGetResponse(roles=self._find_user(request.name).roles)

    def user_list(self, request: rpc_pb2.AuthUserListRequest) -> Steps:
        """All names."""
        return self._names(AUTH_USERS)

    def user_grant_role(
        self, request: rpc_pb2.AuthUserGrantRoleRequest
    ) -> rpc_pb2.AuthUserGrantRoleResponse:
        """Adds a role, which must exist unless it is root, to a user who may have it already."""
        user = self._find_user(request.user)
        if request.role != ROOT:
            self._find_role(request.role)
        if request.role not in user.roles:
            roles = sorted([*user.roles, request.role])
            del user.roles[:]
            user.roles.extend(roles)
            self._store.records.put_user(user)
            self._store.changed()
        return rpc_pb2.AuthUserGrantRoleResponse()

    def user_revoke_role(
        self, request: rpc_pb2.AuthUserRevokeRoleRequest
    ) -> rpc_pb2.AuthUserRevokeRoleResponse:
        """Takes a role from a user. Raises RoleNotGrantedError."""
        if self._store.enabled and request.name == ROOT and request.role == ROOT:
            raise errors.InvalidAuthManagementError
        user = self._find_user(request.name)
        if request.role not in user.roles:
            raise errors.RoleNotGrantedError
        _take_role(user, request.role)
        self._store.records.put_user(user)
        self._store.changed()
        self._store.lessened(request.name)
        return rpc_pb2.AuthUserRevokeRoleResponse()

    # --- roles ----------------------------------------------------------------------------------

    def role_add(self, request: rpc_pb2.AuthRoleAddRequest) -> rpc_pb2.AuthRoleAddResponse:
        """A role without permissions. Raises RoleEmptyError, RoleExistsError."""
        if not request.name:
            raise errors.RoleEmptyError
        if self._store.records.role(request.name) is not None:
            raise errors.RoleExistsError
        self._store.records.put_role(auth_pb2.Role(name=request.name.encode()))
        self._store.changed()
        return rpc_pb2.AuthRoleAddResponse()

    def role_delete(self, request: rpc_pb2.AuthRoleDeleteRequest) -> Steps:
        """Deletes a role, also from all users; not role root while authentication is on.

        In steps, of which only the last counts as a change: whose permissions are known keeps them
        until then.
        """
        if self._store.enabled and request.role == ROOT:
            raise errors.InvalidAuthManagementError
        self._find_role(request.role)
        self._store.records.delete_role(request.role)
        for number, users in enumerate(self._store.records.users()):
            if number:
                yield
            for user in users:
                if request.role in user.roles:
                    _take_role(user, request.role)
                    self._store.records.put_user(user)
        self._store.changed()
        self._store.lessened(None)
        return b""

    def role_get(self, request: rpc_pb2.AuthRoleGetRequest) -> rpc_pb2.AuthRoleGetResponse:
        """A role's permissions; for root one permission on all keys."""
        role = self._find_role(request.role)
        answer = rpc_pb2.AuthRoleGetResponse()
        if request.role == ROOT:
            answer.perm.add(permType=auth_pb2.Permission.READWRITE, range_end=OPEN_END)
        else:
            answer.perm.extend(role.keyPermission)
        return answer

    def role_list(self, request: rpc_pb2.AuthRoleListRequest) -> Steps:
        """All names."""
        return self._names(AUTH_ROLES)

    def _names(self, bucket: bytes) -> Steps:
        out: list[bytes] = []
        for names in self._store.records.names(bucket):
            if out:
                yield
            out += [field(b"\x12", name) for name in names]  # AuthUserListResponse.users, or .roles
        return b"".join(out)

    def role_grant_permission(
        self, request: rpc_pb2.AuthRoleGrantPermissionRequest
    ) -> rpc_pb2.AuthRoleGrantPermissionResponse:
        """Adds a permission, or changes its type if the first one with that key has its range."""
        if not request.HasField("perm"):
            raise errors.PermissionNotGivenError
        granted = request.perm
        if not is_valid(granted.key, granted.range_end):
            raise errors.InvalidAuthManagementError
        role = self._find_role(request.name)
        permissions = role.keyPermission  # by their keys
        at = bisect_left(permissions, granted.key, key=_KEY)
        held = permissions[at] if at < len(permissions) else None
        if held is not None and (held.key, held.range_end) == (granted.key, granted.range_end):
            less = granted.permType not in (held.permType, auth_pb2.Permission.READWRITE)
            held.permType = granted.permType
        else:
            less = False
            new = auth_pb2.Permission(
                permType=granted.permType, key=granted.key, range_end=granted.range_end
            )
            permissions.insert(bisect_right(permissions, granted.key, at, key=_KEY), new)
        self._store.records.put_role(role)
        self._store.changed()
        if less:
            self._store.lessened(None)
        return rpc_pb2.AuthRoleGrantPermissionResponse()

    def holds_behind_others(self, name: str, key: bytes, range_end: bytes) -> bool:
        """Whether a role has a permission on exactly this range that `role_grant_permission` would
        leave as it is: not the first one with its key."""
        role = self._store.records.role(name)
        if role is None:
            return False
        return any(role.keyPermission[at].range_end == range_end for at in _places(role, key)[1:])

    def role_revoke_permission(
        self, request: rpc_pb2.AuthRoleRevokePermissionRequest
    ) -> rpc_pb2.AuthRoleRevokePermissionResponse:
        """Removes every permission on exactly this range. Raises PermissionNotGrantedError."""
        role = self._find_role(request.role)
        permissions = role.keyPermission
        end = request.range_end
        gone = [at for at in _places(role, request.key) if permissions[at].range_end == end]
        if not gone:
            raise errors.PermissionNotGrantedError
        for at in reversed(gone):
            del permissions[at]
        self._store.records.put_role(role)
        self._store.changed()
        self._store.lessened(None)
        return rpc_pb2.AuthRoleRevokePermissionResponse()

    # --- inside ---------------------------------------------------------------------------------

    def _find_user(self, name: str) -> auth_pb2.User:
        user = self._store.records.user(name)
        if user is None:
            raise errors.UserNotFoundError
        return user

    def _find_role(self, name: str) -> auth_pb2.Role:
        role = self._store.records.role(name)
        if role is None:
            raise errors.RoleNotFoundError
        return role

    def _password(self, plain: str, hashed: str) -> bytes:
        """The hash that is stored, which the proposer made."""
        if plain and not hashed:
            return self._hash_password(plain.encode())
        try:
            text = hashed.replace("\r", "").replace("\n", "")
            return base64.b64decode(text.encode("ascii"), validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise RawError(*NO_PASSWORD_USER) from None


def _places(role: auth_pb2.Role, key: bytes) -> range:
    """Where a role's permissions on this key stand: they are in the order of their keys."""
    permissions = role.keyPermission
    first = bisect_left(permissions, key, key=_KEY)
    return range(first, bisect_right(permissions, key, first, key=_KEY))


def _take_role(user: auth_pb2.User, role: str) -> None:
    kept = [each for each in user.roles if each != role]
    del user.roles[:]
    user.roles.extend(kept)
