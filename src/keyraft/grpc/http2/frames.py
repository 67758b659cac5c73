"""The layout of frames (RFC 9113 §4.1, §6): constants, and functions that make small frames.

    +-----------------------------------------------+
    |                 Length (24)                   |
    +---------------+---------------+---------------+
    |   Type (8)    |   Flags (8)   |
    +-+-------------+---------------+-------------------------------+
    |R|                 Stream Identifier (31)                      |
    +=+=============================================================+

The hot paths read and write the nine bytes as `HEADER`: length and type are one word of 32 bits.
"""

from __future__ import annotations

import struct
from typing import Final

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

SETTINGS_HEADER_TABLE_SIZE: Final = 0x1
SETTINGS_ENABLE_PUSH: Final = 0x2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 0x3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 0x4
SETTINGS_MAX_FRAME_SIZE: Final = 0x5
SETTINGS_MAX_HEADER_LIST_SIZE: Final = 0x6

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
STREAM_ID_MAX: Final = 0x7FFFFFFF
WINDOW_MAX: Final = 0x7FFFFFFF
WINDOW_DEFAULT: Final = 65_535
FRAME_BYTES_DEFAULT: Final = 16_384
FRAME_BYTES_MAX: Final = 16_777_215

HEADER: Final = struct.Struct(">IBI")  # length << 8 | type, flags, stream
MESSAGE_HEADER: Final = struct.Struct(">IBIBI")  # the same, then gRPC's flag and length
PREFIX: Final = struct.Struct(">BI")  # gRPC's flag and length alone
_SETTING: Final = struct.Struct(">HI")
_WORD: Final = struct.Struct(">I")
_TWO_WORDS: Final = struct.Struct(">II")


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Any frame whole; `payload` must fit the peer's maximum."""
    return HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def settings(values: list[tuple[int, int]]) -> bytes:
    """SETTINGS with (identifier, value) pairs."""
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(*pair) for pair in values]))


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """The pairs of a SETTINGS payload; its length is a multiple of six."""
    return list(_SETTING.iter_unpack(payload))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0, b"")


def rst_stream(stream_id: int, code: int) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream_id, _WORD.pack(code))


def ping(opaque: bytes, flags: int = 0) -> bytes:
    """PING; `opaque` has eight bytes."""
    return frame(PING, flags, 0, opaque)


def goaway(last_stream_id: int, code: int, text: bytes = b"") -> bytes:
    """GOAWAY; `text` is for the peer's log."""
    return frame(GOAWAY, 0, 0, _TWO_WORDS.pack(last_stream_id, code) + text)


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(increment))


def header_block(stream_id: int, block: bytes, flags: int, frame_bytes_max: int) -> bytes:
    """HEADERS with `block`, and CONTINUATION frames when it is longer than one frame."""
    if len(block) <= frame_bytes_max:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    out = [frame(HEADERS, flags, stream_id, block[:frame_bytes_max])]
    for start in range(frame_bytes_max, len(block), frame_bytes_max):
        piece = block[start : start + frame_bytes_max]
        last = start + frame_bytes_max >= len(block)
        out.append(frame(CONTINUATION, END_HEADERS if last else 0, stream_id, piece))
    return b"".join(out)
