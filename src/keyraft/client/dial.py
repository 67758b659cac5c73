"""Making connections with Keyraft's own transport.

TLS follows etcd's rules: an endpoint's scheme decides, and an endpoint without one uses TLS when
the client has a configuration for it (see `endpoint`).
"""

from __future__ import annotations

import asyncio
import ssl
from time import monotonic
from typing import Final, NamedTuple

from keyraft.client.endpoint import Endpoint
from keyraft.client.errors import UNAVAILABLE
from keyraft.client.transport import CallFailed, Connection, Headers
from keyraft.grpc import ClientConnection, ClientStream, Limits, RpcError
from keyraft.net import PINGS_FROM_SERVER, Flusher, Http2Protocol, StreamCall, client_context

RECEIVE_BYTES_MAX: Final = 2_147_483_647  # a response; etcd's client: math.MaxInt32
KEEPALIVE_S: Final = 10.0  # a ping when nothing was heard for this long while calls are open
KEEPALIVE_TIMEOUT_S: Final = 3.0  # then this long for the answer
DIAL_TIMEOUT_S: Final = 2.0
USER_AGENT: Final = "keyraft"


class TLS(NamedTuple):
    """How the client shows and checks certificates; files are PEM, empty ones are left out.

    Without `ca_file` the system's authorities are trusted. `server_name` replaces the endpoint's
    host in the check; `verify=False` trusts anybody.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """The context for connections; raises OSError for files that cannot be used."""
        return client_context(
            trusted_ca_file=self.ca_file or None,
            cert_file=self.cert_file or None,
            key_file=self.key_file or None,
            insecure_skip_verify=not self.verify,
        )


class Dialer:
    """Connects to endpoints; certificates are read anew for each connection, so they may change.

    Times in seconds; a `keepalive_s` of 0 sends no pings.
    """

    def __init__(
        self,
        tls: TLS | None = None,
        *,
        timeout_s: float = DIAL_TIMEOUT_S,
        keepalive_s: float = KEEPALIVE_S,
        keepalive_timeout_s: float = KEEPALIVE_TIMEOUT_S,
        receive_bytes_max: int = 0,
    ) -> None:
        self._tls = tls
        self._timeout_s = timeout_s
        self.limits = Limits(
            message_bytes_max=receive_bytes_max or RECEIVE_BYTES_MAX,
            keepalive_interval_s=keepalive_s,
            keepalive_timeout_s=keepalive_timeout_s,
            pings=PINGS_FROM_SERVER,
        )
        self._flusher: Flusher | None = None

    async def __call__(self, endpoint: Endpoint) -> Connection:
        """A new connection; raises OSError with the reason."""
        loop = asyncio.get_running_loop()
        if self._flusher is None:
            self._flusher = Flusher(loop)
        flusher = self._flusher
        secure = endpoint.tls if endpoint.tls is not None else self._tls is not None
        context, name = None, None
        if secure:
            tls = self._tls or TLS()
            context, name = tls.context(), tls.server_name or endpoint.host or "localhost"

        def make() -> Socket:
            return Socket(loop, flusher, self.limits, endpoint.authority, secure)

        try:
            async with asyncio.timeout(self._timeout_s if self._timeout_s > 0 else None):
                if endpoint.path:
                    _, socket = await loop.create_unix_connection(
                        make, endpoint.path, ssl=context, server_hostname=name
                    )
                else:
                    _, socket = await loop.create_connection(
                        make, endpoint.host, endpoint.port, ssl=context, server_hostname=name
                    )
        except TimeoutError:
            raise OSError(f"dial {endpoint.authority}: i/o timeout") from None
        return socket


class Socket(Http2Protocol[ClientConnection]):
    """One connection (transport.Connection)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        flusher: Flusher,
        limits: Limits,
        authority: str,
        secure: bool,
    ) -> None:
        super().__init__(loop, flusher)
        self._lost: asyncio.Future[None] = loop.create_future()
        self._http = ClientConnection(
            limits,
            monotonic(),
            authority=authority,
            scheme="https" if secure else "http",
            user_agent=USER_AGENT,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.start(self._http)
        self.arm()

    def lost(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(None)

    @property
    def alive(self) -> bool:
        """False once the connection is lost or takes no new calls."""
        return not (self._http.closed or self._http.draining or self._lost.done())

    async def unary(
        self, method: bytes, request: bytes, headers: Headers, timeout_s: float | None
    ) -> bytes:
        """One call; cancelling it resets its stream."""
        if not self.alive:
            raise CallFailed(UNAVAILABLE, self._reason, sent=False)
        future: asyncio.Future[bytes] = self.loop.create_future()

        def done(code: int, text: str, reply: bytes) -> None:
            if future.done():
                return
            if code:
                future.set_exception(CallFailed(code, text, sent=not call.unprocessed))
            else:
                future.set_result(reply)

        call = self._http.unary(
            method, request, done, monotonic(), metadata=headers, timeout_s=timeout_s
        )
        if timeout_s is not None:
            self.arm()
        try:
            return await future
        except asyncio.CancelledError:
            call.cancel()
            raise

    def stream(self, method: bytes, headers: Headers) -> SocketStream:
        """One stream."""
        stream = SocketStream(self.loop, self._reason)
        if self.alive:
            stream.attach(self._http.stream(method, stream, monotonic(), metadata=headers))
            self.arm()
        else:
            stream.on_end(UNAVAILABLE, self._reason, {})
        return stream

    @property
    def _reason(self) -> str:
        return self._http.close_reason or "the connection was lost"

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._http.draining:
            self.lost("")  # the calls under way go on, but new ones need another connection

    @property
    def gone(self) -> bool:
        """Nothing is under way any more."""
        return self._http.closed

    async def wait_closed(self) -> None:
        """Returns when the socket is gone or takes no new calls."""
        await asyncio.shield(self._lost)

    async def close(self) -> None:
        """Ends what is open with Unavailable."""
        self._http.close(monotonic())
        self.flusher.flush()
        if self.transport is not None:
            self.transport.close()
        self.lost("closed")


class SocketStream(StreamCall):
    """One stream (transport.Stream)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reason: str) -> None:
        super().__init__(loop)
        self._reason = reason
        self._attached = False

    def attach(self, call: ClientStream) -> None:
        super().attach(call)
        self._attached = True

    async def send(self, message: bytes) -> None:
        """Queues one message."""
        if not self._attached:
            raise CallFailed(UNAVAILABLE, self._reason, sent=False)
        try:
            await super().send(message)
        except RpcError as error:
            raise CallFailed(error.code, error.text) from None

    async def receive(self) -> bytes | None:
        """The next message."""
        try:
            return await super().receive()
        except RpcError as error:
            raise CallFailed(error.code, error.text, sent=self._attached) from None

    def half_close(self) -> None:
        """Nothing more will be sent."""
        if self._attached:
            super().half_close()

    def cancel(self) -> None:
        """Ends the call."""
        if self._attached:
            super().cancel()
