"""The reading end of a stream: one GET over HTTP/1.1 whose answer never ends.

A general client hands every piece of a body from its parser through a buffer and a future to a
task. Here what a socket brings is taken out of its chunks and passed on in the same call, because
a follower's answer to the leader, and with it every client's put, waits for this.

    head = await stream.open(...)     the request is sent, the answer's head is there
    await stream.text()               of a refusal
    await stream.read(feed)           until the stream ends; feed(bytes) is called on the loop

Everything comes from a peer: a head longer than HEAD_BYTES_MAX, a status line that is none, or a
chunk without a size ends the connection with `StreamError`. Source: RFC 9112 §2, §4, §7.1.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Final, cast
from urllib.parse import urlsplit

from keyraft.peer.frames import FrameError

HEAD_BYTES_MAX: Final = 64 * 1024  # status line and headers of an answer
CHUNK_LINE_BYTES_MAX: Final = 256  # a chunk's size and its extensions
REFUSAL_BYTES_MAX: Final = 64 * 1024  # of a refusal's text
_SIZE_DIGITS_MAX: Final = 16
_PORTS: Final = {"http": 80, "https": 443}
_LINE: Final = b"\r\n"


class StreamError(ValueError):
    """The peer answered with something that is not HTTP, or went away."""


class ChunkDecoder:
    """Takes a chunked body apart; pieces come out as soon as they are there."""

    __slots__ = ("_left", "_line", "ended")

    def __init__(self) -> None:
        self._line = b""  # the beginning of a size line, or of the line end behind a chunk
        self._left = 0  # of the chunk that is read, its line end included; 0: a size line is next
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """The content in `data`; raises StreamError."""
        if self._line:
            data = self._line + data
            self._line = b""
        parts: list[bytes] = []
        position, size = 0, len(data)
        while position < size and not self.ended:
            left = self._left
            if not left:
                end = data.find(_LINE, position, position + CHUNK_LINE_BYTES_MAX)
                if end < 0:
                    if size - position >= CHUNK_LINE_BYTES_MAX:
                        raise StreamError("a chunk's size line is too long")
                    self._line = data[position:]
                    break
                digits = data[position:end].partition(b";")[0].rstrip(b" \t")
                if not digits.isalnum() or len(digits) > _SIZE_DIGITS_MAX:
                    raise StreamError("a chunk has no size")
                try:
                    left = int(digits, 16)
                except ValueError:
                    raise StreamError("a chunk has no size") from None
                position = end + 2
                if not left:
                    self.ended = True
                    break
                left += 2
            stop = position + left
            if stop <= size:
                if data[stop - 2 : stop] != _LINE:
                    raise StreamError("a chunk is longer than its size")
                parts.append(data[position : stop - 2])
                self._left = 0
                position = stop
                continue
            # The line end stays behind until it is whole, so that it is checked in one place.
            content_end = min(size, stop - 2)
            parts.append(data[position:content_end])
            self._left = left - (content_end - position)
            self._line = data[content_end:]
            break
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Head:
    """What an answer begins with; header names in lower case."""

    __slots__ = ("headers", "status")

    def __init__(self, raw: bytes) -> None:
        lines = raw.split(_LINE)
        words = lines[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
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
        tls: ssl.SSLContext | None,
        dial_timeout_s: float,
    ) -> int:
        """Dials, asks, and returns the status; raises StreamError, OSError, TimeoutError."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise StreamError(f"cannot dial {url}")
        secure: ssl.SSLContext | bool | None = None
        if parts.scheme == "https":
            secure = tls if tls is not None else True
        async with asyncio.timeout(dial_timeout_s):
            transport, _ = await self._loop.create_connection(
                lambda: self, parts.hostname, parts.port or _PORTS[parts.scheme], ssl=secure
            )
        lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}"]
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
        except (StreamError, FrameError) as error:
            self._end(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    # --- inside -------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> bytes:
        """What stands behind the head, once it is whole."""
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
            if length.isdigit():
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
        """The owner has had a turn to begin reading; a refusal this long is cut."""
        if self._feed is None:
            self._end(None)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _look(self) -> None:
        """Silence for too long is the end."""
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
            self._head.exception()  # nobody may be waiting any more
        if not self._ended.done():
            if error is not None:
                self._ended.set_exception(error)
                self._ended.exception()
            else:
                self._ended.set_result(None)
        if self._transport is not None:
            self._transport.abort()
