"""The server's ends of calls: `Call` for unary methods, `Stream` for the others.

A call is an HTTP/2 stream with a request header. Ownership: the connection makes it and drops it
when both halves are closed. A handler may keep it; after the end its methods do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .http2.stream import Http2Stream
from .limits import Limits
from .request_header import RequestHeader
from .route import Metadata, Route, StreamHandler


class CallsServer(Protocol):
    """A server's connection, as the calls on it see it. Each method is a method of theirs."""

    common_name: str | None
    limits: Limits
    now: float
    peer: str

    def respond(self, call: Call, message: bytes) -> None:
        """The message and status OK."""

    def begin_reply(self, call: Call, size: int, on_writable: Callable[[], None]) -> None:
        """The header, and the length of a message that comes in pieces."""

    def send_reply(self, call: Call, piece: bytes) -> None:
        """One of them."""

    def end_reply(self, call: Call, summary: bytes) -> None:
        """The status OK behind the last."""

    def finish(self, call: Call, code: int, text: str, metadata: Metadata = ()) -> None:
        """The end, after everything sent before."""

    def drop(self, call: Call, code: int, text: str) -> None:
        """The end, now."""

    def begin(self, stream: Stream, metadata: Metadata) -> None:
        """The answer's header."""

    def send(self, stream: Stream, message: bytes) -> None:
        """One message."""

    def send_framed(self, stream: Stream, framed: bytes, count: int) -> None:
        """Several small messages."""

    def send_shared(self, stream: Stream, head: bytes, pieces: list[bytes]) -> None:
        """A large message in pieces."""

    def pause_reading(self, stream: Stream) -> None:
        """Stops delivery."""

    def resume_reading(self, stream: Stream) -> None:
        """Takes delivery up again."""


class Call(Http2Stream):
    """One unary call (route.UnaryCall)."""

    __slots__ = (
        "began_s",
        "cancelled",
        "connection",
        "deadline_s",
        "done",
        "header",
        "on_cancel",
        "request",
        "ticket",
    )

    ticket: bytes  # set by a handler that waits, before `on_cancel`

    def __init__(
        self,
        connection: CallsServer,
        stream_id: int,
        state: int,
        send_window: int,
        header: RequestHeader,
        deadline_s: float | None,
    ) -> None:
        self.stream_id = stream_id
        self.state = state
        self.send_window = send_window
        self.queue = None
        self.inbox = None
        self.connection = connection
        self.began_s = connection.now
        self.header = header
        self.deadline_s = deadline_s
        self.on_cancel: Callable[[Any, int], None] | None = None
        self.cancelled = False
        self.done = False
        self.request = b""

    @property
    def received_bytes(self) -> int:
        """Of the messages that reached the handler."""
        return len(self.request)

    @property
    def sent_bytes(self) -> int:
        """Bytes sent before the end; the answer of a unary call is its end."""
        return 0

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """Request metadata; the first value of a repeated key."""
        return self.header.metadata

    @property
    def peer(self) -> str:
        """The client's address."""
        return self.connection.peer

    @property
    def common_name(self) -> str | None:
        """The CN of the client's verified certificate."""
        return self.connection.common_name

    @property
    def writable(self) -> int:
        """Bytes that may be queued before the limit; may be negative after a large message."""
        queue = self.queue
        limit = self.connection.limits.stream_queue_bytes
        return limit if queue is None else limit - queue.bytes

    def begin_reply(self, size: int, on_writable: Callable[[], None]) -> None:
        """Begins an answer of `size` bytes that comes in pieces, as fast as the client reads.

        `on_writable` is called when there is room again. `fail` resets the stream from now on.
        """
        if not self.done:
            self.connection.begin_reply(self, size, on_writable)

    def send_reply(self, piece: bytes) -> None:
        """The next piece; does nothing when the call is over."""
        if not self.done and piece:
            self.connection.send_reply(self, piece)

    def end_reply(self, summary: bytes) -> None:
        """Status OK; all pieces together have had the size that was said.

        `summary` stands for the answer where the end of the call is told.
        """
        if not self.done:
            self.connection.end_reply(self, summary)

    def respond(self, message: bytes) -> None:
        """Answers with `message` and OK; does nothing when the call is over."""
        if not self.done:
            self.connection.respond(self, message)

    def fail(self, code: int, text: str) -> None:
        """Ends the call with a status; does nothing when the call is over."""
        if not self.done:
            self.connection.finish(self, code, text)


class Stream(Call):
    """One streaming call (route.ServerStream)."""

    __slots__ = ("handler", "headers_sent", "received_bytes", "route", "sent_bytes", "takes_many")

    handler: StreamHandler | None
    route: Route
    headers_sent: bool
    received_bytes: int  # counted here; a unary call's are not
    sent_bytes: int  # counted here; a unary call's are not
    takes_many: Callable[[list[bytes]], int] | None  # a BatchHandler's `on_messages`

    def send(self, message: bytes) -> None:
        """Sends one message; does nothing when the stream is over."""
        if not self.done:
            self.connection.send(self, message)

    def send_framed(self, framed: bytes, count: int) -> None:
        """Sends `count` messages, each with its five bytes in front; nothing when it is over."""
        if not self.done:
            self.connection.send_framed(self, framed, count)

    def send_shared(self, head: bytes, pieces: list[bytes]) -> None:
        """Sends one message, head and pieces, whose pieces are not copied."""
        if not self.done:
            self.connection.send_shared(self, head, pieces)

    def begin(self, metadata: Metadata) -> None:
        """Sends the answer's header with `metadata` in it; nothing when it is sent already."""
        if not self.done and not self.headers_sent:
            self.connection.begin(self, metadata)

    def finish(self, code: int = 0, text: str = "", metadata: Metadata = ()) -> None:
        """Ends the stream with a status, after everything sent before."""
        if not self.done:
            self.connection.finish(self, code, text, metadata)

    def abort(self, code: int, text: str) -> None:
        """Ends the stream from outside its handler, whose `on_cancel` is called first."""
        if not self.done:
            if self.handler is not None:
                self.handler.on_cancel(code)
            self.finish(code, text)

    def drop(self, code: int, text: str) -> None:
        """`finish`, or a reset if the client has not read what was sent before."""
        if not self.done:
            self.connection.drop(self, code, text)

    def pause_reading(self) -> None:
        """Stops `on_message`; the client's flow-control window fills up."""
        self.connection.pause_reading(self)

    def resume_reading(self) -> None:
        """Resumes delivery, first of messages that came meanwhile."""
        self.connection.resume_reading(self)
