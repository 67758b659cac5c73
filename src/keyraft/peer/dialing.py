"""The reading end of a stream: one GET over HTTP/1.1 whose response never ends.

A general HTTP client passes each piece of a body from its parser through a buffer and a future to a
task. Here received data is taken out of its chunks and passed on in the same call. A follower's
answer to the leader waits for this, and with it every client's put.

    head = await stream.open(...)     sends the request, returns when the response's head is there
    await stream.text()               of a refusal
    await stream.read(feed)           until the stream ends; feed(bytes) is called on the loop

All input comes from a peer. A head longer than HEAD_BYTES_MAX, an invalid status line, or a chunk
without a size ends the connection with `StreamError`. Source: RFC 9112 §2, §4, §7.1.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from keyraft.net import ChunkDecoder, ChunkError, HttpError, dial
from keyraft.peer.frames import FrameError

if TYPE_CHECKING:
    from keyraft.net import ClientTLS

HEAD_BYTES_MAX: Final = 64 * 1024  # status line and headers of an answer
REFUSAL_BYTES_MAX: Final = 64 * 1024  # of a refusal's text
_LINE: Final = b"\r\n"
_STATUS: Final = re.compile(rb"[0-9]{3}\Z")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}\Z")


class StreamError(ValueError):
    """The peer's response is not HTTP, or the peer closed the connection."""


class _Head:
    """What an answer begins with; header names in lower case."""

    __slots__ = ("headers", "status")

    def __init__(self, raw: bytes) -> None:
        lines = raw.split(_LINE)
        words = lines[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not _STATUS.match(words[1]):
            raise StreamError("malformed HTTP response")
        self.status = int(words[1])
        self.headers: dict[bytes, bytes] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise StreamError("malformed HTTP header")
            self.headers[name.strip().lower()] = value.strip()


class IncomingStream(asyncio.Protocol):
    """One connection for one GET. Owned by the task that opened it."""

    def __init__(self, idle_timeout_s: float) -> None:
        """`idle_timeout_s`: silence after which the stream counts as dead."""
        self._loop = asyncio.get_running_loop()
        self._idle_timeout_s = idle_timeout_s
        self._transport: asyncio.Transport | None = None
        self._raw = b""
        self._head: asyncio.Future[_Head] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._chunks: ChunkDecoder | None = None
        self._length_left = -1  # of a body whose length is known
        self._feed: Callable[[bytes], None] | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._heard_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    # --- for the owner ------------------------------------------------------------------------

    async def open(
        self,
        url: str,
        path: str,
        headers: Mapping[str, str],
        tls: ClientTLS | None,
        dial_timeout_s: float,
        local_host: str = "",
    ) -> int:
        """Dials, asks, and returns the status; raises StreamError, OSError, TimeoutError."""
        try:
            transport, _ = await dial(url, lambda: self, tls, local_host, dial_timeout_s)
        except HttpError as error:
            raise StreamError(str(error)) from None
        lines = [f"GET {path} HTTP/1.1", f"Host: {urlsplit(url).netloc or 'localhost'}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return (await self._head).status

    async def text(self) -> str:
        """The body of a refusal, as far as it comes."""
        if not self._ended.done():
            await asyncio.wait((self._ended,))
        return b"".join(self._kept)[:REFUSAL_BYTES_MAX].decode("utf-8", "replace")

    async def read(self, feed: Callable[[bytes], None]) -> None:
        """Passes the body on until it ends; what `feed` raises ends it as well."""
        kept, self._kept = self._kept, []
        self._kept_bytes = 0
        for piece in kept:
            feed(piece)
        self._feed = feed
        await self._ended

    def close(self) -> None:
        """Ends the connection."""
        self._end(None)

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._heard_s = self._loop.time()
        self._timer = self._loop.call_later(self._idle_timeout_s, self._look)

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        try:
            if self._chunks is None and not self._head.done():
                data = self._take_head(data)
            if data:
                self._take_body(data)
        except ChunkError as error:
            self._end(StreamError(str(error)))
        except (StreamError, FrameError) as error:
            self._end(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    # --- inside -------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> bytes:
        """The bytes behind the head; empty until the head is complete."""
        self._raw += data
        end = self._raw.find(b"\r\n\r\n")
        if end < 0 or end > HEAD_BYTES_MAX:
            if len(self._raw) > HEAD_BYTES_MAX:
                raise StreamError("the head of the answer is too long")
            return b""
        head = _Head(self._raw[:end])
        rest, self._raw = self._raw[end + 4 :], b""
        if head.headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            self._chunks = ChunkDecoder()
        else:
            length = head.headers.get(b"content-length", b"")
            if _LENGTH.match(length):
                self._length_left = int(length)
        self._head.set_result(head)
        if self._length_left == 0:
            self._end(None)
        return rest

    def _take_body(self, data: bytes) -> None:
        chunks = self._chunks
        if chunks is not None:
            data = chunks.feed(data)
        elif self._length_left >= 0:
            data = data[: self._length_left]
            self._length_left -= len(data)
        feed = self._feed
        if feed is not None:
            if data:
                feed(data)
        else:
            self._kept.append(data)
            self._kept_bytes += len(data)
        if self._length_left == 0 or (chunks is not None and chunks.ended):
            self._end(None)
        elif feed is None and self._kept_bytes > REFUSAL_BYTES_MAX:
            assert self._transport is not None, "data came without a connection"
            self._transport.pause_reading()
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        """Goes on reading, now that the owner had a turn to begin; a refusal this long is cut."""
        if self._feed is None:
            self._end(None)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _look(self) -> None:
        """Ends the connection when nothing came for too long."""
        silent_s = self._loop.time() - self._heard_s
        if silent_s >= self._idle_timeout_s:
            self._end(TimeoutError("i/o timeout"))
        else:
            self._timer = self._loop.call_later(self._idle_timeout_s - silent_s, self._look)

    def _end(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._head.done():
            self._head.set_exception(error or StreamError("EOF"))
            self._head.exception()  # perhaps nobody waits for it any more
        if not self._ended.done():
            if error is not None:
                self._ended.set_exception(error)
                self._ended.exception()
            else:
                self._ended.set_result(None)
        if self._transport is not None:
            self._transport.abort()
