"""Whose turn it is, in a loop that runs only when the test says so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest

from keyraft.grpc import HTTP_WORK, Limits, Router, ServerConnection
from keyraft.net import Flusher, Http2Protocol
from keyraft.net.http1 import Http1Connection, Http1Request, Http1Service
from keyraft.net.protocol import HEAVY_WORK, TURN_WORK
from tests.grpc.wire import (
    DATA,
    END_HEADERS,
    HEADERS,
    PREFACE,
    Peer,
    frame,
    message,
    settings,
)

SLICE = 1_000


class Loop:
    """Turns of an event loop, one at a time: what is called soon waits for the next."""

    def __init__(self) -> None:
        self.ready: deque[Callable[[], None]] = deque()
        self.turns = 0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(delay, callback, (), cast("asyncio.AbstractEventLoop", self))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def get_debug(self) -> bool:
        return False

    def time(self) -> float:
        return 0.0

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(when, callback, (), cast("asyncio.AbstractEventLoop", self))

    def turn(self) -> None:
        self.turns += 1
        for _ in range(len(self.ready)):
            self.ready.popleft()()


class Transport:
    """What a protocol asks of its socket."""

    def __init__(self) -> None:
        self.reading = True
        self.closing = False
        self.written: list[bytes] = []

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def set_protocol(self, protocol: object) -> None:
        pass

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.written += pieces

    def close(self) -> None:
        self.closing = True


class Client:
    """A connection to a server whose /t.T/Echo writes down who called it."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.peer = Peer()
        self.stream = -1
        self.transport = Transport()
        self.protocol: Http2Protocol[ServerConnection] = Http2Protocol(
            cast("asyncio.AbstractEventLoop", world.loop), world.flusher
        )
        self.protocol.connection_made(cast("asyncio.Transport", self.transport))
        self.protocol.start(ServerConnection(world.router, world.limits, 0.0, peer=name))
        self.sends(PREFACE + settings())

    def sends(self, data: bytes) -> None:
        """One read's worth, if the server reads."""
        assert self.transport.reading, f"{self.name} is not read"
        self.protocol.data_received(data)

    def calls(self, count: int) -> None:
        """So many requests in one read."""
        data = []
        for _ in range(count):
            self.stream += 2
            data.append(self.peer.unary(self.stream, "/t.T/Echo", b"x"))
        self.sends(b"".join(data))

    def drips(self, count: int) -> None:
        """A request in frames of a byte each that never ends."""
        self.stream += 2
        body = message(b"x" * count)
        self.sends(
            frame(HEADERS, END_HEADERS, self.stream, self.peer.request("/t.T/Echo"))
            + b"".join(frame(DATA, 0, self.stream, body[i : i + 1]) for i in range(count))
        )

    @property
    def answers(self) -> int:
        """HEADERS with grpc-status among what was written."""
        return len(
            [
                f
                for f in self.peer.read(b"".join(self.transport.written))
                if f.kind == HEADERS and f.flags & 1
            ]
        )


class World:
    def __init__(self) -> None:
        self.loop = Loop()
        self.flusher = Flusher(cast("asyncio.AbstractEventLoop", self.loop))
        self.limits = Limits(slice_work=SLICE)
        self.router = Router()
        self.served: list[str] = []
        self.router.unary("/t.T/Echo", self._echo)

    def _echo(self, call: Any, request: bytes) -> bytes:
        self.served.append(call.peer)
        return request


def test_a_light_client_is_answered_in_the_turn_in_which_it_asks() -> None:
    world = World()
    heavy = [Client(world, f"heavy {i}") for i in range(4)]
    light = Client(world, "light")
    world.loop.turn()
    for client in heavy:
        client.drips(20_000)
    for _ in range(5):
        light.calls(1)
        assert world.served.pop() == "light"
        world.loop.turn()
    assert light.answers == 5
    assert not any(client.transport.reading for client in heavy)


@pytest.mark.slow
def test_a_light_client_waits_for_no_crowd_of_heavy_ones() -> None:
    """However many want more than a slice: only so many of those go on before it."""
    world = World()
    heavy = [Client(world, f"heavy {i}") for i in range(100)]
    light = Client(world, "light")
    world.loop.turn()
    for client in heavy:
        client.calls(200)
    light.calls(1)  # behind all of them in this turn
    assert "light" not in world.served
    done = len(world.served)
    world.loop.turn()
    at = world.served.index("light") - done
    assert at <= (HEAVY_WORK + SLICE) // 20
    assert light.answers == 1


@pytest.mark.slow
def test_a_turn_does_no_more_than_its_share_for_all_together() -> None:
    world = World()
    clients = [Client(world, str(i)) for i in range(100)]
    world.loop.turn()
    for client in clients:
        client.calls(200)
    requests_max = (TURN_WORK + 2 * SLICE) // 20
    assert len(world.served) <= requests_max
    before = len(world.served)
    while world.loop.ready:
        world.loop.turn()
        assert len(world.served) - before <= requests_max
        before = len(world.served)
    assert len(world.served) == 100 * 200
    assert all(client.answers == 200 for client in clients)


def test_heavy_ones_take_turns() -> None:
    world = World()
    clients = [Client(world, str(i)) for i in range(3)]
    world.loop.turn()
    for client in clients:
        client.calls(500)
    while world.loop.ready:
        world.loop.turn()
    order = [world.served[0]]
    for name in world.served:
        if name != order[-1]:
            order.append(name)
    assert order[:9] == ["0", "1", "2"] * 3
    assert all(client.answers == 500 for client in clients)


def test_heavy_ones_are_not_starved_by_light_ones() -> None:
    world = World()
    heavy = Client(world, "heavy")
    light = [Client(world, f"light {i}") for i in range(60)]
    world.loop.turn()
    heavy.calls(400)
    served = world.served.count("heavy")
    for _ in range(5):
        for client in light:
            if client.transport.reading:
                client.calls(40)  # more than a turn's share altogether
        world.loop.turn()
        assert world.served.count("heavy") > served
        served = world.served.count("heavy")


def test_what_waits_is_one_read_and_reading_goes_on_afterwards() -> None:
    world = World()
    client = Client(world, "heavy")
    world.loop.turn()
    client.calls(1_500)
    assert not client.transport.reading
    while world.loop.ready:
        world.loop.turn()
    assert client.transport.reading
    assert client.answers == 1_500


def test_one_whose_socket_is_full_waits_without_turns() -> None:
    world = World()
    client = Client(world, "full")
    world.loop.turn()
    client.calls(200)
    client.protocol.pause_writing()
    while world.loop.ready:
        world.loop.turn()
    assert len(world.served) < 200
    client.protocol.resume_writing()
    while world.loop.ready:
        world.loop.turn()
    assert len(world.served) == 200 and client.transport.reading


def test_the_streams_of_a_lost_connection_end_in_turns_of_their_own() -> None:
    world = World()
    ended: list[int] = []

    def hold(call: Any, request: bytes) -> None:
        call.on_cancel = lambda _, code: ended.append(code)

    world.router.unary("/t.T/Hold", hold)
    client = Client(world, "lost")
    world.loop.turn()
    for i in range(300):
        client.sends(client.peer.unary(1 + 2 * i, "/t.T/Hold", b""))
        world.loop.turn()
    client.protocol.connection_lost(None)
    assert 0 < len(ended) < 300
    while world.loop.ready:
        world.loop.turn()
    assert len(ended) == 300


def test_plain_http_has_its_share_of_a_turn_and_no_more() -> None:
    """Sixty scrapers with ten requests each at once, and one client of gRPC."""
    world = World()
    asked: list[str] = []

    def on_http(request: Http1Request) -> None:
        asked.append(request.target)
        request.respond(200, [], b"")

    loop = cast("asyncio.AbstractEventLoop", world.loop)
    service = Http1Service(on_http, loop, turns=world.flusher.turns)
    scrapers = []
    for _ in range(60):
        socket = cast("asyncio.Transport", Transport())
        scrapers.append(Http1Connection(service, socket, "http", lambda: None))
    light = Client(world, "light")
    world.loop.turn()
    for scraper in scrapers:
        scraper.data_received(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n" * 10)
    share = (TURN_WORK + HEAVY_WORK) // HTTP_WORK + 1
    assert 0 < len(asked) <= share
    light.calls(1)
    turns, before = 0, len(asked)
    while world.loop.ready:
        world.loop.turn()
        assert len(asked) - before <= share
        before = len(asked)
        turns += 1
        if turns == 1:
            assert world.served == ["light"]
    assert len(asked) == 600
    assert turns >= 600 // share


def test_a_health_check_is_answered_in_the_turn_in_which_it_comes() -> None:
    world = World()
    asked: list[str] = []
    loop = cast("asyncio.AbstractEventLoop", world.loop)
    service = Http1Service(
        lambda request: asked.append(request.target), loop, turns=world.flusher.turns
    )
    heavy = [Client(world, f"heavy {i}") for i in range(4)]
    world.loop.turn()
    for client in heavy:
        client.drips(20_000)
    for _ in range(5):
        world.loop.turn()
        socket = cast("asyncio.Transport", Transport())
        checker = Http1Connection(service, socket, "http", lambda: None)
        checker.data_received(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        assert asked.pop() == "/health"
