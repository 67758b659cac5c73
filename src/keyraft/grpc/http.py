"""Plain HTTP requests for the gateway, the same for HTTP/1.1 (net) and HTTP/2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .http2 import states
from .http2.errors import CANCEL
from .http2.hpack import Header
from .http2.stream import Http2Stream
from .limits import Limits
from .request_header import RequestHeader


class HttpRequest(Protocol):
    """One request with its whole body, to be answered once, at once or later.

    Call either `respond`, or `start`, then `write` any number of times, then `end`. After the
    client has left they do nothing; `on_close` is called once if that happens before the end.
    With `coming` the body has yet to come: it goes to `on_body`, piece by piece, the last of them
    marked as such.
    """

    body: bytes
    coming: bool
    on_body: Callable[[bytes, bool], None] | None
    on_close: Callable[[], None] | None
    on_writable: Callable[[], None] | None

    @property
    def method(self) -> str:
        """The request method."""

    @property
    def target(self) -> str:
        """Path and query as they were sent."""

    @property
    def headers(self) -> list[Header]:
        """Names in lower case; the authority is `host` for both versions."""

    @property
    def peer(self) -> str:
        """The client's address."""

    @property
    def common_name(self) -> str | None:
        """The CN of the client's verified certificate."""

    @property
    def scheme(self) -> str:
        """http or https."""

    @property
    def writable(self) -> int:
        """Bytes that may be written before the limit."""

    def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        """Answers whole; content-length is added."""

    def start(self, status: int, headers: list[Header]) -> None:
        """Begins an answer of unknown length."""

    def write(self, data: bytes) -> None:
        """A piece of it."""

    def end(self) -> None:
        """Ends it."""

    def abort(self) -> None:
        """Breaks the answer off, so that the client sees it as incomplete."""

    def upgrade(self, headers: list[Header], on_data: Callable[[bytes], None]) -> bool:
        """Answers 101 with `headers`: from then on bytes come to `on_data` and go by `write`.

        False, and nothing is answered, where that is not possible (HTTP/2 has no upgrades).
        """

    def hold_reading(self, on: bool) -> None:
        """Stops reading an upgraded connection, or a body that is coming, or goes on."""


class HttpServer(Protocol):
    """A server's connection, as the requests on it see it."""

    common_name: str | None
    limits: Limits
    peer: str

    @property
    def scheme(self) -> str:
        """`http` or `https`."""

    def http_headers(self, stream: HttpStream, fields: list[Header]) -> None:
        """The answer's head."""

    def http_data(self, stream: HttpStream, data: bytes) -> None:
        """A part of its body."""

    def http_end(self, stream: HttpStream) -> None:
        """Its end."""

    def http_abort(self, stream: HttpStream, code: int) -> None:
        """No end, but a reset."""

    def http_hold(self, stream: HttpStream, on: bool) -> None:
        """Keeps the body that is coming from its reader, or goes on."""


class HttpStream(Http2Stream):
    """An HttpRequest on an HTTP/2 stream."""

    __slots__ = (
        "body",
        "coming",
        "connection",
        "done",
        "header",
        "on_body",
        "on_close",
        "on_writable",
        "started",
    )

    def __init__(
        self,
        connection: HttpServer,
        stream_id: int,
        state: int,
        send_window: int,
        header: RequestHeader,
    ) -> None:
        super().__init__(stream_id, state, send_window)
        self.connection = connection
        self.header = header
        self.body = b""
        self.coming = False
        self.on_body: Callable[[bytes, bool], None] | None = None
        self.on_close: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.started = False
        self.done = False

    @property
    def method(self) -> str:
        """The request method."""
        return self.header.method.decode("latin-1")

    @property
    def target(self) -> str:
        """Path and query."""
        return self.header.path.decode("latin-1")

    @property
    def headers(self) -> list[Header]:
        """Regular fields; `:authority` as `host`."""
        return [
            (b"host" if name == b":authority" else name, value)
            for name, value in self.header.fields
            if name[:1] != b":" or name == b":authority"
        ]

    @property
    def peer(self) -> str:
        """The client's address."""
        return self.connection.peer

    @property
    def common_name(self) -> str | None:
        """The CN of the client's verified certificate."""
        return self.connection.common_name

    @property
    def scheme(self) -> str:
        """http or https."""
        return self.connection.scheme

    @property
    def writable(self) -> int:
        """Bytes that may be written before the limit."""
        limit = self.connection.limits.stream_queue_bytes
        return limit if self.queue is None else limit - self.queue.bytes

    def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        """Answers whole."""
        if not self.done:
            self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
            if body and self.method != "HEAD":
                self.write(body)
            self.end()

    def start(self, status: int, headers: list[Header]) -> None:
        """Begins an answer."""
        if not self.done and not self.started:
            self.started = True
            self.connection.http_headers(self, [(b":status", b"%d" % status), *headers])

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        if not self.done and data:
            self.connection.http_data(self, data)

    def end(self) -> None:
        """Ends the answer."""
        if not self.done:
            self.done = True
            self.connection.http_end(self)

    def abort(self) -> None:
        """Breaks the answer off, so that the client sees it as incomplete."""
        if not self.done:
            self.done = True
            self.connection.http_abort(self, CANCEL)

    def upgrade(self, headers: list[Header], on_data: Callable[[bytes], None]) -> bool:
        """False (RFC 9113 §8.6)."""
        return False

    def hold_reading(self, on: bool) -> None:
        """Keeps the body that is coming from its reader, or goes on."""
        if self.coming and not self.done:
            self.connection.http_hold(self, on)

    def take(self, data: bytes, last: bool) -> None:
        """A piece of the body that is coming."""
        self.coming = not last
        if not self.done and self.on_body is not None:
            self.on_body(data, last)

    def lost(self) -> None:
        """The client is gone."""
        if not self.done:
            self.done = True
            self.state = states.CLOSED
            if self.on_close is not None:
                self.on_close()

    def drained(self) -> None:
        """The queue has room again."""
        if not self.done and self.on_writable is not None:
            self.on_writable()
