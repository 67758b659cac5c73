"""Streaming calls on a ServerConnection: delivery, back pressure, and every way to end."""

from __future__ import annotations

import struct

import pytest

from keyraft.grpc import Limits, status
from tests.grpc.bench import Bench
from tests.grpc.wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST,
    WINDOW,
    Frame,
    frame,
    message,
)


def opened(
    limits: Limits | None = None,
    *extra: tuple[str, str],
    window: int = 65_535,
    path: str = "/t.T/Talk",
) -> Bench:
    bench = Bench(limits)
    bench.start(window=window)
    bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.request(path, *extra)))
    return bench


def data_of(frames: list[Frame]) -> bytes:
    return b"".join(f.payload for f in frames if f.kind == DATA)


def word(value: int) -> bytes:
    return struct.pack(">I", value)


def test_messages_arrive_however_they_are_cut() -> None:
    bench = opened()
    wire = message(b"one") + message(b"") + message(b"three" * 100)
    for i in range(len(wire)):
        bench.feed(frame(DATA, 0, 1, wire[i : i + 1]))
    bench.feed(frame(DATA, END_STREAM, 1))
    assert bench.log == [b"one", b"", b"three" * 100, "half close"]


def test_a_stream_s_head_and_trailers_carry_metadata() -> None:
    """gRPC's interoperability test `custom_metadata`."""
    bench = opened()
    out = bench.feed(frame(DATA, 0, 1, message(b"begin")))
    assert out[0].headers == {
        ":status": "200",
        "content-type": "application/grpc",
        "x-initial": "hello",
        "x-data-bin": "q6ur",
    }
    assert not out[0].flags & END_STREAM
    out = bench.feed(frame(DATA, 0, 1, message(b"begin") + message(b"echo")))
    assert [each.kind for each in out] == [DATA], "one head and no more"
    out = bench.feed(frame(DATA, 0, 1, message(b"farewell") + message(b"begin")))
    assert out[0].headers == {"grpc-status": "0", "x-trailing-bin": "q6ur"}
    assert out[0].flags & END_STREAM

    bare = opened()
    out = bare.feed(frame(DATA, 0, 1, message(b"farewell")))
    assert out[0].headers is not None and out[0].headers["x-trailing-bin"] == "q6ur"


def test_answers_start_with_headers_and_end_with_trailers() -> None:
    bench = opened()
    out = bench.feed(frame(DATA, 0, 1, message(b"echo") * 2))
    assert out[0].headers == {":status": "200", "content-type": "application/grpc"}
    assert data_of(out) == message(b"echo") * 2
    bench.feed(frame(DATA, END_STREAM, 1))
    bench.streams[0].finish()
    (end,) = bench.out()
    assert (end.flags, end.headers) == (END_HEADERS | END_STREAM, {"grpc-status": "0"})
    assert not bench.server.streams
    bench.streams[0].send(b"late")
    bench.streams[0].finish()
    assert not bench.server.has_output


def test_a_stream_that_ends_first_is_reset_without_blame() -> None:
    bench = opened()
    out = bench.feed(frame(DATA, 0, 1, message(b"finish")))
    assert out[0].headers["grpc-status"] == "5"
    assert out[0].headers["grpc-message"] == "enough"
    assert (out[1].kind, out[1].code) == (RST, 0)
    assert bench.feed(frame(DATA, END_STREAM, 1, message(b"more"))) == []
    assert bench.log == [b"finish"]


def test_messages_behind_the_end_are_not_delivered() -> None:
    bench = opened()
    bench.feed(frame(DATA, 0, 1, message(b"finish") + message(b"more")))
    assert bench.log == [b"finish"]


def test_a_paused_stream_gets_nothing_and_its_sender_no_window() -> None:
    bench = opened(Limits(stream_window_bytes=40_000))
    bench.feed(frame(DATA, 0, 1, message(b"pause")))
    for _ in range(3):
        out = bench.feed(frame(DATA, 0, 1, message(b"x" * 10_000)))
        assert [f for f in out if f.kind == WINDOW and f.stream == 1] == []
    bench.feed(frame(DATA, END_STREAM, 1, message(b"last")))
    assert bench.log == [b"pause"]
    bench.streams[0].resume_reading()
    bench.server.check()
    assert bench.log == [b"pause", *[b"x" * 10_000] * 3, b"last", "half close"]


def test_resuming_gives_the_window_back() -> None:
    bench = opened(Limits(stream_window_bytes=40_000))
    bench.feed(frame(DATA, 0, 1, message(b"pause") + message(b"x" * 15_000)))
    bench.feed(frame(DATA, 0, 1, message(b"x" * 15_000)))
    bench.streams[0].resume_reading()
    grants = [f.code for f in bench.out() if f.kind == WINDOW and f.stream == 1]
    assert grants == [30_020]


def test_a_stream_may_pause_again_within_a_delivery() -> None:
    bench = opened()
    bench.feed(frame(DATA, 0, 1, message(b"pause") * 3 + message(b"end")))
    assert bench.log == [b"pause"]
    for seen in (2, 3, 4):
        bench.streams[0].resume_reading()
        assert len(bench.log) == seen
    bench.server.check()


def test_messages_that_come_at_once_are_handed_over_at_once() -> None:
    first = frame(DATA, 0, 1, message(b"first"))
    same = b"".join(frame(DATA, 0, 1, message(b"m%03d" % i)) for i in range(400))
    longer = b"".join(frame(DATA, 0, 1, message(b"x" * size)) for size in (0, 7, 7, 16_379))
    two_in_a_frame = frame(DATA, 0, 1, message(b"a") + message(b"b"))
    half = frame(DATA, 0, 1, message(b"halves")[:7]) + frame(DATA, 0, 1, message(b"halves")[7:])
    wire = first + same + two_in_a_frame + longer + half + same + frame(DATA, END_STREAM, 1)
    whole = opened(path="/t.T/Many")
    whole.feed(first)
    whole.feed(wire)
    pieces = opened(path="/t.T/Many")
    pieces.feed(first)
    pieces.feed(wire, cut=11)
    assert whole.log == pieces.log
    assert len(whole.log) == 2 + 800 + 2 + 4 + 1 + 1 and whole.log[-1] == "half close"
    assert whole.sizes == [401, 4, 400] and pieces.sizes == []


def test_what_is_not_taken_at_once_comes_again() -> None:
    bench = opened(Limits(stream_window_bytes=40_000), path="/t.T/Many")
    bench.feed(frame(DATA, 0, 1, message(b"first")))
    words = [b"one", b"pause", b"two", b"three", b"finish", b"four"]
    bench.feed(b"".join(frame(DATA, 0, 1, message(each)) for each in words))
    assert bench.log == [b"first", b"one", b"pause"]
    bench.server.check()
    bench.streams[0].resume_reading()
    assert bench.log == [b"first", *words[:5]]
    bench.server.check()


def test_messages_in_a_row_get_their_window_back() -> None:
    bench = opened(Limits(stream_window_bytes=40_000), path="/t.T/Many")
    row = frame(DATA, 0, 1, message(b"x" * 995)) * 12
    grants = 0
    for _ in range(50):
        grants += sum(f.code for f in bench.feed(row) if f.kind == WINDOW and f.stream == 1)
    assert len(bench.log) == 600
    assert 580_000 <= grants <= 600_000


def test_several_messages_sent_in_one_piece() -> None:
    for window in (65_535, 30):
        bench = opened(window=window)
        framed = message(b"one") + message(b"") + message(b"three")
        bench.streams[0].send_framed(framed, 3)
        out = bench.out()
        received = data_of(out)
        while len(received) < len(framed) and window == 30:
            received += data_of(bench.feed(frame(WINDOW, 0, 1, word(4))))
        assert received == framed
    bench = opened()
    large = message(b"y" * 20_000) * 3
    bench.streams[0].send_framed(large, 3)
    out = bench.out()
    assert data_of(out) == large and max(len(f.payload) for f in out) <= 16_384
    assert next(iter(r for r in bench.router if r.method == "Talk")).msg_sent == 3


def test_one_message_in_shared_pieces() -> None:
    pieces = [bytes([i]) * 16_256 for i in range(3)] + [b"end"]
    whole = message(b"head" + b"".join(pieces))
    bench = opened(window=1 << 20)
    bench.feed(frame(WINDOW, 0, 0, word(1 << 20)))
    bench.streams[0].send_shared(b"head", pieces)
    assert bench.server.bulky is False  # less than what is worth it
    frames = bench.out()
    assert [len(f.payload) for f in frames if f.kind == DATA] == [16_265, 16_256, 16_256, 3]
    assert data_of(frames) == whole
    for _ in range(3):
        bench.streams[0].send_shared(b"head", pieces)
    assert bench.server.bulky
    before = bench.server.bytes_out
    taken = bench.server.take_pieces()
    assert any(piece is pieces[1] for piece in taken)
    assert data_of(bench.peer.read(b"".join(taken))) == whole * 3
    assert bench.server.bytes_out - before == sum(map(len, taken))
    assert not bench.server.has_output


def test_shared_pieces_wait_for_windows_like_all_else() -> None:
    pieces = [bytes([i]) * 16_256 for i in range(9)] + [b"end"]
    whole = message(b"head" + b"".join(pieces))
    bench = opened(Limits(stream_queue_bytes=100_000), window=20_000)
    stream = bench.streams[0]
    stream.send_shared(b"head", pieces)
    assert stream.writable < 0
    bench.server.check()
    received = data_of(bench.out())
    assert len(received) == 20_000
    while len(received) < len(whole):
        update = frame(WINDOW, 0, 1, word(7_777)) + frame(WINDOW, 0, 0, word(7_777))
        frames = bench.feed(update)
        assert max(len(f.payload) for f in frames) <= 16_384
        received += data_of(frames)
    assert received == whole
    assert bench.log == ["writable"]


def test_writable_says_when_to_stop_and_when_to_go_on() -> None:
    bench = opened(Limits(stream_queue_bytes=50_000), window=10_000)
    stream = bench.streams[0]
    assert stream.writable == 50_000
    stream.send(b"x" * 9_995)
    assert stream.writable == 50_000  # it went out at once
    while stream.writable > 0:
        stream.send(b"x" * 9_995)
    assert stream.writable == 0
    bench.server.check()
    assert bench.server.queued_bytes == 50_000
    bench.out()
    bench.feed(frame(WINDOW, 0, 1, word(20_000)))
    assert (stream.writable, bench.log) == (20_000, [])
    bench.feed(frame(WINDOW, 0, 1, word(30_000)))
    assert (stream.writable, bench.log) == (50_000, ["writable"])


def test_a_message_larger_than_every_window_arrives_whole() -> None:
    bench = opened(window=1_000)
    text = bytes(range(256)) * 1_000
    bench.streams[0].send(text)
    bench.streams[0].finish()
    received = data_of(bench.out())
    frames: list[Frame] = []
    while len(received) < len(text) + 5:
        frames = bench.feed(frame(WINDOW, 0, 1, word(7_777)) + frame(WINDOW, 0, 0, word(7_777)))
        assert max(len(f.payload) for f in frames) <= 16_384
        received += data_of(frames)
    assert received == message(text)
    assert frames[-2].headers == {"grpc-status": "0"}


def test_streams_share_the_connection_s_window_frame_by_frame() -> None:
    bench = Bench()
    bench.start(window=1 << 20)
    for stream in (1, 3, 5):
        bench.feed(frame(HEADERS, END_HEADERS, stream, bench.peer.request("/t.T/Talk")))
    bench.streams[0].send(b"a" * 200_000)
    bench.streams[1].send(b"b" * 200_000)
    bench.streams[2].send(b"c" * 200_000)
    bench.out()
    out = bench.feed(frame(WINDOW, 0, 0, word(16_384 * 6)))
    turns = [f.stream for f in out if f.kind == DATA]
    assert sorted(turns[:3]) == [1, 3, 5]
    assert sorted(turns[3:6]) == [1, 3, 5]


def test_a_reset_while_answers_wait_frees_them() -> None:
    bench = opened(window=10)
    bench.streams[0].send(b"x" * 100_000)
    assert bench.server.queued_bytes > 99_000
    bench.feed(frame(RST, 0, 1, word(8)))
    assert bench.server.queued_bytes == 0
    assert bench.log == [("cancel", status.CANCELLED)]
    assert bench.streams[0].cancelled


def test_a_reset_after_the_handler_finished_is_no_cancellation() -> None:
    bench = opened(window=10)
    bench.streams[0].send(b"x" * 1_000)
    bench.streams[0].finish()
    bench.feed(frame(RST, 0, 1, word(8)))
    assert bench.log == []
    assert not bench.server.streams


def test_a_deadline_ends_a_stream() -> None:
    bench = opened(None, ("grpc-timeout", "100m"))
    bench.server.tick(0.2)
    out = bench.out()
    assert out[0].headers["grpc-status"] == "4"
    assert bench.log == [("cancel", status.DEADLINE_EXCEEDED)]


def test_a_deadline_while_answers_wait_resets_the_stream() -> None:
    bench = Bench()
    bench.start(window=10)
    bench.feed(
        frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talk", ("grpc-timeout", "100m")))
    )
    bench.streams[0].send(b"x" * 1_000)
    bench.out()
    bench.server.tick(0.2)
    bench.server.check()
    assert [(f.kind, f.code) for f in bench.out()] == [(RST, 8)]
    route = bench.router.find(b"/t.T/Talk")
    assert route is not None
    assert route.handled[status.DEADLINE_EXCEEDED] == 1


def test_a_server_stream_takes_one_message() -> None:
    bench = Bench()
    bench.start()
    bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/List")))
    out = bench.feed(frame(DATA, END_STREAM, 1, message(b"a") + message(b"b")))
    assert out[0].headers["grpc-status"] == str(status.INTERNAL)


@pytest.mark.parametrize("path", ["/t.T/Echo", "/t.T/List"])
def test_a_request_without_a_message_or_with_half_a_one_fails(path: str) -> None:
    bench = Bench()
    bench.start()
    (end,) = bench.feed(frame(HEADERS, END_HEADERS | END_STREAM, 1, bench.peer.request(path)))
    assert end.headers["grpc-status"] == str(status.INTERNAL)
    bench.feed(frame(HEADERS, END_HEADERS, 3, bench.peer.request(path)))
    (end,) = bench.feed(frame(DATA, END_STREAM, 3, message(b"whole")[:-1]))
    assert end.headers["grpc-status"] == str(status.INTERNAL)


def test_a_unary_request_may_end_with_a_frame_of_its_own() -> None:
    bench = Bench()
    bench.start()
    bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Echo")))
    assert bench.feed(frame(DATA, 0, 1, message(b"abc"))) == []
    out = bench.feed(frame(DATA, END_STREAM, 1))
    assert data_of(out) == message(b"abc")
    assert [f.kind for f in out] == [HEADERS, DATA, HEADERS]  # and no reset


@pytest.mark.parametrize(
    ("flag", "code", "text"),
    [
        (1, status.INTERNAL, "grpc: compressed flag set with identity or empty encoding"),
        (7, status.INTERNAL, "grpc: received unexpected payload format 7"),
    ],
)
def test_a_strange_message_flag(flag: int, code: int, text: str) -> None:
    bench = Bench()
    bench.start()
    head = frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Echo"))
    out = bench.feed(head + frame(DATA, END_STREAM, 1, message(b"a", flag)))
    assert out[0].headers["grpc-status"] == str(code)
    assert out[0].headers["grpc-message"] == text


@pytest.mark.parametrize(
    ("override", "http_status", "code", "text"),
    [
        ({"content-type": "text/plain"}, 415, 3, 'invalid gRPC request content-type "text/plain"'),
        ({"grpc-timeout": "5x"}, 400, 13, 'malformed grpc-timeout: "5x"'),
        ({"x-bin": "!"}, 400, 13, "malformed binary metadata"),
        (
            {"grpc-encoding": "gzip"},
            200,
            12,
            'grpc: Decompressor is not installed for grpc-encoding "gzip"',
        ),
        (
            {":method": "GET"},
            405,
            13,
            'Received a HEADERS frame with :method "GET" which should be POST',
        ),
    ],
)
def test_what_is_no_grpc_request_is_refused_as_grpc_go_does(
    override: dict[str, str], http_status: int, code: int, text: str
) -> None:
    bench = Bench()
    bench.start()
    for stream in (1, 3):  # the second from memory
        block = bench.peer.request("/t.T/Echo", **override)
        out = bench.feed(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
        assert out[0].headers[":status"] == str(http_status)
        assert out[0].headers["grpc-status"] == str(code)
        assert out[0].headers["grpc-message"].startswith(text)


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "POST"), (":path", "/"), (":scheme", "http"), ("Upper", "x")],
        [(":method", "POST"), (":path", "/"), (":scheme", "http"), ("connection", "close")],
        [(":method", "POST"), (":path", "/"), (":scheme", "http"), ("te", "gzip")],
        [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":status", "200")],
        [(":method", "POST"), (":path", "/"), (":path", "/"), (":scheme", "http")],
        [(":method", "POST"), ("a", "b"), (":path", "/"), (":scheme", "http")],
        [(":method", "POST"), (":path", ""), (":scheme", "http")],
        [(":path", "/"), (":scheme", "http")],
        [(":method", "POST"), (":path", "/"), (":scheme", "http"), ("x", "a\nb")],
        [(":method", "POST"), (":path", "/"), (":scheme", "http"), ("content-length", "-1")],
    ],
)
def test_a_malformed_request_is_reset(fields: list[tuple[str, str]]) -> None:
    bench = Bench()
    bench.start()
    block = bench.peer.block(*fields)
    out = bench.feed(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert [(f.kind, f.code) for f in out] == [(RST, 1)]


@pytest.mark.parametrize(("length", "fine"), [("8", True), ("7", False), ("0", False)])
def test_content_length_must_be_true(length: str, fine: bool) -> None:
    bench = Bench()
    bench.start()
    for stream in (1, 3):
        out = bench.feed(bench.peer.unary(stream, "/t.T/Echo", b"abc", ("content-length", length)))
        if fine:
            assert data_of(out) == message(b"abc")
        else:
            assert (RST, 1) in [(f.kind, f.code) for f in out if f.kind == RST]


def test_a_graceful_end_lets_streams_finish_and_takes_no_more() -> None:
    bench = opened()
    bench.server.shutdown(0.0)
    first = bench.out()
    assert (first[0].kind, first[0].payload[:4]) == (GOAWAY, word((1 << 31) - 1))
    assert first[1].kind == PING
    # What was under way when the client read the first GOAWAY is still served.
    out = bench.feed(bench.peer.unary(3, "/t.T/Echo", b"in flight"))
    assert data_of(out) == message(b"in flight")
    (second,) = bench.feed(frame(PING, 1, 0, first[1].payload))
    assert (second.kind, second.payload[:4]) == (GOAWAY, word(3))
    assert bench.feed(bench.peer.unary(5, "/t.T/Echo", b"late")) == []
    assert not bench.server.closed
    bench.feed(frame(DATA, END_STREAM, 1))
    bench.streams[0].finish()
    assert bench.out()[-1].headers["grpc-status"] == "0"
    assert bench.server.closed


def test_a_graceful_end_does_not_wait_for_the_ping_for_ever() -> None:
    bench = Bench(Limits(drain_grace_s=1.0))
    bench.start()
    bench.server.shutdown(5.0)
    assert bench.server.next_deadline() == 6.0
    bench.server.tick(6.0)
    assert bench.server.closed
    assert bench.out()[-1].kind == GOAWAY


def test_keepalive_pings_an_idle_client_and_gives_it_up() -> None:
    bench = Bench(Limits(keepalive_interval_s=10.0, keepalive_timeout_s=3.0))
    bench.start()
    assert bench.server.next_deadline() == 10.0
    bench.server.tick(10.0)
    (ping,) = bench.out()
    assert (ping.kind, ping.flags) == (PING, 0)
    bench.now = 11.0
    bench.feed(frame(PING, 1, 0, ping.payload))
    assert bench.server.next_deadline() == 21.0
    bench.server.tick(21.0)
    bench.out()
    bench.server.tick(23.9)
    assert not bench.server.closed
    bench.server.tick(24.0)
    assert bench.server.closed
    assert bench.server.close_reason == "keepalive timeout"


def test_the_loss_of_the_connection_cancels_everything_once() -> None:
    bench = opened()
    bench.feed(bench.peer.unary(3, "/t.T/Hold", b""))
    bench.server.connection_lost(1.0)
    assert bench.log == [("cancel", status.CANCELLED)]
    assert bench.cancels == [status.CANCELLED]
    bench.held[0].respond(b"late")
    bench.streams[0].send(b"late")
    bench.streams[0].finish()
    assert not bench.server.has_output


def test_plain_http_has_its_own_way() -> None:
    bench = Bench(http=True)
    bench.start()
    block = bench.peer.block(
        (":method", "PUT"), (":scheme", "http"), (":path", "/v3/x?y"), (":authority", "h:1")
    )
    bench.feed(frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, 0, 1, b"ab"))
    assert bench.https == []
    bench.feed(frame(DATA, END_STREAM, 1, b"c"))
    (request,) = bench.https
    assert (request.method, request.target, request.body) == ("PUT", "/v3/x?y", b"abc")
    assert request.headers == [(b"host", b"h:1")]
    request.respond(404, [(b"content-type", b"text/plain")], b"none")
    head, data, end = bench.out()
    assert head.headers == {":status": "404", "content-type": "text/plain", "content-length": "4"}
    assert (data.payload, end.flags) == (b"none", END_STREAM)
    assert not bench.server.streams


def test_a_plain_http_answer_in_pieces_and_a_client_that_leaves() -> None:
    bench = Bench(http=True)
    bench.start(window=10)
    for stream in (1, 3):
        block = bench.peer.block((":method", "GET"), (":scheme", "http"), (":path", "/s"))
        bench.feed(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
    whole, left = bench.https
    whole.start(200, [])
    whole.write(b"0123456789abc")
    whole.end()
    assert data_of(bench.out()) == b"0123456789"
    out = bench.feed(frame(WINDOW, 0, 1, word(100)))
    assert (data_of(out), out[-1].flags) == (b"abc", END_STREAM)
    gone: list[int] = []
    left.on_close = lambda: gone.append(1)
    left.start(200, [])
    bench.feed(frame(RST, 0, 3, word(8)))
    assert gone == [1]
    left.write(b"late")
    left.end()
    bench.server.check()
    assert bench.server.queued_bytes == 0
