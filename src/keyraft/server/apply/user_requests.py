"""Requests about users and roles, as apply carries them out.

Each kind of request has a message, a method of `auth.Accounts` and a rule who may use it: root, the
user itself (UserGet), a holder of the role (RoleGet), or anybody (AuthStatus, Authenticate). The
root role is checked as of the moment when the entry is applied, not of the revision at which the
caller was identified. So two administrators can work at the same time.

Source: etcd `server/etcdserver/apply/auth.go` (needAdminPermission).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from google.protobuf.message import Message

from keyraft.auth import NOBODY, Accounts, AuthStore, Identity
from keyraft.base.errors import EtcdError
from keyraft.base.log import Logger
from keyraft.base.parsing import parse
from keyraft.cluster import Version, VersionError, parse_version
from keyraft.proto import raft_internal_pb2, rpc_pb2
from keyraft.server.apply import internal_request
from keyraft.server.ports import Network, UnknownRequestError

Steps = Generator[None, None, bytes]
"""A request that looks at all users or roles; the value is its response without the header."""

_BY_ROOT: Final[
    dict[int, tuple[type[Message], Callable[[Accounts, Any], Message | Steps], str]]
] = {
    internal_request.KIND_AUTH_USER_ADD: (
        rpc_pb2.AuthUserAddRequest,
        Accounts.user_add,
        "added a user",
    ),
    internal_request.KIND_AUTH_USER_DELETE: (
        rpc_pb2.AuthUserDeleteRequest,
        Accounts.user_delete,
        "deleted a user",
    ),
    internal_request.KIND_AUTH_USER_CHANGE_PASSWORD: (
        rpc_pb2.AuthUserChangePasswordRequest,
        Accounts.user_change_password,
        "changed a password of a user",
    ),
    internal_request.KIND_AUTH_USER_GRANT_ROLE: (
        rpc_pb2.AuthUserGrantRoleRequest,
        Accounts.user_grant_role,
        "granted a role to a user",
    ),
    internal_request.KIND_AUTH_USER_REVOKE_ROLE: (
        rpc_pb2.AuthUserRevokeRoleRequest,
        Accounts.user_revoke_role,
        "revoked a role from a user",
    ),
    internal_request.KIND_AUTH_USER_LIST: (rpc_pb2.AuthUserListRequest, Accounts.user_list, ""),
    internal_request.KIND_AUTH_ROLE_ADD: (
        rpc_pb2.AuthRoleAddRequest,
        Accounts.role_add,
        "created a role",
    ),
    internal_request.KIND_AUTH_ROLE_DELETE: (
        rpc_pb2.AuthRoleDeleteRequest,
        Accounts.role_delete,
        "deleted a role",
    ),
    internal_request.KIND_AUTH_ROLE_LIST: (rpc_pb2.AuthRoleListRequest, Accounts.role_list, ""),
    internal_request.KIND_AUTH_ROLE_GRANT_PERMISSION: (
        rpc_pb2.AuthRoleGrantPermissionRequest,
        Accounts.role_grant_permission,
        "granted/updated a permission to a user",
    ),
    internal_request.KIND_AUTH_ROLE_REVOKE_PERMISSION: (
        rpc_pb2.AuthRoleRevokePermissionRequest,
        Accounts.role_revoke_permission,
        "revoked a permission on range",
    ),
}
_LOGGED: Final = ("name", "user", "role")
_FIRST_TO_NUMBER_TOKENS_BEFORE_THEM: Final = Version(3, 5, 3)


class UserRequests:
    """Applies them to one member's users. Owned by the member's loop."""

    def __init__(self, auth: AuthStore, network: Network, logger: Logger) -> None:
        self._auth = auth
        self._network = network
        self._logger = logger

    def apply(
        self, kind: int, request: bytes, identity: Identity | None, index: int, wanted: bool
    ) -> bytes | Steps:
        """The response without its header, or the steps that lead to it. `identity` is None while authentication is off.

        `wanted`: a client of this member waits for the answer. Raises UnknownRequestError.
        """
        auth = self._auth
        who = identity or NOBODY
        found = _BY_ROOT.get(kind)
        if found is not None:
            message, method, said = found
            auth.check_admin(who)
            asked = parse(message, request)
            outcome = method(auth.accounts, asked)
            if not isinstance(outcome, Message):
                return self._told(outcome, said, asked)
            answer = outcome
            if said:
                self._say(said, asked)
        elif kind == internal_request.KIND_AUTHENTICATE:
            asked_for = parse(raft_internal_pb2.InternalAuthenticateRequest, request)
            by_entry = wanted and self._has_old_member()
            answer = auth.authenticate(asked_for, index, wanted, by_entry=by_entry)
        elif kind == internal_request.KIND_AUTH_STATUS:
            answer = rpc_pb2.AuthStatusResponse(enabled=auth.enabled, authRevision=auth.revision)
        elif kind == internal_request.KIND_AUTH_USER_GET:
            answer = self._user_get(parse(rpc_pb2.AuthUserGetRequest, request), who)
        elif kind == internal_request.KIND_AUTH_ROLE_GET:
            answer = self._role_get(parse(rpc_pb2.AuthRoleGetRequest, request), who)
        elif kind == internal_request.KIND_AUTH_ENABLE:
            auth.check_admin(who)
            auth.enable()
            self._logger.info("enabled authentication")
            answer = rpc_pb2.AuthEnableResponse()
        elif kind == internal_request.KIND_AUTH_DISABLE:
            auth.check_admin(who)
            auth.disable()
            self._logger.info("disabled authentication")
            answer = rpc_pb2.AuthDisableResponse()
        else:
            raise UnknownRequestError(kind)
        return answer.SerializeToString()

    def _told(self, steps: Steps, said: str, request: Message) -> Steps:
        """Steps whose end is told."""
        answer = yield from steps
        if said:
            self._say(said, request)
        return answer

    def _has_old_member(self) -> bool:
        """Whether some member knows tokens by the entry's own index."""
        for text in self._network.last_versions():
            try:
                version = parse_version(text)
            except VersionError:
                continue
            if version.is_below(_FIRST_TO_NUMBER_TOKENS_BEFORE_THEM):
                return True
        return False

    def _user_get(self, request: rpc_pb2.AuthUserGetRequest, who: Identity) -> Message:
        try:
            self._auth.check_admin(who)
        except EtcdError:
            if request.name.encode() != who.username:
                raise
        return self._auth.accounts.user_get(request)

    def _role_get(self, request: rpc_pb2.AuthRoleGetRequest, who: Identity) -> Message:
        try:
            self._auth.check_admin(who)
        except EtcdError:
            if not self._auth.has_role(who, request.role):
                raise
        return self._auth.accounts.role_get(request)

    def _say(self, what: str, request: Message) -> None:
        fields = {
            f"{name}": getattr(request, name)
            for name in _LOGGED
            if name in request.DESCRIPTOR.fields_by_name
        }
        self._logger.info(what, **fields)
