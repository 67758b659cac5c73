"""A ClientConnection against frames written by hand, and against our own server in memory."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest

from keyraft.grpc import ClientConnection, ClientStream, Limits, status
from tests.grpc.bench import Bench
from tests.grpc.wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
    Frame,
    Peer,
    frame,
    message,
    settings,
)

OK_HEAD = ((":status", "200"), ("content-type", "application/grpc"))


class Answers:
    """What a streaming call was told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.end: tuple[int, str] | None = None
        self.trailers: Mapping[bytes, bytes] = {}
        self.writables = 0

    def on_message(self, message: bytes) -> None:
        assert self.end is None
        self.messages.append(message)

    def on_end(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        assert self.end is None
        self.end = (code, text)
        self.trailers = trailers

    def on_writable(self) -> None:
        self.writables += 1


class Caller:
    """A client connection and the hand that plays the server."""

    def __init__(self, limits: Limits | None = None, **options: bool) -> None:
        chosen = limits or Limits(keepalive_interval_s=0.0)
        self.client = ClientConnection(chosen, 0.0, authority="there:1", **options)
        self.peer = Peer()
        self.ends: list[tuple[int, str, bytes]] = []
        self.now = 0.0

    def start(self, **values: int) -> list[Frame]:
        data = self.client.take_output()
        assert data.startswith(PREFACE)
        first = self.peer.read(data[len(PREFACE) :])
        return first + self.feed(settings(**values))

    def feed(self, data: bytes) -> list[Frame]:
        self.client.receive(data, self.now)
        self.client.check()
        return self.out()

    def out(self) -> list[Frame]:
        return self.peer.read(self.client.take_output())

    def call(self, path: str = "/t.T/Echo", request: bytes = b"", **more: float) -> list[Frame]:
        self.client.unary(
            path.encode(), request, lambda *end: self.ends.append(end), self.now, **more
        )
        return self.out()

    def headers(self, stream: int, *fields: tuple[str, str], end: bool = False) -> bytes:
        flags = END_HEADERS | (END_STREAM if end else 0)
        return frame(HEADERS, flags, stream, self.peer.block(*fields))

    def answer(self, stream: int, *messages: bytes, code: int = 0, text: str = "") -> bytes:
        trailers = [("grpc-status", str(code))]
        if text:
            trailers.append(("grpc-message", text))
        data = b"".join(frame(DATA, 0, stream, message(m)) for m in messages)
        return self.headers(stream, *OK_HEAD) + data + self.headers(stream, *trailers, end=True)


def word(value: int) -> bytes:
    return struct.pack(">I", value)


def test_a_request_is_headers_and_one_data_frame() -> None:
    caller = Caller()
    caller.start()
    for stream in (1, 3, 5):
        head, data = caller.call(request=b"abc", timeout_s=2.0)
        assert head.headers == {
            ":method": "POST",
            ":scheme": "http",
            ":path": "/t.T/Echo",
            ":authority": "there:1",
            "content-type": "application/grpc",
            "user-agent": "keyraft",
            "te": "trailers",
            "grpc-timeout": "2000000u",
        }
        assert next(iter(head.headers)) == ":method"
        assert (data.stream, data.flags, data.payload) == (stream, END_STREAM, message(b"abc"))
        caller.feed(caller.answer(stream, b"xyz"))
    assert caller.ends == [(0, "", b"xyz")] * 3
    assert not caller.client.streams


def test_secrets_are_never_put_into_a_table() -> None:
    caller = Caller()
    caller.start()
    for _ in range(2):
        head, _ = caller.call(metadata=((b"token", b"secret"), (b"hasleader", b"true")))  # type: ignore[arg-type]
        assert head.headers["token"] == "secret"
    names = {name for name, _ in caller.client.encoder.table.entries}
    assert b"hasleader" in names
    assert b"token" not in names


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (
            ((":status", "200"), ("grpc-status", "5"), ("grpc-message", "a%20%C3%BC%zz")),
            5,
            "a ü%zz",
        ),
        (((":status", "404"),), 12, "unexpected HTTP status code received from server: 404"),
        (((":status", "503"),), 14, "unexpected HTTP status code received from server: 503"),
        (
            ((":status", "200"), ("content-type", "text/html")),
            2,
            'unexpected content-type "text/html"',
        ),
        (OK_HEAD, 2, "the answer has no grpc-status"),
        ((*OK_HEAD, ("grpc-status", "x")), 2, "the answer has no grpc-status"),
    ],
)
def test_answers_of_headers_alone(
    answer: tuple[tuple[str, str], ...], code: int, text: str
) -> None:
    caller = Caller()
    caller.start()
    caller.call()
    caller.feed(caller.headers(1, *answer, end=True))
    assert caller.ends == [(code, text, b"")]
    assert not caller.client.streams


def test_an_interim_answer_is_passed_over() -> None:
    caller = Caller()
    caller.start()
    caller.call()
    caller.feed(caller.headers(1, (":status", "103")) + caller.answer(1, b"a"))
    assert caller.ends == [(0, "", b"a")]


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ((), "cardinality violation: no response message"),
        ((b"a", b"b"), "cardinality violation: more than one response message"),
    ],
)
def test_a_unary_call_has_one_answer(messages: tuple[bytes, ...], text: str) -> None:
    caller = Caller()
    caller.start()
    caller.call()
    caller.feed(caller.answer(1, *messages))
    assert [end[:2] for end in caller.ends] == [(status.INTERNAL, text)]


def test_an_answer_without_trailers_is_an_error() -> None:
    caller = Caller()
    caller.start()
    caller.call()
    caller.feed(caller.headers(1, *OK_HEAD) + frame(DATA, END_STREAM, 1, message(b"a")))
    assert caller.ends[0][:2] == (13, "server closed the stream without sending trailers")


@pytest.mark.parametrize(("code", "expected"), [(7, 14), (8, 1), (11, 8), (2, 13), (0, 13)])
def test_a_reset_ends_the_call(code: int, expected: int) -> None:
    caller = Caller()
    caller.start()
    call = caller.client.unary(b"/t.T/Echo", b"", lambda *end: caller.ends.append(end), 0.0)
    caller.feed(frame(RST, 0, 1, word(code)))
    assert caller.ends[0][0] == expected
    assert caller.ends[0][1].startswith("stream terminated by RST_STREAM with error code: ")
    assert call.unprocessed == (code == 7)


@pytest.mark.parametrize(("now", "expected"), [(0.5, 1), (1.0, 4), (1.5, 4)])
def test_a_reset_after_the_deadline_is_the_servers_word_for_the_deadline(
    now: float, expected: int
) -> None:
    caller = Caller()
    caller.start()
    caller.call(timeout_s=1.0)
    caller.client.receive(frame(RST, 0, 1, word(8)), now)
    assert [end[0] for end in caller.ends] == [expected]


def test_a_goaway_ends_what_the_server_has_not_seen_and_keeps_the_rest() -> None:
    caller = Caller()
    caller.start()
    for _ in range(3):
        caller.call()
    caller.feed(frame(GOAWAY, 0, 0, word(3) + word(0) + b"moving"))
    assert [end[0] for end in caller.ends] == [14]
    assert "moving" in caller.ends[0][1]
    assert caller.client.draining
    assert caller.call() == []
    assert len(caller.ends) == 2
    caller.feed(caller.answer(1, b"one") + caller.answer(3, b"three"))
    assert [end[2] for end in caller.ends[2:]] == [b"one", b"three"]
    assert caller.client.closed


def test_the_loss_of_the_connection_ends_every_call_once() -> None:
    caller = Caller()
    caller.start(streams=1)
    caller.call()
    caller.call()
    caller.client.connection_lost(1.0)
    assert [end[0] for end in caller.ends] == [14, 14]
    caller.call()
    assert len(caller.ends) == 3


def test_a_deadline_resets_the_stream() -> None:
    caller = Caller()
    caller.start()
    caller.call(timeout_s=1.0)
    assert caller.client.next_deadline() == 1.0
    caller.client.tick(1.0)
    assert [(f.kind, f.code) for f in caller.out()] == [(RST, 8)]
    assert caller.ends == [(4, "context deadline exceeded", b"")]
    assert caller.feed(caller.answer(1, b"late")) == []
    assert len(caller.ends) == 1


def test_a_deadline_counts_in_the_line_too() -> None:
    caller = Caller()
    caller.start(streams=1)
    caller.call()
    assert caller.call(timeout_s=1.0) == []
    assert caller.client.next_deadline() == 1.0
    caller.client.tick(1.5)
    assert caller.ends == [(4, "context deadline exceeded", b"")]


def test_keepalive_only_while_something_is_under_way_unless_asked() -> None:
    limits = Limits(keepalive_interval_s=10.0, keepalive_timeout_s=3.0)
    assert Caller(limits).client.next_deadline() is None
    assert Caller(limits, keepalive_without_calls=True).client.next_deadline() == 10.0
    caller = Caller(limits)
    caller.start()
    caller.call()
    caller.client.tick(10.0)
    caller.client.tick(13.0)
    assert caller.ends == [(14, "keepalive timeout", b"")]


def test_a_message_above_the_limit() -> None:
    caller = Caller(Limits(message_bytes_max=10, keepalive_interval_s=0.0))
    caller.start()
    caller.call()
    out = caller.feed(caller.headers(1, *OK_HEAD) + frame(DATA, 0, 1, message(b"x" * 11)))
    assert [(f.kind, f.code) for f in out] == [(RST, 8)]
    assert caller.ends[0][:2] == (8, "grpc: received message larger than max (11 vs. 10)")


@pytest.mark.parametrize(
    "bad",
    [
        frame(HEADERS, END_HEADERS, 2, b"\x88"),
        frame(HEADERS, END_HEADERS, 9, b"\x88"),
        frame(PUSH, END_HEADERS, 1, word(2)),
        frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 1)),
        frame(DATA, 0, 9, b""),
    ],
)
def test_a_server_that_breaks_the_protocol_ends_the_connection(bad: bytes) -> None:
    caller = Caller()
    caller.start()
    caller.call()
    out = caller.feed(bad)
    assert out[-1].kind == GOAWAY
    assert [end[0] for end in caller.ends] == [14]


def test_data_before_headers_is_a_stream_error() -> None:
    caller = Caller()
    caller.start()
    caller.call()
    out = caller.feed(frame(DATA, 0, 1, message(b"a")))
    assert [(f.kind, f.code) for f in out] == [(RST, 1)]
    assert caller.ends[0][0] == 13


def streaming(caller: Caller) -> tuple[ClientStream, Answers]:
    answers = Answers()
    return caller.client.stream(b"/t.T/Talk", answers, 0.0), answers


def test_a_stream_sends_half_closes_and_reads() -> None:
    caller = Caller()
    caller.start()
    stream, answers = streaming(caller)
    stream.send(b"a")
    stream.half_close()
    stream.send(b"late")
    _head, data, end = caller.out()
    assert (data.payload, end.flags, end.payload) == (message(b"a"), END_STREAM, b"")
    caller.feed(caller.answer(1, b"x", b"y", code=9, text="no"))
    assert (answers.messages, answers.end) == ([b"x", b"y"], (9, "no"))


def test_a_stream_in_line_keeps_what_it_was_given() -> None:
    caller = Caller()
    caller.start(streams=1)
    caller.call()
    stream, answers = streaming(caller)
    stream.send(b"early")
    stream.half_close()
    assert caller.out() == []
    out = caller.feed(caller.answer(1, b""))
    assert [f.payload for f in out if f.kind == DATA] == [message(b"early"), b""]
    caller.feed(caller.answer(3, b"x"))
    assert answers.end == (0, "")


def test_a_stream_waits_for_windows() -> None:
    caller = Caller()
    caller.start(window=10)
    stream, _ = streaming(caller)
    stream.send(b"x" * 2_000_000)
    stream.half_close()
    sent = b"".join(f.payload for f in caller.out() if f.kind == DATA)
    assert len(sent) == 10
    assert stream.writable < 0
    ended = False
    while not ended:
        out = caller.feed(frame(WINDOW, 0, 0, word(60_000)) + frame(WINDOW, 0, 1, word(60_000)))
        sent += b"".join(f.payload for f in out if f.kind == DATA)
        ended = any(f.flags & END_STREAM for f in out)
    assert sent == message(b"x" * 2_000_000)


def test_a_paused_stream_hears_its_end_after_its_messages() -> None:
    caller = Caller()
    caller.start()
    stream, answers = streaming(caller)
    stream.pause_reading()
    caller.feed(caller.answer(1, b"x", b"y"))
    assert (answers.messages, answers.end) == ([], None)
    stream.resume_reading()
    assert (answers.messages, answers.end) == ([b"x", b"y"], (0, ""))
    caller.client.check()


def test_a_cancelled_stream_is_reset_and_told() -> None:
    caller = Caller()
    caller.start()
    stream, answers = streaming(caller)
    caller.out()
    stream.cancel()
    assert answers.end == (1, "context canceled")
    assert [(f.kind, f.code) for f in caller.out()] == [(RST, 8)]
    stream.cancel()
    stream.send(b"late")
    assert not caller.client.has_output


def test_memoised_blocks_never_outlive_the_table() -> None:
    """Many paths and metadata push each other out of the table; each request still says its own."""
    caller = Caller()
    caller.start(table=300)
    for i in range(600):
        path, token = f"/t.T/Method{i * 7 % 11}", b"%d" % (i * 5 % 13)
        head = caller.call(path, metadata=((b"hasleader", token),))[0]  # type: ignore[arg-type]
        assert (head.headers[":path"], head.headers["hasleader"]) == (path, token.decode())
        caller.feed(caller.answer(1 + 2 * i, b""))
    caller.feed(settings(table=0))
    assert caller.call("/t.T/Method1")[0].headers[":path"] == "/t.T/Method1"


def test_our_two_ends_understand_each_other() -> None:
    bench, caller = Bench(), Caller()
    server, client = bench.server, caller.client

    def settle() -> None:
        while server.has_output or client.has_output:
            server.receive(client.take_output(), 0.0)
            client.receive(server.take_output(), 0.0)
            while server.wants_turn or client.wants_turn:
                server.resume_output(0.0)
                client.resume_output(0.0)
            server.check()
            client.check()

    settle()
    for i in range(300):
        client.unary(
            b"/t.T/Echo", b"%d" % i * (i * 37 % 5_000), lambda *e: caller.ends.append(e), 0.0
        )
    settle()
    assert [end[2] for end in caller.ends] == [b"%d" % i * (i * 37 % 5_000) for i in range(300)]
    assert (server.streams, client.streams) == ({}, {})
