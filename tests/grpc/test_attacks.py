"""The known attacks, each against the limit that meets it."""

from __future__ import annotations

import struct

import pytest

from keyraft.grpc import Budget, Limits
from tests.grpc.bench import Bench
from tests.grpc.wire import (
    CONT,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW,
    Frame,
    frame,
    message,
    settings,
)

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, REFUSED, ENHANCE_YOUR_CALM = 1, 3, 6, 7, 11


def word(value: int) -> bytes:
    return struct.pack(">I", value)


def killed(bench: Bench, out: list[Frame], code: int = ENHANCE_YOUR_CALM, text: str = "") -> None:
    """The connection ended with this code and holds nothing any more."""
    assert [f.code for f in out if f.kind == GOAWAY] == [code]
    if text:
        assert text.encode() in out[-1].payload
    server = bench.server
    assert server.closed
    assert not server.streams
    assert (server.queued_bytes, server.inbound_bytes) == (0, 0)


def flood(bench: Bench, burst: int, piece: bytes, per_feed: int = 50) -> list[Frame]:
    """Sends up to the burst, which is bearable, and then one more, which is not."""
    for _ in range(burst // per_feed):
        bench.feed(piece * per_feed)
        assert not bench.server.closed
    return bench.feed(piece * per_feed)


def test_rapid_reset() -> None:
    bench = Bench(Limits(resets=Budget(200, 1.0)))
    bench.start()
    stream, out = 1, []
    while not bench.server.closed and stream < 2000:
        head = frame(HEADERS, END_HEADERS, stream, bench.peer.request("/t.T/Talk"))
        out = bench.feed(head + frame(RST, 0, stream, word(8)))
        assert not bench.server.streams
        stream += 2
    killed(bench, out, text="too many resets")
    assert 200 <= len(bench.streams) <= 202
    assert len(bench.log) == len(bench.streams)  # every handler was told


def test_the_reset_budget_fills_up_again_with_time() -> None:
    bench = Bench(Limits(resets=Budget(10, 10.0)))
    bench.start()
    for round_ in range(20):
        bench.now = float(round_)
        for i in range(10):
            stream = 1 + 2 * (round_ * 10 + i)
            head = frame(HEADERS, END_HEADERS, stream, bench.peer.request("/t.T/Talk"))
            bench.feed(head + frame(RST, 0, stream, word(8)))
    assert not bench.server.closed


def test_settings_flood() -> None:
    bench = Bench(Limits(settings=Budget(100, 1.0)))
    bench.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    killed(bench, flood(bench, 100, settings(window=1000)), text="SETTINGS")


def test_ping_flood() -> None:
    bench = Bench()
    bench.start()
    out = bench.feed(frame(PING, 0, 0, b"12345678") * 3)
    assert [f.flags for f in out] == [1, 1, 1]
    killed(bench, bench.feed(frame(PING, 0, 0, b"12345678")), text="too_many_pings")


def test_ping_flood_with_enforcement_off() -> None:
    bench = Bench(Limits(keepalive_min_time_s=0.0, pings=Budget(100, 1.0)))
    bench.start()
    bench.feed(bench.peer.unary(1, "/t.T/Hold", b""))
    killed(bench, flood(bench, 100, frame(PING, 0, 0, b"12345678")), text="too_many_pings")


def test_pings_within_the_allowed_rate_are_no_flood() -> None:
    bench = Bench(Limits(keepalive_min_time_s=5.0))
    bench.start()
    bench.feed(bench.peer.unary(1, "/t.T/Hold", b""))
    for _ in range(50):
        bench.now += 5.0
        (ack,) = bench.feed(frame(PING, 0, 0, b"12345678"))
        assert (ack.kind, ack.flags, ack.payload) == (PING, 1, b"12345678")


def test_pings_between_answers_are_no_flood() -> None:
    bench = Bench()
    bench.start()
    for i in range(1500):
        bench.feed(bench.peer.unary(1 + 2 * i, "/t.T/Echo", b""))
        bench.feed(frame(PING, 0, 0, b"12345678"))
    assert not bench.server.closed


def test_continuation_flood_of_many_frames() -> None:
    bench = Bench(Limits(continuation_frames_max=10))
    bench.start()
    bench.feed(frame(HEADERS, 0, 1, b""))
    for _ in range(10):
        assert bench.feed(frame(CONT, 0, 1, b"")) == []
    killed(bench, bench.feed(frame(CONT, 0, 1, b"")), text="without end")


def test_continuation_flood_of_many_bytes() -> None:
    bench = Bench(Limits(header_block_bytes_max=40_000))
    bench.start()
    bench.feed(frame(HEADERS, 0, 1, b"x" * 16_000) + frame(CONT, 0, 1, b"x" * 16_000))
    killed(bench, bench.feed(frame(CONT, 0, 1, b"x" * 16_000)), text="without end")


def test_a_header_block_cannot_be_left_open_for_other_frames() -> None:
    bench = Bench()
    bench.start()
    bench.feed(frame(HEADERS, 0, 1, b""))
    killed(bench, bench.feed(frame(PING, 0, 0, b"12345678")), PROTOCOL_ERROR)


def test_empty_data_flood() -> None:
    bench = Bench(Limits(empty_frames=Budget(100, 1.0)))
    bench.start()
    bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talk")))
    killed(bench, flood(bench, 100, frame(DATA, 0, 1, b"")), text="empty")


@pytest.mark.parametrize(
    "piece", [frame(PRIORITY, 0, 9, b"\0\0\0\x03\x10"), frame(0xBE, 0, 0, b"?")]
)
def test_flood_of_frames_of_no_use(piece: bytes) -> None:
    bench = Bench(Limits(odd_frames=Budget(100, 1.0)))
    bench.start()
    killed(bench, flood(bench, 100, piece), text="no use")


def test_window_update_flood() -> None:
    bench = Bench(Limits(window_updates=Budget(100, 1.0)))
    bench.start()
    killed(bench, flood(bench, 100, frame(WINDOW, 0, 0, word(1))), text="window updates")


def test_stream_error_flood() -> None:
    bench = Bench(Limits(stream_faults=Budget(100, 1.0)))
    bench.start()
    bench.feed(b"".join(bench.peer.unary(1 + 2 * i, "/t.T/Echo", b"") for i in range(200)))
    out = bench.feed(b"".join(frame(DATA, 0, 1 + 2 * i, b"x") for i in range(200)))
    assert len([f for f in out if f.kind == RST]) == 100
    killed(bench, out, text="stream errors")


def test_a_header_list_above_the_limit_resets_its_stream_and_keeps_the_table() -> None:
    bench = Bench(Limits(header_list_bytes_max=2_000))
    bench.start()
    big = bench.peer.request("/t.T/Echo", ("x-big", "y" * 2_000), ("x-small", "z"))
    (reset,) = bench.feed(frame(HEADERS, END_HEADERS | END_STREAM, 1, big))
    assert (reset.kind, reset.code) == (RST, FRAME_SIZE_ERROR)
    # x-small was put into the table by the refused block; it is found there now.
    out = bench.feed(bench.peer.unary(3, "/t.T/Echo", b"a", ("x-small", "z")))
    assert [f.payload for f in out if f.kind == DATA] == [message(b"a")]


def test_a_header_bomb_unfolds_to_no_more_than_the_limit() -> None:
    bench = Bench()
    bench.start()
    bench.feed(bench.peer.unary(1, "/t.T/Echo", b"", ("x-bomb", "y" * 3_900)))
    index = 0x80 | 62  # x-bomb, the newest entry
    block = bench.peer.request("/t.T/Echo") + bytes((index,)) * 16_000
    assert len(block) < 16_384
    (reset,) = bench.feed(frame(HEADERS, END_HEADERS | END_STREAM, 3, block))
    assert (reset.kind, reset.code) == (RST, FRAME_SIZE_ERROR)
    assert all(
        len(header.fields) <= 64 for header in bench.server._field_blocks._by_fields.values()
    )


def test_many_different_heads_are_not_all_remembered() -> None:
    bench = Bench(Limits())
    bench.start()
    for i in range(500):
        bench.feed(bench.peer.unary(1 + 2 * i, "/t.T/Echo", b"", ("x-nonce", str(i))))
    assert len(bench.server._field_blocks.known) <= 64
    assert len(bench.server._field_blocks._by_fields) <= 64


def test_streams_above_the_limit_are_refused_and_cost_nothing() -> None:
    bench = Bench(Limits(streams_advertised=10))
    bench.start()
    out = bench.feed(b"".join(bench.peer.unary(1 + 2 * i, "/t.T/Hold", b"") for i in range(25)))
    assert [(f.stream, f.code) for f in out if f.kind == RST] == [
        (1 + 2 * i, REFUSED) for i in range(10, 25)
    ]
    assert len(bench.held) == 10


def test_refused_streams_have_a_budget_too() -> None:
    bench = Bench(Limits(streams_advertised=1, resets=Budget(50, 1.0)))
    bench.start()
    out = bench.feed(b"".join(bench.peer.unary(1 + 2 * i, "/t.T/Hold", b"") for i in range(100)))
    killed(bench, out, text="too many streams")


def test_a_reader_without_window_makes_us_hold_a_bounded_amount() -> None:
    bench = Bench(Limits(outbound_bytes_max=100_000))
    bench.start(window=0)
    refused = 0
    for i in range(60):
        out = bench.feed(bench.peer.unary(1 + 2 * i, "/t.T/Echo", b"x" * 10_000))
        refused += sum(f.kind == RST and f.code == REFUSED for f in out)
        assert bench.server.queued_bytes <= 100_000 + 10_005
    assert refused == 60 - 10
    # The window opens: everything accepted arrives whole.
    out = bench.feed(settings(window=1 << 20) + frame(WINDOW, 0, 0, word(1 << 20)))
    received: dict[int, bytes] = {}
    for f in out:
        if f.kind == DATA:
            received[f.stream] = received.get(f.stream, b"") + f.payload
    assert set(received.values()) == {message(b"x" * 10_000)}
    assert len(received) == 10
    assert bench.server.queued_bytes == 0


def test_a_tiny_window_costs_one_small_frame_per_grant() -> None:
    bench = Bench()
    bench.start(window=1)
    out = bench.feed(bench.peer.unary(1, "/t.T/Echo", b"abc"))
    assert [f.payload for f in out if f.kind == DATA] == [b"\0"]
    text = b"\0"
    for _ in range(7):
        out = bench.feed(frame(WINDOW, 0, 1, word(1)))
        assert len([f for f in out if f.kind == DATA]) == 1
        text += out[0].payload
    assert text == message(b"abc")
    assert out[-1].headers == {"grpc-status": "0"}


def test_a_reader_that_does_not_read_stops_our_parsing() -> None:
    bench = Bench(Limits(output_bytes_max=100_000))
    bench.start(window=(1 << 31) - 1)
    bench.feed(frame(WINDOW, 0, 0, word((1 << 31) - 1 - 65_535)))
    requests = [bench.peer.unary(1 + 2 * i, "/t.T/Echo", b"x" * 10_000) for i in range(40)]
    bench.server.receive(b"".join(requests), 0.0)
    first = bench.out()
    assert len([f for f in first if f.kind == DATA]) == 10  # and not forty
    assert bench.server.wants_resume
    bench.server.pause_output()
    bench.server.receive(b"", 0.0)
    assert not bench.server.has_output
    answered = 10
    while bench.server.wants_resume:
        bench.server.resume_output(0.0)
        answered += len([f for f in bench.out() if f.kind == DATA])
    assert answered == 40


def test_unfinished_requests_are_held_up_to_a_limit() -> None:
    bench = Bench(Limits(inbound_bytes_max=50_000))
    bench.start()
    failed = []
    for i in range(20):
        stream = 1 + 2 * i
        head = frame(HEADERS, END_HEADERS, stream, bench.peer.request("/t.T/Echo"))
        part = b"\0" + word(1_000_000) + b"x" * 9_995
        out = bench.feed(head + frame(DATA, 0, stream, part))
        failed += [f.headers["grpc-status"] for f in out if f.kind == HEADERS]
        assert bench.server.inbound_bytes <= 60_000
    assert set(failed) == {"8"}
    assert not bench.server.closed


def test_whole_requests_that_never_end_count_as_unfinished() -> None:
    bench = Bench(Limits(inbound_bytes_max=50_000))
    bench.start()
    for i in range(20):
        stream = 1 + 2 * i
        head = frame(HEADERS, END_HEADERS, stream, bench.peer.request("/t.T/Echo"))
        bench.feed(head + frame(DATA, 0, stream, message(b"x" * 9_995)))
        assert bench.server.inbound_bytes <= 60_000


def test_data_beyond_the_stream_s_window() -> None:
    bench = Bench(Limits(stream_window_bytes=20_000))
    bench.start()
    bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talk")))
    bench.feed(frame(DATA, 0, 1, message(b"pause")))
    out = bench.feed(frame(DATA, 0, 1, b"x" * 16_000) + frame(DATA, 0, 1, b"x" * 16_000))
    assert [(f.kind, f.code) for f in out] == [(RST, FLOW_CONTROL_ERROR)]


def test_data_beyond_the_connection_s_window() -> None:
    bench = Bench(Limits(connection_window_bytes=65_535, stream_window_bytes=1 << 20))
    bench.start()
    bench.server._recv_window = 30_000  # as if we had promised less
    head = frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talk"))
    bench.feed(head + frame(DATA, 0, 1, message(b"x" * 14_000)))
    killed(bench, bench.feed(frame(DATA, 0, 1, b"x" * 16_384) * 2), FLOW_CONTROL_ERROR)


def test_a_window_that_overflows() -> None:
    bench = Bench()
    bench.start()
    killed(bench, bench.feed(frame(WINDOW, 0, 0, word((1 << 31) - 1))), FLOW_CONTROL_ERROR)


def test_a_frame_above_the_maximum_is_refused_before_it_arrives() -> None:
    bench = Bench()
    bench.start()
    huge = b"\xff\xff\xff" + bytes((DATA, 0)) + word(1)
    killed(bench, bench.feed(huge), FRAME_SIZE_ERROR)


def test_endless_padding_counts_for_the_window() -> None:
    bench = Bench(Limits(stream_window_bytes=20_000))
    bench.start()
    bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talk")))
    granted = 20_000
    for _ in range(200):
        granted -= 256
        for f in bench.feed(frame(DATA, 8, 1, b"\xff" + b"\0" * 255)):
            if f.kind == WINDOW and f.stream == 1:
                granted += f.code
        assert granted >= 0
    assert bench.server.inbound_bytes == 0


def test_an_acknowledgement_of_nothing_ends_the_connection() -> None:
    bench = Bench()
    bench.start()
    bench.feed(frame(SETTINGS, 1, 0))
    killed(bench, bench.feed(frame(SETTINGS, 1, 0)), PROTOCOL_ERROR)


@pytest.mark.slow
def test_the_memory_of_resets_is_bounded() -> None:
    bench = Bench(Limits(streams_advertised=1))
    bench.start()
    bench.feed(bench.peer.unary(1, "/t.T/Hold", b""))
    for i in range(1, 5_000):
        bench.feed(bench.peer.unary(1 + 2 * i, "/t.T/Hold", b""))
    assert len(bench.server._was_reset) <= 4_096


def test_a_client_that_never_says_hello_is_let_go() -> None:
    for said in (b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        bench = Bench(Limits(handshake_s_max=10.0))
        bench.feed(said)
        assert bench.server.next_deadline() == 10.0
        bench.server.tick(9.9)
        assert not bench.server.closed
        bench.server.tick(10.0)
        killed(bench, bench.out(), PROTOCOL_ERROR, "in time")


@pytest.mark.parametrize("octet", ["\0", "\r", "\n"])
@pytest.mark.parametrize("name", [":path", ":authority", ":scheme", "x-field"])
def test_a_value_that_could_end_its_line_elsewhere_is_malformed(octet: str, name: str) -> None:
    """RFC 9113 §8.2.1: pseudo-headers are no exception. Their values come back in redirects."""
    bench = Bench(http=True)
    bench.start()
    fields = {":method": "GET", ":scheme": "http", ":path": "//a?b", ":authority": "here"}
    fields[name] = f"/a{octet}set-cookie: b"
    frames = bench.feed(frame(HEADERS, 5, 1, bench.peer.block(*fields.items())))
    assert bench.https == []
    assert [each.kind for each in frames] == [RST]
