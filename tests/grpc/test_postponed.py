"""Requests that cannot be answered yet: asked again later, in order, once, or refused."""

from __future__ import annotations

from collections.abc import Callable

from keyraft.base.errors import EtcdError, InvalidAuthTokenError, PostponedError
from keyraft.grpc.calls import Call, Stream
from tests.grpc.bench import Bench
from tests.grpc.wire import DATA, END_HEADERS, END_STREAM, HEADERS, RST, frame, message

Again = Callable[[EtcdError | None], None]


class Patience:
    """Handlers that postpone until `open`, and what they were asked."""

    def __init__(self, bench: Bench) -> None:
        self.open = False
        self.waiting: list[Again] = []
        self.asked: list[bytes] = []
        self.cancelled: list[int] = []
        bench.router.unary("/t.T/Later", self.unary)
        bench.router.stream("/t.T/Talks", self.stream)
        bench.router.stream("/t.T/Lists", self.stream, "server_stream")

    def unary(self, call: Call, request: bytes) -> bytes:
        self._look(request)
        return request

    def stream(self, stream: Stream) -> Talker:
        return Talker(self, stream)

    def _look(self, request: bytes) -> None:
        if not self.open:
            raise PostponedError(self.waiting.append)
        self.asked.append(request)

    def go(self, error: EtcdError | None = None) -> None:
        self.open = error is None
        waiting, self.waiting = self.waiting, []
        for again in waiting:
            again(error)


class Talker:
    """Answers each message with itself; pauses itself behind b"pause"."""

    def __init__(self, patience: Patience, stream: Stream) -> None:
        self._patience = patience
        self.stream = stream

    def on_message(self, message: bytes) -> None:
        self._patience._look(message)
        self.stream.send(message)
        if message == b"pause":
            self.stream.pause_reading()

    def on_half_close(self) -> None:
        self.stream.finish()

    def on_cancel(self, code: int) -> None:
        self._patience.cancelled.append(code)

    def on_writable(self) -> None:
        pass


def started() -> tuple[Bench, Patience]:
    bench = Bench()
    patience = Patience(bench)
    bench.start()
    return bench, patience


def told(bench: Bench) -> list[bytes]:
    return [f.payload[5:] for f in bench.out() if f.kind == DATA]


def test_a_unary_request_is_asked_again_and_counted_once() -> None:
    bench, patience = started()
    woken: list[int] = []
    bench.server.on_output = lambda: woken.append(1)
    assert bench.feed(bench.peer.unary(1, "/t.T/Later", b"a")) == []
    patience.go()
    assert woken and told(bench) == [b"a"]
    route = bench.router.find(b"/t.T/Later")
    assert route is not None
    assert (route.started, route.msg_received, route.msg_sent, route.handled[0]) == (1, 1, 1, 1)


def test_who_waited_too_long_is_told_why() -> None:
    bench, patience = started()
    bench.feed(bench.peer.unary(1, "/t.T/Later", b"a"))
    patience.go(InvalidAuthTokenError())
    (only,) = bench.out()
    assert only.headers["grpc-status"] == "16"
    assert patience.asked == []


def test_who_has_left_is_not_asked_again() -> None:
    bench, patience = started()
    bench.feed(bench.peer.unary(1, "/t.T/Later", b"a"))
    bench.feed(bench.peer.unary(3, "/t.T/Later", b"b") + frame(RST, 0, 1, b"\0\0\0\x08"))
    patience.go()
    assert patience.asked == [b"b"]


def test_messages_of_a_stream_wait_behind_the_one_that_waits() -> None:
    for path, cut in (("/t.T/Talks", 0), ("/t.T/Talks", 3)):
        bench, patience = started()
        head = frame(HEADERS, END_HEADERS, 1, bench.peer.request(path))
        words = [frame(DATA, 0, 1, message(word)) for word in (b"a", b"b", b"c")]
        bench.feed(head + b"".join(words), cut)
        assert len(patience.waiting) == 1
        patience.go()
        assert patience.asked == [b"a", b"b", b"c"]
        assert told(bench) == [b"a", b"b", b"c"]
        bench.feed(frame(DATA, 0, 1, message(b"d")))
        assert patience.asked[-1] == b"d"


def test_the_end_of_a_stream_waits_too() -> None:
    bench, patience = started()
    head = frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Lists"))
    bench.feed(head + frame(DATA, END_STREAM, 1, message(b"a")))
    patience.go()
    frames = bench.out()
    assert [f.payload[5:] for f in frames if f.kind == DATA] == [b"a"]
    assert frames[-1].headers["grpc-status"] == "0"


def test_a_handler_that_pauses_when_asked_again_stays_paused() -> None:
    bench, patience = started()
    head = frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talks"))
    words = [frame(DATA, 0, 1, message(word)) for word in (b"pause", b"b")]
    bench.feed(head + b"".join(words))
    patience.go()
    assert patience.asked == [b"pause"]
    bench.server.streams[1].resume_reading()  # type: ignore[attr-defined]
    assert patience.asked == [b"pause", b"b"]


def test_a_stream_that_waited_too_long_ends() -> None:
    bench, patience = started()
    head = frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talks"))
    bench.feed(head + frame(DATA, 0, 1, message(b"a")))
    patience.go(InvalidAuthTokenError())
    frames = bench.out()
    assert frames[0].headers["grpc-status"] == "16"
    assert patience.cancelled == [16]
