"""Whom a call is taken for, and how often its token is looked at."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from keyraft.auth import Identity
from keyraft.base.errors import EtcdError
from keyraft.grpc import Call, Stream
from keyraft.proto import auth_pb2, rpc_pb2

from .test_auth_service import Users


@pytest.fixture
def users() -> Users:
    return Users()


class Moment:
    """What a call knows of its connection and of its header."""

    def __init__(self, now: float, token: bytes) -> None:
        self.now = now
        self.common_name = None
        self.metadata = {b"token": token}


def test_calls_of_one_moment_are_identified_once_and_streams_each_time(users: Users) -> None:
    identify, tokens = users.guard.identify, users.one.member.auth.tokens
    looks = 0
    known = tokens.known

    def counted(token: bytes, revision: int) -> Identity | None:
        nonlocal looks
        looks += 1
        return known(token, revision)

    tokens.known = counted  # type: ignore[method-assign]

    def who(kind: type[Call], moment: Moment) -> bytes:
        found = identify(kind(moment, 1, 0, 0, moment, None))  # type: ignore[arg-type]
        assert found is not None and found.revision == users.one.member.auth.revision
        return found.username

    first, second = (Moment(1.0, users.tokens[name]) for name in ("alice", "root"))
    for each in (first, second):
        who(Call, each)  # shown for the first time
    looks = 0
    assert [who(Call, each) for each in (first, first, second)] == [b"alice", b"alice", b"root"]
    assert looks == 2
    for _ in range(2):  # a stream's moment is that of its beginning
        assert who(Stream, second) == b"root"
    assert looks == 4
    second.now = 2.0
    assert who(Call, second) == b"root" and looks == 5
    users.do("RoleAdd", rpc_pb2.AuthRoleAddRequest(name="new"), "root")
    before = looks
    assert who(Call, second) == b"root" and looks == before + 1
    delete = rpc_pb2.AuthUserDeleteRequest(name="alice")
    assert who(Call, first) == b"alice"
    users.do("UserDelete", delete, "root")
    with pytest.raises(EtcdError, match="invalid auth token"):
        who(Call, first)


def test_reads_of_one_moment_follow_every_change_of_users(users: Users) -> None:
    """The remembered right to read ends with the change itself, though the moment is the same."""
    check = users.guard.check_read
    moments = {name: Moment(1.0, token) for name, token in users.tokens.items()}

    def refusal(name: str, key: bytes) -> str:
        said = set()
        for _ in range(3):  # also from memory
            moment = moments[name]
            try:
                check(Call(moment, 1, 0, 0, moment, None), key)  # type: ignore[arg-type]
            except EtcdError as refused:
                said.add(refused.text)
            else:
                said.add("")
        assert len(said) == 1, said
        return said.pop()

    denied = "etcdserver: permission denied"
    for _ in range(2):
        assert [refusal("alice", key) for key in (b"a/", b"a/x", b"a", b"a0")] == [
            "",
            "",
            denied,
            denied,
        ]
        assert refusal("root", b"a0") == ""
    perm = auth_pb2.Permission(permType=0, key=b"z", range_end=b"\0")  # type: ignore[arg-type]
    granted = rpc_pb2.AuthRoleGrantPermissionRequest(name="r", perm=perm)
    users.do("RoleGrantPermission", granted, "root")
    assert [refusal("alice", key) for key in (b"a/x", b"y", b"z", b"zz")] == ["", denied, "", ""]
    revoked = rpc_pb2.AuthRoleRevokePermissionRequest(role="r", key=b"a/", range_end=b"a0")
    users.do("RoleRevokePermission", revoked, "root")
    assert refusal("alice", b"a/x") == denied and refusal("alice", b"zz") == ""
    users.do("AuthDisable", rpc_pb2.AuthDisableRequest(), "root")
    assert refusal("alice", b"a/x") == ""
    moments["alice"].metadata = {}
    users.do("AuthEnable", rpc_pb2.AuthEnableRequest())
    assert refusal("alice", b"zz") == "etcdserver: user name is empty"


def test_reading_alone_keeps_a_token(users: Users) -> None:
    """A simple token's time starts again with each use, also where the use is remembered."""
    ttl_s = users.one.member.auth.tokens._ttl_s  # type: ignore[attr-defined]
    moment = Moment(0.0, users.tokens["alice"])
    for _ in range(6):
        users.one.run(ttl_s * 0.6)
        moment.now = users.one.member.loop.time()
        for _ in range(3):
            users.guard.check_read(Call(moment, 1, 0, 0, moment, None), b"a/x")  # type: ignore[arg-type]
    users.one.run(ttl_s * 1.1)
    moment.now = users.one.member.loop.time()
    with pytest.raises(EtcdError, match="invalid auth token"):
        users.guard.check_read(Call(moment, 1, 0, 0, moment, None), b"a/x")  # type: ignore[arg-type]


def _calls(work: Callable[[], object]) -> int:
    """How many Python functions it calls."""
    count = 0

    def called(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count - 1  # `work` itself


def test_users_cost_a_request_few_calls(users: Users) -> None:
    """Counted, because times are not to be trusted: of the third request in a moment."""
    get = rpc_pb2.RangeRequest(key=b"a/x").SerializeToString()
    put = rpc_pb2.PutRequest(key=b"a/x", value=b"v").SerializeToString()
    users.one.unsound = True  # entries are applied twice
    taken: list[list[int]] = []
    for _ in range(2):  # with users, then without
        moment = Moment(1.0, users.tokens["alice"])

        def count(handle: Any, request: bytes, moment: Moment = moment) -> int:
            call = Call(moment, 1, 0, 0, moment, None)  # type: ignore[arg-type]
            call.done = True  # nobody is answered
            return _calls(lambda: handle(call, request))

        for _ in range(3):
            counts = [count(users.kv.range, get), count(users.kv.put, put)]
            users.one.run(0.05)
        entry, apply = users.one.log.entries[-1], users.one.member.applier.apply
        assert apply(entry) is None
        taken.append([*counts, _calls(lambda: apply(entry))])  # noqa: B023
        users.do("AuthDisable", rpc_pb2.AuthDisableRequest(), "root")
    more = [one - other for one, other in zip(*taken, strict=True)]
    assert all(map(int.__le__, more, (2, 1, 2))), (more, taken)
