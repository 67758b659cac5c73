"""Streaming calls for `async` code, over whatever owns the connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final

from keyraft.grpc import Budget, ClientStream, RpcError, status

# gRPC-Go's server sends a ping with each batch of answers to measure the path: thousands a second.
PINGS_FROM_SERVER: Final = Budget(1_000_000, 100_000.0)
READ_AHEAD_MESSAGES_MAX: Final = 64  # received and not yet read; more hold the server up


class StreamCall:
    """A streaming call for `async` code: send, then iterate over the answers.

    Unread answers hold the server by flow control.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._call: ClientStream | None = None
        self._messages: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._held = False
        self._ended: tuple[int, str] | None = None
        self.trailers: Mapping[bytes, bytes] = {}

    def attach(self, call: ClientStream) -> None:
        """For Channel: the pure half."""
        self._call = call

    def on_message(self, message: bytes) -> None:
        """ClientReceiver."""
        self._messages.append(message)
        if len(self._messages) >= READ_AHEAD_MESSAGES_MAX and self._call is not None:
            self._held = True
            self._call.pause_reading()
        self._wake_reader()

    def on_end(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        """ClientReceiver."""
        self._ended = (code, text)
        self.trailers = trailers
        self._wake_reader()
        self.on_writable()

    def on_writable(self) -> None:
        """ClientReceiver."""
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    @property
    def status(self) -> tuple[int, str] | None:
        """(code, text) once the call is over."""
        return self._ended

    async def send(self, message: bytes) -> None:
        """Sends one message, waiting for room; raises RpcError when the call is over."""
        assert self._call is not None
        while self._ended is None and self._call.writable <= 0:
            self._writer = self._loop.create_future()
            await self._writer
        if self._ended is not None:
            raise RpcError(self._ended[0] or status.CANCELLED, self._ended[1] or "EOF")
        self._call.send(message)

    def half_close(self) -> None:
        """No message will follow."""
        assert self._call is not None
        self._call.half_close()

    def cancel(self) -> None:
        """Gives the call up."""
        assert self._call is not None
        self._call.cancel()

    async def receive(self) -> bytes | None:
        """The next message; None after the last one of a call that ended well; or RpcError."""
        while not self._messages:
            if self._held and self._call is not None:
                self._held = False
                self._call.resume_reading()
                continue
            if self._ended is not None:
                code, text = self._ended
                if code == status.OK:
                    return None
                raise RpcError(code, text)
            self._reader = self._loop.create_future()
            await self._reader
        return self._messages.popleft()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.receive()) is not None:
            yield message
