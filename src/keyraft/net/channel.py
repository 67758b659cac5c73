"""Client calls over asyncio: one endpoint, which is dialled when needed.

`Channel.call` is the cheap way, with a callback and no task; `unary` and `stream` are the same
for `async` code. A channel dials for the first call, and again after its connection is lost or gets
GOAWAY. A call that the server surely has not processed is sent once more on the new connection. All
others end with UNAVAILABLE, because only the caller knows whether they may run twice.

Ownership: a channel owns at most one connection that takes calls, and keeps drained ones until
their last call ends.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, Literal
from urllib.parse import urlsplit

from keyraft.grpc import ClientCall, ClientConnection, Limits, Metadata, RpcError, status

from .address import join_host_port
from .connecting import connected, connected_unix
from .protocol import Flusher, Http2Protocol
from .streamcall import PINGS_FROM_SERVER, StreamCall

CONNECT_S_MAX: Final = 5.0  # dialling, TLS handshake included
BACKOFF_S_MIN: Final = 0.05  # after a failed dial, calls fail at once for this long, doubled
BACKOFF_S_MAX: Final = 3.0
CLIENT_LIMITS: Final = Limits(
    message_bytes_max=2_147_483_647, keepalive_interval_s=0.0, pings=PINGS_FROM_SERVER
)

Done = Callable[[int, str, bytes], None]


class ClientProtocol(Http2Protocol[ClientConnection]):
    """One dialled socket."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel.loop, channel.flusher)
        self._channel = channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.start(self._channel.new_connection())
        self.arm()

    def lost(self, reason: str) -> None:
        self._channel.lost(self)


class _Waiting:
    """A call that waits for the connection."""

    __slots__ = ("begin", "cancelled", "fail")

    def __init__(
        self, begin: Callable[[ClientProtocol], None], fail: Callable[[int, str], None]
    ) -> None:
        self.begin = begin
        self.fail = fail
        self.cancelled = False


class CallHandle:
    """A call made with `Channel.call`; `cancel` ends it."""

    __slots__ = ("_call", "_done", "_timer", "_waiting")

    def __init__(self, done: Done) -> None:
        self._done: Done | None = done
        self._call: ClientCall | None = None
        self._waiting: _Waiting | None = None
        self._timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Gives the call up; its `done` is called with CANCELLED unless it was called before."""
        if self._call is not None:
            self._call.cancel()
        else:
            self.finish(status.CANCELLED, "context canceled", b"")

    def finish(self, code: int, text: str, reply: bytes) -> None:
        """Calls `done`, once."""
        done, self._done = self._done, None
        if self._waiting is not None:
            self._waiting.cancelled = True
        if self._timer is not None:
            self._timer.cancel()
        if done is not None:
            done(code, text, reply)


class Channel:
    """Calls to one endpoint, `url` being http, https, unix or unixs.

    `authority` is what `:authority` says (default: the URL's host and port), `server_name` the name
    that the certificate must have (default: the URL's host).
    """

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits = CLIENT_LIMITS,
        authority: str = "",
        server_name: str | None = None,
        user_agent: str = "keyraft",
        connect_s_max: float = CONNECT_S_MAX,
        keepalive_without_calls: bool = False,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "unix", "unixs"):
            raise ValueError(f"unsupported URL scheme {parts.scheme!r} in {url!r}")
        self.url = url
        self.loop = asyncio.get_running_loop()
        self.flusher = Flusher(self.loop)
        self._unix_path = parts.netloc + parts.path if parts.scheme.startswith("unix") else None
        self._host = parts.hostname or "localhost"
        self._port = parts.port or 0
        self._secure = parts.scheme in ("https", "unixs")
        self._tls = (tls or ssl.create_default_context()) if self._secure else None
        self._server_name = server_name
        self._limits = limits
        self._authority = authority or (
            "localhost" if self._unix_path else join_host_port(self._host, self._port)
        )
        self._user_agent = user_agent
        self._connect_s_max = connect_s_max
        self._keepalive_without_calls = keepalive_without_calls
        self._current: ClientProtocol | None = None
        self._all: set[ClientProtocol] = set()
        self._dialling: asyncio.Task[None] | None = None
        self._waiting: deque[_Waiting] = deque()
        self._backoff_s = 0.0
        self._retry_at = 0.0
        self._last_error = ""
        self._closed = False
        self.on_lost: Callable[[], None] | None = None
        self.dials_total = 0

    # --- the connection -------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a call made now would go out at once."""
        return self._ready() is not None

    def new_connection(self) -> ClientConnection:
        """For ClientProtocol: the HTTP/2 connection of a new socket."""
        return ClientConnection(
            self._limits,
            monotonic(),
            authority=self._authority,
            scheme="https" if self._secure else "http",
            user_agent=self._user_agent,
            keepalive_without_calls=self._keepalive_without_calls,
        )

    def _ready(self) -> ClientProtocol | None:
        protocol = self._current
        if protocol is None or protocol.connection is None:
            return None
        if protocol.connection.closed or protocol.connection.draining:
            return None
        return protocol

    def lost(self, protocol: ClientProtocol) -> None:
        """For ClientProtocol: its socket is gone."""
        self._all.discard(protocol)
        if self._current is protocol:
            self._current = None
            if self.on_lost is not None:
                self.on_lost()

    async def connect(self) -> None:
        """Dials if there is no connection; raises RpcError UNAVAILABLE."""
        done: asyncio.Future[None] = self.loop.create_future()

        def begin(protocol: ClientProtocol) -> None:
            if not done.done():
                done.set_result(None)

        def fail(code: int, text: str) -> None:
            if not done.done():
                done.set_exception(RpcError(code, text))

        self._when_ready(_Waiting(begin, fail))
        await done

    def _when_ready(self, waiting: _Waiting) -> None:
        protocol = self._ready()
        if protocol is not None:
            waiting.begin(protocol)
        elif self._closed:
            waiting.fail(status.CANCELLED, "grpc: the client connection is closing")
        elif self._dialling is None and monotonic() < self._retry_at:
            waiting.fail(status.UNAVAILABLE, self._last_error)
        else:
            self._waiting.append(waiting)
            if self._dialling is None:
                self._dialling = self.loop.create_task(self._dial())

    async def _dial(self) -> None:
        """Opens the socket and starts the waiting calls, or fails them."""
        self.dials_total += 1
        try:
            async with asyncio.timeout(self._connect_s_max):
                protocol = await self._open()
        except (OSError, ssl.SSLError, TimeoutError) as error:
            reason = str(error) or "i/o timeout"
            self._backoff_s = min(max(self._backoff_s * 2, BACKOFF_S_MIN), BACKOFF_S_MAX)
            self._retry_at = monotonic() + self._backoff_s
            self._last_error = (
                f'connection error: desc = "transport: Error while dialing: {reason}"'
            )
            self._dialling = None
            while self._waiting:
                self._waiting.popleft().fail(status.UNAVAILABLE, self._last_error)
            return
        self._dialling = None
        self._backoff_s = 0.0
        self._current = protocol
        self._all.add(protocol)
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.cancelled:
                waiting.begin(protocol)

    async def _open(self) -> ClientProtocol:
        path, host, port = self._unix_path, self._host, self._port
        if self._tls is not None:
            from .tls import shake_hands  # a client without TLS starts without

            raw = await (connected_unix(path) if path is not None else connected(host, port))
            stream = await shake_hands(raw, self._tls, self._server_name or host)
            protocol = ClientProtocol(self)
            stream.open(protocol)
        elif path is not None:
            _, protocol = await self.loop.create_unix_connection(lambda: ClientProtocol(self), path)
        else:
            _, protocol = await self.loop.create_connection(
                lambda: ClientProtocol(self), host, port
            )
        return protocol

    # --- calls ----------------------------------------------------------------------------------

    def call(
        self,
        path: bytes,
        request: bytes,
        done: Done,
        *,
        metadata: Metadata = (),
        timeout_s: float | None = None,
    ) -> CallHandle:
        """Starts a unary call; `done(code, text, reply)` is called once, perhaps at once."""
        handle = CallHandle(done)
        deadline_s = None if timeout_s is None else monotonic() + timeout_s
        self._begin_call(handle, path, request, metadata, deadline_s, again=True)
        return handle

    def _begin_call(
        self,
        handle: CallHandle,
        path: bytes,
        request: bytes,
        metadata: Metadata,
        deadline_s: float | None,
        again: bool,
    ) -> None:
        def ended(code: int, text: str, reply: bytes) -> None:
            call, handle._call = handle._call, None
            if call is not None and call.unprocessed and again and not self._closed:
                self._begin_call(handle, path, request, metadata, deadline_s, again=False)
            else:
                handle.finish(code, text, reply)

        def begin(protocol: ClientProtocol) -> None:
            if handle._done is None:
                return
            connection = protocol.connection
            assert connection is not None
            now = monotonic()
            left = None if deadline_s is None else max(deadline_s - now, 0.0)
            call = connection.unary(path, request, ended, now, metadata=metadata, timeout_s=left)
            if not call.over:
                handle._call = call
                if left is not None:
                    protocol.arm()

        protocol = self._ready()
        if protocol is not None:
            begin(protocol)
            return
        waiting = _Waiting(begin, lambda code, text: handle.finish(code, text, b""))
        handle._waiting = waiting
        if deadline_s is not None:
            handle._timer = self.loop.call_at(
                deadline_s,
                lambda: (
                    None
                    if handle._call is not None
                    else handle.finish(status.DEADLINE_EXCEEDED, "context deadline exceeded", b"")
                ),
            )
        self._when_ready(waiting)

    async def unary(
        self,
        path: bytes,
        request: bytes,
        *,
        metadata: Metadata = (),
        timeout_s: float | None = None,
    ) -> bytes:
        """One message for one; raises RpcError. Cancelling the task cancels the call."""
        future: asyncio.Future[bytes] = self.loop.create_future()

        def done(code: int, text: str, reply: bytes) -> None:
            if future.done():
                return
            if code == status.OK:
                future.set_result(reply)
            else:
                future.set_exception(RpcError(code, text))

        handle = self.call(path, request, done, metadata=metadata, timeout_s=timeout_s)
        try:
            return await future
        except asyncio.CancelledError:
            handle.cancel()
            raise

    async def stream(
        self,
        path: bytes,
        *,
        metadata: Metadata = (),
        timeout_s: float | None = None,
    ) -> StreamCall:
        """Starts a streaming call; raises RpcError when no connection can be made."""
        await self.connect()
        protocol = self._ready()
        if protocol is None or protocol.connection is None:
            raise RpcError(status.UNAVAILABLE, "the connection was lost")
        call = StreamCall(self.loop)
        call.attach(
            protocol.connection.stream(
                path, call, monotonic(), metadata=metadata, timeout_s=timeout_s
            )
        )
        protocol.arm()
        return call

    async def close(self) -> None:
        """Ends the channel; open calls end with UNAVAILABLE."""
        self._closed = True
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.gather(self._dialling, return_exceptions=True)
            self._dialling = None
        while self._waiting:
            self._waiting.popleft().fail(status.CANCELLED, "grpc: the client connection is closing")
        for protocol in list(self._all):
            if protocol.connection is not None:
                protocol.connection.close(monotonic())
        self.flusher.flush()
        while self._all:
            await asyncio.sleep(0)

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *exc_info: object) -> Literal[False]:
        await self.close()
        return False
