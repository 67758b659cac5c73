"""Making connections with Keyraft's own transport.

TLS follows etcd's rules: an endpoint's scheme decides, and an endpoint without one uses TLS when
the client has a configuration for it (see `endpoint`).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyraft.client.endpoint import Endpoint
from keyraft.client.errors import UNAVAILABLE
from keyraft.client.transport import CallFailed, Done, EndpointConnection, Headers
from keyraft.grpc import (
    ClientCall,
    ClientConnection,
    ClientReceiver,
    ClientStream,
    Limits,
    RpcError,
)
from keyraft.net import (
    PINGS_FROM_SERVER,
    TIMEOUT,
    Flusher,
    Http2Protocol,
    StreamCall,
    client_context,
    handshake_reason,
    join_host_port,
    look_up,
    lookup_reason,
    peer_name,
    system_reason,
)

if TYPE_CHECKING:
    from keyraft.net import WatchedFile

RECEIVE_BYTES_MAX: Final = 2_147_483_647  # a response; etcd's client: math.MaxInt32
KEEPALIVE_S: Final = 10.0  # a ping when nothing was heard for this long while calls are open
KEEPALIVE_TIMEOUT_S: Final = 3.0  # then this long for the answer
CLOSING_S_MAX: Final = 1.0  # how long a server may take over the end of TLS
DIAL_TIMEOUT_S: Final = 2.0
USER_AGENT: Final = "keyraft"


Address = tuple[Any, ...] | str
"""A socket's: host, port and perhaps more, or a path."""


class TLS(NamedTuple):
    """How the client shows and checks certificates; files are PEM, empty ones are left out.

    Without `ca_file` the system's authorities are trusted. `server_name` replaces the endpoint's
    host in the check; `verify=False` accepts any server.
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


class _Contexts:
    """The context for the next connection: made anew when a file has changed.

    The system's authorities are read once, as in Go: it takes some 20 ms of the loop's thread.
    """

    def __init__(self, tls: TLS) -> None:
        self._tls = tls
        self._files: list[WatchedFile] | None = None
        self._made: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError for files that cannot be used."""
        if self._files is None:
            from keyraft.net import WatchedFile  # only with TLS

            named = (self._tls.ca_file, self._tls.cert_file, self._tls.key_file)
            self._files = [WatchedFile(path) for path in named if path]
        changed = [file.changed() for file in self._files]
        if self._made is None or any(changed):
            self._made = None  # until it is made
            self._made = self._tls.context()
        return self._made


class Dialer:
    """Connects to endpoints; certificates and authorities may change, each connection has the new.

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
        keepalive_without_calls: bool = False,
    ) -> None:
        self._tls = tls or TLS()
        self._contexts = _Contexts(self._tls)
        self._always_secure = tls is not None
        self._keepalive_without_calls = keepalive_without_calls
        self._timeout_s = timeout_s
        self.limits = Limits(
            message_bytes_max=receive_bytes_max or RECEIVE_BYTES_MAX,
            keepalive_interval_s=keepalive_s,
            keepalive_timeout_s=keepalive_timeout_s,
            pings=PINGS_FROM_SERVER,
        )
        self._flusher: Flusher | None = None

    async def __call__(self, endpoint: Endpoint) -> EndpointConnection:
        """A new connection whose server has sent its settings; raises DialError with the reason."""
        attempt = DialAttempt(endpoint)
        secure = endpoint.tls if endpoint.tls is not None else self._always_secure
        context, name = None, None
        if secure:
            context = self._contexts.context()
            name = (self._tls.server_name or endpoint.host or "localhost").removesuffix(".")
        try:
            async with asyncio.timeout(self._timeout_s if self._timeout_s > 0 else None):
                return await self._connect(context, name, attempt)
        except TimeoutError as error:
            raise attempt.failure(error) from None

    async def _connect(
        self, context: ssl.SSLContext | None, name: str | None, attempt: DialAttempt
    ) -> Socket:
        first: DialError | None = None
        for address in await attempt.addresses():
            try:
                return await self._try(address, context, name, attempt)
            except DialError as error:
                first = first or error
        assert first is not None, "a name has an address, or an error"
        raise first

    async def _try(
        self,
        address: Address,
        context: ssl.SSLContext | None,
        name: str | None,
        attempt: DialAttempt,
    ) -> Socket:
        loop = asyncio.get_running_loop()
        if self._flusher is None:
            self._flusher = Flusher(loop)
        flusher, authority = self._flusher, attempt.endpoint.authority

        def make() -> Socket:
            return Socket(
                loop,
                flusher,
                self.limits,
                authority,
                context is not None,
                self._keepalive_without_calls,
            )

        attempt.dialling(address)
        plain = socket.socket(
            socket.AF_UNIX
            if isinstance(address, str)
            else socket.AF_INET6
            if ":" in address[0]
            else socket.AF_INET
        )
        try:
            plain.setblocking(False)
            await loop.sock_connect(plain, address)
            attempt.stage = HANDSHAKE if context is not None else PREFACE
            if context is None:
                _, made = await loop.create_connection(make, sock=plain)
            else:
                from keyraft.net import shake_hands  # only with TLS

                stream = await shake_hands(plain, context, name or "")
                made = make()
                stream.open(made)
        except OSError as error:
            plain.close()
            raise attempt.failure(error) from None
        except BaseException:
            plain.close()
            raise
        attempt.stage = PREFACE
        try:
            await made.wait_ready()
        except OSError as error:
            raise attempt.failure(error) from None
        except BaseException:
            made.abort()
            raise
        return made


class DialError(OSError):
    """Why there is no connection, in the words of gRPC-Go."""


DIALLING: Final = "transport: Error while dialing: "
HANDSHAKE: Final = "transport: authentication handshake failed: "
PREFACE: Final = "error reading server preface: "


class DialAttempt:
    """One attempt to connect, and how far it has come: the words for a failure depend on it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.stage = DIALLING
        self._where = ""

    async def addresses(self) -> list[Address]:
        """What to connect to: a path, or each address of the host's name."""
        path, host, port = self.endpoint.path, self.endpoint.host, self.endpoint.port
        if path:
            return [path]
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
        except OSError:
            pass
        else:
            return [(host, port)]
        self._where = f"dial tcp: lookup {host}: "
        try:
            found = await look_up(host, port)
        except socket.gaierror as error:
            raise self._told(f"dial tcp: {lookup_reason(host, error)}") from None
        except UnicodeError:
            raise self._told(f"dial tcp: lookup {host}: no such host") from None
        return list(dict.fromkeys(item[4] for item in found))

    def dialling(self, address: Address) -> None:
        """The address that is tried now."""
        self.stage = DIALLING
        where = address if isinstance(address, str) else join_host_port(*address[:2])
        self._where = f"dial {'unix' if isinstance(address, str) else 'tcp'} {where}: "

    def failure(self, error: OSError) -> DialError:
        """The error for what went wrong."""
        if self.stage == DIALLING:
            late = isinstance(error, TimeoutError) and error.errno is None
            reason = TIMEOUT if late else f"connect: {system_reason(error)}"
            return self._told(self._where + reason)
        if isinstance(error, TimeoutError):
            return self._told("context deadline exceeded")
        return self._told(handshake_reason(error))

    def _told(self, reason: str) -> DialError:
        text = (self.stage + reason).replace("\\", "\\\\").replace('"', '\\"')
        return DialError(f'connection error: desc = "{text}"')


class Socket(Http2Protocol[ClientConnection]):
    """One connection (transport.Connection)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        flusher: Flusher,
        limits: Limits,
        authority: str,
        secure: bool,
        keepalive_without_calls: bool = False,
    ) -> None:
        super().__init__(loop, flusher)
        self._lost: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()  # the socket is closed
        self._ready: asyncio.Future[None] | None = None
        self._error: Exception | None = None  # of the socket
        self._http = ClientConnection(
            limits,
            monotonic(),
            authority=authority,
            scheme="https" if secure else "http",
            user_agent=USER_AGENT,
            keepalive_without_calls=keepalive_without_calls,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.start(self._http)
        self.arm()

    async def wait_ready(self) -> None:
        """Returns when the server has sent its settings; raises OSError when it never will."""
        if not self._http.settings.received and not self._lost.done():
            self._ready = self.loop.create_future()
            try:
                await self._ready
            finally:
                self._ready = None
        if not self._http.settings.received:
            raise self._error if isinstance(self._error, OSError) else ConnectionResetError()

    def abort(self) -> None:
        """Closes at once."""
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        self._ended.set_result(None)
        super().connection_lost(exc)

    def lost(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(None)
        self._wake()

    def _wake(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

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

    def call(
        self, method: bytes, request: bytes, headers: Headers, timeout_s: float | None, done: Done
    ) -> ClientCall:
        """One call with a callback (transport.DirectConnection)."""
        call = self._http.unary(
            method, request, done, monotonic(), metadata=headers, timeout_s=timeout_s
        )
        if timeout_s is not None and not call.over:
            self.arm()
        return call

    def open(self, method: bytes, headers: Headers, receiver: ClientReceiver) -> ClientStream:
        """One stream with callbacks (transport.DirectConnection)."""
        stream = self._http.stream(method, receiver, monotonic(), metadata=headers)
        if not stream.over:
            self.arm()
        return stream

    @property
    def ends(self) -> str:
        """Both addresses, as gRPC-Go prints a peer."""
        if self.transport is None:
            return ""
        here = self.transport.get_extra_info("sockname")
        local = join_host_port(*here[:2]) if isinstance(here, tuple) else here
        secure = "tls" if self.transport.get_extra_info("sslcontext") else "insecure"
        remote = peer_name(self.transport)
        return f"Peer{{Addr: '{remote}', LocalAddr: '{local}', AuthInfo: '{secure}'}}"

    @property
    def reason(self) -> str:
        """Why it is no longer alive."""
        if isinstance(self._error, OSError):
            return handshake_reason(self._error)
        return self._http.close_reason or "the connection was lost"

    @property
    def _reason(self) -> str:
        return self._http.close_reason or "the connection was lost"

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._ready is not None and self._http.settings.received:
            self._wake()
        if self._http.draining:
            self.lost("")  # calls under way continue; new ones need another connection

    @property
    def gone(self) -> bool:
        """Nothing is under way any more."""
        return self._http.closed

    async def wait_closed(self) -> None:
        """Returns when the socket is gone or takes no new calls."""
        await asyncio.shield(self._lost)

    async def close(self) -> None:
        """Ends what is open with Unavailable, and returns when the socket is closed."""
        self._http.close(monotonic())
        self.flusher.flush()
        self.lost("closed")
        if self.transport is None:
            return
        self.transport.close()
        try:
            await asyncio.wait((self._ended,), timeout=CLOSING_S_MAX)
        finally:
            if not self._ended.done():
                self.transport.abort()


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
