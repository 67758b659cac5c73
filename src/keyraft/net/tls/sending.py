"""What a TLS connection writes: encrypted at once, sent as the socket takes it, bounded by its protocol.

Ownership: as `stream` says.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import Any, Final

RECORD_BYTES_MAX: Final = 16_384  # of plain text (RFC 8446 §5.1)
WRITE_BYTES: Final = (
    4 * RECORD_BYTES_MAX
)  # encrypted before they are sent; bounds what OpenSSL keeps
HIGH_WATER_BYTES: Final = 65_536  # unless the protocol sets another


class Sending(asyncio.Transport):
    """The half of a stream that faces the socket's output."""

    __slots__ = (
        "_backlog",
        "_closing",
        "_fd",
        "_high",
        "_loop",
        "_low",
        "_outgoing",
        "_protocol",
        "_queued_bytes",
        "_socket",
        "_stalled",
        "_tls",
        "_writing",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, connected: socket.socket) -> None:
        self._loop = loop
        self._socket = connected
        self._fd = connected.fileno()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._protocol: asyncio.Protocol | None = None
        self._closing = False
        self._writing = False  # the loop watches for room
        self._stalled = False  # the protocol was told to stop writing
        self._backlog: deque[memoryview | bytes] = deque()
        self._queued_bytes = 0
        self._high = HIGH_WATER_BYTES
        self._low = HIGH_WATER_BYTES // 4

    def _lose(self, error: OSError | None) -> None:
        """Ends the connection; for the stream."""
        raise NotImplementedError

    def _say_goodbye(self) -> None:
        """Ends the connection, whose output is sent; for the stream."""
        raise NotImplementedError

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypts and sends, or queues."""
        tls = self._tls
        if self._closing or tls is None or not data:
            return
        try:
            if len(data) <= RECORD_BYTES_MAX:
                tls.write(data)
                self._send(self._outgoing.read())
            else:
                self._write_much(tls, memoryview(data))
        except OSError as error:
            self._lose(error)

    def _write_much(self, tls: ssl.SSLObject, data: memoryview) -> None:
        at, outgoing = 0, self._outgoing
        while at < len(data):
            until = min(at + WRITE_BYTES, len(data))
            while at < until:
                at += tls.write(data[at : min(at + RECORD_BYTES_MAX, until)])
            self._send(outgoing.read())

    def writelines(self, list_of_data: Any) -> None:
        """Sends pieces together: each by itself would be a record."""
        self.write(b"".join(list_of_data))

    def _send(self, data: bytes) -> None:
        if self._backlog:
            self._backlog.append(data)
            self._queued_bytes += len(data)
        else:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._lose(error)
                return
            if sent == len(data):
                return
            self._backlog.append(memoryview(data)[sent:])
            self._queued_bytes += len(data) - sent
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._fd, self._writable)
        if self._queued_bytes > self._high and not self._stalled and self._protocol is not None:
            self._stalled = True
            self._protocol.pause_writing()

    def _writable(self) -> None:
        backlog = self._backlog
        while backlog:
            piece = backlog[0]
            try:
                sent = self._socket.send(piece)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._lose(error)
                return
            self._queued_bytes -= sent
            if sent < len(piece):
                backlog[0] = memoryview(piece)[sent:]
                break
            backlog.popleft()
        if not backlog:
            self._stop_writing()
            if self._closing:
                self._say_goodbye()
                return
        if self._stalled and self._queued_bytes <= self._low:
            self._stalled = False
            if self._protocol is not None:
                self._protocol.resume_writing()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As asyncio's."""
        self._high = high if high is not None else 4 * low if low is not None else HIGH_WATER_BYTES
        self._low = low if low is not None else self._high // 4

    def get_write_buffer_size(self) -> int:
        """Encrypted bytes that wait for the socket."""
        return self._queued_bytes
