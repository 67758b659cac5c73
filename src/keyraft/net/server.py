"""Listeners, and the accepted sockets with their connections.

One port serves HTTP/2 and HTTP/1.1: the first bytes tell which.

Ownership: the server owns its listeners and protocols; a protocol owns its transport and its
connection. Everything runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from keyraft.grpc import (
    PREFACE,
    HttpRequest,
    Limits,
    Router,
    ServerConnection,
    text_bytes_max,
)

from .accepting import Acceptor, Places, Say, bind, bind_unix
from .address import common_name, join_host_port, peer_name
from .http1 import CLIENT_PORT, Http1Connection, Http1Service
from .protocol import Flusher, Http2Protocol

if TYPE_CHECKING:
    from .tls import Failed, ServerTLS

HANDSHAKE_S_MAX: Final = 10.0  # from accept, or the end of the TLS handshake, to the first bytes
ABORT_S_MAX: Final = 0.5  # for aborted connections to be reported as lost
DRAIN_POLL_S: Final = 0.02
CONNECTIONS_MAX: Final = 100_000  # open at once, where the caller has not counted descriptors
BACKLOG_CONNECTIONS: Final = 4_096
_SNIFF: Final = 3  # bytes that tell the HTTP/2 preface from every HTTP/1 method

_TEXT: Final = frozenset((*b"\r\n", *range(0x20, 0x7F)))
"""The first byte of an HTTP/1.1 request, even of an invalid one: of a method or an empty line."""

HttpHandler = Callable[[HttpRequest], None]


@dataclass(slots=True)
class Statistics:
    """Counters of the server; they never fall."""

    connections_open: int = 0
    connections_total: int = 0
    streams_open: int = 0
    streams_total: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    queued_bytes: int = 0


class ServerProtocol(Http2Protocol[ServerConnection]):
    """One accepted socket."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.loop, server.flusher, server.clock)
        self.server = server
        self.scheme = "http"
        self._first = b""
        self._http1: Http1Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.server.accepted(self)
        chosen = transport.get_extra_info("ssl_object")
        if chosen:
            self.scheme = "https"
        if self.server.http1 is None or (chosen and chosen.selected_alpn_protocol() == "h2"):
            self._start_http2(b"")
        elif self.server.http1.early:
            self._start_http1(b"")
        else:
            self.call_at(self.clock() + HANDSHAKE_S_MAX)

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        if connection is not None:
            self.take(connection, data)
            return
        # Neither ALPN nor the configuration decides the protocol, so the first bytes do.
        first = self._first = self._first + data
        if len(first) < _SNIFF and PREFACE.startswith(first):
            return
        if PREFACE.startswith(first[:_SNIFF]):
            self._first = b""
            self._start_http2(first)
        elif first[0] not in _TEXT and self.transport is not None:
            self.transport.abort()  # most likely TLS, whose client waits for an answer
        else:
            self._first = b""
            self._start_http1(first)

    def _start_http2(self, first: bytes) -> None:
        server = self.server
        now = self.clock()
        connection = ServerConnection(
            server.router,
            server.limits,
            now,
            peer=peer_name(self.transport),
            common_name=common_name(self.transport),
            scheme=self.scheme,
            on_http=server.on_http,
            early=server.early,
            clock=self.clock,
        )
        self.cancel_timer()
        self.start(connection)
        if server.stopping:
            connection.shutdown(now)
        self.take(connection, first)

    def _start_http1(self, first: bytes) -> None:
        server, transport = self.server, self.transport
        assert transport is not None and server.http1 is not None
        self.cancel_timer()
        self._http1 = Http1Connection(
            server.http1, transport, self.scheme, lambda: server.left(self)
        )
        if server.stopping:
            self._http1.shutdown()
        elif first:
            self._http1.data_received(first)

    def lost(self, reason: str) -> None:
        self.server.left(self)

    def time_up(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def shutdown(self) -> None:
        """Begins a graceful shutdown."""
        if self.connection is not None:
            self.connection.shutdown(self.clock())
            self.arm()
        elif self._http1 is not None:
            self._http1.shutdown()
        elif self.transport is not None:
            self.transport.abort()


class Server:
    """The listeners of one member's client port and everything accepted by them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        router: Router,
        limits: Limits,
        on_http: HttpHandler | None,
        *,
        hold_turns: int = 0,
        places: Places | None = None,
        say: Say | None = None,
        failed: Failed | None = None,
        http1: Http1Service | None = None,
        early: Callable[[str], bool] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`places` may be shared with other servers. `say` is called when nothing is accepted,
        `failed` for failed TLS handshakes.

        `http1` instead of `on_http`: another HTTP/1.1 service; with an `early` one there is no
        HTTP/2. `early`: which targets' requests `on_http` gets over HTTP/2 before their bodies.
        `clock` is the loop's, but exact.
        """
        self.loop = loop
        self.clock = clock
        self.router = router
        self.limits = limits
        self.on_http = on_http
        self.early = early
        self.flusher = Flusher(loop, hold_turns)
        if http1 is None and on_http is not None:
            bounds = replace(CLIENT_PORT, body_bytes_max=text_bytes_max(limits.message_bytes_max))
            http1 = Http1Service(on_http, loop, bounds, turns=self.flusher.turns)
        self.http1 = http1
        self.places = Places(CONNECTIONS_MAX) if places is None else places
        self._say = say
        self._failed = failed
        self.stopping = False
        self.addresses: list[str] = []
        self._acceptors: list[Acceptor] = []
        self._unix_paths: list[str] = []
        self._protocols: dict[ServerProtocol, None] = {}
        self._past = Statistics()

    async def listen(
        self,
        url: str,
        tls: ServerTLS | None,
        *,
        reuse_port: bool = False,
        reuse_address: bool = True,
        start_serving: bool = True,
        plain_too: bool = False,
    ) -> None:
        """Opens one listener; `url` is http, https, unix or unixs. Raises OSError, ValueError.

        Without `start_serving` clients wait in the backlog until `start`; with `plain_too` a
        secure listener takes connections without TLS as well.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "unix", "unixs"):
            raise ValueError(f"unsupported URL scheme {parts.scheme!r} in {url!r}")
        secure = parts.scheme in ("https", "unixs")
        if secure and tls is None:
            raise ValueError(f"a certificate is needed to listen on {url!r}")

        if parts.scheme.startswith("unix"):
            path = parts.netloc + parts.path
            sockets = [bind_unix(path)]
            self._unix_paths.append(path)
            self.addresses.append(path)
        else:
            sockets = bind(
                parts.hostname or None,
                parts.port or 0,
                reuse_port=reuse_port,
                reuse_address=reuse_address,
            )
            for opened in sockets:
                host, port = opened.getsockname()[:2]
                self.addresses.append(join_host_port(host, port))
        for opened in sockets:
            acceptor = Acceptor(
                self.loop,
                opened,
                lambda: ServerProtocol(self),
                tls if secure else None,
                self.places,
                self._say,
                self._failed,
                plain_too,
            )
            self._acceptors.append(acceptor)
            opened.listen(BACKLOG_CONNECTIONS)
            if start_serving:
                acceptor.start()

    def start(self) -> None:
        """Begins to accept on listeners that were opened without `start_serving`."""
        for acceptor in self._acceptors:
            acceptor.start()

    def accepted(self, protocol: ServerProtocol) -> None:
        """A connection begins."""
        self._protocols[protocol] = None
        self._past.connections_total += 1

    def left(self, protocol: ServerProtocol) -> None:
        """A socket is closed."""
        if self._protocols.pop(protocol, self) is None and protocol.connection is not None:
            self._past.bytes_in += protocol.connection.bytes_in
            self._past.bytes_out += protocol.connection.bytes_out
            self._past.streams_total += protocol.connection.streams_opened

    def statistics(self) -> Statistics:
        """The sum over connections past and present."""
        total = Statistics(**{name: getattr(self._past, name) for name in Statistics.__slots__})
        total.connections_open = len(self._protocols)
        for protocol in self._protocols:
            connection = protocol.connection
            if connection is not None:
                total.streams_open += len(connection.streams)
                total.streams_total += connection.streams_opened
                total.bytes_in += connection.bytes_in
                total.bytes_out += connection.bytes_out
                total.queued_bytes += connection.queued_bytes
        return total

    async def stop(self, grace_s: float = 0.0) -> None:
        """Stops listening, lets open calls finish for `grace_s` seconds, then closes all."""
        self.stopping = True
        for acceptor in self._acceptors:
            acceptor.close()
        for path in self._unix_paths:
            if os.path.exists(path):
                os.unlink(path)
        for protocol in list(self._protocols):
            protocol.shutdown()
        until = self.loop.time() + grace_s
        while self._protocols and self.loop.time() < until:
            await asyncio.sleep(min(DRAIN_POLL_S, max(until - self.loop.time(), 0.0)))
        self.flusher.flush()
        # uvloop closes a connection that was interrupted at its start without calling its protocol.
        until = self.loop.time() + ABORT_S_MAX
        while self._protocols and self.loop.time() < until:
            # In a loop, because a connection may have been accepted while the listeners were
            # closed.
            for protocol in list(self._protocols):
                if protocol.transport is not None:
                    protocol.transport.abort()
            await asyncio.sleep(0)
        self._protocols.clear()


async def serve(
    urls: Sequence[str],
    router: Router,
    *,
    limits: Limits | None = None,
    tls: ServerTLS | None = None,
    on_http: HttpHandler | None = None,
    reuse_port: bool = False,
    reuse_address: bool = True,
    hold_turns: int = 0,
    places: Places | None = None,
) -> Server:
    """Listens on all `urls`, or raises OSError or ValueError with none of them open.

    `hold_turns` is the coalescing of `Flusher`; `places` bounds what is open at once.
    """
    server = Server(
        asyncio.get_running_loop(),
        router,
        limits or Limits(),
        on_http,
        hold_turns=hold_turns,
        places=places,
    )
    try:
        for url in urls:
            await server.listen(url, tls, reuse_port=reuse_port, reuse_address=reuse_address)
    except (OSError, ValueError):
        await server.stop()
        raise
    return server
