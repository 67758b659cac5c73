"""Unary answers in pieces: as fast as the client takes them, and never half of one with a status."""

from __future__ import annotations

import struct

from keyraft.grpc import Call, Limits
from tests.grpc.bench import Bench
from tests.grpc.wire import DATA, END_STREAM, HEADERS, RST, WINDOW, frame

PIECE = b"p" * 40_000


def begun(window: int = 65_535, **extra: float) -> tuple[Bench, Call, list[int]]:
    """A call whose answer of four pieces has begun, and how often it was told to go on."""
    bench = Bench(Limits(stream_queue_bytes=50_000), listen_from_s=0.0)
    bench.start()
    timeout = [("grpc-timeout", "1S")] if extra else []
    bench.feed(bench.peer.unary(1, "/t.T/Hold", b"a", *timeout))
    (call,) = bench.held
    told: list[int] = []
    call.begin_reply(4 * len(PIECE), lambda: told.append(1))
    return bench, call, told


def test_the_pieces_are_one_message_and_wait_for_the_clients_window() -> None:
    bench, call, told = begun()
    assert call.writable == 50_000
    call.send_reply(PIECE)
    got = bench.out()
    assert got[0].kind == HEADERS and got[0].headers[":status"] == "200"
    call.send_reply(PIECE)
    call.send_reply(PIECE)
    assert call.writable <= 0 and not told
    got += bench.out()
    while len([f for f in got if f.kind == DATA and f.payload]) and not told:
        room = struct.pack(">I", 60_000)
        got += bench.feed(frame(WINDOW, 0, 0, room) + frame(WINDOW, 0, 1, room))
    assert told == [1] and call.writable == 50_000
    call.send_reply(PIECE)
    call.end_reply(b"summary")
    room = struct.pack(">I", 100_000)
    got += bench.feed(frame(WINDOW, 0, 0, room) + frame(WINDOW, 0, 1, room))
    body = b"".join(f.payload for f in got if f.kind == DATA)
    assert body == b"\0" + struct.pack(">I", 4 * len(PIECE)) + 4 * PIECE
    assert (got[-1].kind, got[-1].flags & END_STREAM) == (HEADERS, END_STREAM)
    assert got[-1].headers == {"grpc-status": "0"}
    (end,) = bench.ends
    assert (end.code, end.reply) == (0, b"summary")
    assert not bench.server.streams and not bench.server._replies
    # The next call of the connection is answered as ever.
    assert [f.kind for f in bench.feed(bench.peer.unary(3, "/t.T/Echo", b"x"))] == [
        HEADERS,
        DATA,
        HEADERS,
    ]


def test_an_answer_that_fails_half_way_is_reset() -> None:
    for queued in (False, True):
        bench, call, _ = begun()
        call.send_reply(PIECE if not queued else 3 * PIECE)
        bench.out()
        call.fail(11, "etcdserver: mvcc: required revision has been compacted")
        (last,) = [f for f in bench.out() if f.kind != DATA]
        assert (last.kind, last.stream) == (RST, 1)
        assert bench.ends[-1].code == 11 and not bench.server._replies
        call.send_reply(PIECE)
        call.end_reply(b"")
        assert not bench.out()


def test_a_client_that_gives_up_ends_it() -> None:
    bench, call, told = begun()
    cancelled: list[int] = []
    call.on_cancel = lambda _, code: cancelled.append(code)
    call.send_reply(3 * PIECE)
    bench.feed(frame(RST, 0, 1, struct.pack(">I", 8)))
    assert cancelled == [1] and call.cancelled and not told
    assert not bench.server._replies and not bench.server.streams
    call.send_reply(PIECE)
    assert not [f for f in bench.out() if f.kind == DATA]


def test_a_deadline_that_passes_half_way_resets_it() -> None:
    bench, call, _ = begun(timeout=1.0)
    cancelled: list[int] = []
    call.on_cancel = lambda _, code: cancelled.append(code)
    call.send_reply(PIECE)
    bench.out()
    bench.server.tick(bench.server.now + 2.0)
    frames = bench.out()
    assert [f.kind for f in frames] == [RST] and cancelled == [4]
    assert bench.ends[-1].code == 4
