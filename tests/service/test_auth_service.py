"""Logging in, passwords and tokens at one member in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from keyraft.auth import Identity
from keyraft.auth.ranges import Ranges
from keyraft.auth.store import CHECK_SLICE
from keyraft.base.errors import EtcdError, PostponedError
from keyraft.proto import auth_pb2, lock_pb2, rpc_pb2
from keyraft.server.apply import internal_request
from sim.passwords import HASH_S
from tests.server.harness import OneMember
from tests.support.examples import examples

from .calls import Answer, FakeCall, ask
from .served import served

DENIED = (7, "etcdserver: permission denied")
BAD_TOKEN = (16, "etcdserver: invalid auth token")


class Users:
    """The services of one member, with root and alice, who has a/."""

    def __init__(self) -> None:
        self.one = OneMember()
        self.one.run(1.0)
        self.tokens: dict[str, bytes] = {}
        self.serve()
        for name in ("root", "alice"):
            self.do("UserAdd", rpc_pb2.AuthUserAddRequest(name=name, password="pw"))
        for name in ("root", "r"):
            self.do("RoleAdd", rpc_pb2.AuthRoleAddRequest(name=name))
        perm = auth_pb2.Permission(permType=2, key=b"a/", range_end=b"a0")  # type: ignore[arg-type]
        granted = rpc_pb2.AuthRoleGrantPermissionRequest(name="r", perm=perm)
        self.do("RoleGrantPermission", granted)
        for user, role in (("root", "root"), ("alice", "r")):
            self.do("UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user=user, role=role))
        self.do("AuthEnable", rpc_pb2.AuthEnableRequest())
        for name in ("root", "alice"):
            self.log_in(name)

    def serve(self) -> None:
        """New services, as after a restart."""
        member = self.one.member
        self.services = served(member)
        self.guard = self.services.guard
        self.methods: dict[str, Any] = {}
        self.services.auth.register(self)  # type: ignore[arg-type]
        self.kv = self.services.kv

    def unary(self, path: str, handle: Any) -> None:
        self.methods[path.rpartition("/")[2]] = handle

    def do(self, name: str, request: Any, user: str | None = None) -> Answer:
        call = self.as_user(user)
        ask(self.methods[name], request.SerializeToString(), call)
        self.one.run(0.3)
        return call.answer

    def as_user(self, user: str | None) -> FakeCall:
        return FakeCall({} if user is None else {b"token": self.tokens[user]})

    def log_in(self, name: str, password: str = "pw") -> Answer:
        answer = self.do("Authenticate", rpc_pb2.AuthenticateRequest(name=name, password=password))
        if isinstance(answer, bytes):
            response = rpc_pb2.AuthenticateResponse.FromString(answer)
            self.tokens[name] = response.token.encode()
        return answer

    def put(self, key: bytes, user: str) -> Answer:
        call = self.as_user(user)
        ask(self.kv.put, rpc_pb2.PutRequest(key=key, value=b"v").SerializeToString(), call)
        self.one.run(0.05)
        return call.answer


@pytest.fixture
def users() -> Users:
    return Users()


def logged(users: Users) -> bytes:
    return b"".join(entry.data for entry in users.one.log.entries)


def test_no_password_is_in_the_log(users: Users) -> None:
    request = rpc_pb2.AuthUserAddRequest(name="carol", password="my secret")
    users.do("UserAdd", request, "root")
    change = rpc_pb2.AuthUserChangePasswordRequest(name="carol", password="my other")
    users.do("UserChangePassword", change, "root")
    none = auth_pb2.UserAddOptions(no_password=True)
    users.do(
        "UserAdd",
        rpc_pb2.AuthUserAddRequest(name="cert", password="my third", options=none),
        "root",
    )
    assert isinstance(users.log_in("carol", "my other"), bytes)
    for secret in (b"my secret", b"my other", b"my third"):
        assert secret not in logged(users)


def test_puts_are_checked_when_they_are_applied(users: Users) -> None:
    assert isinstance(users.put(b"a/x", "alice"), bytes)
    assert users.put(b"b", "alice") == DENIED
    late = users.as_user("alice")
    revoke = rpc_pb2.AuthUserRevokeRoleRequest(name="alice", role="r").SerializeToString()
    ask(users.methods["UserRevokeRole"], revoke, users.as_user("root"))
    ask(users.kv.put, rpc_pb2.PutRequest(key=b"a/late", value=b"v").SerializeToString(), late)
    users.one.run(0.05)
    assert late.answer == (3, "etcdserver: revision of auth store is old")
    assert users.one.get(b"a/late") is None


def test_a_lease_with_many_keys_is_looked_at_in_steps_and_once(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, member = users.one, users.one.member
    member.lessor.grant(7, 600, one.loop.time())
    keys = 3 * CHECK_SLICE + 500
    for number in range(keys):
        leased = rpc_pb2.PutRequest(key=b"a/%05d" % number, lease=7)
        member.store.put(leased.SerializeToString())
    looks = 0
    look = Ranges.has_range

    def counted(self: Ranges, key: bytes, range_end: bytes) -> bool:
        nonlocal looks
        looks += 1
        return look(self, key, range_end)

    monkeypatch.setattr(Ranges, "has_range", counted)
    member.queue.steps_max = member.slices.steps_max = 1

    def answer(call: FakeCall) -> tuple[Answer, int, int]:
        """The answer, how many keys were looked at for it, and how many at most in one turn."""
        nonlocal looks
        total = most = 0
        while call.answer is None:
            looks = 0
            calls = iter((False, True))
            one.loop.run_until(one.loop.time() + 10.0, calls.__next__)
            total, most = total + looks, max(most, looks)
        return call.answer, total, most

    def put(key: bytes) -> tuple[Answer, int, int]:
        call = users.as_user("alice")
        request = rpc_pb2.PutRequest(key=key, value=b"v", lease=7)
        ask(users.kv.put, request.SerializeToString(), call)
        return answer(call)

    said, total, most = put(b"a/new")
    assert (
        isinstance(said, bytes) and total >= keys and most <= 2 * CHECK_SLICE
    )  # an entry begins with two steps
    said, total, most = put(b"a/newer")
    assert isinstance(said, bytes) and total < 10
    member.store.put(rpc_pb2.PutRequest(key=b"z", lease=7).SerializeToString())
    for _ in range(2):
        said, total, most = put(b"a/no")
        assert said == DENIED and total < 10
    member.store.delete_keys([b"z"])

    users.do("UserAdd", rpc_pb2.AuthUserAddRequest(name="b", password="pw"), "root")
    users.log_in("alice")  # the users have changed: all is looked at anew
    caller = member.auth.identify({b"token": users.tokens["alice"]}, None, member.applied_index)
    renewed: list[object] = []
    request = rpc_pb2.LeaseKeepAliveRequest(ID=7).SerializeToString()
    leases = users.services.engine.leases
    looks = 0
    assert leases.renew(request, renewed.append, lambda: caller) is not None
    assert looks == 0 and not renewed
    one.run(0.1)
    assert isinstance(renewed[0], bytes) and keys <= looks < keys + 10
    assert leases.renew(request, renewed.append, lambda: caller) is None and len(renewed) == 2


def test_granting_less_takes_effect_whatever_else_has_the_same_key(users: Users) -> None:
    def grant(kind: int, end: bytes) -> None:
        perm = auth_pb2.Permission(permType=kind, key=b"k", range_end=end)  # type: ignore[arg-type]
        granted = rpc_pb2.AuthRoleGrantPermissionRequest(name="r", perm=perm)
        assert isinstance(users.do("RoleGrantPermission", granted, "root"), bytes)

    def held() -> list[tuple[int, bytes]]:
        answer = users.do("RoleGet", rpc_pb2.AuthRoleGetRequest(role="r"), "root")
        assert isinstance(answer, bytes)
        perms = rpc_pb2.AuthRoleGetResponse.FromString(answer).perm
        return [(p.permType, p.range_end) for p in perms if p.key == b"k"]

    read, write, both = 0, 1, 2
    grant(read, b"l")
    grant(both, b"m")
    users.log_in("alice")
    assert isinstance(users.put(b"lx", "alice"), bytes)
    revision = users.one.member.auth.revision
    grant(read, b"m")
    assert users.one.member.auth.revision == revision + 2
    assert held() == [(read, b"l"), (read, b"m")]
    users.log_in("alice")
    assert users.put(b"lx", "alice") == DENIED
    grant(both, b"l")  # the first with its key: one change, as ever
    assert users.one.member.auth.revision == revision + 3
    assert held() == [(both, b"l"), (read, b"m")]
    granted = rpc_pb2.AuthRoleGrantPermissionRequest(
        name="r",
        perm=auth_pb2.Permission(permType=write, key=b"k", range_end=b"m"),  # type: ignore[arg-type]
    )
    assert users.do("RoleGrantPermission", granted, "alice") == DENIED
    assert held() == [(both, b"l"), (read, b"m")]


def test_two_administrators_do_not_get_in_each_others_way(users: Users) -> None:
    calls = [users.as_user("root") for _ in range(3)]
    for number, call in enumerate(calls):
        request = rpc_pb2.AuthRoleAddRequest(name=f"new{number}").SerializeToString()
        ask(users.methods["RoleAdd"], request, call)
    users.one.run(0.1)
    assert all(isinstance(call.answer, bytes) for call in calls)


def test_a_login_during_a_change_of_users_is_begun_anew(users: Users) -> None:
    call = FakeCall()
    request = rpc_pb2.AuthenticateRequest(name="alice", password="pw").SerializeToString()
    ask(users.methods["Authenticate"], request, call)
    users.one.run(HASH_S / 2)
    change = rpc_pb2.AuthUserDeleteRequest(name="alice").SerializeToString()
    ask(users.methods["UserDelete"], change, users.as_user("root"))
    users.one.run(1.0)
    assert call.answer == (
        3,
        "etcdserver: authentication failed, invalid user ID or password",
    )


def test_a_name_that_is_no_users_takes_as_long_as_one_that_is(users: Users) -> None:
    calls = [FakeCall(), FakeCall()]
    for call, name in zip(calls, ("alice", "nosuch"), strict=True):
        request = rpc_pb2.AuthenticateRequest(name=name, password="wrong").SerializeToString()
        ask(users.methods["Authenticate"], request, call)
    users.one.run(HASH_S / 2)
    assert [call.answer for call in calls] == [None, None]
    users.one.run(HASH_S)
    refusal = 3, "etcdserver: authentication failed, invalid user ID or password"
    assert [call.answer for call in calls] == [refusal, refusal]


def test_short_passwords_are_refused_where_a_flag_says_so(users: Users) -> None:
    member = users.one.member
    add, change = rpc_pb2.AuthUserAddRequest, rpc_pb2.AuthUserChangePasswordRequest
    for name, password in (("bob", ""), ("carol", "p")):  # as in etcd
        assert isinstance(users.do("UserAdd", add(name=name, password=password), "root"), bytes)
    member.settings = replace(member.settings, password_length_min=3)
    refusal = 3, "etcdserver: password is shorter than 3 characters"
    assert users.do("UserAdd", add(name="dave", password="pö"), "root") == refusal
    assert users.do("UserAdd", add(name="dave"), "root") == refusal
    assert users.do("UserChangePassword", change(name="bob", password="pw"), "root") == refusal
    hashed = change(name="bob", hashedPassword="JHNpbSQ=")  # the empty one, hashed
    assert users.do("UserChangePassword", hashed, "root") == refusal
    assert isinstance(users.do("UserAdd", add(name="dave", password="pöw"), "root"), bytes)
    none = auth_pb2.UserAddOptions(no_password=True)
    assert isinstance(users.do("UserAdd", add(name="erin", options=none), "root"), bytes)


def test_a_token_ahead_is_waited_for(users: Users) -> None:
    member = users.one.member
    users.tokens["alice"] = users.tokens["alice"].partition(b".")[0] + b".%d" % (
        member.applied_index + 1
    )
    for handle, request in (
        (users.kv.put, rpc_pb2.PutRequest(key=b"a/x", value=b"v")),
        (users.kv.range, rpc_pb2.RangeRequest(key=b"a/x")),
        (users.methods["UserGet"], rpc_pb2.AuthUserGetRequest(name="alice")),
    ):
        with pytest.raises(PostponedError) as later:
            handle(users.as_user("alice"), request.SerializeToString())  # type: ignore[operator]
        again: list[EtcdError | None] = []
        later.value.when(again.append)
        assert again == []
        users.put(b"a/other", "root")
        assert again == [None]
        with pytest.raises(PostponedError) as later:  # unless the next entry makes it
            handle(users.as_user("alice"), request.SerializeToString())  # type: ignore[operator]
        later.value.when(again.append)
        users.put(b"a/other", "root")
        assert again == [None, None]
        with pytest.raises(EtcdError, match="invalid auth token") as refusal:
            handle(users.as_user("alice"), request.SerializeToString())  # type: ignore[operator]
        assert not isinstance(refusal.value, PostponedError)
        users.tokens["alice"] = b"x.%d" % (member.applied_index + 1)


def test_a_token_of_an_entry_that_never_comes_is_refused_in_time(users: Users) -> None:
    users.tokens["alice"] = b"x.18446744073709551615"
    with pytest.raises(PostponedError) as later:
        users.kv.put(users.as_user("alice"), b"\n\3a/x\x12\1v")  # type: ignore[arg-type]
    again: list[EtcdError | None] = []
    later.value.when(again.append)
    users.one.run(users.one.settings.request_timeout_s + 1)
    assert [str(error) for error in again] == [BAD_TOKEN[1]]
    assert len(users.one.member.token_waits) == 0
    # who cannot wait takes it for what it may be
    assert ask(users.kv.put, b"\n\3a/x\x12\1v", users.as_user("alice")).answer == BAD_TOKEN


def test_a_token_of_what_may_be_the_next_entry_is_not_waited_for_long(users: Users) -> None:
    member = users.one.member
    users.tokens["alice"] = b"x.%d" % member.applied_index
    with pytest.raises(PostponedError) as later:
        users.kv.put(users.as_user("alice"), b"\n\3a/x\x12\1v")  # type: ignore[arg-type]
    again: list[EtcdError | None] = []
    later.value.when(again.append)
    users.one.run(5 * users.one.settings.heartbeat_s)
    assert [str(error) for error in again] == [BAD_TOKEN[1]]


def test_streams_pass_a_token_ahead_on(users: Users) -> None:
    member = users.one.member
    call = FakeCall({b"token": b"x.%d" % (member.applied_index + 1)})
    watch = users.services.watch.open(call)
    create = rpc_pb2.WatchCreateRequest(key=b"a/x")
    with pytest.raises(PostponedError):
        watch.on_message(rpc_pb2.WatchRequest(create_request=create).SerializeToString())
    assert not call.sent
    keep_alive = users.services.lease.keep_alive(call)
    with pytest.raises(PostponedError):
        keep_alive.on_message(rpc_pb2.LeaseKeepAliveRequest(ID=7).SerializeToString())
    assert not call.sent and call.finished is None


def test_users_come_back_after_a_crash(users: Users) -> None:
    users.put(b"a/x", "alice")
    revision = users.one.member.auth.revision
    users.one.crash()
    users.one.start()
    users.one.run(1.0)
    users.serve()
    auth = users.one.member.auth
    auth.check()
    assert (auth.enabled, auth.revision) == (True, revision)
    users.log_in("alice")
    assert isinstance(users.put(b"a/x", "alice"), bytes)
    assert users.put(b"b", "alice") == DENIED


def test_leases_run_out_although_users_are_asked(users: Users) -> None:
    lease = users.services.lease
    granted = users.as_user("alice")
    ask(lease.grant, rpc_pb2.LeaseGrantRequest(ID=7, TTL=2).SerializeToString(), granted)
    users.one.run(0.1)
    put = rpc_pb2.PutRequest(key=b"a/leased", value=b"v", lease=7).SerializeToString()
    ask(users.kv.put, put, users.as_user("alice"))
    users.one.run(0.1)
    assert users.one.get(b"a/leased") == b"v"
    users.one.run(5.0)
    assert users.one.get(b"a/leased") is None


def test_who_waits_for_a_lock_while_users_change_still_gets_it(users: Users) -> None:
    lock = users.services.lock
    request = lock_pb2.LockRequest(name=b"a/lock").SerializeToString()
    first, second = users.as_user("root"), users.as_user("alice")
    ask(lock.lock, request, first)
    users.one.run(0.1)
    ask(lock.lock, request, second)
    users.one.run(0.1)
    assert isinstance(first.answer, bytes) and second.answer is None
    users.do("RoleAdd", rpc_pb2.AuthRoleAddRequest(name="new"), "root")
    key = lock_pb2.LockResponse.FromString(first.answer).key
    unlock = lock_pb2.UnlockRequest(key=key).SerializeToString()
    ask(lock.unlock, unlock, users.as_user("root"))
    users.one.run(0.1)
    assert isinstance(second.answer, bytes), second.answer


def test_a_forged_header_is_no_way_in(users: Users) -> None:
    """Entries are what members agree on; a request's own bytes cannot end in a header of root's."""
    forged = internal_request.wrap(
        internal_request.KIND_PUT,
        b"",
        internal_request.Stamper(_Ids()).stamp_for(Identity(b"root", 99)),
    )
    request = rpc_pb2.PutRequest(key=b"b", value=forged).SerializeToString()
    call = users.as_user("alice")
    ask(users.kv.put, request, call)
    users.one.run(0.05)
    assert call.answer == DENIED


class _Ids:
    def next(self) -> int:
        return 1 << 40


NAMES = st.sampled_from(["root", "alice", "r", "new", "", "ü", "x" * 40_000])
PASSWORDS = st.sampled_from(["", "pw", "p" * 73, "\0"])
BYTES = st.sampled_from([b"", b"\0", b"a", b"a/", b"\xff" * 40_000])
PERMISSIONS = st.none() | st.builds(
    auth_pb2.Permission, permType=st.sampled_from([0, 1, 2, 7, -1]), key=BYTES, range_end=BYTES
)
REQUESTS: dict[str, st.SearchStrategy[Any]] = {
    "UserAdd": st.builds(
        rpc_pb2.AuthUserAddRequest,
        name=NAMES,
        password=PASSWORDS,
        hashedPassword=st.sampled_from(["", "?", "aGFzaA==", "a" * 1_000]),
        options=st.none() | st.builds(auth_pb2.UserAddOptions, no_password=st.booleans()),
    ),
    "UserChangePassword": st.builds(
        rpc_pb2.AuthUserChangePasswordRequest, name=NAMES, password=PASSWORDS, hashedPassword=NAMES
    ),
    "UserDelete": st.builds(rpc_pb2.AuthUserDeleteRequest, name=NAMES),
    "UserGrantRole": st.builds(rpc_pb2.AuthUserGrantRoleRequest, user=NAMES, role=NAMES),
    "UserRevokeRole": st.builds(rpc_pb2.AuthUserRevokeRoleRequest, name=NAMES, role=NAMES),
    "RoleAdd": st.builds(rpc_pb2.AuthRoleAddRequest, name=NAMES),
    "RoleDelete": st.builds(rpc_pb2.AuthRoleDeleteRequest, role=NAMES),
    "RoleGrantPermission": st.builds(
        rpc_pb2.AuthRoleGrantPermissionRequest, name=NAMES, perm=PERMISSIONS
    ),
    "RoleRevokePermission": st.builds(
        rpc_pb2.AuthRoleRevokePermissionRequest, role=NAMES, key=BYTES, range_end=BYTES
    ),
    "Authenticate": st.builds(rpc_pb2.AuthenticateRequest, name=NAMES, password=PASSWORDS),
    "AuthEnable": st.just(rpc_pb2.AuthEnableRequest()),
    "AuthDisable": st.just(rpc_pb2.AuthDisableRequest()),
}
KINDS = sorted(kind for kind in internal_request.KINDS if 1_000 <= kind < 1_300)
STRANGE = Users()


@examples(150, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_strange_values_are_answered_or_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(REQUESTS)))
    if STRANGE.one.member.auth.enabled:
        STRANGE.log_in("root")
    assert STRANGE.do(name, data.draw(REQUESTS[name]), "root") is not None
    STRANGE.one.member.auth.check()


@examples(150, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(STRANGE.methods)), st.binary(max_size=30))
def test_bytes_that_are_no_request_are_answered_or_refused(name: str, request: bytes) -> None:
    call = STRANGE.as_user("root")
    ask(STRANGE.methods[name], request, call)
    STRANGE.one.run(0.3)
    assert call.answer is not None
    STRANGE.one.member.auth.check()


@examples(150, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(KINDS), st.binary(max_size=30), st.binary(max_size=20))
def test_entries_of_other_makers_never_stop_a_member(
    kind: int, request: bytes, username: bytes
) -> None:
    results: list[object] = []
    member = STRANGE.one.member
    member.propose(kind, request, results.append, Identity(username, member.auth.revision))
    STRANGE.one.run(0.1)
    assert len(results) == 1
    member.auth.check()
