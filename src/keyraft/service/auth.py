"""Auth: users, roles, permissions, and Authenticate.

All of it goes through the log; who may ask is looked at there (`server/apply/user_requests.py`). What is done
here is what the log must not see: a password is hashed before its request is proposed, and a
password to log in with is compared before the name alone is proposed. The comparison holds for the
users as they were at one revision; if they have changed by the time the entry is applied, all is
done again (etcd `v3_server.go`, Authenticate).

DEVIATION: a permission that is granted again on a range that the role holds already takes the place
of what it held. The original looks only at the first permission with that key, adds a second one
on the same range where that is not it, and what was granted before stays. All members, original
ones too, must store the same bytes for an entry, so its meaning cannot be changed where it is
applied; instead the member that is asked proposes the revocation of the range and the grant one
behind the other in one batch. It counts as two changes of the users.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message

from keyraft.auth import NOBODY
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.base.waiters import DoneWaiter, Result, Waiter
from keyraft.grpc import Router, UnaryCall
from keyraft.proto import raft_internal_pb2, rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from keyraft.service.guard import Guard

ATTEMPTS_MAX: Final = 16  # of one Authenticate while users change all the time

_PASSED_ON: Final = {
    "AuthEnable": (internal_request.KIND_AUTH_ENABLE, rpc_pb2.AuthEnableRequest),
    "AuthDisable": (internal_request.KIND_AUTH_DISABLE, rpc_pb2.AuthDisableRequest),
    "AuthStatus": (internal_request.KIND_AUTH_STATUS, rpc_pb2.AuthStatusRequest),
    "UserGet": (internal_request.KIND_AUTH_USER_GET, rpc_pb2.AuthUserGetRequest),
    "UserList": (internal_request.KIND_AUTH_USER_LIST, rpc_pb2.AuthUserListRequest),
    "UserDelete": (internal_request.KIND_AUTH_USER_DELETE, rpc_pb2.AuthUserDeleteRequest),
    "UserGrantRole": (internal_request.KIND_AUTH_USER_GRANT_ROLE, rpc_pb2.AuthUserGrantRoleRequest),
    "UserRevokeRole": (
        internal_request.KIND_AUTH_USER_REVOKE_ROLE,
        rpc_pb2.AuthUserRevokeRoleRequest,
    ),
    "RoleAdd": (internal_request.KIND_AUTH_ROLE_ADD, rpc_pb2.AuthRoleAddRequest),
    "RoleGet": (internal_request.KIND_AUTH_ROLE_GET, rpc_pb2.AuthRoleGetRequest),
    "RoleList": (internal_request.KIND_AUTH_ROLE_LIST, rpc_pb2.AuthRoleListRequest),
    "RoleDelete": (internal_request.KIND_AUTH_ROLE_DELETE, rpc_pb2.AuthRoleDeleteRequest),
    "RoleRevokePermission": (
        internal_request.KIND_AUTH_ROLE_REVOKE_PERMISSION,
        rpc_pb2.AuthRoleRevokePermissionRequest,
    ),
}


def _told_by_the_grant(_: Result) -> None:
    """Whether the range was revoked tells nobody: the grant behind it says what the caller wants."""


class AuthService:
    """Registered on a router; one per member."""

    def __init__(self, member: Member, guard: Guard) -> None:
        self._member = member
        self._guard = guard

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        for name, (kind, message) in _PASSED_ON.items():
            router.unary(f"/etcdserverpb.Auth/{name}", self._passing_on(kind, message))
        router.unary("/etcdserverpb.Auth/Authenticate", self.authenticate)
        router.unary("/etcdserverpb.Auth/RoleGrantPermission", self.role_grant_permission)
        router.unary("/etcdserverpb.Auth/UserAdd", self.user_add)
        router.unary("/etcdserverpb.Auth/UserChangePassword", self.user_change_password)

    def _passing_on(
        self, kind: int, message: type[Message]
    ) -> Callable[[UnaryCall, bytes], bytes | None]:
        def handle(call: UnaryCall, request: bytes) -> bytes | None:
            self._guard.admit(call)
            parse(message, request)
            self._guard.propose(call, kind, request)
            return None

        return handle

    # --- permissions ----------------------------------------------------------------------------

    def role_grant_permission(self, call: UnaryCall, request: bytes) -> bytes | None:
        """AuthRoleGrantPermissionRequest -> AuthRoleGrantPermissionResponse; see the module."""
        self._guard.admit(call)
        message = parse(rpc_pb2.AuthRoleGrantPermissionRequest, request)
        member = self._member

        identity = self._guard.identify(call) or NOBODY

        def propose(waiter: Waiter, kind: int, request: bytes) -> None:
            member.propose_for(waiter, kind, request, identity.username, identity.revision)

        def grant() -> None:
            perm = message.perm
            if member.auth.accounts.holds_behind_others(message.name, perm.key, perm.range_end):
                revoke = rpc_pb2.AuthRoleRevokePermissionRequest(
                    role=message.name, key=perm.key, range_end=perm.range_end
                )
                revoked = DoneWaiter(_told_by_the_grant, member.loop.time())
                propose(
                    revoked,
                    internal_request.KIND_AUTH_ROLE_REVOKE_PERMISSION,
                    revoke.SerializeToString(),
                )
                propose(call, internal_request.KIND_AUTH_ROLE_GRANT_PERMISSION, request)
                # Both are withdrawn, or neither: a range is not to be revoked alone.
                call.on_cancel = lambda _, code: (
                    member.give_up(call, code) if member.withdraw(revoked) else None
                )
                return
            propose(call, internal_request.KIND_AUTH_ROLE_GRANT_PERMISSION, request)

        def ready(error: EtcdError | None) -> None:
            if call.cancelled:
                return
            if error is not None:
                call.fail(error.code, error.text)
            else:
                with_refusal(call, grant)

        member.read_index(ready)
        return None

    # --- passwords ------------------------------------------------------------------------------

    def user_add(self, call: UnaryCall, request: bytes) -> bytes | None:
        """AuthUserAddRequest -> AuthUserAddResponse."""
        self._guard.admit(call)
        message = parse(rpc_pb2.AuthUserAddRequest, request)
        if message.options.no_password:
            message.ClearField("password")
            self._guard.propose(
                call, internal_request.KIND_AUTH_USER_ADD, message.SerializeToString()
            )
        else:
            self._hash(call, internal_request.KIND_AUTH_USER_ADD, message)
        return None

    def user_change_password(self, call: UnaryCall, request: bytes) -> bytes | None:
        """AuthUserChangePasswordRequest -> AuthUserChangePasswordResponse."""
        self._guard.admit(call)
        message = parse(rpc_pb2.AuthUserChangePasswordRequest, request)
        if message.password:
            self._hash(call, internal_request.KIND_AUTH_USER_CHANGE_PASSWORD, message)
        else:
            self._guard.propose(call, internal_request.KIND_AUTH_USER_CHANGE_PASSWORD, request)
        return None

    def _hash(
        self,
        call: UnaryCall,
        kind: int,
        message: rpc_pb2.AuthUserAddRequest | rpc_pb2.AuthUserChangePasswordRequest,
    ) -> None:
        def hashed(text: bytes | EtcdError | RawError) -> None:
            if call.cancelled:
                return  # and nobody would hear of it
            if not isinstance(text, bytes):
                call.fail(text.code, text.text)
                return
            message.hashedPassword = base64.b64encode(text).decode()
            message.ClearField("password")
            with_refusal(call, lambda: self._guard.propose(call, kind, message.SerializeToString()))

        self._guard.identify(call)  # a bad token should not cost a hash
        self._member.passwords.hash(message.password.encode(), hashed)

    # --- tokens ---------------------------------------------------------------------------------

    def authenticate(self, call: UnaryCall, request: bytes) -> bytes | None:
        """AuthenticateRequest -> AuthenticateResponse: a token for name and password."""
        self._guard.admit(call)
        message = parse(rpc_pb2.AuthenticateRequest, request)
        attempt = _Attempt(self._member, call, message.name, message.password.encode())
        self._member.read_index(attempt.begin)
        return None


class _Attempt:
    """One Authenticate under way."""

    def __init__(self, member: Member, call: UnaryCall, name: str, password: bytes) -> None:
        self._member = member
        self._call = call
        self._name = name
        self._password = password
        self._revision = 0
        self._left = ATTEMPTS_MAX

    def begin(self, error: EtcdError | None) -> None:
        """All that is committed is applied here."""
        if error is not None:
            self._call.fail(error.code, error.text)
        else:
            with_refusal(self._call, self._compare)

    def _compare(self) -> None:
        member = self._member
        if self._call.cancelled:
            return
        self._left -= 1
        try:
            stored = member.auth.password_of(self._name)
        except (errors.AuthFailedError, RawError) as refusal:
            self._refused(refusal.text)
            raise
        self._revision = member.auth.revision
        member.passwords.verify(self._password, stored, self._compared)

    def _refused(self, why: str) -> None:
        self._member.logger.warn("invalid authentication was requested", user=self._name, error=why)

    def _compared(self, outcome: bool | EtcdError) -> None:
        if self._call.cancelled:
            return
        if outcome is True:
            with_refusal(self._call, self._propose)
            return
        if outcome is False:
            outcome = errors.AuthFailedError()
            self._refused(outcome.text)
        self._call.fail(outcome.code, outcome.text)

    def _propose(self) -> None:
        member = self._member
        request = raft_internal_pb2.InternalAuthenticateRequest(
            name=self._name, simple_token=member.auth.tokens.prefix()
        )
        waiter = member.propose(
            internal_request.KIND_AUTHENTICATE, request.SerializeToString(), self._applied
        )
        self._call.on_cancel = lambda _, code: member.give_up(waiter, code)

    def _applied(self, result: Result) -> None:
        if not isinstance(result, bytes):
            self._call.fail(result.code, result.text)
        elif self._revision == self._member.auth.revision:
            self._call.respond(result)
        elif self._left:
            with_refusal(self._call, self._compare)
        else:
            refusal = errors.AuthOldRevisionError
            self._call.fail(refusal.code, refusal.text)


def with_refusal(call: UnaryCall, work: Callable[[], None]) -> None:
    """Does something for a call outside of its handler; a refusal becomes the answer."""
    try:
        work()
    except (EtcdError, RawError) as refusal:
        call.fail(refusal.code, refusal.text)
