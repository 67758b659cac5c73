"""One request on an HTTP/1.1 connection, and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from keyraft.base import http_status

from ..address import common_name, peer_name
from .bodies import Body
from .heads import Header, Http1RequestHead, answer_head, has_body
from .limits import Http1Limits


class RequestConnection(Protocol):
    """A connection, as the request on it sees it."""

    transport: asyncio.Transport
    scheme: str
    limits: Http1Limits
    close_after: bool
    """This answer is the last."""

    def must_close(self, head: Http1RequestHead) -> bool:
        """Whether the connection ends with an answer that begins now."""

    def answered(self) -> None:
        """The answer is written."""

    def upgrade(self, on_data: Callable[[bytes], None]) -> None:
        """What comes from now on is no HTTP."""

    def hold_reading(self, on: bool) -> None:
        """Stops reading, or goes on."""

    def give_up_limits(self) -> None:
        """From now on the owner of the answer sees to timeouts of this connection."""


class Http1Request:
    """An HttpRequest (keyraft.grpc.http) on an HTTP/1.1 connection."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_head",
        "_status",
        "body",
        "coming",
        "done",
        "incoming",
        "on_body",
        "on_close",
        "on_writable",
    )

    def __init__(
        self, connection: RequestConnection, head: Http1RequestHead, incoming: Body
    ) -> None:
        self._connection = connection
        self._head = head
        self._status = 0  # until the answer has begun
        self._chunked = False
        self.body = b""
        self.coming = False
        self.on_body: Callable[[bytes, bool], None] | None = None
        self.incoming = incoming
        self.done = False
        self.on_close: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None

    @property
    def method(self) -> str:
        """The request method."""
        return self._head.method

    @property
    def target(self) -> str:
        """Path and query as they were sent."""
        return self._head.target

    @property
    def headers(self) -> list[Header]:
        """Names in lower case."""
        return self._head.headers

    @property
    def peer(self) -> str:
        """The client's address."""
        return peer_name(self._connection.transport)

    @property
    def common_name(self) -> str | None:
        """The CN of the client's verified certificate."""
        return common_name(self._connection.transport)

    @property
    def scheme(self) -> str:
        """http or https."""
        return self._connection.scheme

    @property
    def writable(self) -> int:
        """Bytes that may be written before the limit."""
        connection = self._connection
        queued = connection.transport.get_write_buffer_size()
        return connection.limits.output_bytes_max - queued

    @property
    def started(self) -> bool:
        """Whether the answer has begun."""
        return self._status != 0

    # --- answering ----------------------------------------------------------------------------

    def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        """Answers whole, in one write."""
        if self.done or self._status:
            return
        self._status = status
        if has_body(self.method, status):
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        elif self.method == "HEAD":
            headers, body = [*headers, (b"content-length", b"%d" % len(body))], b""
        else:
            body = b""
        self._write(self._answer_head(headers) + body)
        self._ended()

    def start(self, status: int, headers: list[Header]) -> None:
        """Begins an answer of unknown length."""
        if self.done or self._status:
            return
        self._status = status
        if has_body(self.method, status) and not any(n == b"content-length" for n, _ in headers):
            if self._head.minor >= 1:
                self._chunked = True
                headers = [*headers, (b"transfer-encoding", b"chunked")]
            else:
                self._connection.close_after = True  # its end is the end of the connection
        self._write(self._answer_head(headers))

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        if self.done or not data:
            return
        if self._status != http_status.SWITCHING_PROTOCOLS:
            if not has_body(self.method, self._status):
                return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._write(data)

    def end(self) -> None:
        """Ends the answer."""
        if not self.done:
            if self._chunked:
                self._write(b"0\r\n\r\n")
            self._ended()

    def _write(self, data: bytes) -> None:
        """Writes, unless the connection is closed: then uvloop would raise."""
        transport = self._connection.transport
        if not transport.is_closing():
            transport.write(data)

    def abort(self) -> None:
        """Breaks the answer off, so that the client sees it as incomplete."""
        if not self.done:
            self.done = True
            self._connection.transport.abort()

    def upgrade(self, headers: list[Header], on_data: Callable[[bytes], None]) -> bool:
        """Answers 101; from then on bytes come to `on_data` and go by `write` (RFC 9110 §7.8)."""
        if self.done or self._status or self._head.minor < 1 or self._head.length:
            return False
        self._status = http_status.SWITCHING_PROTOCOLS
        self._write(answer_head(1, self._status, headers, close=False))
        self._connection.upgrade(on_data)
        return True

    def hold_reading(self, on: bool) -> None:
        """Stops reading, or goes on."""
        self._connection.hold_reading(on)

    def take_over(self) -> asyncio.Transport:
        """For an answer that never ends: its owner writes directly and handles stalls."""
        self._connection.give_up_limits()
        return self._connection.transport

    def _answer_head(self, headers: list[Header]) -> bytes:
        connection = self._connection
        head = self._head
        if not head.keep_alive or connection.must_close(head):
            connection.close_after = True
        return answer_head(min(head.minor, 1), self._status, headers, connection.close_after)

    def _ended(self) -> None:
        self.done = True
        self._connection.answered()

    # --- for the connection -------------------------------------------------------------------

    def lost(self) -> None:
        """The client is gone."""
        if not self.done:
            self.done = True
            self.incoming.fail()
            if self.on_close is not None:
                self.on_close()
