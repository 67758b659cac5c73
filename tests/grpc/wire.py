"""A peer in plain sight: what tests send to a connection, and what they read from it.

Frames are written by hand, header blocks by the `hpack` library, so that a mistake in our own
encoder cannot hide one in our decoder.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONT = range(10)
END_STREAM, END_HEADERS, PADDED, PRIO = 1, 4, 8, 32


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes((kind, flags))
        + struct.pack(">I", stream)
        + payload
    )


def settings(**values: int) -> bytes:
    numbers = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5, "list": 6}
    return frame(
        SETTINGS, 0, 0, b"".join(struct.pack(">HI", numbers[k], v) for k, v in values.items())
    )


def message(text: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + struct.pack(">I", len(text)) + text


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def code(self) -> int:
        payload = self.payload[4:8] if self.kind == GOAWAY else self.payload[:4]
        return int.from_bytes(payload, "big")


class Peer:
    """Reads one connection's output as frames, and writes request blocks."""

    def __init__(self) -> None:
        self.decoder = hpack.Decoder()
        self.decoder.max_header_list_size = 1 << 24
        self.encoder = hpack.Encoder()
        self.rest = b""

    def block(self, *fields: tuple[str, str]) -> bytes:
        return self.encoder.encode(fields)

    def request(self, path: str, *extra: tuple[str, str], **override: str) -> bytes:
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "here",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        fields.update({k.replace("_", "-"): v for k, v in override.items()})
        return self.block(*fields.items(), *extra)

    def unary(self, stream: int, path: str, body: bytes, *extra: tuple[str, str]) -> bytes:
        head = frame(HEADERS, END_HEADERS, stream, self.request(path, *extra))
        return head + frame(DATA, END_STREAM, stream, message(body))

    def read(self, data: bytes) -> list[Frame]:
        data = self.rest + data
        frames = []
        while len(data) >= 9:
            length = int.from_bytes(data[:3], "big")
            if len(data) < 9 + length:
                break
            got = Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length])
            if got.kind == HEADERS:
                got.headers = dict(self.decoder.decode(got.payload))
            frames.append(got)
            data = data[9 + length :]
        self.rest = data
        return frames
