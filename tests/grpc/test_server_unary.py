"""Unary calls on a ServerConnection, read frame by frame."""

from __future__ import annotations

import pytest

from keyraft.grpc import Limits, status
from tests.grpc.bench import Bench
from tests.grpc.wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST,
    frame,
    message,
)


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_an_echo_is_headers_data_and_trailers(cut: int) -> None:
    bench = Bench()
    bench.start()
    for stream in (1, 3, 5, 7):
        head, data, tail = bench.feed(bench.peer.unary(stream, "/t.T/Echo", b"abc"), cut)
        assert head.headers == {":status": "200", "content-type": "application/grpc"}
        assert (head.kind, head.flags, head.stream) == (HEADERS, END_HEADERS, stream)
        assert (data.kind, data.flags, data.payload) == (DATA, 0, message(b"abc"))
        assert (tail.flags, tail.headers) == (END_HEADERS | END_STREAM, {"grpc-status": "0"})
    assert not bench.server.streams
    route = bench.router.find(b"/t.T/Echo")
    assert route is not None
    assert (route.started, route.msg_received, route.msg_sent, route.handled[0]) == (4, 4, 4, 4)


def test_an_answer_may_come_later_and_in_any_order() -> None:
    bench = Bench()
    bench.start()
    bench.feed(bench.peer.unary(1, "/t.T/Hold", b"a") + bench.peer.unary(3, "/t.T/Hold", b"b"))
    woken: list[int] = []
    bench.server.on_output = lambda: woken.append(1)
    bench.held[1].respond(b"second")
    bench.held[0].respond(b"first")
    assert woken == [1]
    frames = [f for f in bench.out() if f.kind == DATA]
    assert [(f.stream, f.payload[5:]) for f in frames] == [(3, b"second"), (1, b"first")]
    bench.held[0].respond(b"twice")
    assert not bench.server.has_output


def test_an_error_is_trailers_alone() -> None:
    bench = Bench()
    bench.start()
    (only,) = bench.feed(bench.peer.unary(1, "/t.T/Fail", b""))
    assert only.flags == END_HEADERS | END_STREAM
    assert only.headers == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "3",
        "grpc-message": "etcdserver: key is not provided",
    }


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/no.Such/Method", "unknown service no.Such"),
        ("/t.T/None", "unknown method None for service t.T"),
        ("/nothing", 'malformed method name: "/nothing"'),
    ],
)
def test_an_unknown_path_is_refused_as_grpc_go_does(path: str, text: str) -> None:
    bench = Bench()
    bench.start()
    (only,) = bench.feed(bench.peer.unary(1, path, b""))[:1]
    assert only.headers["grpc-status"] == str(status.UNIMPLEMENTED)
    assert only.headers["grpc-message"] == text


def test_a_reset_stops_the_work_once() -> None:
    bench = Bench()
    bench.start()
    bench.feed(bench.peer.unary(1, "/t.T/Hold", b""))
    bench.feed(frame(RST, 0, 1, b"\0\0\0\x08"))
    assert bench.cancels == [status.CANCELLED]
    assert bench.held[0].cancelled
    bench.held[0].respond(b"late")
    assert not bench.server.has_output


def test_a_deadline_ends_the_call_with_its_status() -> None:
    bench = Bench()
    bench.start()
    bench.feed(bench.peer.unary(1, "/t.T/Hold", b"", ("grpc-timeout", "50m")))
    assert bench.held[0].deadline_s == pytest.approx(0.05)
    assert bench.server.next_deadline() == pytest.approx(0.05)
    bench.server.tick(0.049)
    assert not bench.server.has_output
    bench.server.tick(0.051)
    (only,) = bench.out()
    assert only.headers["grpc-status"] == "4"
    assert bench.cancels == [status.DEADLINE_EXCEEDED]


def test_a_message_above_the_limit_is_refused_with_grpc_go_s_text() -> None:
    bench = Bench(Limits(message_bytes_max=10))
    bench.start()
    out = bench.feed(bench.peer.unary(1, "/t.T/Echo", b"x" * 11))
    assert out[0].headers["grpc-status"] == "8"
    assert out[0].headers["grpc-message"] == "grpc: received message larger than max (11 vs. 10)"


def test_no_preface_ends_the_connection() -> None:
    bench = Bench()
    out = bench.feed(b"GET / HTTP/1.1\r\n\r\n")
    assert out[-1].kind == GOAWAY
    assert bench.server.closed
