"""The life of a stream as a table (RFC 9113 §5.1).

                                +--------+
                        send H  |        |  recv H
                       ,--------|  idle  |--------.
                      /         +--------+         \\
                      v                            v
                 +----------+   send/recv ES  +----------+
                 |   open   |-----------------|   open   |
                 +----------+                 +----------+
                 send ES |                         | recv ES
                         v                         v
                 +-------------+            +---------------+
                 | half closed |            |  half closed  |
                 |   (local)   |            |   (remote)    |
                 +-------------+            +---------------+
                         | recv ES / recv R        | send ES / recv R
                         v                         v
                              +----------+
                              |  closed  |   (RESET when we sent the RST_STREAM)
                              +----------+

The table departs from the RFC's diagram in two ways. There are no reserved states, because neither
end lets the other push. A stream that we reset is in RESET, where frames that were under way are
dropped, and not in CLOSED, where they are an error of the peer.

A key missing from RECEIVE is a connection error PROTOCOL_ERROR; a key missing from SEND is our
own bug. PRIORITY is allowed in every state and is in neither table.
"""

from __future__ import annotations

from typing import Final

from .errors import PROTOCOL_ERROR, STREAM_CLOSED

# States. Integers, because they are hashed on warm paths.
IDLE: Final = 0
OPEN: Final = 1
HALF_CLOSED_LOCAL: Final = 2
HALF_CLOSED_REMOTE: Final = 3
CLOSED: Final = 4
RESET: Final = 5
STATES: Final = (IDLE, OPEN, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, CLOSED, RESET)

# Inputs and outputs.
HEADERS: Final = 0
HEADERS_END: Final = 1  # with END_STREAM
DATA: Final = 2
DATA_END: Final = 3
RST_STREAM: Final = 4
WINDOW_UPDATE: Final = 5
INPUTS: Final = (HEADERS, HEADERS_END, DATA, DATA_END, RST_STREAM, WINDOW_UPDATE)

# What to do with a frame received.
ACCEPT: Final = -1
IGNORE: Final = -2  # drop it, but count it for flow control and the header table
# Any other verdict is the code of a stream error; CONNECTION + code that of a connection error.
CONNECTION: Final = 0x100

RECEIVE: Final[dict[tuple[int, int], tuple[int, int]]] = {
    (IDLE, HEADERS): (OPEN, ACCEPT),
    (IDLE, HEADERS_END): (HALF_CLOSED_REMOTE, ACCEPT),
    (OPEN, HEADERS): (OPEN, ACCEPT),
    (OPEN, HEADERS_END): (HALF_CLOSED_REMOTE, ACCEPT),
    (OPEN, DATA): (OPEN, ACCEPT),
    (OPEN, DATA_END): (HALF_CLOSED_REMOTE, ACCEPT),
    (OPEN, RST_STREAM): (CLOSED, ACCEPT),
    (OPEN, WINDOW_UPDATE): (OPEN, ACCEPT),
    (HALF_CLOSED_LOCAL, HEADERS): (HALF_CLOSED_LOCAL, ACCEPT),
    (HALF_CLOSED_LOCAL, HEADERS_END): (CLOSED, ACCEPT),
    (HALF_CLOSED_LOCAL, DATA): (HALF_CLOSED_LOCAL, ACCEPT),
    (HALF_CLOSED_LOCAL, DATA_END): (CLOSED, ACCEPT),
    (HALF_CLOSED_LOCAL, RST_STREAM): (CLOSED, ACCEPT),
    (HALF_CLOSED_LOCAL, WINDOW_UPDATE): (HALF_CLOSED_LOCAL, ACCEPT),
    (HALF_CLOSED_REMOTE, HEADERS): (RESET, STREAM_CLOSED),
    (HALF_CLOSED_REMOTE, HEADERS_END): (RESET, STREAM_CLOSED),
    (HALF_CLOSED_REMOTE, DATA): (RESET, STREAM_CLOSED),
    (HALF_CLOSED_REMOTE, DATA_END): (RESET, STREAM_CLOSED),
    (HALF_CLOSED_REMOTE, RST_STREAM): (CLOSED, ACCEPT),
    (HALF_CLOSED_REMOTE, WINDOW_UPDATE): (HALF_CLOSED_REMOTE, ACCEPT),
    (CLOSED, HEADERS): (CLOSED, CONNECTION + STREAM_CLOSED),
    (CLOSED, HEADERS_END): (CLOSED, CONNECTION + STREAM_CLOSED),
    (CLOSED, DATA): (CLOSED, STREAM_CLOSED),
    (CLOSED, DATA_END): (CLOSED, STREAM_CLOSED),
    (CLOSED, RST_STREAM): (CLOSED, IGNORE),
    (CLOSED, WINDOW_UPDATE): (CLOSED, IGNORE),
    (RESET, HEADERS): (RESET, IGNORE),
    (RESET, HEADERS_END): (CLOSED, IGNORE),
    (RESET, DATA): (RESET, IGNORE),
    (RESET, DATA_END): (CLOSED, IGNORE),
    (RESET, RST_STREAM): (CLOSED, IGNORE),
    (RESET, WINDOW_UPDATE): (RESET, IGNORE),
}

SEND: Final[dict[tuple[int, int], int]] = {
    (IDLE, HEADERS): OPEN,
    (IDLE, HEADERS_END): HALF_CLOSED_LOCAL,
    (OPEN, HEADERS): OPEN,
    (OPEN, HEADERS_END): HALF_CLOSED_LOCAL,
    (OPEN, DATA): OPEN,
    (OPEN, DATA_END): HALF_CLOSED_LOCAL,
    (OPEN, RST_STREAM): RESET,
    (HALF_CLOSED_LOCAL, RST_STREAM): RESET,
    (HALF_CLOSED_REMOTE, HEADERS): HALF_CLOSED_REMOTE,
    (HALF_CLOSED_REMOTE, HEADERS_END): CLOSED,
    (HALF_CLOSED_REMOTE, DATA): HALF_CLOSED_REMOTE,
    (HALF_CLOSED_REMOTE, DATA_END): CLOSED,
    (HALF_CLOSED_REMOTE, RST_STREAM): RESET,
}


def receive(state: int, event: int) -> tuple[int, int]:
    """(next state, verdict) for a frame received."""
    return RECEIVE.get((state, event), (state, CONNECTION + PROTOCOL_ERROR))


def send(state: int, event: int) -> int:
    """The next state after sending; a missing key is our own bug."""
    key = (state, event)
    assert key in SEND, key
    return SEND[key]
