"""Who may do what, and what changing it does. Bytes and order of refusals are the original's."""

from __future__ import annotations

import base64
from collections.abc import Generator

import pytest

from keyraft.auth import NOBODY, AuthStore, Identity, SimpleTokens, TokenAheadError
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.mvcc import BackendError, MemoryBackend, finished
from keyraft.mvcc.backend import AUTH, AUTH_ROLES, AUTH_USERS
from keyraft.proto import auth_pb2, raft_internal_pb2, rpc_pb2
from sim.loop import SimLoop

READ, WRITE, READWRITE = 0, 1, 2
LETTERS = str.maketrans("0123456789", "abcdefghij")


class Leases:
    """Keys on leases, as told."""

    def __init__(self) -> None:
        self.on: dict[int, list[bytes]] = {}

    def attachments(self, lease_id: int) -> tuple[int, int]:
        keys = self.on.get(lease_id)
        return (id(keys), len(keys)) if keys else (0, 0)

    def newest_keys(self, lease_id: int, count: int) -> list[bytes]:
        return self.on.get(lease_id, [])[::-1][:count]

    def has_key(self, lease_id: int, key: bytes) -> bool:
        return key in self.on.get(lease_id, [])


class Letters:
    """Chance that always says the same."""

    def randrange(self, start: int, stop: int) -> int:
        return start

    def random(self) -> float:
        return 0.0


class Users:
    """A store, with short words for what is done to it."""

    def __init__(self, certificates: bool = False) -> None:
        self.loop = SimLoop()
        self.backend = MemoryBackend()
        self.leases = Leases()
        self.tokens = SimpleTokens(self.loop, Letters(), 10)
        self.store = AuthStore(
            self.backend, self.leases, self.tokens, lambda password: b"#" + password, certificates
        )
        self.accounts = self.store.accounts

    def add(self, name: str, *roles: str) -> None:
        hashed = base64.b64encode(b"hash of " + name.encode()).decode()
        self.accounts.user_add(rpc_pb2.AuthUserAddRequest(name=name, hashedPassword=hashed))
        for role in roles:
            self.accounts.user_grant_role(rpc_pb2.AuthUserGrantRoleRequest(user=name, role=role))

    def role(self, name: str, *permissions: tuple[int, bytes, bytes]) -> None:
        self.accounts.role_add(rpc_pb2.AuthRoleAddRequest(name=name))
        for permission in permissions:
            self.grant(name, *permission)

    def grant(self, role: str, kind: int, key: bytes, end: bytes = b"") -> None:
        permission = auth_pb2.Permission(
            permType=kind,  # type: ignore[arg-type]
            key=key,
            range_end=end,
        )
        self.accounts.role_grant_permission(
            rpc_pb2.AuthRoleGrantPermissionRequest(name=role, perm=permission)
        )

    def enable(self) -> None:
        self.add("root", "root")
        self.store.enable()

    def who(self, name: str) -> Identity:
        return Identity(name.encode(), self.store.revision)

    def stored(self) -> list[tuple[bytes, bytes]]:
        return [
            pair for name in (AUTH, AUTH_USERS, AUTH_ROLES) for pair in self.backend.range(name)
        ]

    def token(self, name: str, index: int) -> bytes:
        letters = f"{index:016}".translate(LETTERS)
        request = raft_internal_pb2.InternalAuthenticateRequest(name=name, simple_token=letters)
        return self.store.authenticate(request, index, wanted=True).token.encode()


@pytest.fixture
def users() -> Users:
    """root, and alice who reads a..c, writes b and has all of dir/."""
    users = Users()
    users.role("r", (READ, b"a", b"c"), (WRITE, b"b", b""), (READWRITE, b"dir/", b"dir0"))
    users.add("alice", "r")
    users.add("bob")
    users.enable()
    users.store.check()
    return users


def refusal(work: object, *arguments: object) -> type[BaseException] | None:
    try:
        outcome = work(*arguments)  # type: ignore[operator]
        if isinstance(outcome, Generator):
            finished(outcome)
    except (EtcdError, RawError) as error:
        return type(error)
    return None


# --- permissions ----------------------------------------------------------------------------------


def test_reading_and_writing(users: Users) -> None:
    alice, check = users.who("alice"), users.store
    assert refusal(check.check_range, alice, b"a", b"c") is None
    assert refusal(check.check_range, alice, b"a", b"c\0") is errors.PermissionDeniedError
    assert refusal(check.check_write, alice, b"a") is errors.PermissionDeniedError
    assert refusal(check.check_write, alice, b"b") is None
    assert refusal(check.check_range, users.who("bob"), b"a", b"") is errors.PermissionDeniedError
    assert refusal(check.check_range, users.who("root"), b"a", b"\0") is None


def test_who_is_refused_first_for_what_he_is(users: Users) -> None:
    check = users.store.check_range
    assert refusal(check, NOBODY, b"a", b"") is errors.UserEmptyError
    old = Identity(b"alice", users.store.revision - 1)
    assert refusal(check, old, b"a", b"") is errors.AuthOldRevisionError
    assert refusal(check, users.who("nosuch"), b"a", b"") is errors.PermissionDeniedError
    assert refusal(check, Identity(b"", users.store.revision), b"a", b"") is (
        errors.PermissionDeniedError
    )


def test_an_old_revision_is_old_for_root_and_after_the_permission_was_worked_out(
    users: Users,
) -> None:
    for name in ("root", "alice"):
        assert refusal(users.store.check_range, users.who(name), b"a", b"") is None
        old = Identity(name.encode(), users.store.revision - 1)
        assert refusal(users.store.check_range, old, b"a", b"") is errors.AuthOldRevisionError


def test_an_administrator_is_not_asked_for_the_revision(users: Users) -> None:
    admin = users.store.check_admin
    assert refusal(admin, Identity(b"root", 1)) is None
    assert refusal(admin, users.who("alice")) is errors.PermissionDeniedError
    assert refusal(admin, users.who("nosuch")) is errors.UserNotFoundError
    for nobody in (None, NOBODY, Identity(b"", 9)):
        assert refusal(admin, nobody) is errors.UserEmptyError
    users.store.disable()
    assert refusal(admin, None) is None


def test_put_looks_at_the_lease_and_the_previous_value(users: Users) -> None:
    alice, check = users.who("alice"), users.store.check_put
    assert refusal(check, alice, rpc_pb2.PutRequest(key=b"b")) is None
    users.grant("r", WRITE, b"w")
    alice = users.who("alice")
    assert refusal(check, alice, rpc_pb2.PutRequest(key=b"w")) is None
    previous = rpc_pb2.PutRequest(key=b"w", prev_kv=True)
    assert refusal(check, alice, previous) is errors.PermissionDeniedError
    users.leases.on[7] = [b"b", b"a"]
    leased = rpc_pb2.PutRequest(key=b"b", lease=7)
    assert refusal(check, alice, leased) is errors.PermissionDeniedError
    assert refusal(check, users.who("root"), leased) is None
    users.leases.on[7] = [b"b", b"dir/x"]
    assert refusal(check, alice, leased) is None
    assert refusal(users.store.check_lease_read, alice, 7) is None
    users.leases.on[7] = [b"w"]
    assert refusal(users.store.check_lease_read, alice, 7) is errors.PermissionDeniedError


def test_delete_looks_at_the_range_and_the_previous_values(users: Users) -> None:
    alice, check = users.who("alice"), users.store.check_delete
    wanted = rpc_pb2.DeleteRangeRequest(key=b"dir/", range_end=b"dir0", prev_kv=True)
    assert refusal(check, alice, wanted) is None
    wanted.range_end = b"dir1"
    assert refusal(check, alice, wanted) is errors.PermissionDeniedError
    users.grant("r", WRITE, b"w", b"x")
    wanted = rpc_pb2.DeleteRangeRequest(key=b"w", range_end=b"x")
    assert refusal(check, users.who("alice"), wanted) is None
    wanted.prev_kv = True
    assert refusal(check, users.who("alice"), wanted) is errors.PermissionDeniedError


def test_every_part_of_a_transaction_is_looked_at(users: Users) -> None:
    alice = users.who("alice")
    denied = {
        "compare": rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=b"x")]),
        "compare range": rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=b"a", range_end=b"d")]),
    }
    for branch in ("success", "failure"):
        for name, operation in (
            ("range", rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"x"))),
            ("put", rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"a"))),
            (
                "lease",
                rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"b", lease=7)),
            ),
            (
                "delete",
                rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=b"a")),
            ),
        ):
            request = rpc_pb2.TxnRequest()
            getattr(request, branch).append(operation)
            denied[f"{branch} {name}"] = request
            nested = rpc_pb2.TxnRequest()
            nested.success.add(request_txn=request)
            denied[f"nested {branch} {name}"] = nested
    users.leases.on[7] = [b"a"]
    allowed = rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=b"a", range_end=b"b")])
    allowed.success.add(request_put=rpc_pb2.PutRequest(key=b"b"))
    allowed.failure.add(request_range=rpc_pb2.RangeRequest(key=b"a"))
    allowed.failure.add(request_txn=rpc_pb2.TxnRequest())
    assert refusal(users.store.check_txn, alice, allowed) is None
    for name, request in denied.items():
        assert refusal(users.store.check_txn, alice, request) is errors.PermissionDeniedError, name
        assert refusal(users.store.check_txn, users.who("root"), request) is None, name


def test_a_read_is_confirmed_only_while_the_users_are_the_same(users: Users) -> None:
    alice = users.who("alice")
    users.store.confirm(alice)
    users.store.confirm(NOBODY)
    users.add("carol")
    assert refusal(users.store.confirm, alice) is errors.AuthOldRevisionError


# --- changing -------------------------------------------------------------------------------------


def test_every_change_counts_and_nothing_else_does(users: Users) -> None:
    accounts = users.accounts

    def counted(method: str, **fields: object) -> int:
        before = users.store.revision
        name = "Auth" + "".join(word.title() for word in method.split("_")) + "Request"
        assert refusal(getattr(accounts, method), getattr(rpc_pb2, name)(**fields)) is None
        users.store.check()
        return users.store.revision - before

    assert counted("role_add", name="r2") == 1
    assert counted("user_grant_role", user="bob", role="r2") == 1
    assert counted("user_grant_role", user="bob", role="r2") == 0
    assert counted("user_get", name="bob") == counted("user_list") == counted("role_list") == 0
    assert counted("role_get", role="r") == 0
    assert counted("user_revoke_role", name="bob", role="r2") == 1
    assert counted("role_revoke_permission", role="r", key=b"b") == 1
    assert counted("role_delete", role="r2") == 1
    assert counted("user_change_password", name="bob") == 1
    assert counted("user_delete", name="bob") == 1
    before = users.store.revision
    users.store.enable()
    assert users.store.revision == before
    users.store.disable()
    assert users.store.revision == before + 1
    users.store.disable()
    assert users.store.revision == before + 1


@pytest.mark.parametrize(
    ("method", "fields", "kind"),
    [
        ("user_add", {"name": ""}, errors.UserEmptyError),
        ("user_add", {"name": "alice"}, errors.UserExistsError),
        ("user_add", {"name": "new", "hashedPassword": "?"}, RawError),
        ("user_add", {"name": "new", "hashedPassword": "ä"}, RawError),
        ("user_delete", {"name": "root"}, errors.InvalidAuthManagementError),
        ("user_delete", {"name": "nosuch"}, errors.UserNotFoundError),
        ("user_delete", {"name": ""}, errors.UserNotFoundError),
        ("user_change_password", {"name": "nosuch"}, errors.UserNotFoundError),
        ("user_get", {"name": "nosuch"}, errors.UserNotFoundError),
        ("user_grant_role", {"user": "nosuch", "role": "r"}, errors.UserNotFoundError),
        ("user_grant_role", {"user": "bob", "role": "nosuch"}, errors.RoleNotFoundError),
        ("user_revoke_role", {"name": "bob", "role": "r"}, errors.RoleNotGrantedError),
        ("user_revoke_role", {"name": "nosuch", "role": "r"}, errors.UserNotFoundError),
        (
            "user_revoke_role",
            {"name": "root", "role": "root"},
            errors.InvalidAuthManagementError,
        ),
        ("role_add", {"name": ""}, errors.RoleEmptyError),
        ("role_add", {"name": "r"}, errors.RoleExistsError),
        ("role_delete", {"role": "root"}, errors.InvalidAuthManagementError),
        ("role_delete", {"role": "nosuch"}, errors.RoleNotFoundError),
        ("role_get", {"role": "nosuch"}, errors.RoleNotFoundError),
        ("role_grant_permission", {"name": "r"}, errors.PermissionNotGivenError),
        ("role_grant_permission", {"name": "nosuch"}, errors.PermissionNotGivenError),
        (
            "role_grant_permission",
            {"name": "nosuch", "perm": auth_pb2.Permission()},
            errors.InvalidAuthManagementError,
        ),
        (
            "role_grant_permission",
            {"name": "nosuch", "perm": auth_pb2.Permission(key=b"b", range_end=b"a")},
            errors.InvalidAuthManagementError,
        ),
        (
            "role_grant_permission",
            {"name": "nosuch", "perm": auth_pb2.Permission(key=b"b")},
            errors.RoleNotFoundError,
        ),
        ("role_revoke_permission", {"role": "nosuch"}, errors.RoleNotFoundError),
        ("role_revoke_permission", {"role": "r", "key": b"a"}, errors.PermissionNotGrantedError),
    ],
)
def test_refusals_change_nothing(
    users: Users, method: str, fields: dict[str, object], kind: type[Exception]
) -> None:
    name = "Auth" + "".join(word.title() for word in method.split("_")) + "Request"
    before = users.stored(), users.store.revision
    assert refusal(getattr(users.accounts, method), getattr(rpc_pb2, name)(**fields)) is kind
    assert (users.stored(), users.store.revision) == before


def test_root_may_be_taken_apart_while_nobody_is_asked(users: Users) -> None:
    users.store.disable()
    users.accounts.user_revoke_role(rpc_pb2.AuthUserRevokeRoleRequest(name="root", role="root"))
    assert refusal(users.store.enable) is errors.RootRoleNotGrantedError
    users.accounts.user_delete(rpc_pb2.AuthUserDeleteRequest(name="root"))
    assert refusal(users.store.enable) is errors.RootUserNotExistError
    assert not users.store.enabled


def test_what_is_stored_is_what_the_original_stores() -> None:
    users = Users()
    assert users.backend.get(AUTH, b"authRevision") == bytes(7) + b"\1"
    users.role("r", (READWRITE, b"b", b"\0"), (READ, b"a", b""), (WRITE, b"b", b"\0"))
    users.add("u", "r", "root")
    users.accounts.user_add(
        rpc_pb2.AuthUserAddRequest(
            name="n", password="p", options=auth_pb2.UserAddOptions(no_password=True)
        )
    )
    # name, password, the roles by name, options even where there are none
    assert users.backend.get(AUTH_USERS, b"u") == (
        b"\x0a\x01u" + b"\x12\x09hash of u" + b"\x1a\x01r" + b"\x1a\x04root" + b"\x22\x00"
    )
    assert users.backend.get(AUTH_USERS, b"n") == b"\x0a\x01n" + b"\x22\x02\x08\x01"
    # permissions by key; granting again replaces the kind
    assert users.backend.get(AUTH_ROLES, b"r") == (
        b"\x0a\x01r" + b"\x12\x03\x12\x01a" + b"\x12\x08\x08\x01\x12\x01b\x1a\x01\0"
    )
    users.add("root", "root")
    users.store.enable()
    assert users.backend.get(AUTH, b"authEnabled") == b"\1"
    users.store.disable()
    assert users.backend.get(AUTH, b"authEnabled") == b"\0"
    revision = users.backend.get(AUTH, b"authRevision")
    assert revision == users.store.revision.to_bytes(8, "big")


def test_only_the_first_permission_with_a_key_is_replaced() -> None:
    users = Users()
    users.role("r", (READ, b"a", b""), (READ, b"a", b"b"), (WRITE, b"a", b"b"))
    granted = users.accounts.role_get(rpc_pb2.AuthRoleGetRequest(role="r")).perm
    assert [(each.permType, each.range_end) for each in granted] == [
        (READ, b""),
        (READ, b"b"),
        (WRITE, b"b"),
    ]


def test_a_password_in_the_log_of_etcd_3_4_is_hashed_here() -> None:
    users = Users()
    users.accounts.user_add(rpc_pb2.AuthUserAddRequest(name="u", password="p"))
    assert users.store.records.user("u") == auth_pb2.User(
        name=b"u", password=b"#p", options=auth_pb2.UserAddOptions()
    )


def test_a_user_without_password_stays_without(users: Users) -> None:
    none = auth_pb2.UserAddOptions(no_password=True)
    users.accounts.user_add(rpc_pb2.AuthUserAddRequest(name="cert", options=none))
    users.accounts.user_change_password(
        rpc_pb2.AuthUserChangePasswordRequest(name="cert", hashedPassword="aGFzaA==")
    )
    stored = users.store.records.user("cert")
    assert stored is not None and not stored.password
    assert refusal(users.store.password_of, "cert") is RawError
    request = raft_internal_pb2.InternalAuthenticateRequest(name="cert")
    assert refusal(users.store.authenticate, request, 5, True) is errors.AuthFailedError


def test_a_snapshot_brings_its_own_users(users: Users) -> None:
    other = Users()
    other.role("r", (READ, b"z", b""))
    other.add("alice", "r")
    other.enable()
    assert refusal(users.store.check_range, users.who("alice"), b"a", b"") is None
    users.store.load(other.backend)
    assert users.store.revision == other.store.revision
    assert refusal(users.store.check_range, users.who("alice"), b"a", b"") is (
        errors.PermissionDeniedError
    )
    assert refusal(users.store.check_range, users.who("alice"), b"z", b"") is None


def test_a_damaged_record_stops_the_member(users: Users) -> None:
    users.backend.put(AUTH_USERS, b"alice", b"\xff")
    with pytest.raises(BackendError):
        users.store.check_range(users.who("alice"), b"a", b"")


# --- tokens ---------------------------------------------------------------------------------------


def test_a_token_is_known_wherever_its_entry_is_applied(users: Users) -> None:
    token = users.token("alice", 42)
    assert token == b"a" * 14 + b"ec.41"
    for metadata in (
        {b"token": token},
        {b"authorization": token},
        {b"authorization": b"Bearer " + token},
        {b"token": token, b"authorization": b"x"},
    ):
        identity = users.store.identify(metadata, None, 42)
        assert identity is not None
        assert (identity.username, identity.revision) == (b"alice", users.store.revision)
    assert users.store.identify({}, "alice", 42) is None


def test_a_token_has_the_number_that_the_other_members_give_it(users: Users) -> None:
    """Up to etcd 3.5.2 that of its entry, since then the one before; here both are known."""
    request = raft_internal_pb2.InternalAuthenticateRequest(name="alice", simple_token="b" * 16)
    for by_entry, number in ((False, b"41"), (True, b"42")):
        answer = users.store.authenticate(request, 42, wanted=True, by_entry=by_entry)
        assert answer.token.encode() == b"b" * 16 + b"." + number
        for known in (b"41", b"42"):
            assert users.store.identify({b"token": b"b" * 16 + b"." + known}, None, 42) is not None
        for unknown in (b"40", b"042", b"42.", b""):
            with pytest.raises(errors.InvalidAuthTokenError):
                users.store.identify({b"token": b"b" * 16 + b"." + unknown}, None, 50)


@pytest.mark.parametrize(
    "token", [b"", b"x", b"x.y", b"x.1.2", b"x.41", b"x.-1", b"x.+9", b"x." + b"9" * 21, b"\xff.1"]
)
def test_a_token_of_nobody_is_refused(users: Users, token: bytes) -> None:
    with pytest.raises(errors.InvalidAuthTokenError):
        users.store.identify({b"token": token}, None, 42)


def test_a_token_of_an_entry_to_come_is_too_early_to_tell(users: Users) -> None:
    with pytest.raises(TokenAheadError) as ahead:
        users.store.identify({b"token": b"x.43"}, None, 42)
    assert ahead.value.index == 43 and not ahead.value.may_be
    with pytest.raises(TokenAheadError) as ahead:
        users.store.identify({b"token": b"x.42"}, None, 42)
    assert ahead.value.index == 43 and ahead.value.may_be


def test_a_token_follows_the_users_and_dies_with_its_own(users: Users) -> None:
    tokens = {name: {b"token": users.token(name, n)} for n, name in enumerate(("alice", "bob"))}
    users.add("carol")
    alice = users.store.identify(tokens["alice"], None, 9)
    assert alice is not None and alice.revision == users.store.revision
    users.accounts.user_change_password(rpc_pb2.AuthUserChangePasswordRequest(name="alice"))
    with pytest.raises(errors.InvalidAuthTokenError):
        users.store.identify(tokens["alice"], None, 9)
    assert users.store.identify(tokens["bob"], None, 9) is not None
    users.accounts.user_delete(rpc_pb2.AuthUserDeleteRequest(name="bob"))
    with pytest.raises(errors.InvalidAuthTokenError):
        users.store.identify(tokens["bob"], None, 9)
    root = {b"token": users.token("root", 7)}
    users.store.disable()
    users.store.enable()
    with pytest.raises(errors.InvalidAuthTokenError):
        users.store.identify(root, None, 9)


def test_a_certificate_names_a_user_only_where_certificates_count() -> None:
    users = Users(certificates=True)
    users.enable()
    identity = users.store.identify({}, "root", 0)
    assert identity is not None and identity.username == b"root"
    assert users.store.identify({}, None, 0) is None
    assert users.store.identify({b"grpcgateway-accept": b"*/*"}, "root", 0) is None
    with pytest.raises(errors.InvalidAuthTokenError):
        users.store.identify({b"token": b"x"}, "root", 0)  # a token comes before a certificate


def test_a_certificate_without_a_name_is_no_user() -> None:
    users = Users(certificates=True)
    users.enable()
    nameless = users.store.identify({}, "", 0)
    assert nameless is not None
    assert refusal(users.store.check_range, nameless, b"a", b"") is errors.PermissionDeniedError
    assert refusal(users.store.check_write, nameless, b"a") is errors.PermissionDeniedError
    assert refusal(users.store.check_admin, nameless) is errors.UserEmptyError


def test_nobody_logs_in_while_nobody_is_asked() -> None:
    users = Users()
    users.add("root", "root")
    assert refusal(users.store.password_of, "root") is errors.AuthNotEnabledError
    users.store.enable()
    assert users.store.password_of("root") == b"hash of root"
    assert refusal(users.store.password_of, "nosuch") is errors.AuthFailedError
