"""Requests over HTTP/1.1 to members: one connection for each request, kept for later ones.

    answer = await client.request("POST", "http://host:1", "/path", body=..., timeout_s=5.0)

httptools parses the responses. A connection that is not at the exact end of a response is never
used again. If the other end has closed a kept connection, a GET is sent once more on a new one. For
other methods the caller must know whether they may run twice.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

import httptools

from keyraft.base import http_status

from ..connecting import connected, connected_unix

if TYPE_CHECKING:
    from keyraft.net.tls import ClientTLS

HEAD_BYTES_MAX: Final = 65_536  # status line and headers of an answer
ANSWER_BYTES_MAX: Final = 65_536  # of its body, if the caller gives no other limit
KEPT_S_MAX: Final = (
    4.5  # without a call; a member closes its end after five seconds, and probes every four
)
KEPT_PER_ADDRESS_MAX: Final = 8
HANDSHAKE_S_MAX: Final = 10.0  # Go's `TLSHandshakeTimeout`
_PORTS: Final = {"http": 80, "https": 443}
_P = TypeVar("_P", bound=asyncio.BaseProtocol)


class HttpError(Exception):
    """No answer: the server can't be reached, or its response is invalid or too long."""


class HttpAnswer:
    """Status, headers (names in lower case, the last of a repeated one) and body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""


def unix_path(parts: SplitResult) -> str | None:
    """The path of a unix or unixs URL; None for others."""
    return parts.netloc + parts.path if parts.scheme in ("unix", "unixs") else None


async def dial(
    url: str,
    factory: Callable[[], _P],
    tls: ClientTLS | None,
    local_host: str = "",
    timeout_s: float | None = None,
) -> tuple[asyncio.Transport, _P]:
    """A connection to an http, https, unix or unixs URL; raises OSError (CertificateRefusedError and
    TimeoutError too), HttpError.

    `tls`: for the secure ones; None: the system's authorities. `local_host`: our end's address.
    `timeout_s` is for the connection alone: a handshake has a limit of its own, and a machine that
    has much to do needs it (Go's `TLSHandshakeTimeout`).
    """
    parts = urlsplit(url)
    path = unix_path(parts)
    host = parts.hostname or ""
    if path is None and (parts.scheme not in _PORTS or not host):
        raise HttpError(f"cannot dial {url}")
    port = parts.port or _PORTS.get(parts.scheme, 0)
    if parts.scheme in ("https", "unixs"):
        return await _dial_secure(parts, path, port, factory, tls, local_host, timeout_s)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        if path is not None:
            return await loop.create_unix_connection(factory, path)
        local = (local_host, 0) if local_host else None
        return await loop.create_connection(factory, host, port, local_addr=local)


async def _dial_secure(
    parts: SplitResult,
    path: str | None,
    port: int,
    factory: Callable[[], _P],
    tls: ClientTLS | None,
    local_host: str,
    timeout_s: float | None,
) -> tuple[asyncio.Transport, _P]:
    from ..tls import shake_hands  # most members start without

    host = parts.hostname or "localhost"
    context = ssl.create_default_context() if tls is None else tls.context()
    async with asyncio.timeout(timeout_s):
        raw = await (
            connected_unix(path) if path is not None else connected(host, port, local_host)
        )
    name = (tls.server_name if tls is not None else "") or host
    # Names that DNS gives end with a dot, names in certificates never do.
    try:
        async with asyncio.timeout(HANDSHAKE_S_MAX):
            stream = await shake_hands(raw, context, name.removesuffix("."))
    except TimeoutError:
        raise TimeoutError("net/http: TLS handshake timeout") from None
    try:
        waits = None if tls is None else tls.verify(stream.ssl_object, parts.netloc)
        if waits is not None:
            await waits
    except BaseException:
        stream.close()
        raise
    protocol = factory()
    stream.open(protocol)
    return stream, protocol


class _Connection(asyncio.Protocol):
    """One socket with at most one call. Owned by the call, or by the client between calls."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.moved_s = self._loop.time()  # when a byte was last sent or received
        self.lost = False
        self.fresh = True  # for its first call
        self.address = ""
        self.idle: asyncio.TimerHandle | None = None
        self.on_lost: Callable[[], None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._answered: asyncio.Future[None] | None = None
        self._parser: Any = None
        self._answer = HttpAnswer()
        self._pieces: list[bytes] = []
        self._bytes_max = self._bytes = self._head_bytes = 0
        self._in_head = True
        self._kept = False
        self._complete = False

    # --- one call -----------------------------------------------------------------------------

    def expect(self, bytes_max: int) -> asyncio.Future[None]:
        """Expects a response; the future is done when it is complete, or has the error."""
        self._parser = httptools.HttpResponseParser(self)
        self._answer = HttpAnswer()
        self._pieces = []
        self._bytes_max, self._bytes, self._head_bytes = bytes_max, 0, 0
        self._in_head, self._complete, self._kept = True, False, False
        self._answered = self._loop.create_future()
        if self.lost:
            self._fail(HttpError("EOF"))
        return self._answered

    @property
    def heard(self) -> bool:
        """Whether any byte of the response has come."""
        return self._head_bytes > 0

    def take(self) -> HttpAnswer:
        """The answer, once it is whole."""
        self._answer.body = b"".join(self._pieces)
        self._pieces = []
        return self._answer

    @property
    def reusable(self) -> bool:
        """Whether another call may follow this one."""
        return self._complete and not self.lost and self._kept

    def write(self, data: bytes) -> None:
        """Queues bytes."""
        transport = self.transport
        # `connection_lost` comes a turn after closing a transport; until then uvloop raises for
        # writes.
        if transport is not None and not self.lost and not transport.is_closing():
            transport.write(data)
            self.moved_s = self._loop.time()

    async def drained(self) -> None:
        """Waits until the socket takes more."""
        if self._room is not None:
            await self._room

    def close(self) -> None:
        """Ends the connection."""
        if self.idle is not None:
            self.idle.cancel()
        if self.transport is not None:
            self.transport.abort()

    # --- httptools ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            raise HttpError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        if self._answer.status < http_status.CONTINUE:
            raise HttpError("malformed HTTP response")
        self._kept = bool(self._parser.should_keep_alive())
        self._in_head = False

    def on_body(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if self._bytes > self._bytes_max:
            raise HttpError(f"response body exceeds {self._bytes_max} bytes limit")
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self._answer.status >= http_status.OK:
            self._complete = True
        else:  # 100 Continue and its like come before the answer
            self._answer.headers.clear()
            self._in_head = True

    # --- asyncio ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.moved_s = self._loop.time()
        if self._answered is None or self._answered.done():
            self.close()  # nobody has sent a request
            return
        self._head_bytes += len(data) if self._in_head else 0
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__
            self._fail(
                cause if isinstance(cause, HttpError) else HttpError("malformed HTTP response")
            )
            return
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._fail(HttpError("the head of the answer is too long"))
        elif self._complete:
            self._answered.set_result(None)

    def eof_received(self) -> bool:
        if self._answered is not None and not self._answered.done() and self._ends_with_eof():
            self._complete = True
            self._answered.set_result(None)
        return False

    def _ends_with_eof(self) -> bool:
        """A response without length and chunks ends with its connection."""
        headers = self._answer.headers
        return not self._in_head and not (
            "content-length" in headers or "transfer-encoding" in headers
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._fail(exc if exc is not None else HttpError("EOF"))
        self.resume_writing()
        if self.idle is not None:
            self.idle.cancel()
        if self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        self.moved_s = self._loop.time()
        if room is not None and not room.done():
            room.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
            self._answered.exception()  # perhaps nobody waits for it any more
        self.close()


class Http1Client:
    """Owned by the loop's thread; `close` ends kept connections and requests under way."""

    def __init__(
        self,
        *,
        tls: ClientTLS | None = None,
        dial_timeout_s: float | None = None,
        local_host: str = "",
    ) -> None:
        self._local_host = local_host
        self._tls = tls
        self._dial_timeout_s = dial_timeout_s
        self._kept: dict[str, deque[_Connection]] = {}
        self._all: set[_Connection] = set()
        self._closed = False

    async def request(
        self,
        method: str,
        address: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
        timeout_s: float | None = None,
        still_s_max: float | None = None,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> HttpAnswer:
        """One call; raises HttpError, OSError (ssl.SSLError among them) and TimeoutError.

        `address` is a URL without a path, or that of a unix socket; `target` the path and query.
        `timeout_s` limits the whole call, `still_s_max` the time without a byte sent or received.
        """
        host = urlsplit(address).netloc or "localhost"
        head = _head(method, target, host, headers or {}, body)
        async with asyncio.timeout(timeout_s):
            while True:
                connection = await self._connection(address)
                try:
                    return await self._call(connection, head, body, still_s_max, answer_bytes_max)
                except (HttpError, ConnectionError):
                    if method != "GET" or connection.fresh or connection.heard:
                        raise

    async def _call(
        self,
        connection: _Connection,
        head: bytes,
        body: bytes | AsyncIterator[bytes] | None,
        still_s_max: float | None,
        answer_bytes_max: int,
    ) -> HttpAnswer:
        answered = connection.expect(answer_bytes_max)
        sending: asyncio.Task[None] | None = None
        reusable = False
        try:
            if body is None or isinstance(body, bytes):
                connection.write(head + (body or b""))
            else:
                connection.write(head)
                sending = asyncio.get_running_loop().create_task(_send(connection, body, answered))
            await _wait(connection, answered, sending, still_s_max)
            answer = connection.take()
            # The response came before the end of the request, whose rest may not be sent.
            reusable = connection.reusable and (sending is None or sending.done())
            return answer
        finally:
            if sending is not None and not sending.done():
                sending.cancel()
                await asyncio.wait((sending,))
            if reusable and not self._closed:
                self._keep(connection)
            else:
                connection.close()

    async def _connection(self, address: str) -> _Connection:
        kept = self._kept.get(address)
        while kept:
            connection = kept.pop()
            if connection.idle is not None:
                connection.idle.cancel()
            if not connection.lost:
                connection.fresh = False
                return connection
        if self._closed:
            raise HttpError("the client is closed")
        _, connection = await dial(
            address, _Connection, self._tls, self._local_host, self._dial_timeout_s
        )
        self._all.add(connection)
        connection.on_lost = lambda: self._lost(address, connection)
        connection.address = address
        return connection

    def _keep(self, connection: _Connection) -> None:
        kept = self._kept.setdefault(connection.address, deque())
        if len(kept) >= KEPT_PER_ADDRESS_MAX:
            connection.close()
            return
        kept.append(connection)
        loop = asyncio.get_running_loop()
        connection.idle = loop.call_later(KEPT_S_MAX, connection.close)

    def _lost(self, address: str, connection: _Connection) -> None:
        self._all.discard(connection)
        kept = self._kept.get(address)
        if kept is not None and connection in kept:
            kept.remove(connection)
        if not kept:
            self._kept.pop(address, None)

    def close(self) -> None:
        """Ends every connection; calls that are under way fail."""
        self._closed = True
        for connection in list(self._all):
            connection.close()


def _head(
    method: str,
    target: str,
    host: str,
    headers: Mapping[str, str],
    body: bytes | AsyncIterator[bytes] | None,
) -> bytes:
    """The head of a request; raises HttpError for a value that would not be one field."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "User-Agent: keyraft"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if isinstance(body, bytes):
        lines.append(f"Content-Length: {len(body)}")
    elif body is not None:
        lines.append("Transfer-Encoding: chunked")
    elif method not in ("GET", "HEAD"):
        lines.append("Content-Length: 0")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise HttpError("a header field has more than one line")
    return text.encode("utf-8", "surrogateescape") + b"\r\n\r\n"


async def _send(
    connection: _Connection, body: AsyncIterator[bytes], answered: asyncio.Future[None]
) -> None:
    """Sends the body in chunks, as fast as they are taken, until a response comes."""
    try:
        async for piece in body:
            if answered.done():
                return
            if piece:
                connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await connection.drained()
        connection.write(b"0\r\n\r\n")
    finally:
        if isinstance(body, AsyncGenerator):
            await body.aclose()


async def _wait(
    connection: _Connection,
    answered: asyncio.Future[None],
    sending: asyncio.Task[None] | None,
    still_s_max: float | None,
) -> None:
    """Waits for the response; raises errors of sending, and TimeoutError if no byte moves."""
    loop = asyncio.get_running_loop()
    while not answered.done():
        wanted: set[asyncio.Future[None]] = {answered}
        if sending is not None:
            if not sending.done():
                wanted.add(sending)
            elif (error := sending.exception()) is not None:
                raise HttpError(str(error)) from error
        left_s = None
        if still_s_max is not None:
            left_s = connection.moved_s + still_s_max - loop.time()
            if left_s <= 0:
                raise TimeoutError("i/o timeout")
        await asyncio.wait(wanted, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
    answered.result()
