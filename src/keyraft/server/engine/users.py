"""Identifying callers, and requests about users and roles.

All of them go through the log, and permissions are checked at apply
(`server/apply/user_requests.py`). Passwords must not get into the log. So a new password is hashed
before its request is proposed, and at a login the password is compared before the name alone is
proposed. The comparison is valid for one auth revision; if users have changed when the entry is
applied, it is all done again (etcd `v3_server.go`, Authenticate).

DEVIATION: a permission on a range that the role already has replaces the old one. The original
looks only at the first permission with that key; if that has another range, it adds a second
permission on the same range, and the old one stays valid. All members, original ones too, must
store the same bytes for an entry, so apply cannot do otherwise. Instead the asked member proposes a
revocation of the range and the grant, one after the other in one batch. This counts as two changes
of the auth revision.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from keyraft.auth import NOBODY, Identity, TokenAheadError
from keyraft.base import errors
from keyraft.base.codes import INVALID_ARGUMENT
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.waiters import DoneWaiter, Result, Waiter
from keyraft.grpc import Call, CallContext
from keyraft.proto import raft_internal_pb2, rpc_pb2
from keyraft.server.apply import internal_request
from keyraft.server.engine.slicing import answer, when_readable
from keyraft.server.ports import Asker

if TYPE_CHECKING:
    from keyraft.server.engine.keys import Who
    from keyraft.server.member import Member

TOO_SHORT: Final = "etcdserver: password is shorter than {} characters"
ATTEMPTS_MAX: Final = 16  # of one Authenticate while users keep changing

_PASSED_ON: Final = {
    "AuthEnable": internal_request.KIND_AUTH_ENABLE,
    "AuthDisable": internal_request.KIND_AUTH_DISABLE,
    "AuthStatus": internal_request.KIND_AUTH_STATUS,
    "UserGet": internal_request.KIND_AUTH_USER_GET,
    "UserList": internal_request.KIND_AUTH_USER_LIST,
    "UserDelete": internal_request.KIND_AUTH_USER_DELETE,
    "UserGrantRole": internal_request.KIND_AUTH_USER_GRANT_ROLE,
    "UserRevokeRole": internal_request.KIND_AUTH_USER_REVOKE_ROLE,
    "RoleAdd": internal_request.KIND_AUTH_ROLE_ADD,
    "RoleGet": internal_request.KIND_AUTH_ROLE_GET,
    "RoleList": internal_request.KIND_AUTH_ROLE_LIST,
    "RoleDelete": internal_request.KIND_AUTH_ROLE_DELETE,
    "RoleRevokePermission": internal_request.KIND_AUTH_ROLE_REVOKE_PERMISSION,
}


def _ignore_revocation(_: Result) -> None:
    """Ignores the answer to the revocation: the caller gets the answer to the grant behind it."""


def _no_caller() -> Identity | None:
    """There is no caller."""
    return None


class RaftUsers:
    """`service.ports.Users` of one member."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._auth = self.rules = member.auth
        self._queue = member.queue
        self.check_admin = member.auth.check_admin
        # The last unary call that showed a known token: whole requests of one connection often come
        # many at once, and have one header.
        self._metadata: Mapping[bytes, bytes] | None = None
        self._identity: Identity | None = None
        self._may_read: Callable[[bytes], bool] | None = None
        self._began_s = 0.0
        self._grants: object = None

    def identify(self, call: CallContext) -> Identity | None:
        """See the port."""
        auth = self._auth
        if not auth.enabled:
            return None
        # A call of the same moment with the same header: its token is as good as before. What
        # takes a token away changes the users. A stream's moment is long ago.
        if (
            type(call) is Call
            and call.header.metadata is self._metadata
            and call.began_s == self._began_s
            and auth.grants is self._grants
        ):
            return self._identity
        metadata = call.metadata
        token = metadata.get(b"token")
        if token is not None:
            identity = auth.tokens.known(token, auth.revision)
            if identity is not None:
                if type(call) is Call:
                    self._metadata, self._identity = metadata, identity
                    self._began_s, self._grants = call.began_s, auth.grants
                    self._may_read = None
                return identity
        try:
            return auth.identify(call.metadata, call.common_name, self._queue.applied_index)
        except TokenAheadError as ahead:
            when = partial(self._member.await_token, ahead)
        raise errors.PostponedError(when)

    def check_read(self, call: CallContext, key: bytes) -> None:
        """See the port."""
        auth = self._auth
        if (  # as in `identify`
            type(call) is Call
            and call.header.metadata is self._metadata
            and call.began_s == self._began_s
            and auth.grants is self._grants
            and self._may_read is not None
        ):
            if self._may_read(key):
                return
            raise errors.PermissionDeniedError
        if auth.enabled:
            identity = self.identify(call) or NOBODY
            auth.check_key(identity, key)
            self._may_read = auth.reader(identity) if identity is self._identity else None

    def ask(
        self, method: str, waiter: Waiter, request: bytes, who: Who | None = None, peer: str = ""
    ) -> None:
        """See the port."""
        who = who or _no_caller
        kind = _PASSED_ON.get(method)
        if kind is not None:
            self._member.propose_for(kind, waiter, request, who())
        elif method == "Authenticate":
            _Attempt(self._member, waiter, request, peer).start()
        elif method == "RoleGrantPermission":
            self._grant_permission(waiter, request, who)
        elif method == "UserAdd":
            self._add(waiter, request, who, peer)
        else:
            assert method == "UserChangePassword", method
            self._change_password(waiter, request, who, peer)

    # --- permissions ----------------------------------------------------------------------------

    def _grant_permission(self, waiter: Waiter, request: bytes, who: Who) -> None:
        """See the module."""
        member = self._member
        message = rpc_pb2.AuthRoleGrantPermissionRequest.FromString(request)
        propose = partial(self._propose_for, who() or NOBODY)

        def grant() -> None:
            perm = message.perm
            if member.auth.accounts.holds_behind_others(message.name, perm.key, perm.range_end):
                revoke = rpc_pb2.AuthRoleRevokePermissionRequest(
                    role=message.name, key=perm.key, range_end=perm.range_end
                )
                revoked = DoneWaiter(_ignore_revocation, member.loop.time())
                propose(
                    internal_request.KIND_AUTH_ROLE_REVOKE_PERMISSION,
                    revoked,
                    revoke.SerializeToString(),
                )
                propose(internal_request.KIND_AUTH_ROLE_GRANT_PERMISSION, waiter, request)
                # Both are withdrawn, or neither: the range must not be revoked alone.
                waiter.on_cancel = lambda _, code: (
                    member.give_up(waiter, code) if member.withdraw(revoked) else None
                )
                return
            propose(internal_request.KIND_AUTH_ROLE_GRANT_PERMISSION, waiter, request)

        when_readable(member, waiter, grant)

    def _propose_for(self, caller: Identity, kind: int, waiter: Waiter, request: bytes) -> None:
        self._member.propose_for(kind, waiter, request, caller)

    # --- passwords ------------------------------------------------------------------------------

    def _add(self, waiter: Waiter, request: bytes, who: Who, peer: str) -> None:
        message = rpc_pb2.AuthUserAddRequest.FromString(request)
        kind = internal_request.KIND_AUTH_USER_ADD
        if message.options.no_password:
            message.ClearField("password")
            self._member.propose_for(kind, waiter, message.SerializeToString(), who())
        else:
            self._check_length(message.password)
            self._hash(kind, waiter, message, who, peer)

    def _check_length(self, password: str) -> None:
        """Raises RawError for a new password that is too short for this member's flag.

        DEVIATION: the original takes empty and short passwords (CVE-2020-15115); so does this
        member unless the flag is set. A change to the empty password would also take any hash that
        the request brings along.
        """
        least = self._member.settings.password_length_min
        if len(password) < least:
            raise RawError(INVALID_ARGUMENT, TOO_SHORT.format(least))

    def _change_password(self, waiter: Waiter, request: bytes, who: Who, peer: str) -> None:
        message = rpc_pb2.AuthUserChangePasswordRequest.FromString(request)
        kind = internal_request.KIND_AUTH_USER_CHANGE_PASSWORD
        self._check_length(message.password)
        if message.password:
            self._hash(kind, waiter, message, who, peer)
        else:
            self._member.propose_for(kind, waiter, request, who())

    def _hash(
        self,
        kind: int,
        waiter: Waiter,
        message: rpc_pb2.AuthUserAddRequest | rpc_pb2.AuthUserChangePasswordRequest,
        who: Who,
        peer: str,
    ) -> None:
        def hashed(text: bytes | EtcdError | RawError) -> None:
            if waiter.cancelled:
                return  # the caller has left
            if not isinstance(text, bytes):
                waiter.fail(text.code, text.text)
                return
            message.hashedPassword = base64.b64encode(text).decode()
            message.ClearField("password")
            request = message.SerializeToString()
            answer(waiter, lambda: self._member.propose_for(kind, waiter, request, who()))

        who()  # check the token first: a hash is expensive
        self._member.passwords.hash(message.password.encode(), hashed, Asker(waiter, peer))


class _Attempt:
    """One Authenticate under way: a token for name and password."""

    def __init__(self, member: Member, waiter: Waiter, request: bytes, peer: str) -> None:
        message = rpc_pb2.AuthenticateRequest.FromString(request)
        self._member = member
        self._waiter = waiter
        self._name = message.name
        self._password = message.password.encode()
        self._asker = Asker(waiter, peer, message.name)
        self._revision = 0
        self._left = ATTEMPTS_MAX

    def start(self) -> None:
        """Begins when everything that is committed now is applied here."""
        when_readable(self._member, self._waiter, self._compare)

    def _compare(self) -> None:
        member = self._member
        if self._waiter.cancelled:
            return
        self._left -= 1
        try:
            stored = member.auth.password_of(self._name)
        except errors.AuthFailedError:
            stored = member.passwords.nobody  # it takes as long to find out as for a user
        except RawError as refusal:
            self._refused(refusal.text)
            raise
        self._revision = member.auth.revision
        member.passwords.verify(self._password, stored, self._compared, self._asker)

    def _refused(self, why: str) -> None:
        self._member.logger.warn("invalid authentication was requested", user=self._name, error=why)

    def _compared(self, outcome: bool | EtcdError) -> None:
        if self._waiter.cancelled:
            return
        if outcome is True:
            answer(self._waiter, self._propose)
            return
        if outcome is False:
            outcome = errors.AuthFailedError()
            self._refused(outcome.text)
        self._waiter.fail(outcome.code, outcome.text)

    def _propose(self) -> None:
        member = self._member
        request = raft_internal_pb2.InternalAuthenticateRequest(
            name=self._name, simple_token=member.auth.tokens.prefix()
        )
        waiter = member.propose(
            internal_request.KIND_AUTHENTICATE, request.SerializeToString(), self._applied
        )
        self._waiter.on_cancel = lambda _, code: member.give_up(waiter, code)

    def _applied(self, result: Result) -> None:
        if not isinstance(result, bytes):
            self._waiter.fail(result.code, result.text)
        elif self._revision == self._member.auth.revision:
            self._waiter.respond(result)
        elif self._left:
            answer(self._waiter, self._compare)
        else:
            refusal = errors.AuthOldRevisionError
            self._waiter.fail(refusal.code, refusal.text)
