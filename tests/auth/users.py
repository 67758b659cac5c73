"""A seeded generator of what users and administrators do, for two servers in step.

Names, passwords and keys come from small pools, so that operations meet: users are added twice,
roles are revoked that nobody has, permissions overlap and nest. Who asks is drawn too: nobody, a
user with a token, a user whose token has been forgotten, or one who never was.

Left out is what the original has changed since 3.5.1 in a way that makes two servers drift apart:
empty and inverted permission ranges, leases and nested transactions inside of transactions, leases
of nobody, tokens while authentication is off; and what depends on its sort or its tree: roles with
many permissions on the same key, ranges that end before they begin. Those have tests of their own.
"""

from __future__ import annotations

from random import Random
from typing import Final

from google.protobuf.message import Message

from keyraft.proto import auth_pb2, rpc_pb2
from tests.differential.operations import KV, LEASE, Operation

AUTH: Final = "/etcdserverpb.Auth/"
USERS: Final = ("root", "alice", "bob", "carol", "größe", "x" * 600, "")
ROLES: Final = ("root", "r1", "r2", "r3", "ролл", "y" * 600, "")
PASSWORDS: Final = ("pw", "other", "", "ü" * 20)
KEYS: Final = (b"a", b"b", b"b\x00", b"c", b"cc", b"d", b"\x00", b"\xff", b"e/1", b"e/2")
ENDS: Final = (b"", b"\x00", b"b", b"b\x00", b"c", b"d", b"e/", b"f", b"\xff\xff")
SAME_KEY_ROLE: Final = "r3"  # its permissions are all on one key
SAME_KEY: Final = b"b"
LEASES: Final = (0x7700, 0x7701)

RESPONSES: Final[dict[str, type[Message]]] = {
    AUTH + "AuthEnable": rpc_pb2.AuthEnableResponse,
    AUTH + "AuthDisable": rpc_pb2.AuthDisableResponse,
    AUTH + "AuthStatus": rpc_pb2.AuthStatusResponse,
    AUTH + "Authenticate": rpc_pb2.AuthenticateResponse,
    AUTH + "UserAdd": rpc_pb2.AuthUserAddResponse,
    AUTH + "UserGet": rpc_pb2.AuthUserGetResponse,
    AUTH + "UserList": rpc_pb2.AuthUserListResponse,
    AUTH + "UserDelete": rpc_pb2.AuthUserDeleteResponse,
    AUTH + "UserChangePassword": rpc_pb2.AuthUserChangePasswordResponse,
    AUTH + "UserGrantRole": rpc_pb2.AuthUserGrantRoleResponse,
    AUTH + "UserRevokeRole": rpc_pb2.AuthUserRevokeRoleResponse,
    AUTH + "RoleAdd": rpc_pb2.AuthRoleAddResponse,
    AUTH + "RoleGet": rpc_pb2.AuthRoleGetResponse,
    AUTH + "RoleList": rpc_pb2.AuthRoleListResponse,
    AUTH + "RoleDelete": rpc_pb2.AuthRoleDeleteResponse,
    AUTH + "RoleGrantPermission": rpc_pb2.AuthRoleGrantPermissionResponse,
    AUTH + "RoleRevokePermission": rpc_pb2.AuthRoleRevokePermissionResponse,
}


def operation(method: str, message: Message) -> Operation:
    """A request with its bytes."""
    return Operation(method, message.SerializeToString(), message)


class Generator:
    """Makes operations; the answers decide nothing but who has which token."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self._makers = (
            (30, self._user_add),
            (8, self._user_delete),
            (8, self._change_password),
            (40, self._grant_role),
            (45, self._revoke_role),
            (25, self._role_add),
            (6, self._role_delete),
            (60, self._grant_permission),
            (20, self._revoke_permission),
            (20, self._look),
            (60, self._authenticate),
            (4, self._disable),
            (150, self._put),
            (200, self._range),
            (60, self._delete),
            (100, self._txn),
            (20, self._lease),
        )

    def setting_up(self) -> list[Operation]:
        """What makes it possible to enable authentication, then does."""
        root = rpc_pb2.AuthUserAddRequest(name="root", password="pw")
        return [
            operation(AUTH + "UserAdd", root),
            operation(AUTH + "RoleAdd", rpc_pb2.AuthRoleAddRequest(name="root")),
            operation(
                AUTH + "UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")
            ),
            operation(AUTH + "AuthEnable", rpc_pb2.AuthEnableRequest()),
        ]

    def next(self) -> Operation:
        """The next operation."""
        (maker,) = self.random.choices(
            [maker for _, maker in self._makers], [weight for weight, _ in self._makers]
        )
        return maker()

    def caller(self) -> str | None:
        """Who asks: mostly root or alice; None is nobody."""
        (name,) = self.random.choices(
            ("root", "alice", "bob", "carol", "größe", None, "stranger"),
            (40, 30, 12, 8, 4, 5, 1),
        )
        return name

    # --- what is asked --------------------------------------------------------------------------

    def _pick(self, names: tuple[str, ...]) -> str:
        weights = [12] * (len(names) - 2) + [2, 1]
        return self.random.choices(names, weights)[0]

    def _user_add(self) -> Operation:
        request = rpc_pb2.AuthUserAddRequest(
            name=self._pick(USERS), password=self.random.choice(PASSWORDS)
        )
        if self.random.random() < 0.2:
            request.options.no_password = True
        elif self.random.random() < 0.3:
            request.options.no_password = False
        return operation(AUTH + "UserAdd", request)

    def _user_delete(self) -> Operation:
        request = rpc_pb2.AuthUserDeleteRequest(name=self._pick(USERS))
        return operation(AUTH + "UserDelete", request)

    def _change_password(self) -> Operation:
        name = self._pick(USERS[1:])
        password = self.random.choice(PASSWORDS)
        request = rpc_pb2.AuthUserChangePasswordRequest(name=name, password=password)
        return operation(AUTH + "UserChangePassword", request)

    def _grant_role(self) -> Operation:
        request = rpc_pb2.AuthUserGrantRoleRequest(user=self._pick(USERS), role=self._role())
        return operation(AUTH + "UserGrantRole", request)

    def _role(self) -> str:
        return "root" if self.random.random() < 0.03 else self._pick(ROLES[1:])

    def _revoke_role(self) -> Operation:
        request = rpc_pb2.AuthUserRevokeRoleRequest(name=self._pick(USERS), role=self._pick(ROLES))
        return operation(AUTH + "UserRevokeRole", request)

    def _role_add(self) -> Operation:
        request = rpc_pb2.AuthRoleAddRequest(name=self._pick(ROLES))
        return operation(AUTH + "RoleAdd", request)

    def _role_delete(self) -> Operation:
        request = rpc_pb2.AuthRoleDeleteRequest(role=self._pick(ROLES))
        return operation(AUTH + "RoleDelete", request)

    def _grant_permission(self) -> Operation:
        role = self._pick(ROLES)
        request = rpc_pb2.AuthRoleGrantPermissionRequest(name=role)
        if self.random.random() < 0.98:
            key, end = self._permission(role)
            kind = self.random.randrange(3)
            request.perm.CopyFrom(
                auth_pb2.Permission(permType=kind, key=key, range_end=end)  # type: ignore[arg-type]
            )
        return operation(AUTH + "RoleGrantPermission", request)

    def _permission(self, role: str) -> tuple[bytes, bytes]:
        """A range to grant: one end for each key of a role, so that keys are not held twice."""
        if role == SAME_KEY_ROLE:
            return SAME_KEY, self.random.choice((b"", b"\x00", b"d", b"f"))
        key = self.random.choice(KEYS)
        ends = [end for end in ENDS if end in (b"", b"\x00") or end > key]
        return key, ends[(KEYS.index(key) + ROLES.index(role)) % len(ends)]

    def _revoke_permission(self) -> Operation:
        role = self._pick(ROLES)
        key, end = self._permission(role)
        request = rpc_pb2.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=end)
        return operation(AUTH + "RoleRevokePermission", request)

    def _look(self) -> Operation:
        name, role = self._pick(USERS), self._pick(ROLES)
        return self.random.choice(
            (
                operation(AUTH + "UserGet", rpc_pb2.AuthUserGetRequest(name=name)),
                operation(AUTH + "UserList", rpc_pb2.AuthUserListRequest()),
                operation(AUTH + "RoleGet", rpc_pb2.AuthRoleGetRequest(role=role)),
                operation(AUTH + "RoleList", rpc_pb2.AuthRoleListRequest()),
                operation(AUTH + "AuthStatus", rpc_pb2.AuthStatusRequest()),
                operation(AUTH + "AuthEnable", rpc_pb2.AuthEnableRequest()),
            )
        )

    def _authenticate(self) -> Operation:
        request = rpc_pb2.AuthenticateRequest(
            name=self._pick(USERS), password=self.random.choice(PASSWORDS)
        )
        return operation(AUTH + "Authenticate", request)

    def _disable(self) -> Operation:
        return operation(AUTH + "AuthDisable", rpc_pb2.AuthDisableRequest())

    # --- keys -----------------------------------------------------------------------------------

    def _put_request(self) -> rpc_pb2.PutRequest:
        return rpc_pb2.PutRequest(
            key=self.random.choice(KEYS),
            value=b"%d" % self.random.randrange(100),
            prev_kv=self.random.random() < 0.2,
        )

    def _end(self, key: bytes) -> bytes:
        ends = [end for end in ENDS if end in (b"", b"\x00") or end > key]
        return self.random.choice(ends)

    def _range_request(self) -> rpc_pb2.RangeRequest:
        key = self.random.choice(KEYS)
        return rpc_pb2.RangeRequest(
            key=key,
            range_end=self._end(key),
            serializable=self.random.random() < 0.3,
        )

    def _delete_request(self) -> rpc_pb2.DeleteRangeRequest:
        key = self.random.choice(KEYS)
        end = self._end(key) if self.random.random() < 0.5 else b""
        return rpc_pb2.DeleteRangeRequest(
            key=key, range_end=end, prev_kv=self.random.random() < 0.3
        )

    def _put(self) -> Operation:
        request = self._put_request()
        if self.random.random() < 0.2:
            request.lease = self.random.choice(LEASES)
        return operation(KV + "Put", request)

    def _range(self) -> Operation:
        return operation(KV + "Range", self._range_request())

    def _delete(self) -> Operation:
        return operation(KV + "DeleteRange", self._delete_request())

    def _txn(self) -> Operation:
        request = rpc_pb2.TxnRequest()
        for _ in range(self.random.randrange(3)):
            key = self.random.choice(KEYS)
            request.compare.add(
                key=key,
                target=rpc_pb2.Compare.VERSION,
                result=rpc_pb2.Compare.GREATER,
                range_end=self._end(key) if self.random.random() < 0.5 else b"",
            )
        only_reads = self.random.random() < 0.3
        for branch in (request.success, request.failure):
            for _ in range(self.random.randrange(3)):
                kind = 0 if only_reads else self.random.randrange(3)
                if kind == 0:
                    branch.add(request_range=self._range_request())
                elif kind == 1:
                    branch.add(request_put=self._put_request())
                else:
                    branch.add(request_delete_range=self._delete_request())
        return operation(KV + "Txn", request)

    def _lease(self) -> Operation:
        lease_id = self.random.choice(LEASES)
        if self.random.random() < 0.5:
            return operation(
                LEASE + "LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=6_000)
            )
        return operation(LEASE + "LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease_id))
