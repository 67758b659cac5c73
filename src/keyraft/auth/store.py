"""Users, their roles, what each role may do, and who the caller of a request is.

Only apply changes them, in log order, so that all members agree; every change increments the auth
revision. A request carries the revision at which its caller was identified. If that is older than
the store's, the request is refused, because permissions may have changed since. Changes of users
and roles themselves are not compared by revision: they only need root (etcd `apply/auth.go`).

Invariants (`check`):
- the buckets hold what `records` says, and the revision in memory is the stored one;
- `enabled` implies a user root with the role root;
- a user's roles are sorted and named once.

Source: etcd `server/auth/store.go`, `server/etcdserver/apply/auth.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Final, Protocol

from keyraft.auth.accounts import NO_PASSWORD_USER, ROOT, Accounts
from keyraft.auth.grants import Grants
from keyraft.auth.identity import Identity
from keyraft.auth.ranges import Ranges, interval
from keyraft.auth.records import Records
from keyraft.auth.tokens import TokenAheadError, TokenProvider
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.invariants import Checks, hold, whole
from keyraft.mvcc import Backend, finished
from keyraft.proto import auth_pb2, raft_internal_pb2, rpc_pb2

_BEARER: Final = b"Bearer "
_ROOT: Final = ROOT.encode()
_READ, _WRITE, _READWRITE = (
    auth_pb2.Permission.READ,
    auth_pb2.Permission.WRITE,
    auth_pb2.Permission.READWRITE,
)


CHECK_SLICE: Final = 1_000  # keys of a lease that one step looks at
REMEMBERED_KEYS_MIN: Final = 64  # a lease with fewer is looked at anew each time


class LeaseKeys(Protocol):
    """The keys that are attached to leases."""

    def attachments(self, lease_id: int) -> tuple[int, int]:
        """(number, how many keys were attached so far) of a lease; zeros when it has no key."""

    def newest_keys(self, lease_id: int, count: int) -> list[bytes]:
        """The keys that are on a lease and among the `count` attached last, and perhaps others."""

    def has_key(self, lease_id: int, key: bytes) -> bool:
        """Whether the key is attached to the lease."""


class AuthStore:
    """Owned by the member's loop. Checks raise errors of `base.errors`."""

    def __init__(
        self,
        backend: Backend,
        leases: LeaseKeys,
        tokens: TokenProvider,
        hash_password: Callable[[bytes], bytes],
        certificates: bool = False,
    ) -> None:
        """`hash_password` is for entries of etcd 3.4, whose passwords are in the log.

        `certificates`: a verified certificate's common name is a user's name.
        """
        self._leases = leases
        self.tokens = tokens
        self.accounts = Accounts(self, hash_password)
        self._certificates = certificates
        # By name, worked out when first asked for. Another dictionary with each change of users or
        # roles: who remembers something about a user compares it.
        self.grants: dict[bytes, Grants] = {}
        self._on_less: list[Callable[[str | None], None]] = []
        self.enabled = False
        self.revision = 0
        self.load(backend)

    def load(self, backend: Backend) -> None:
        """Reads everything again: at the start, and after a snapshot has replaced the database."""
        self.records = Records(backend)
        self.enabled = self.records.enabled()
        self.revision = self.records.revision()
        self.grants = {}
        if not self.revision:
            self.changed()
        self.lessened(None)

    # --- who asks -------------------------------------------------------------------------------

    def identify(
        self, metadata: Mapping[bytes, bytes], common_name: str | None, applied_index: int
    ) -> Identity | None:
        """The user that a call's token or certificate names; None without credentials.

        Raises InvalidAuthTokenError, TokenAheadError.
        """
        token = metadata.get(b"token")
        if token is None:
            token = metadata.get(b"authorization")
        if token is not None:
            if token.startswith(_BEARER):
                token = token[len(_BEARER) :]
            identity = self.tokens.identify(token, self.revision)
            if identity is None:
                index = self.tokens.index_of(token)
                if index > applied_index:
                    raise TokenAheadError(index)
                if index and index == applied_index:
                    raise TokenAheadError(index + 1, may_be=True)
                raise errors.InvalidAuthTokenError
            return identity
        if common_name is None or not self._certificates or b"grpcgateway-accept" in metadata:
            return None
        return Identity(common_name.encode(), self.revision)

    def confirm(self, identity: Identity) -> None:
        """Raises AuthOldRevisionError if users or roles have changed meanwhile."""
        if identity.revision and identity.revision != self.revision:
            raise errors.AuthOldRevisionError

    def own(self) -> Identity | None:
        """As whom a member asks for something of itself: root, as users are now."""
        return Identity(_ROOT, self.revision) if self.enabled else None

    # --- what may be done -----------------------------------------------------------------------

    def check_admin(self, identity: Identity | None) -> None:
        """The caller holds the root role. Raises UserEmptyError, UserNotFoundError."""
        if not self.enabled:
            return
        if identity is None or not identity.username:
            raise errors.UserEmptyError
        grants = self._grants_of(identity.username)
        if grants is None:
            raise errors.UserNotFoundError
        if not grants.is_root:
            raise errors.PermissionDeniedError

    def is_admin(self, identity: Identity | None) -> bool:
        """`check_admin` as a question."""
        if not self.enabled:
            return True
        if identity is None or not identity.username:
            return False
        grants = self._grants_of(identity.username)
        return grants is not None and grants.is_root

    def check_key(self, identity: Identity, key: bytes) -> None:
        """READ on one key, by who was identified at the present revision: `confirm` too."""
        grants = self.grants.get(identity.username)
        if grants is None or identity.revision != self.revision:
            self.check_range(identity, key, b"")
            self.confirm(identity)
        elif not grants.may_read(key):
            raise errors.PermissionDeniedError

    def reader(self, identity: Identity) -> Callable[[bytes], bool] | None:
        """Which keys a user that `check_key` lets read may read, until `grants` is another."""
        grants = self.grants.get(identity.username)
        return None if grants is None or identity.revision != self.revision else grants.may_read

    def check_range(self, identity: Identity, key: bytes, range_end: bytes) -> None:
        """READ on a range, or on one key."""
        grants = self.grants.get(identity.username)
        if grants is None or identity.revision < self.revision:
            grants = self._standing(identity)
        if not grants.is_root and not grants.read.has_range(key, range_end):
            raise errors.PermissionDeniedError

    def may_read(self, username: bytes, key: bytes, range_end: bytes) -> bool:
        """Whether a user may read a range, as users are now; an unknown one may not."""
        grants = self._grants_of(username)
        return grants is not None and (grants.is_root or grants.read.has_range(key, range_end))

    def check_write(self, identity: Identity, key: bytes, range_end: bytes = b"") -> None:
        """WRITE on a range, or on one key."""
        grants = self.grants.get(identity.username)
        if grants is None or identity.revision < self.revision:
            grants = self._standing(identity)
        if range_end:
            if not grants.is_root and not grants.write.has_range(key, range_end):
                raise errors.PermissionDeniedError
        elif not grants.may_write(key):
            raise errors.PermissionDeniedError

    def check_put(self, identity: Identity, request: rpc_pb2.PutRequest) -> None:
        """WRITE on the key and on all keys of its lease, READ for prev_kv.

        A caller that attaches a key to a lease must be allowed to revoke the lease.
        """
        self.check_write(identity, request.key)
        if request.lease:
            self.check_lease_revoke(identity, request.lease)
        if request.prev_kv:
            self.check_range(identity, request.key, b"")

    def check_delete(self, identity: Identity, request: rpc_pb2.DeleteRangeRequest) -> None:
        """WRITE on the range, READ for prev_kv."""
        self.check_write(identity, request.key, request.range_end)
        if request.prev_kv:
            self.check_range(identity, request.key, request.range_end)

    def check_txn(self, identity: Identity, request: rpc_pb2.TxnRequest) -> None:
        """READ on compared keys; then each operation of both branches, also nested ones."""
        for compare in request.compare:
            self.check_range(identity, compare.key, compare.range_end)
        for branch in (request.success, request.failure):
            for operation in branch:
                self._check_operation(identity, operation)

    def _check_operation(self, identity: Identity, operation: rpc_pb2.RequestOp) -> None:
        which = operation.WhichOneof("request")
        if which == "request_range":
            wanted = operation.request_range
            self.check_range(identity, wanted.key, wanted.range_end)
        elif which == "request_put":
            self.check_put(identity, operation.request_put)
        elif which == "request_delete_range":
            self.check_delete(identity, operation.request_delete_range)
        elif which == "request_txn":
            self.check_txn(identity, operation.request_txn)

    def check_lease_revoke(self, identity: Identity, lease_id: int) -> None:
        """WRITE on every key that is attached to the lease; not checked for root."""
        finished(self.lease_steps(identity, lease_id, True))

    def check_lease_read(self, identity: Identity, lease_id: int) -> None:
        """READ on every key that is attached to the lease."""
        finished(self.lease_steps(identity, lease_id, False))

    def lease_steps(
        self, identity: Identity, lease_id: int, write: bool
    ) -> Generator[None, None, None]:
        """The same in steps. What was seen of a lease with many keys is remembered until the users
        change: only keys that were attached since are looked at again."""
        if self.is_admin(identity):
            return
        number, attached = self._leases.attachments(lease_id)
        if not attached:
            return
        grants = self._current(identity)
        may = grants.write if write else grants.read
        place = (number, write)
        refused = grants.refused.get(place)
        if refused is not None and self._leases.has_key(lease_id, refused):
            raise errors.PermissionDeniedError
        left = CHECK_SLICE
        for key in self._leases.newest_keys(lease_id, attached - grants.looked.get(place, 0)):
            if not may.has_range(key, b""):
                grants.remember(grants.refused, place, key)
                raise errors.PermissionDeniedError
            left -= 1
            if not left:
                left = CHECK_SLICE
                yield
                if self.grants.get(identity.username) is not grants:
                    raise errors.AuthOldRevisionError
        if attached >= REMEMBERED_KEYS_MIN:
            grants.remember(grants.looked, place, attached)

    def must_look(self, identity: Identity, lease_id: int) -> bool:
        """Whether `check_lease_revoke` would look at more keys than one step should."""
        number, attached = self._leases.attachments(lease_id)
        if attached <= CHECK_SLICE or not 0 < self.revision <= identity.revision:
            return False
        grants = self._grants_of(identity.username)
        if grants is None or grants.is_root:
            return False
        place = (number, True)
        refused = grants.refused.get(place)
        if refused is not None and self._leases.has_key(lease_id, refused):
            return False
        return attached - grants.looked.get(place, 0) > CHECK_SLICE

    def lease_read_steps(
        self, identity: Identity, lease_ids: Iterable[int]
    ) -> Generator[None, None, None]:
        """`check_lease_read` of many leases, in steps; raises in the one that finds a refusal."""
        looked = 0
        for lease_id in lease_ids:
            looked += 1 + self._leases.attachments(lease_id)[1]
            yield from self.lease_steps(identity, lease_id, False)
            if looked >= CHECK_SLICE:
                looked = 0
                yield

    def check_renewal(self, identity: Identity, lease_id: int) -> None:
        """`check_lease_revoke`, and the caller is a user.

        DEVIATION: the original lets anybody whose certificate or signed token was good once renew a
        lease without keys, also a user who has been deleted.
        """
        if self._grants_of(identity.username) is None:
            raise errors.PermissionDeniedError
        self.check_lease_revoke(identity, lease_id)

    def may_renew(self, identity: Identity, lease_id: int) -> bool:
        """`check_renewal` as a question, for a short way: False also when there is much to look
        at."""
        if self.must_look(identity, lease_id):
            return False
        try:
            self.check_renewal(identity, lease_id)
        except EtcdError:
            return False
        return True

    def _current(self, identity: Identity) -> Grants:
        """What the caller may do, as `_standing` says, without a look where it is known."""
        grants = self.grants.get(identity.username)
        if grants is None or identity.revision < self.revision:
            grants = self._standing(identity)
        return grants

    def _standing(self, identity: Identity) -> Grants:
        """What the caller may do; raises if it is unnamed, or identified at an old revision."""
        if not identity.revision:
            raise errors.UserEmptyError
        if identity.revision < self.revision:
            raise errors.AuthOldRevisionError
        grants = self._grants_of(identity.username)
        if grants is None:
            raise errors.PermissionDeniedError
        return grants

    def _grants_of(self, username: bytes) -> Grants | None:
        """Computed once for each user after each change."""
        grants = self.grants.get(username)
        if grants is None:
            user = self.records.user(username)
            if user is None:
                return None
            grants = self.grants[username] = self._work_out(user)
        return grants

    def _work_out(self, user: auth_pb2.User) -> Grants:
        read, write = [], []
        for name in user.roles:
            role = self.records.role(name)
            for granted in role.keyPermission if role is not None else ():
                keys = interval(granted.key, granted.range_end)
                if granted.permType in (_READ, _READWRITE):
                    read.append(keys)
                if granted.permType in (_WRITE, _READWRITE):
                    write.append(keys)
        return Grants(ROOT in user.roles, Ranges(read), Ranges(write))

    # --- on and off -----------------------------------------------------------------------------

    def enable(self) -> None:
        """From now on callers must be users. Raises RootUserNotExistError, RootRoleNotGrantedError."""
        if self.enabled:
            return
        root = self.records.user(ROOT)
        if root is None:
            raise errors.RootUserNotExistError
        if ROOT not in root.roles:
            raise errors.RootRoleNotGrantedError
        self.records.set_enabled(True)
        self.enabled = True
        self.grants = {}
        self.lessened(None)

    def disable(self) -> None:
        """Turns authentication off; all tokens are forgotten."""
        if not self.enabled:
            return
        self.records.set_enabled(False)
        self.enabled = False
        self.changed()
        self.tokens.forget()

    def password_of(self, username: str) -> bytes:
        """The stored hash that a password is to be compared with.

        Raises AuthNotEnabledError, AuthFailedError, RawError.
        """
        if not self.enabled:
            raise errors.AuthNotEnabledError
        user = self.records.user(username)
        if user is None:
            raise errors.AuthFailedError
        if user.options.no_password:
            raise RawError(*NO_PASSWORD_USER)
        return user.password

    def authenticate(
        self,
        request: raft_internal_pb2.InternalAuthenticateRequest,
        index: int,
        wanted: bool,
        *,
        by_entry: bool = False,
    ) -> rpc_pb2.AuthenticateResponse:
        """The token of entry `index`; the password was compared before the entry was proposed.

        `wanted`: a client of this member waits for the answer. `by_entry`: see
        `TokenProvider.assign`.
        """
        if not self.enabled:
            raise errors.AuthNotEnabledError
        user = self.records.user(request.name)
        if user is None or user.options.no_password:
            raise errors.AuthFailedError
        if not wanted and not self.tokens.learned:
            return rpc_pb2.AuthenticateResponse()
        token = self.tokens.assign(
            request.name, request.simple_token, index, self.revision, by_entry=by_entry
        )
        return rpc_pb2.AuthenticateResponse(token=token)

    # --- inside ---------------------------------------------------------------------------------

    def has_role(self, identity: Identity, role: str) -> bool:
        """Whether the caller holds a role."""
        user = self.records.user(identity.username) if identity.username else None
        return user is not None and role in user.roles

    def changed(self) -> None:
        """To be called after a change: increments the revision, forgets what was computed."""
        self.revision += 1
        self.records.set_revision(self.revision)
        self.grants = {}

    def listen(self, less: Callable[[str | None], None]) -> None:
        """`less` is called whenever a user, or None for anybody, may do less than before."""
        self._on_less.append(less)

    def lessened(self, username: str | None) -> None:
        """To be called after a change that may have taken something away."""
        if self.enabled:
            for less in self._on_less:
                less(username)

    def check(self) -> None:
        """The invariants at the head of this module; raises InvariantError."""
        whole(self.check_steps())

    def check_steps(self) -> Checks:
        """The same in steps, user by user."""
        records = self.records
        hold(self.enabled == records.enabled(), "on or off as stored", self.enabled)
        hold(self.revision == records.revision(), "the revision is stored", self.revision)
        root = records.user(ROOT)
        hold(not self.enabled or (root is not None and ROOT in root.roles), "somebody is root")
        for name in list(self.grants):
            known, user = self.grants.get(name), records.user(name)
            if known is None:
                continue  # forgotten meanwhile
            hold(user is not None, "who may do something is a user", name)
            if user is not None:
                roles = list(user.roles)
                hold(roles == sorted(set(roles)), "a user's roles are in order", name, roles)
                known.read.check()
                known.write.check()
                hold(self._work_out(user).same(known), "grants are of now", name)
            yield
