"""The member's side of the audit log: all calls put down, in a bounded queue, whatever the disk does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from keyraft.audit.lines import AuditLines
from keyraft.audit.trail import REFUSAL, REFUSING_BYTES_MAX, AuditTrail
from keyraft.base.errors import PermissionDeniedError
from keyraft.grpc import Limits, Route, Router, ServerConnection, status
from keyraft.proto import rpc_pb2 as pb
from sim.loop import SimLoop
from tests.grpc.bench import Recorder
from tests.grpc.wire import DATA, END_HEADERS, HEADERS, PREFACE, Peer, frame, message, settings

PUT = "/etcdserverpb.KV/Put"
KEEP = "/etcdserverpb.Lease/LeaseKeepAlive"
REPLY = pb.PutResponse(
    header=pb.ResponseHeader(cluster_id=1 << 63, member_id=9, revision=7)
).SerializeToString()


class Box:
    """In place of the outbox: keeps what it gets."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.calls = 0
        self.has_room = True
        self.kept_bytes = 0

    def put(self, batch: object, calls: int) -> None:
        self.batches.append(batch)
        self.calls += calls

    def lines(self) -> list[dict[str, Any]]:
        maker = AuditLines(status.CODE_NAMES)
        text = b"".join(map(maker.lines, self.batches))
        return [json.loads(line) for line in text.splitlines()]


def who(metadata: Mapping[bytes, bytes], common_name: str | None) -> str:
    return metadata.get(b"token", b"").decode()


class World:
    """A router with a few methods and a trail; one connection to it."""

    def __init__(self, refuses: bool = False) -> None:
        self.loop = SimLoop()
        self.box = Box()
        self.router = Router()
        self.log: list[object] = []
        self.router.unary(PUT, self._put)
        self.router.unary("/grpc.health.v1.Health/Check", lambda call, request: b"")
        self.router.stream(KEEP, lambda stream: Recorder(stream, self.log))
        self.trail = AuditTrail(
            self.loop, lambda: 1_700_000_000 + self.loop.time(), self.box, refuses
        )
        self.trail.attach(self.router, who)
        self.peer = Peer()
        self.server = ServerConnection(
            self.router,
            Limits(),
            0.0,
            peer="1.2.3.4:5",
            common_name="cn",
            clock=self.loop.time,
        )
        self.stream = 1
        self.feed(PREFACE + settings())

    def _put(self, call: object, request: bytes) -> bytes:
        if b"forbidden" in request:
            raise PermissionDeniedError
        return REPLY

    def feed(self, data: bytes) -> None:
        self.server.receive(data, self.loop.time())
        self.peer.read(self.server.take_output())
        self.trail.check()

    def put(self, key: bytes, value: bytes = b"v", path: str = PUT) -> None:
        request = pb.PutRequest(key=key, value=value).SerializeToString()
        self.feed(self.peer.unary(self.stream, path, request, ("token", "alice")))
        self.stream += 2

    def route(self, path: str) -> Route:
        found = self.router.find(path.encode())
        assert found is not None
        return found

    def passes(self, seconds: float = 1.0) -> None:
        self.loop.run_until(self.loop.time() + seconds)
        self.trail.check()


def test_every_call_has_a_line_and_silence_costs_nothing() -> None:
    world = World()
    world.passes(0.5)
    steps = world.loop.steps
    world.passes(100.0)
    assert world.loop.steps == steps, "nothing runs while nobody calls"
    for number in range(5):
        world.put(b"k%d" % number)
    world.put(b"forbidden")
    world.put(b"long", b"x" * 5_000)
    assert world.box.batches == [], "not in the turn of the call"
    world.passes()
    lines = sorted(world.box.lines(), key=lambda line: str(line["request"]))
    keys = [line["request"]["key"] for line in lines]
    assert keys == ["forbidden", "k0", "k1", "k2", "k3", "k4", "long"]
    assert {(line["user"], line["certificate"], line["remote"], line["via"]) for line in lines} == {
        ("alice", "cn", "1.2.3.4:5", "grpc")
    }
    assert lines[0]["code"] == "PermissionDenied" and "revision" not in lines[0]
    assert all(line["code"] == "OK" and line["revision"] == 7 for line in lines[1:])
    assert world.trail.recorded == world.box.calls == 7


def test_a_stream_has_a_line_for_its_first_request_and_one_for_its_end() -> None:
    world = World()
    keep = message(pb.LeaseKeepAliveRequest(ID=255).SerializeToString())
    head = frame(HEADERS, END_HEADERS, 1, world.peer.request(KEEP))
    world.feed(head + frame(DATA, 0, 1, keep) + frame(DATA, 0, 1, keep))
    world.feed(frame(DATA, 0, 1, keep))
    world.passes()
    (line,) = world.box.lines()
    assert (line["stage"], line["request"]) == ("open", {"lease": "ff"})
    world.server.connection_lost(2.0)
    world.passes()
    line = world.box.lines()[1]
    assert (line["stage"], line["request"], line["code"]) == ("end", {"lease": "ff"}, "Canceled")
    assert len([one for one in world.log if isinstance(one, bytes)]) == 3


def test_without_room_lines_are_dropped_and_counted_in_the_log_itself() -> None:
    world = World()
    world.box.has_room = False
    world.put(b"a")
    world.put(b"forbidden")
    world.passes()
    assert world.box.batches == [] and world.trail.lost == 2
    world.box.has_room = True
    world.put(b"b")
    world.passes()
    first, second = world.box.lines()
    assert (first["lost"], second["request"]) == (2, {"key": "b"})
    assert world.trail.lost == 2


def test_calls_are_refused_where_each_must_have_a_line() -> None:
    world = World(refuses=True)
    keep = message(pb.LeaseKeepAliveRequest(ID=1).SerializeToString())
    world.put(b"a")
    world.box.has_room = False
    world.passes()  # the batch with "a" has filled it
    handled = world.route(PUT).handled
    assert handled[status.OK] == 1
    world.put(b"b")
    assert handled[status.UNAVAILABLE] == 1
    world.feed(frame(HEADERS, END_HEADERS, 99, world.peer.request(KEEP)) + frame(DATA, 0, 99, keep))
    assert world.route(KEEP).handled[status.UNAVAILABLE] == 1
    world.stream = 101
    world.put(b"", path="/grpc.health.v1.Health/Check")
    world.passes()
    assert [line["method"] for line in world.box.lines()] == [PUT, "/grpc.health.v1.Health/Check"]
    assert (world.trail.refused, world.trail.lost) == (2, 0)
    world.box.kept_bytes = REFUSING_BYTES_MAX  # of streams that were open
    world.put(b"", path="/grpc.health.v1.Health/Check")
    world.passes()
    assert world.trail.lost == 1
    world.box.has_room, world.box.kept_bytes = True, 0
    world.trail.room()
    world.put(b"c")
    world.passes()
    assert handled[status.OK] == 2 and world.box.lines()[-1]["request"] == {"key": "c"}
    assert REFUSAL not in str(world.box.lines())


@pytest.mark.parametrize("path", [PUT, KEEP])
def test_closing_twice_keeps_the_handlers(path: str) -> None:
    world = World(refuses=True)
    route = world.route(path)
    before = (route.handle, route.open)
    world.box.has_room = False
    for _ in range(2):
        world.put(b"", path="/grpc.health.v1.Health/Check")
        world.passes()
    assert (route.handle, route.open) != before
    world.trail.room()
    assert (route.handle, route.open) == before
