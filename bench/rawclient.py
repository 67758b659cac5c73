"""A client that costs next to nothing: frames written by hand, events counted by searching bytes.

What is measured is the server, and the machine is small, so the client must not be the limit. A
header block is encoded once without a dynamic table; windows are opened to their maximum at the
start; events are told by a mark in their values and never parsed (one in a thousand may be missed,
its mark cut by a frame), and where they come by the gigabyte only a sample of what is received is
searched. Only answers to puts are taken apart, frame by frame.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

MARK: Final = b"@\xfe\xfd@"
RECEIVE_BYTES: Final = 1 << 18
WINDOW_BYTES: Final = (1 << 31) - 1
REFILL_BYTES: Final = 1 << 28

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def grpc_message(message: bytes) -> bytes:
    """One message with its five bytes in front."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def header_block(path: str, authority: str) -> bytes:
    """Literals without indexing, so that every stream may use the same bytes."""

    def text(value: bytes) -> bytes:
        assert len(value) < 127, value
        return bytes((len(value),)) + value

    def named(name: bytes, value: bytes) -> bytes:
        return b"\x00" + text(name) + text(value)

    return (
        b"\x83\x86"  # :method POST, :scheme http
        + b"\x04"
        + text(path.encode())
        + b"\x01"
        + text(authority.encode())
        + named(b"content-type", b"application/grpc")
        + named(b"te", b"trailers")
    )


def stamped(size: int, due_s: float) -> bytes:
    """A value of `size` bytes that says when its put was due, by this process's clock."""
    return MARK + struct.pack(">d", due_s) + b"v" * (size - 12)


class Connection:
    """One socket. `counting`: what comes is searched for marks, of each `sample` receptions one;
    else it is taken apart."""

    def __init__(
        self, endpoint: str, counting: bool, window_bytes: int = WINDOW_BYTES, sample: int = 1
    ) -> None:
        host, _, port = endpoint.partition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.endpoint = endpoint
        self.counting = counting
        self.mark = MARK
        self.stamped = True  # the mark is followed by the time when its put was due
        self.sample = sample
        self.found = 0  # marks in what was searched
        self.searched = 0
        self.received = 0
        self._receptions = 0
        self._buffer = bytearray(RECEIVE_BYTES + 64)
        self._view = memoryview(self._buffer)
        self._kept = 0  # bytes at the buffer's start that may begin a mark
        self.delays_s: list[tuple[float, int]] = []  # of a reception's first event, and how many
        self.on_end: Callable[[int, bytes], None] = lambda stream, message: None
        self.on_data: Callable[[int, bytes], None] = lambda stream, message: None
        self._unfilled = 0
        self._next_stream = 1
        self._rest = b""
        self._bodies: dict[int, bytes] = {}
        settings = struct.pack(">HI", 4, window_bytes) + struct.pack(">HI", 2, 0)
        opening = _PREFACE + frame(_SETTINGS, 0, 0, settings)
        if window_bytes > 65_535:
            opening += frame(_WINDOW, 0, 0, struct.pack(">I", window_bytes - 65_535))
        self.socket.sendall(opening)

    def open(self, block: bytes, message: bytes, end: bool) -> bytes:
        """The frames of a new stream and its first message; the caller sends them."""
        stream = self._next_stream
        self._next_stream += 2
        body = grpc_message(message)
        return frame(_HEADERS, _END_HEADERS, stream, block) + frame(
            _DATA, _END_STREAM if end else 0, stream, body
        )

    @property
    def last_stream(self) -> int:
        """The stream that `open` made last."""
        return self._next_stream - 2

    def message(self, stream: int, message: bytes) -> bytes:
        """The frame of a further message."""
        return frame(_DATA, 0, stream, grpc_message(message))

    @property
    def events(self) -> int:
        """Marks that have come, as far as the sample tells."""
        if self.sample == 1 or not self.searched:
            return self.found
        return int(self.found * self.received / self.searched)

    def receive(self) -> None:
        """Takes what the socket has."""
        kept = self._kept
        size = self.socket.recv_into(self._view[kept:])
        if not size:
            raise ConnectionError(f"{self.endpoint} has closed the connection")
        self.received += size
        self._unfilled += size
        if self._unfilled > REFILL_BYTES:
            # Frames' heads came along, for which no window was spent.
            update = struct.pack(">I", self._unfilled * 3 // 4)
            self.socket.sendall(frame(_WINDOW, 0, 0, update))
            self._unfilled = 0
        if not self.counting:
            self._parse(self._buffer[:size])
            return
        self._receptions += 1
        if self._receptions % self.sample == 0:
            self._count(kept + size, size)

    def _count(self, end: int, size: int) -> None:
        buffer, mark = self._buffer, self.mark
        self.searched += size
        found = buffer.count(mark, 0, end)
        self.found += found
        if self.stamped:
            first = buffer.find(mark, 0, end - 12)
            if first >= 0:
                (due_s,) = struct.unpack_from(">d", buffer, first + 4)
                self.delays_s.append((time.perf_counter() - due_s, found))
        if self.sample == 1:
            tail = self._kept = min(len(mark) - 1, end)
            buffer[:tail] = buffer[end - tail : end]

    def _parse(self, received: bytearray) -> None:
        data = self._rest + received
        at, size = 0, len(data)
        while at + 9 <= size:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            end = at + 9 + length
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == _DATA:
                stream = int.from_bytes(data[at + 5 : at + 9], "big")
                self.on_data(stream, data[at + 9 : end])
            elif kind == _HEADERS and flags & _END_STREAM:
                self.on_end(int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : end])
            elif kind == _SETTINGS and not flags & _ACK:
                self.socket.sendall(frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                self.socket.sendall(frame(_PING, _ACK, 0, data[at + 9 : end]))
            elif kind in (_GOAWAY, _RST):
                raise ConnectionError(f"frame {kind}: {data[at + 9 : end]!r}")
            at = end
        self._rest = data[at:]

    def close(self) -> None:
        """Ends it."""
        self.socket.close()


class Poll:
    """Several connections served in turn."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, connection: Connection) -> None:
        """Has `receive` called when there is something."""
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def once(self, timeout_s: float) -> bool:
        """Serves what is there; whether there was anything."""
        ready = self._selector.select(timeout_s)
        for key, _ in ready:
            key.data.receive()
        return bool(ready)

    def until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Serves until `done`; whether it came to that."""
        until_s = time.perf_counter() + timeout_s
        while not done():
            if time.perf_counter() >= until_s:
                return False
            self.once(0.05)
        return True

    def quiet(self, quiet_s: float) -> float:
        """Serves until nothing has come for a while; when the last came, by `perf_counter`."""
        last_s = time.perf_counter()
        while self.once(quiet_s):
            last_s = time.perf_counter()
        return last_s


class Putter:
    """Puts at a rate, or as fast as `in_flight` allows; the time of each is kept."""

    def __init__(self, endpoint: str, poll: Poll, in_flight: int) -> None:
        self._connection = Connection(endpoint, counting=False)
        self._connection.on_end = self._ended
        self._block = header_block("/etcdserverpb.KV/Put", endpoint)
        self._in_flight_max = in_flight
        self._started: dict[int, float] = {}
        self.latencies_s: list[float] = []
        self.refused = 0
        poll.add(self._connection)

    def send(self, requests: list[bytes]) -> None:
        """Starts puts."""
        connection = self._connection
        now_s = time.perf_counter()
        out = []
        for request in requests:
            out.append(connection.open(self._block, request, end=True))
            self._started[connection.last_stream] = now_s
        connection.socket.sendall(b"".join(out))

    @property
    def room(self) -> int:
        """How many more may be under way."""
        return self._in_flight_max - len(self._started)

    @property
    def under_way(self) -> int:
        """Puts not yet answered."""
        return len(self._started)

    def _ended(self, stream: int, block: bytes) -> None:
        start_s = self._started.pop(stream, None)
        if start_s is not None:
            self.latencies_s.append(time.perf_counter() - start_s)

    def close(self) -> None:
        """Ends it."""
        self._connection.close()


def weighted_percentile(values: list[tuple[float, int]], percent: float) -> float:
    """The value that so many per cent do not exceed, of values that stand for several each."""
    rest = sum(weight for _, weight in values) * percent / 100
    for value, weight in sorted(values):
        rest -= weight
        if rest < 0:
            return value
    return 0.0


def percentile(values: list[float], percent: float) -> float:
    """The value that so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
