"""Every method of every service, with any request, over a connection to a real member.

An input is a program of calls: which method, its request's fields or bytes, with which token, and
how much time passes. The member lives in virtual time, with its store and its log in memory. It must
answer or refuse each call, go on, and agree with itself when the program has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from google.protobuf.message import Message

from keyraft.grpc import Limits, Router, ServerConnection
from keyraft.proto import auth_pb2, election_pb2, lock_pb2, operations_pb2, rpc_pb2
from keyraft.server import RaftEngine
from keyraft.server.apply import internal_request
from keyraft.server.verification import check_member
from keyraft.service import guard_of, register
from tests.grpc.wire import PREFACE, Peer, frame, message, settings
from tests.server.harness import RUNNING, OneMember
from tests.server.test_hostile_peers import filled

from ..target import Choices, Target

CALLS_MAX = 40  # of one program
ANSWER_FRAMES_MAX = 1 << 24


_OTHER_NAMES = {
    "Compact": rpc_pb2.CompactionRequest,
    "RangeStream": rpc_pb2.RangeRequest,
    "Observe": election_pb2.LeaderRequest,
}


def _methods() -> dict[str, type[Message]]:
    """The request of each method that a member registers."""
    router = Router()
    one = OneMember()
    engine = RaftEngine(one.member)
    register(router, engine, guard_of(engine, one.loop), Random(1))
    found: dict[str, type[Message]] = {}
    for route in router:
        names = [route.method + "Request", f"Auth{route.method}Request"]
        kinds = [
            getattr(module, name)
            for module in (rpc_pb2, lock_pb2, election_pb2, operations_pb2)
            for name in names
            if hasattr(module, name)
        ]
        found[route.path.decode()] = _OTHER_NAMES.get(route.method) or kinds[0]
    return found


REQUESTS = _methods()
PATHS = sorted(REQUESTS)
OFTEN = [
    path
    for path in PATHS
    if path.rpartition("/")[2]
    in ("Range", "Put", "DeleteRange", "Txn", "Watch", "LeaseGrant", "LeaseKeepAlive", "Compact")
]


class _Feed:
    """An export of the database that never gets anywhere."""

    def resume(self) -> None: ...

    def close(self) -> None: ...


class Scene:
    """A member, its services, one client's connection."""

    def __init__(self, secured: bool) -> None:
        self.one = one = OneMember()
        one.run(0.1)
        self.token = ""
        if secured:
            self._secure()
        self.router = router = Router()
        engine = RaftEngine(one.member, lambda _: _Feed())  # type: ignore[arg-type]
        register(router, engine, guard_of(engine, one.loop), Random(1))
        self.peer = Peer()
        self.server = ServerConnection(
            router, Limits(), one.loop.time(), peer="1.2.3.4:5", clock=one.loop.time
        )
        self.stream = 1
        self.feed(PREFACE + settings(window=1 << 24))

    def _secure(self) -> None:
        """Root, alice with the keys below a, and authentication."""
        kinds = internal_request
        permission = auth_pb2.Permission(permType=2, key=b"a", range_end=b"b")  # type: ignore[arg-type]
        hashed = "aGFzaA=="
        steps: list[tuple[int, Message]] = [
            (
                kinds.KIND_AUTH_USER_ADD,
                rpc_pb2.AuthUserAddRequest(name="root", hashedPassword=hashed),
            ),
            (
                kinds.KIND_AUTH_USER_ADD,
                rpc_pb2.AuthUserAddRequest(name="alice", hashedPassword=hashed),
            ),
            (kinds.KIND_AUTH_ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name="root")),
            (kinds.KIND_AUTH_ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name="r")),
            (
                kinds.KIND_AUTH_ROLE_GRANT_PERMISSION,
                rpc_pb2.AuthRoleGrantPermissionRequest(name="r", perm=permission),
            ),
            (
                kinds.KIND_AUTH_USER_GRANT_ROLE,
                rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"),
            ),
            (
                kinds.KIND_AUTH_USER_GRANT_ROLE,
                rpc_pb2.AuthUserGrantRoleRequest(user="alice", role="r"),
            ),
            (kinds.KIND_AUTH_ENABLE, rpc_pb2.AuthEnableRequest()),
        ]
        for kind, request in steps:
            self.one.propose(kind, request.SerializeToString())
        self.one.run(0.2)
        tokens = self.one.member.auth.tokens
        self.token = tokens.assign("root", "abcdefghijklmnop", 1, self.one.member.auth.revision)

    def feed(self, data: bytes) -> None:
        now = self.one.loop.time()
        self.server.receive(data, now)
        self.settle()

    def settle(self) -> None:
        now = self.one.loop.time()
        while self.server.wants_turn:
            self.server.resume_output(now)
        self.server.check()
        self.peer.read(self.server.take_output())

    def run(self, seconds: float) -> None:
        self.one.run(seconds)
        self.server.tick(self.one.loop.time())
        self.settle()

    def end(self) -> None:
        """The client leaves; nothing of it stays, and the member is sound."""
        self.server.connection_lost(self.one.loop.time())
        while self.server.wants_resume:
            self.server.resume_output(self.one.loop.time())
        self.one.run(0.1)
        member = self.one.member
        for route in self.router:
            assert route.started == sum(route.handled), route.path
        if not member.stopped:
            check_member(member)
        RUNNING.pop(id(self.one), None)
        member.stop(lambda: None)


def a_request(choices: Choices, path: str) -> bytes:
    """The fields filled with anything; now and then bytes that are no such message."""
    kind = choices.random()
    if kind < 0.08:
        return choices.take(choices.randrange(40))
    request = REQUESTS[path]()
    filled(request, choices)
    body = request.SerializeToString()
    if kind < 0.16 and body:
        changed = bytearray(body)
        changed[choices.randrange(len(body))] = choices.randrange(256)
        body = bytes(changed)
    return body


def call_anything(data: bytes) -> None:
    """One program."""
    choices = Choices(data)
    scene = Scene(choices.random() < 0.3)
    calls = 0
    open_streams: list[tuple[int, str]] = []
    while not choices.over and calls < CALLS_MAX and not scene.server.closed:
        calls += 1
        kind = choices.random()
        if kind < 0.2 and open_streams:
            stream, path = choices.choice(open_streams)
            what = choices.random()
            if what < 0.7:
                scene.feed(
                    frame(
                        0, choices.choice((0, 0, 0, 1)), stream, message(a_request(choices, path))
                    )
                )
            else:
                scene.feed(frame(3, 0, stream, b"\0\0\0\x08"))
        else:
            path = choices.choice(OFTEN if kind < 0.6 else PATHS)
            extra = []
            if scene.token and choices.random() < 0.8:
                extra.append(("token", scene.token))
            elif choices.random() < 0.1:
                extra.append(("token", choices.choice(("x.1", "", "a.b.c", "é"))))
            if choices.random() < 0.1:
                extra.append(("hasleader", "true"))
            if choices.random() < 0.1:
                extra.append(("grpc-timeout", choices.choice(("5m", "1S", "0n"))))
            ended = choices.random() < 0.8
            body = message(a_request(choices, path))
            stream = scene.stream
            scene.stream += 2
            head = frame(1, 4, stream, scene.peer.request(path, *extra))
            scene.feed(head + frame(0, int(ended), stream, body))
            if not ended:
                open_streams.append((stream, path))
        if choices.random() < 0.5:
            scene.run(choices.choice((0.005, 0.02, 1.0)))
    scene.run(0.1)
    scene.end()
    counts["calls"] += calls


counts = {"calls": 0}
"""How many calls were made in all: a run counts programs."""


def _seeds() -> Iterator[bytes]:
    for seed in range(6):
        yield Random(seed).randbytes(600)


ALL = (
    Target(
        "calls",
        call_anything,
        _seeds,
        bytes_max=3000,
        held_bytes=64 << 20,
        seconds=5.0,
        seconds_per_byte=1e-3,
    ),
)
