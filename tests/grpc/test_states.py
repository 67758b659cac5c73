"""Every state of a stream × everything that can arrive, on a living connection.

What is expected is written down from RFC 9113 §5.1 by hand, not taken from the table under test.
"""

from __future__ import annotations

import itertools

import pytest

from keyraft.grpc.http2 import states
from tests.grpc.bench import Bench
from tests.grpc.wire import (
    CONT,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PRIORITY,
    PUSH,
    RST,
    WINDOW,
    frame,
    message,
)

PROTOCOL_ERROR, STREAM_CLOSED = 1, 5
OK, DROPPED = "ok", "dropped"
STREAM, CONNECTION = "stream error", "connection error"

STATES = ["idle", "open", "half closed (local)", "half closed (remote)", "closed", "reset by us"]
FRAMES = [
    "headers",
    "trailers",
    "data",
    "data+end",
    "rst",
    "window",
    "priority",
    "push",
    "continuation",
]

CLOSED_HEADERS = (CONNECTION, STREAM_CLOSED)
EXPECTED: dict[str, dict[str, object]] = {
    "headers": {
        "idle": OK,
        # A second header block that does not end the stream is a malformed request (§8.1).
        "open": (STREAM, PROTOCOL_ERROR),
        "half closed (local)": DROPPED,
        "half closed (remote)": (STREAM, STREAM_CLOSED),
        "closed": CLOSED_HEADERS,
        "reset by us": DROPPED,
    },
    "trailers": {
        "idle": OK,
        "open": OK,
        "half closed (local)": DROPPED,
        "half closed (remote)": (STREAM, STREAM_CLOSED),
        "closed": CLOSED_HEADERS,
        "reset by us": DROPPED,
    },
    "data": {
        "idle": (CONNECTION, PROTOCOL_ERROR),
        "open": OK,
        "half closed (local)": DROPPED,
        "half closed (remote)": (STREAM, STREAM_CLOSED),
        "closed": (STREAM, STREAM_CLOSED),
        "reset by us": DROPPED,
    },
    "data+end": {
        "idle": (CONNECTION, PROTOCOL_ERROR),
        "open": OK,
        "half closed (local)": DROPPED,
        "half closed (remote)": (STREAM, STREAM_CLOSED),
        "closed": (STREAM, STREAM_CLOSED),
        "reset by us": DROPPED,
    },
    "rst": {
        "idle": (CONNECTION, PROTOCOL_ERROR),
        "open": OK,
        "half closed (local)": DROPPED,
        "half closed (remote)": OK,
        "closed": DROPPED,
        "reset by us": DROPPED,
    },
    "window": {
        "idle": (CONNECTION, PROTOCOL_ERROR),
        "open": OK,
        "half closed (local)": DROPPED,
        "half closed (remote)": OK,
        "closed": DROPPED,
        "reset by us": DROPPED,
    },
    "priority": dict.fromkeys(STATES, DROPPED),
    "push": dict.fromkeys(STATES, (CONNECTION, PROTOCOL_ERROR)),
    "continuation": dict.fromkeys(STATES, (CONNECTION, PROTOCOL_ERROR)),
}


def reach(bench: Bench, state: str) -> None:
    """Brings stream 1 into a state."""
    if state == "idle":
        return
    if state == "closed":
        bench.feed(bench.peer.unary(1, "/t.T/Echo", b""))
        return
    bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talk")))
    if state == "half closed (local)":
        # The server ends first and, as gRPC-Go does, resets at once: what follows is dropped.
        bench.streams[0].finish()
    elif state == "half closed (remote)":
        bench.feed(frame(DATA, END_STREAM, 1, b""))
    elif state == "reset by us":
        bench.feed(frame(WINDOW, 0, 1, b"\0\0\0\0"))  # an increment of zero
    bench.out()


def arriving(bench: Bench, kind: str) -> bytes:
    if kind == "headers":
        return frame(HEADERS, END_HEADERS, 1, bench.peer.request("/t.T/Talk"))
    if kind == "trailers":
        if bench.server.last_peer_stream == 0:
            block = bench.peer.request("/t.T/Talk")
        else:
            block = bench.peer.block(("x-trailer", "1"))
        return frame(HEADERS, END_HEADERS | END_STREAM, 1, block)
    return {
        "data": frame(DATA, 0, 1, message(b"abc")),
        "data+end": frame(DATA, END_STREAM, 1, message(b"abc")),
        "rst": frame(RST, 0, 1, b"\0\0\0\x08"),
        "window": frame(WINDOW, 0, 1, b"\0\0\0\x01"),
        "priority": frame(PRIORITY, 0, 1, b"\0\0\0\x03\x10"),
        "push": frame(PUSH, END_HEADERS, 1, b"\0\0\0\x02"),
        "continuation": frame(CONT, END_HEADERS, 1, b""),
    }[kind]


@pytest.mark.parametrize(("state", "kind"), list(itertools.product(STATES, FRAMES)))
def test_every_state_meets_every_frame(state: str, kind: str) -> None:
    bench = Bench()
    bench.start()
    reach(bench, state)
    known = dict(bench.server.streams)
    logged = len(bench.log)
    out = bench.feed(arriving(bench, kind))
    goaways = [f.code for f in out if f.kind == GOAWAY]
    resets = [f.code for f in out if f.kind == RST]
    expected = EXPECTED[kind][state]
    if expected in (OK, DROPPED):
        assert (goaways, resets) == ([], [])
        assert not bench.server.closed
        if expected == DROPPED:
            assert bench.server.streams == known
            assert len(bench.log) == logged
    elif expected[0] == STREAM:  # type: ignore[index]
        assert (goaways, resets) == ([], [expected[1]])  # type: ignore[index]
        assert 1 not in bench.server.streams
    else:
        assert goaways == [expected[1]]  # type: ignore[index]
        assert bench.server.closed
    if not bench.server.closed:
        # The header tables still agree, and other streams live.
        out = bench.feed(bench.peer.unary(3, "/t.T/Echo", b"next"))
        assert [f.payload for f in out if f.kind == DATA] == [message(b"next")]


def test_the_table_has_a_verdict_for_every_pair_or_means_a_connection_error() -> None:
    for state, event in itertools.product(states.STATES, states.INPUTS):
        following, verdict = states.receive(state, event)
        assert following in states.STATES
        if verdict == states.ACCEPT:
            assert state not in (states.CLOSED, states.RESET)
        if (state, event) not in states.RECEIVE:
            assert state == states.IDLE
            assert verdict == states.CONNECTION + PROTOCOL_ERROR
    assert {state for state, _ in states.SEND} == {
        states.IDLE,
        states.OPEN,
        states.HALF_CLOSED_LOCAL,
        states.HALF_CLOSED_REMOTE,
    }


def test_no_way_leads_out_of_closed() -> None:
    for event in states.INPUTS:
        assert states.receive(states.CLOSED, event)[0] == states.CLOSED
        assert states.receive(states.RESET, event)[0] in (states.CLOSED, states.RESET)
