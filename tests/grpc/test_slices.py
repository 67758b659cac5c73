"""A connection does a slice of work and waits for its next turn, whatever it was sent.

Work is counted, so what one slice does is the same for the same bytes; and the slices together do
what one piece would have done.
"""

from __future__ import annotations

import struct

import pytest

from keyraft.grpc import Budget, ClientConnection, Limits, status
from keyraft.grpc.limits import FRAME_WORK, HTTP_WORK, LOST_WORK, REQUEST_WORK
from tests.grpc.bench import Bench
from tests.grpc.wire import (
    CONT,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST,
    SETTINGS,
    WINDOW,
    Peer,
    frame,
    message,
    settings,
)

SLICE = 500
LARGEST_PIECE = HTTP_WORK + 100  # of work in one frame at most: nothing is cut within a frame
WINDOW_MAX = (1 << 31) - 1


def word(value: int) -> bytes:
    return struct.pack(">I", value)


def sliced(**limits: int) -> Bench:
    bench = Bench(Limits(slice_work=SLICE, **limits))  # type: ignore[arg-type]
    bench.start(window=WINDOW_MAX)
    bench.feed(frame(WINDOW, 0, 0, word(WINDOW_MAX - 65_535)))
    return bench


def slices(bench: Bench, data: bytes) -> list[int]:
    """Feeds everything at once; the work of each slice that it took."""
    server = bench.server
    server.receive(data, bench.now)
    done = [server.work]
    while server.wants_turn:
        server.check()
        server.resume_output(bench.now)
        done.append(server.work)
    return done


def costly(kind: str, peer: Peer) -> bytes:
    """Frames that are permitted and cost more than they look."""
    if kind == "unary":
        return b"".join(peer.unary(1 + 2 * i, "/t.T/Echo", b"x") for i in range(400))
    if kind == "unknown methods":
        return b"".join(peer.unary(1 + 2 * i, f"/no/{i}", b"") for i in range(400))
    if kind == "data of one byte":
        body = message(b"x" * 2_000)
        return frame(HEADERS, END_HEADERS, 1, peer.request("/t.T/Echo")) + b"".join(
            frame(DATA, 0, 1, body[i : i + 1]) for i in range(len(body))
        )
    if kind == "messages in one frame":
        return frame(HEADERS, END_HEADERS, 1, peer.request("/t.T/Talk")) + frame(
            DATA, 0, 1, message(b"") * 3_000
        )
    if kind == "headers":
        fields = [(f"x-{i}", "v") for i in range(150)]
        return b"".join(
            frame(
                HEADERS, END_HEADERS, 1 + 2 * i, peer.request("/t.T/Hold", *fields, (f"y{i}", ""))
            )
            for i in range(60)
        )
    if kind == "continuations":
        block = peer.request("/t.T/Hold")
        return b"".join(
            frame(HEADERS, 0, 1 + 2 * i)
            + frame(CONT, 0, 1 + 2 * i) * 50
            + frame(CONT, END_HEADERS, 1 + 2 * i, block)
            for i in range(40)
        )
    if kind == "resets":
        head = peer.request("/t.T/Talk")
        return b"".join(
            frame(HEADERS, END_HEADERS, 1 + 2 * i, head) + frame(RST, 0, 1 + 2 * i, word(8))
            for i in range(300)
        )
    if kind == "pings":
        return frame(PING, 0, 0, b"12345678") * 900
    if kind == "settings":
        return frame(SETTINGS, 0, 0) * 500 + settings(window=1) * 500
    if kind == "window updates":
        return frame(WINDOW, 0, 1, word(1)) * 3_000
    assert kind == "plain http"
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/metrics")]
    return b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * i, peer.block(*fields)) for i in range(50)
    )


def hostile(kind: str, slice_work: int) -> Bench:
    """A server that permits all of it."""
    limits = Limits(slice_work=slice_work, keepalive_min_time_s=0, settings=Budget(10_000, 1.0))
    bench = Bench(limits, http=kind == "plain http")
    bench.start(window=WINDOW_MAX)
    if kind in ("window updates", "pings"):
        bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talk")))
    return bench


KINDS = [
    "unary",
    "unknown methods",
    "data of one byte",
    "messages in one frame",
    "headers",
    "continuations",
    "resets",
    "pings",
    "settings",
    "window updates",
    "plain http",
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_slice_does_more_than_its_share(kind: str) -> None:
    bench = hostile(kind, SLICE)
    done = slices(bench, costly(kind, bench.peer))
    assert len(done) > 5, done
    assert all(SLICE <= work < SLICE + LARGEST_PIECE for work in done[:-1]), done


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_slices_together_do_what_one_piece_would_have_done(kind: str) -> None:
    outcomes = []
    for slice_work in (SLICE, 1 << 40):
        bench = hostile(kind, slice_work)
        assert (len(slices(bench, costly(kind, bench.peer))) > 1) == (slice_work == SLICE)
        assert not bench.server.closed
        outcomes.append((bench.server.take_output(), bench.log, len(bench.held), len(bench.https)))
    assert outcomes[0] == outcomes[1]


def test_fifty_requests_in_one_read_are_one_slice() -> None:
    """The load that the transport is made for is never cut."""
    bench = Bench()
    bench.start()
    data = b"".join(bench.peer.unary(1 + 2 * i, "/t.T/Echo", b"x" * 280) for i in range(50))
    assert len(slices(bench, data)) == 1


def test_what_arrives_between_turns_is_held_and_counts_as_heard() -> None:
    bench = Bench(Limits(slice_work=SLICE, keepalive_interval_s=10.0))
    bench.start()
    bench.server.hold(bench.peer.unary(1, "/t.T/Echo", b"x"), 5.0)
    assert not bench.server.streams_opened and bench.server.wants_resume
    assert bench.server.next_deadline() == 15.0
    bench.server.resume_output(6.0)
    assert bench.server.streams_opened == 1 and not bench.server.wants_resume  # type: ignore[comparison-overlap]
    assert bench.server.next_deadline() == 15.0


def test_an_incomplete_frame_asks_for_no_turn() -> None:
    bench = sliced()
    data = bench.peer.unary(1, "/t.T/Echo", b"x" * 1_000)
    bench.server.receive(data[:-1], 0.0)
    assert not bench.server.wants_resume
    bench.server.receive(data[-1:], 0.0)
    assert bench.server.streams_opened == 1 and not bench.server.streams


def test_the_end_of_a_stream_waits_for_its_messages() -> None:
    bench = sliced()
    bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talk")))
    bench.server.receive(frame(DATA, END_STREAM, 1, message(b"m") * 200), 0.0)
    assert len(bench.log) == SLICE // REQUEST_WORK and bench.server.wants_turn
    bench.feed(b"")
    assert len(bench.log) == 201
    assert bench.log[-1] == "half close"


def test_a_handler_that_pauses_is_not_woken_by_the_next_slice() -> None:
    bench = sliced()
    bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talk")))
    bench.server.receive(frame(DATA, END_STREAM, 1, message(b"m") * 200), 0.0)
    stream = bench.streams[0]
    seen = len(bench.log)
    stream.pause_reading()
    bench.feed(b"")
    assert len(bench.log) == seen and not bench.server.wants_resume
    stream.resume_reading()
    bench.feed(b"")
    assert len(bench.log) == 201


@pytest.mark.slow
def test_a_window_that_frees_many_small_answers_sends_them_in_slices() -> None:
    bench = Bench(Limits(slice_work=SLICE))
    bench.start(window=0)
    for i in range(1_000):
        bench.feed(bench.peer.unary(1 + 2 * i, "/t.T/Echo", b"x"))
    done = slices(bench, settings(window=100))
    assert len(done) >= 1_000 * FRAME_WORK // SLICE
    assert max(done) < SLICE + LARGEST_PIECE
    assert len([f for f in bench.out() if f.kind == DATA]) == 1_000


@pytest.mark.parametrize("by", ["lost", "fault"])
def test_a_connection_with_many_streams_ends_in_slices(by: str) -> None:
    bench = sliced()
    for i in range(300):
        bench.feed(frame(HEADERS, END_HEADERS, 1 + 2 * i, bench.peer.request("/t.T/Talk")))
    bench.log.clear()
    if by == "lost":
        bench.server.connection_lost(0.0)
    else:
        bench.server.receive(frame(SETTINGS, 0, 1), 0.0)
    assert bench.server.closed and not bench.server.streams
    assert 0 < len(bench.log) <= SLICE // LOST_WORK
    bench.streams[-1].send(b"late")  # one not yet told may not send any more
    bench.streams[-1].finish()
    while bench.server.wants_resume:
        bench.server.resume_output(0.0)
        assert bench.server.work <= SLICE
    assert len(bench.log) == 300
    assert all(stream.cancelled for stream in bench.streams)


def test_many_deadlines_at_once_pass_in_slices() -> None:
    bench = sliced()
    for i in range(300):
        head = bench.peer.request("/t.T/Hold", ("grpc-timeout", "1S"))
        bench.feed(
            frame(HEADERS, END_HEADERS, 1 + 2 * i, head) + frame(DATA, 1, 1 + 2 * i, message(b""))
        )
    ticks = 0
    while bench.server.streams:
        due = bench.server.next_deadline()
        assert due is not None and due <= 1.0  # at once again
        bench.server.tick(1.0)
        ticks += 1
    assert ticks == 300 // (SLICE // LOST_WORK)
    assert bench.cancels == [status.DEADLINE_EXCEEDED] * 300


def test_plain_http_is_dear() -> None:
    assert Limits().slice_work < HTTP_WORK * 10


class Receiver:
    def __init__(self) -> None:
        self.got: list[object] = []

    def on_message(self, received: bytes) -> None:
        self.got.append(received)

    def on_end(self, code: int, text: str, trailers: object) -> None:
        self.got.append((code, text))

    def on_writable(self) -> None:
        pass


def test_a_client_reads_in_slices_too() -> None:
    client, peer, receiver = (
        ClientConnection(Limits(slice_work=60), 0.0, authority="a"),
        Peer(),
        Receiver(),
    )
    client.receive(settings(), 0.0)
    client.stream(b"/t.T/Talk", receiver, 0.0)
    head = peer.block((":status", "200"), ("content-type", "application/grpc"))
    client.receive(
        frame(HEADERS, END_HEADERS, 1, head)
        + frame(DATA, 0, 1, message(b"m") * 100)
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, peer.block(("grpc-status", "0"))),
        0.0,
    )
    assert 0 < len(receiver.got) < 30
    turns = 0
    while client.wants_turn:
        client.resume_output(0.0)
        turns += 1
    assert turns >= 5
    assert receiver.got == [b"m"] * 100 + [(0, "")]
