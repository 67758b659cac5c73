"""Whom a call is taken for, and how often its token is looked at."""

from __future__ import annotations

import pytest

from keyraft.auth import Identity
from keyraft.base.errors import EtcdError
from keyraft.grpc import Call, Stream
from keyraft.proto import rpc_pb2

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
