"""One HTTP/1.1 connection against a socket that a test feeds by hand, on a clock that it moves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.net.http1 import BodyError, Http1Connection, Http1Limits, Http1Request, Http1Service

LIMITS = Http1Limits(body_bytes_max=1_000)
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


class Clock:
    """The timers of a loop, fired by `advance`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None], Any]] = []
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, call: Callable[[], None]) -> Any:
        handle = _Handle()
        self.timers.append((due, call, handle))
        return handle

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def turn(self) -> int:
        """One turn of the loop; how many calls it made."""
        soon, self.soon = self.soon, []
        for call in soon:
            call()
        return len(soon)

    def settle(self) -> None:
        while self.turn():
            pass

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            self.settle()
            due = [t for t in self.timers if t[0] <= until and not t[2].cancelled]
            if not due:
                break
            first = min(due, key=lambda t: t[0])
            self.timers.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = until


class _Handle:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Socket(asyncio.Transport):
    """What the connection did with its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.queued = 0
        self.reading = True
        self.half_closed = self.closed = self.aborted = False
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return self.queued

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closing():
            raise RuntimeError("the handler is closed")  # as uvloop's do
        self.writes.append(bytes(data))

    def write_eof(self) -> None:
        self.half_closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.protocol.connection_lost(None)

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)


class Scene:
    """A connection with its clock, its socket and the requests that came out."""

    def __init__(
        self,
        answer: Callable[[Http1Request], None] | None = None,
        limits: Http1Limits = LIMITS,
        early: bool = False,
    ) -> None:
        self.clock = Clock()
        self.socket = Socket()
        self.requests: list[Http1Request] = []
        self.lost = 0

        def on_http(request: Http1Request) -> None:
            self.requests.append(request)
            if answer is not None:
                answer(request)

        service = Http1Service(on_http, self.clock, limits, early)  # type: ignore[arg-type]
        self.connection = Http1Connection(service, self.socket, "http", self._on_lost)

    def _on_lost(self) -> None:
        self.lost += 1

    def feed(self, data: bytes) -> None:
        self.connection.data_received(data)
        self.clock.settle()

    @property
    def over(self) -> bool:
        return self.socket.is_closing()


def ok(request: Http1Request) -> None:
    request.respond(200, [], request.body or b"fine")


# --- what ends a connection in time -------------------------------------------------------------


def test_a_client_that_says_nothing_is_closed() -> None:
    scene = Scene()
    scene.clock.advance(LIMITS.head_s_max - 0.1)
    assert not scene.over
    scene.clock.advance(0.2)
    assert scene.socket.aborted and scene.lost == 1


def test_a_head_that_trickles_is_closed() -> None:
    scene = Scene()
    for byte in b"GET / HTTP/1.1\r\nHost: ":
        scene.feed(bytes((byte,)))
        scene.clock.advance(LIMITS.head_s_max / 10)
    assert scene.socket.aborted
    assert scene.requests == []


def test_an_idle_connection_is_closed_and_one_in_use_is_not() -> None:
    scene = Scene(ok)
    for _ in range(5):
        scene.feed(GET)
        scene.clock.advance(LIMITS.idle_s_max - 0.1)
        assert not scene.over
    scene.clock.advance(0.2)
    assert scene.socket.aborted
    assert len(scene.requests) == 5


def test_the_next_head_has_its_own_time() -> None:
    scene = Scene(ok)
    scene.feed(GET)
    scene.clock.advance(LIMITS.idle_s_max - 1)
    scene.feed(GET[:5])
    scene.clock.advance(LIMITS.head_s_max - 0.1)
    assert not scene.over
    scene.clock.advance(0.2)
    assert scene.socket.aborted


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("how", [b"Content-Length: 900", b"Transfer-Encoding: chunked"])
def test_a_body_that_trickles_is_closed(how: bytes, early: bool) -> None:
    scene = Scene(limits=replace(LIMITS, body_span_bytes_min=100), early=early)
    scene.feed(b"POST / HTTP/1.1\r\nHost: h\r\n" + how + b"\r\n\r\n")
    for _ in range(30):
        scene.feed(b"1\r\na\r\n" if b"chunked" in how else b"abcdef")
        scene.clock.advance(LIMITS.body_span_s / 10)
        if scene.over:
            break
    assert scene.socket.aborted
    assert scene.clock.now < 100 + 2 * LIMITS.body_span_s
    if early:
        assert scene.requests[0].incoming.broken


def test_a_body_that_comes_steadily_has_a_time_for_all_of_it() -> None:
    limits = replace(LIMITS, body_bytes_max=10_000_000)
    scene = Scene(limits=limits)
    scene.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n")
    while not scene.over and scene.clock.now < 100 + 2 * limits.body_s_max:
        scene.feed(b"x" * limits.body_span_bytes_min)
        scene.clock.advance(limits.body_span_s / 2)
    assert limits.body_s_max - 1 < scene.clock.now - 100 < limits.body_s_max + limits.body_span_s


def test_time_in_which_we_do_not_read_is_not_the_clients() -> None:
    limits = replace(LIMITS, body_unread_bytes_max=10)
    scene = Scene(limits=limits, early=True)
    scene.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n" + b"x" * 20)
    assert not scene.socket.reading
    scene.clock.advance(10 * limits.body_span_s)
    assert not scene.over

    async def read() -> bytes:
        return await scene.requests[0].incoming.read()

    assert asyncio.run(read()) == b"x" * 20


def test_an_answer_may_take_as_long_as_it_likes() -> None:
    scene = Scene()
    scene.feed(GET)
    scene.clock.advance(10_000)
    assert not scene.over
    scene.requests[0].respond(200, [], b"at last")
    assert scene.socket.sent.endswith(b"at last")


def test_a_client_that_does_not_read_is_closed() -> None:
    scene = Scene()
    scene.feed(GET)
    scene.requests[0].start(200, [])
    scene.socket.queued = 500_000
    scene.connection.pause_writing()
    assert scene.requests[0].writable == LIMITS.output_bytes_max - 500_000
    scene.clock.advance(LIMITS.output_stall_s_max / 2)
    scene.connection.resume_writing()
    scene.connection.pause_writing()
    scene.clock.advance(LIMITS.output_stall_s_max - 1)
    assert not scene.over
    scene.clock.advance(2)
    assert scene.socket.aborted and scene.requests[0].done


def test_answers_wait_for_a_client_that_asks_and_does_not_read() -> None:
    scene = Scene(ok)
    scene.connection.pause_writing()
    scene.feed(GET + GET)
    assert scene.requests == []
    scene.connection.resume_writing()
    scene.clock.settle()
    assert len(scene.requests) == 2


def test_an_answer_after_which_the_connection_ends_does_not_wait_for_ever() -> None:
    scene = Scene(ok)
    scene.feed(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert scene.socket.closed and not scene.socket.aborted
    scene.clock.advance(LIMITS.closing_s_max + 0.1)
    assert scene.socket.aborted


# --- a server that stops ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"",
        GET[:7],
        GET,
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
    ],
)
def test_a_server_that_stops_waits_for_nothing_that_a_client_may_still_say(said: bytes) -> None:
    scene = Scene(ok)
    scene.feed(said)
    scene.connection.shutdown()
    assert scene.socket.aborted and scene.lost == 1


def test_a_server_that_stops_ends_the_answer_that_is_under_way() -> None:
    scene = Scene()
    scene.feed(GET + GET)
    scene.connection.shutdown()
    assert not scene.over
    scene.requests[0].respond(200, [], b"fine")
    assert b"Connection: close" in scene.socket.sent and scene.over
    scene.clock.settle()
    assert len(scene.requests) == 1


def test_an_answer_that_never_ends_is_no_reason_to_wait() -> None:
    scene = Scene()
    scene.feed(GET)
    scene.requests[0].start(200, [])
    scene.requests[0].take_over()
    scene.clock.advance(1_000)
    assert not scene.over
    gone: list[int] = []
    scene.requests[0].on_close = lambda: gone.append(1)
    scene.connection.shutdown()
    assert scene.socket.aborted and gone == [1]


# --- how much -----------------------------------------------------------------------------------


def test_a_long_head_and_one_of_many_lines_are_refused() -> None:
    for head in (
        b"GET /" + b"a" * LIMITS.head_bytes_max,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * LIMITS.header_lines_max + b"\r\n",
    ):
        scene = Scene(ok)
        scene.feed(head)
        assert scene.socket.sent == (
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
            b"431 Request Header Fields Too Large"
        )
        assert scene.socket.half_closed and not scene.socket.aborted  # it may read why
        scene.feed(b"x" * 1_000_000)  # and goes on to send
        scene.clock.advance(LIMITS.linger_s_max + 0.1)
        assert scene.socket.closed and not scene.socket.aborted  # what is queued goes out
        scene.clock.advance(LIMITS.closing_s_max)
        assert scene.socket.aborted and scene.requests == []


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001,
    ],
)
def test_a_body_above_the_limit_is_refused_before_it_is_read(request_: bytes) -> None:
    scene = Scene(ok)
    scene.feed(request_)
    assert scene.socket.sent.startswith(b"HTTP/1.1 413 Request Entity Too Large\r\n")
    assert b"100 Continue" not in scene.socket.sent
    assert scene.requests == []


def test_pipelined_requests_are_answered_in_order_one_a_turn() -> None:
    scene = Scene(lambda request: request.respond(200, [], request.target.encode()))
    many = b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % i for i in range(20))
    scene.connection.data_received(many)
    turns = 0
    while scene.clock.turn():
        turns += 1
        assert len(scene.requests) <= turns + 1
    bodies = [part.split(b"\r\n\r\n")[1] for part in scene.socket.sent.split(b"HTTP/1.1 200")[1:]]
    assert bodies == [b"/%d" % i for i in range(20)]


def test_what_is_pipelined_behind_an_answer_that_takes_long_is_not_piled_up() -> None:
    scene = Scene()
    scene.feed(GET)
    scene.feed(b"G" * (LIMITS.head_bytes_max + 1))
    assert not scene.socket.reading
    scene.requests[0].respond(200, [], b"")
    scene.clock.settle()
    assert scene.socket.sent.count(b"HTTP/1.1 431") == 1


def test_one_read_of_tiny_chunks_is_taken_apart_in_several_turns() -> None:
    limits = replace(LIMITS, body_bytes_max=100_000)
    scene = Scene(ok, limits)
    scene.connection.data_received(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * 50_000
        + b"0\r\n\r\n"
        + GET
    )
    turns = 0
    while scene.clock.turn():
        turns += 1
    assert turns > 50_000 * 6 // limits.turn_bytes_max
    assert scene.requests[0].body == b"a" * 50_000
    assert scene.requests[1].target == "/x"
    assert scene.socket.reading


# --- handlers that begin before the body is there -----------------------------------------------


def test_nobody_is_asked_for_a_body_on_a_connection_that_is_closed() -> None:
    scene = Scene(early=True)
    scene.feed(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    scene.socket.aborted = True  # its end is told a turn later

    async def read() -> None:
        reading = asyncio.create_task(scene.requests[0].incoming.read_whole(10))
        await asyncio.sleep(0)
        scene.connection.connection_lost(None)
        with pytest.raises(BodyError):
            await reading

    asyncio.run(read())
    assert scene.socket.sent == b""


def test_a_client_is_asked_for_its_body_when_somebody_wants_it() -> None:
    scene = Scene(early=True)
    scene.feed(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    request = scene.requests[0]
    assert scene.socket.sent == b""

    async def read() -> bytes | None:
        reading = asyncio.create_task(request.incoming.read_whole(10))
        await asyncio.sleep(0)
        assert scene.socket.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
        scene.feed(b"ab")
        return await reading

    assert asyncio.run(read()) == b"ab"
    request.respond(204, [], b"")
    scene.feed(GET)
    assert len(scene.requests) == 2


def test_a_whole_body_has_a_time_however_steadily_it_comes() -> None:
    scene = Scene(early=True)
    scene.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\nabc")

    async def read() -> None:
        with pytest.raises(BodyError, match="i/o timeout"):
            await scene.requests[0].incoming.read_whole(10_000, within_s=0.001)

    asyncio.run(read())


def test_a_body_that_nobody_wants_goes_by_or_ends_the_connection() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
    scene = Scene(ok, early=True)
    scene.feed(head % 3 + b"abc" + GET)
    assert len(scene.requests) == 2 and not scene.over
    scene = Scene(ok, early=True)
    scene.feed(head % (LIMITS.body_unwanted_bytes_max + 1) + b"abc" + GET)
    assert len(scene.requests) == 1
    assert b"Connection: close" in scene.socket.sent and scene.socket.half_closed
    scene = Scene(ok, early=True)
    scene.feed(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(LIMITS.body_unwanted_bytes_max // 1_000 + 1):
        scene.feed(b"3e8\r\n" + b"x" * 1_000 + b"\r\n")
    assert scene.socket.half_closed


def test_a_body_that_is_none_fails_its_reader() -> None:
    scene = Scene(early=True)
    scene.feed(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert scene.requests[0].incoming.broken
    scene.requests[0].respond(400, [], b"bad")
    assert scene.over


def test_half_closed_clients_get_their_answer_and_leavers_are_noticed() -> None:
    scene = Scene()
    scene.feed(GET)
    assert scene.connection.eof_received()
    scene.requests[0].respond(200, [], b"fine")
    assert scene.socket.sent.endswith(b"fine") and scene.over
    scene = Scene()
    scene.feed(GET)
    scene.requests[0].on_close = lambda: None
    assert not scene.connection.eof_received()


def test_a_whole_answer_is_one_write() -> None:
    scene = Scene(ok)
    scene.feed(GET)
    assert len(scene.socket.writes) == 1


def test_old_clients_get_what_they_understand() -> None:
    scene = Scene(ok)
    scene.feed(b"GET / HTTP/1.0\r\n\r\n")
    assert scene.socket.sent.startswith(b"HTTP/1.0 200 OK\r\n") and scene.over
    scene = Scene(ok)
    scene.feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"Connection: keep-alive\r\n" in scene.socket.sent and not scene.over

    def pieces(request: Http1Request) -> None:
        request.start(200, [])
        request.write(b"one")
        request.write(b"two")
        request.end()

    scene = Scene(pieces)
    scene.feed(b"GET / HTTP/1.0\r\n\r\n")
    assert scene.socket.sent.endswith(b"\r\n\r\nonetwo") and scene.over
    assert b"chunked" not in scene.socket.sent


def test_heads_have_no_bodies() -> None:
    scene = Scene(ok)
    scene.feed(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"Content-Length: 4\r\n" in scene.socket.sent
    assert scene.socket.sent.endswith(b"\r\n\r\n")
    scene = Scene(lambda request: request.respond(204, [], b"no"))
    scene.feed(GET)
    assert b"Content-Length" not in scene.socket.sent and scene.socket.sent.endswith(b"\r\n\r\n")


# --- anything at all ----------------------------------------------------------------------------

LINES = [
    b"GET / HTTP/1.1\r\n",
    b"POST /x?y HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"BREW http://h:1/x HTTP/1.1\r\n",
    b"Host: h\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 2000\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"\r\n",
    b"\n",
    b"abc",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"\x00\xff",
]


def conversation(data: bytes, places: list[int], early: bool) -> tuple[bytes, list[str], bool]:
    """What was answered to `data`, cut at `places`; which targets were asked for; how it ended."""
    scene = Scene(ok, early=early)
    for start, stop in itertools.pairwise(places):
        if not scene.over:
            scene.feed(data[start:stop])
    answered = b"\r\n".join(
        line for line in scene.socket.sent.split(b"\r\n") if not line.startswith(b"Date: ")
    )
    return answered, [request.target for request in scene.requests], scene.over


@given(
    lines=st.lists(st.sampled_from(LINES) | st.binary(max_size=5), max_size=20),
    cuts=st.lists(st.integers(0, 1_000), max_size=10),
    early=st.booleans(),
)
def test_however_bytes_are_cut_they_mean_the_same(
    lines: list[bytes], cuts: list[int], early: bool
) -> None:
    data = b"".join(line for line in lines if line != b"Expect: 100-continue\r\n")
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    whole = conversation(data, [0, len(data)], early)
    assert conversation(data, places, early) == whole


@given(lines=st.lists(st.sampled_from(LINES) | st.binary(max_size=5), max_size=20))
def test_whatever_comes_a_connection_ends_when_its_client_falls_silent(lines: list[bytes]) -> None:
    for early in (False, True):
        scene = Scene(ok, early=early)
        scene.feed(b"".join(lines))
        scene.clock.advance(LIMITS.body_s_max + LIMITS.idle_s_max + LIMITS.body_span_s)
        assert scene.over and scene.lost in (0, 1)
