"""HTTP/1.1 for the gateway: aiohttp parses, the same `HttpRequest` comes out as for HTTP/2.

aiohttp's low-level server does framing, keep-alive, pipelining and chunked bodies; here its
request becomes an object that is answered by callbacks, and the answer goes back into aiohttp.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

from keyraft.grpc import HttpRequest, Limits

from .address import common_name, peer_name

HEADER_LINE_BYTES_MAX: Final = 16_384  # request line or one header
KEEPALIVE_S: Final = 75.0
QUEUE_BYTES_MAX: Final = 1_048_576  # what HttpRequest.writable counts from


class Http1Request:
    """An HttpRequest (keyraft.grpc.http) on an HTTP/1.1 connection."""

    __slots__ = (
        "_done",
        "_head",
        "_pieces",
        "_size",
        "_wake",
        "body",
        "common_name",
        "headers",
        "method",
        "on_close",
        "on_writable",
        "peer",
        "scheme",
        "target",
    )

    def __init__(self, request: web.BaseRequest, body: bytes, wake: asyncio.Event) -> None:
        self.method = request.method
        self.target = request.raw_path
        self.headers = [(name.lower(), value) for name, value in request.raw_headers]
        self.body = body
        self.peer = peer_name(request.transport)
        self.common_name = common_name(request.transport)
        self.scheme = request.scheme
        self.on_close: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._wake = wake
        self._done = False

    @property
    def writable(self) -> int:
        """Bytes that may be written before the limit."""
        return QUEUE_BYTES_MAX - self._size

    def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answers whole."""
        if not self._done and self._head is None:
            self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
            self.write(body)
            self.end()

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begins an answer."""
        if not self._done and self._head is None:
            self._head = (status, headers)
            self._wake.set()

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        if not self._done and data:
            self._pieces.append(data)
            self._size += len(data)
            self._wake.set()

    def end(self) -> None:
        """Ends the answer."""
        if not self._done:
            self._done = True
            self._wake.set()

    def abort(self) -> None:
        """Breaks the answer off."""
        if not self._done:
            self._done = True
            self._size = -1
            self._wake.set()

    async def carry_out(self, request: web.BaseRequest) -> web.StreamResponse:
        """Writes the answer as it comes."""
        wake = self._wake
        while self._head is None and not self._done:
            await wake.wait()
            wake.clear()
        if self._head is None:
            raise ConnectionResetError("the answer was broken off")
        status, headers = self._head
        response = web.StreamResponse(status=status)
        for name, value in headers:
            response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
        response.headers.setdefault("Server", "keyraft")  # else aiohttp tells its version
        await response.prepare(request)
        while True:
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                if request.method != "HEAD":
                    await response.write(piece)
                self._size -= len(piece)
            if pieces and self.on_writable is not None and not self._done:
                self.on_writable()
            if self._pieces:
                continue
            if self._done:
                break
            await wake.wait()
            wake.clear()
        if self._size < 0:
            raise ConnectionResetError("the answer was broken off")
        await response.write_eof()
        return response

    def lost(self) -> None:
        """The client is gone."""
        if not self._done:
            self._done = True
            if self.on_close is not None:
                self.on_close()


class Http1Server:
    """Makes the protocol of each HTTP/1.1 connection."""

    def __init__(
        self,
        on_http: Callable[[HttpRequest], None],
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._on_http = on_http
        self._body_bytes_max = limits.message_bytes_max
        self._server = web.Server(
            self._handle,
            loop=loop,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
            handler_cancellation=True,
        )

    def protocol(self) -> asyncio.Protocol:
        """A protocol for a fresh connection."""
        return self._server()

    async def stop(self, grace_s: float) -> None:
        """Lets answers under way finish for `grace_s`, then closes."""
        await self._server.shutdown(grace_s)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # as aiohttp's own handler does: it is no answer yet
        body = bytearray()
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > self._body_bytes_max:
                return web.Response(status=413, text="request body too large\n")
        exchange = Http1Request(request, bytes(body), asyncio.Event())
        try:
            self._on_http(exchange)
            return await exchange.carry_out(request)
        except ConnectionError:
            # The client left, or we broke the answer off; neither is worth a line in the log.
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        finally:
            exchange.lost()
