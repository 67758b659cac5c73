"""A watch, a renewal or a long read ends with the right to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from keyraft.auth import Identity
from keyraft.grpc import StreamHandler
from keyraft.proto import auth_pb2, lock_pb2, rpc_pb2
from keyraft.server.engine import watch_rights

from .calls import ask
from .test_auth_service import DENIED, Users
from .test_watch_and_lease_streams import Transport, create, renewal

REASON = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
READ, WRITE, READWRITE = 0, 1, 2
Change = tuple[str, Any]


def change(method: str, message: type[Any], /, **fields: Any) -> Change:
    return method, message(**fields)


def permission(kind: int, key: bytes, end: bytes = b"") -> Change:
    perm = auth_pb2.Permission(permType=kind, key=key, range_end=end)  # type: ignore[arg-type]
    request = rpc_pb2.AuthRoleGrantPermissionRequest(name="r", perm=perm)
    return "RoleGrantPermission", request


class Watching:
    """One stream of alice, or of whom it says, with responses as they come."""

    def __init__(self, users: Users, user: str | None = "alice", room: int = 10_000) -> None:
        self.users = users
        self.stream = Transport(room)
        if user is not None:
            self.stream.metadata = {b"token": users.tokens[user]}
        self.handler: StreamHandler = users.services.watch.open(self.stream)  # type: ignore[arg-type]

    def add(self, key: bytes, end: bytes = b"", **fields: Any) -> rpc_pb2.WatchResponse:
        self.handler.on_message(create(key, range_end=end, **fields))
        (answer,) = self.stream.watched()
        return answer

    def seen(self) -> list[rpc_pb2.WatchResponse]:
        self.users.one.run(0.3)
        self.check()
        return self.stream.watched()

    def check(self) -> None:
        rights = self.users.services.engine.watching._rights  # type: ignore[attr-defined]
        rights.check()


@pytest.fixture
def users() -> Users:
    return Users()


LOSSES: list[Change] = [
    change("UserRevokeRole", rpc_pb2.AuthUserRevokeRoleRequest, name="alice", role="r"),
    change("UserDelete", rpc_pb2.AuthUserDeleteRequest, name="alice"),
    change("RoleDelete", rpc_pb2.AuthRoleDeleteRequest, role="r"),
    change(
        "RoleRevokePermission",
        rpc_pb2.AuthRoleRevokePermissionRequest,
        role="r",
        key=b"a/",
        range_end=b"a0",
    ),
    permission(WRITE, b"a/", b"a0"),
]


@pytest.mark.parametrize("loss", LOSSES, ids=[name for name, _ in LOSSES])
def test_a_watch_ends_when_its_user_loses_the_right(users: Users, loss: Change) -> None:
    watching, roots = Watching(users), Watching(users, "root")
    watching.add(b"a/", b"a0")
    watching.add(b"a/x")
    roots.add(b"a/", b"a0")
    users.put(b"a/x", "alice")
    assert [len(answer.events) for answer in watching.seen()] == [1, 1]
    assert isinstance(users.do(*loss, "root"), bytes)
    users.put(b"a/x", "root")
    ended = watching.seen()
    assert [(e.watch_id, e.canceled, e.cancel_reason) for e in ended] == [
        (0, True, REASON),
        (1, True, REASON),
    ]
    assert not any(e.events or e.created or e.compact_revision for e in ended)
    assert len(roots.seen()) == 2  # both puts
    watching.handler.on_message(rpc_pb2.WatchRequest(progress_request={}).SerializeToString())
    assert watching.seen() == []  # nothing is told of what is watched no more


def test_who_keeps_the_right_keeps_the_watch(users: Users) -> None:
    watching = Watching(users)
    watching.add(b"a/", b"a0")
    for done in (
        change("RoleAdd", rpc_pb2.AuthRoleAddRequest, name="other"),
        change("UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest, user="alice", role="other"),
        permission(READ, b"a/", b"a0"),
        change("UserRevokeRole", rpc_pb2.AuthUserRevokeRoleRequest, name="alice", role="other"),
        change("RoleDelete", rpc_pb2.AuthRoleDeleteRequest, role="other"),
        change(
            "UserChangePassword",
            rpc_pb2.AuthUserChangePasswordRequest,
            name="alice",
            password="other",
        ),
    ):
        assert isinstance(users.do(*done, "root"), bytes)
    users.put(b"a/x", "root")
    (answer,) = watching.seen()
    assert len(answer.events) == 1


def test_a_part_of_the_rights_ends_a_part_of_the_watches(users: Users) -> None:
    users.do(*permission(READ, b"b"), "root")
    users.log_in("alice")
    watching = Watching(users)
    for key, end in ((b"a/", b"a0"), (b"b", b""), (b"a/1", b"")):
        watching.add(key, end)
    users.do(
        "RoleRevokePermission",
        rpc_pb2.AuthRoleRevokePermissionRequest(role="r", key=b"b"),
        "root",
    )
    assert [answer.watch_id for answer in watching.seen()] == [1]


def test_a_token_that_runs_out_ends_no_watch(users: Users) -> None:
    watching = Watching(users)
    watching.add(b"a/", b"a0")
    users.one.member.auth.tokens.forget()
    users.log_in("root")
    users.put(b"a/x", "root")
    users.do(*permission(READWRITE, b"c"), "root")
    (answer,) = watching.seen()
    assert len(answer.events) == 1


def test_what_was_opened_without_users_is_asked_when_there_are_some(users: Users) -> None:
    users.do("AuthDisable", rpc_pb2.AuthDisableRequest(), "root")
    nobody, alice = Watching(users, None), Watching(users)
    named = Watching(users, None)
    named.stream.common_name = "alice"
    users.one.member.auth._certificates = True
    for watching in (nobody, alice, named):
        watching.add(b"a/", b"a0")
        watching.add(b"b", b"")
    users.do("AuthEnable", rpc_pb2.AuthEnableRequest())
    assert [answer.cancel_reason for answer in nobody.seen()] == [REASON] * 2
    assert [answer.cancel_reason for answer in alice.seen()] == [REASON] * 2  # token of before
    assert [answer.watch_id for answer in named.seen()] == [1]
    users.log_in("root")
    users.put(b"a/x", "root")
    assert [len(answer.events) for answer in named.seen()] == [1]


def test_many_watches_are_looked_at_in_steps_and_nothing_is_delivered_meanwhile(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_rights, "LOOKED_MAX", 10)
    several = [Watching(users) for _ in range(5)]
    for watching in several:
        for number in range(9):
            watching.add(b"a/%d" % number, b"a0")
    roots = Watching(users, "root")
    roots.add(b"a/", b"a0")
    one = users.one
    hub = one.member.watches
    one.member.auth.accounts.user_revoke_role(
        rpc_pb2.AuthUserRevokeRoleRequest(name="alice", role="r")
    )
    one.member.auth.accounts.user_add(rpc_pb2.AuthUserAddRequest(name="x", options={}))
    before = hub.statistics()["watchers"]
    assert 1 < before < 46, "some have been looked at"
    users.tokens.clear()
    users.log_in("root")
    users.put(b"a/x", "root")
    for watching in several:
        answers = watching.seen()
        assert [answer.cancel_reason for answer in answers] == [REASON] * 9
    assert [len(answer.events) for answer in roots.seen()] == [1]
    assert hub.statistics()["watchers"] == 1
    hub.check()


@pytest.mark.slow
def test_a_watch_that_is_behind_or_stalled_ends_too(users: Users) -> None:
    for _ in range(3):
        users.put(b"a/x", "alice")
    behind, stalled = Watching(users), Watching(users, room=1)
    behind.add(b"a/", b"a0", start_revision=1)
    stalled.add(b"a/", b"a0", start_revision=1, progress_notify=True, fragment=True)
    stalled.stream.room = 0
    users.put(b"a/x", "alice")
    behind.stream.watched()
    users.do(*LOSSES[0], "root")
    assert [answer.cancel_reason for answer in behind.seen()] == [REASON]
    assert [answer.cancel_reason for answer in stalled.seen()] == [REASON]
    stalled.stream.room = 1_000
    stalled.handler.on_writable()
    users.put(b"a/x", "root")
    users.one.run(3_600.0)  # many times the interval of progress notifications
    assert stalled.seen() == []


def test_who_waits_for_a_lock_is_told_that_it_may_not(users: Users) -> None:
    holder, waiting = users.as_user("root"), users.as_user("alice")
    for call in (holder, waiting):
        request = lock_pb2.LockRequest(name=b"a/lock").SerializeToString()
        ask(users.services.lock.lock, request, call)
        users.one.run(0.3)
    assert isinstance(holder.answer, bytes) and waiting.answer is None
    users.do(*LOSSES[0], "root")
    assert waiting.answer == (2, DENIED[1])  # as the original, whose locks have one code


# --- leases ---------------------------------------------------------------------------------------


class Renewing:
    """A stream of renewals of one lease by alice."""

    def __init__(self, users: Users, lease_id: int) -> None:
        self.users = users
        self.lease_id = lease_id
        self.stream = Transport()
        self.stream.metadata = {b"token": users.tokens["alice"]}
        self.handler = users.services.lease.keep_alive(self.stream)  # type: ignore[arg-type]

    def renew(self) -> object:
        self.handler.on_message(renewal(self.lease_id))
        self.users.one.run(0.1)
        return self.stream.ended or [ttl > 0 for _, ttl in self.stream.kept()]


def lease_of(users: Users, lease_id: int, key: bytes | None) -> None:
    grant = rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=60).SerializeToString()
    ask(users.services.lease.grant, grant, users.as_user("alice"))
    users.one.run(0.1)
    if key is not None:
        put = rpc_pb2.PutRequest(key=key, lease=lease_id).SerializeToString()
        call = ask(users.kv.put, put, users.as_user("alice"))
        users.one.run(0.1)
        assert isinstance(call.answer, bytes)


@pytest.mark.parametrize("loss", LOSSES[:1] + LOSSES[2:4], ids=["role", "RoleDelete", "revoked"])
def test_a_lease_with_keys_is_not_renewed_for_who_may_not_write_them(
    users: Users, loss: Change
) -> None:
    lease_of(users, 7, b"a/x")
    renewing = Renewing(users, 7)
    assert renewing.renew() == [True] and renewing.renew() == [True]
    users.do(*loss, "root")
    assert renewing.renew() == DENIED
    look = rpc_pb2.LeaseTimeToLiveRequest(ID=7, keys=True).SerializeToString()
    call = ask(users.services.lease.time_to_live, look, users.as_user("alice"))
    assert call.answer == DENIED
    users.one.run(61.0)
    assert users.one.get(b"a/x") is None, "it has run out"


def test_a_user_who_is_gone_renews_nothing(users: Users) -> None:
    lease_of(users, 7, None)
    renewing = Renewing(users, 7)
    assert renewing.renew() == [True]
    # A certificate, or a signed token, outlives its user.
    renewing.handler._who = lambda: Identity(b"alice", users.one.member.auth.revision)  # type: ignore[attr-defined]
    assert renewing.renew() == [True]
    users.do(*LOSSES[1], "root")
    assert renewing.renew() == DENIED


# --- long reads -----------------------------------------------------------------------------------


def stream_range(users: Users, user: str | None) -> tuple[Transport, Callable[[], None]]:
    request = rpc_pb2.RangeRequest(key=b"a/", range_end=b"a0").SerializeToString()
    stream = Transport(room=1)
    if user is not None:
        stream.metadata = {b"token": users.tokens[user]}
    handler = users.kv.range_stream(stream)  # type: ignore[arg-type]
    handler.on_message(request)
    users.one.run(0.1)

    def go_on() -> None:
        stream.sent.clear()
        stream.room = 1_000
        handler.on_writable()
        users.one.run(0.1)

    return stream, go_on


def fill(users: Users) -> None:
    for number in range(40):
        call = users.as_user("root")
        request = rpc_pb2.PutRequest(key=b"a/%02d" % number, value=b"v" * 100_000)
        ask(users.kv.put, request.SerializeToString(), call)
        users.one.run(0.1)
        assert isinstance(call.answer, bytes)


def test_a_range_stream_ends_when_users_change(users: Users) -> None:
    fill(users)
    stream, go_on = stream_range(users, "alice")
    assert len(stream.sent) == 1 and stream.ended is None
    users.do(*LOSSES[0], "root")
    go_on()
    assert stream.sent == [] and stream.ended == (3, "etcdserver: revision of auth store is old")


def test_a_range_stream_of_before_there_were_users_ends_with_them(users: Users) -> None:
    fill(users)
    users.do("AuthDisable", rpc_pb2.AuthDisableRequest(), "root")
    stream, go_on = stream_range(users, None)
    users.do("AuthEnable", rpc_pb2.AuthEnableRequest())
    go_on()
    assert stream.sent == [] and stream.ended == (3, "etcdserver: user name is empty")
