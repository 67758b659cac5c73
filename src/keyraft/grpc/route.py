"""One method of a server: its handler, its counters, and what a handler sees of the transport.

A handler is a callback on the loop's thread; the Protocols below are all that it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from .status import CODE_NAMES

Metadata = Sequence[tuple[bytes, bytes]]
"""Fields as they are on the wire: names in lower case, values of `-bin` names in base64."""

UNARY: Final = "unary"
CLIENT_STREAM: Final = "client_stream"
SERVER_STREAM: Final = "server_stream"
BIDI_STREAM: Final = "bidi_stream"


class CallContext(Protocol):
    """The common part of calls and streams."""

    cancelled: bool
    """True once nobody needs the answer: the client reset it, left, or the deadline passed."""

    deadline_s: float | None
    """When the client stops waiting, by the clock that feeds the connection."""

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """Request metadata, keys in lower case.

        The first value of a repeated key, as etcd reads it.
        """

    @property
    def peer(self) -> str:
        """The client's address as "host:port"."""

    @property
    def common_name(self) -> str | None:
        """The subject's CN of the client's verified certificate."""


class UnaryCall(CallContext, Protocol):
    """One unary call."""

    on_cancel: Callable[[Any, int], None] | None
    """Called once with the call and a status code when it is cancelled; it really stops the work.
    With DEADLINE_EXCEEDED it may still `fail` the call, in better words than those."""

    ticket: bytes
    """The handler's own key for its work on the call; the transport ignores it."""

    began_s: float
    """When its header had come, by the clock that feeds the connection."""

    def respond(self, message: bytes) -> None:
        """Answers; nothing happens when the call is cancelled."""

    def fail(self, code: int, text: str) -> None:
        """Ends the call with a status other than OK."""


class ServerStream(CallContext, Protocol):
    """The server's end of a streaming call."""

    @property
    def writable(self) -> int:
        """Bytes that may still be queued; zero or less asks to wait for `on_writable`."""

    def send(self, message: bytes) -> None:
        """Sends one message; nothing happens when the stream is over."""

    def send_framed(self, framed: bytes, count: int) -> None:
        """Sends `count` messages in one piece, each with gRPC's five bytes in front of it."""

    def send_shared(self, head: bytes, pieces: list[bytes]) -> None:
        """Sends one message, head and pieces. The pieces, all of one size but for a smaller last
        one, are sent as they are, without a copy, if one fits a frame (16,384 bytes) with the
        head."""

    def begin(self, metadata: Metadata) -> None:
        """Sends the answer's header with `metadata` in it, before any message; once."""

    def finish(self, code: int = 0, text: str = "", metadata: Metadata = ()) -> None:
        """Ends the stream with a status, after everything sent before; `metadata` goes into the
        trailers."""

    def drop(self, code: int, text: str) -> None:
        """`finish` now; unread messages, and then also the status, are dropped."""

    def abort(self, code: int, text: str) -> None:
        """`finish` from outside the handler, whose `on_cancel` is called."""

    def pause_reading(self) -> None:
        """Stops delivery; the client is held by flow control."""

    def resume_reading(self) -> None:
        """Takes delivery up again; may call `on_message` at once."""


class StreamHandler(Protocol):
    """A service's handler of one stream."""

    def on_message(self, message: bytes) -> None:
        """One request message."""

    def on_half_close(self) -> None:
        """The client has sent its last message."""

    def on_cancel(self, code: int) -> None:
        """The stream is gone; nothing may be sent. Not called after `finish`."""

    def on_writable(self) -> None:
        """The queue has drained after it had been full."""


class BatchHandler(StreamHandler, Protocol):
    """A handler that can take several messages at once, if they came together."""

    def on_messages(self, messages: list[bytes]) -> int:
        """Gets two or more messages and takes the first ones; returns how many, at least one.

        The others come again, at once or, if it has paused reading, later. Raises nothing after the
        first.
        """


HandleUnary = Callable[[UnaryCall, bytes], "bytes | None"]
OpenStream = Callable[[ServerStream], StreamHandler]


class Route:
    """One method. The counters are plain integers, read by the metrics when scraped."""

    __slots__ = (
        "handle",
        "handled",
        "kind",
        "method",
        "msg_received",
        "msg_sent",
        "open",
        "path",
        "service",
        "started",
    )

    def __init__(
        self, path: str, kind: str, handle: HandleUnary | None, open_: OpenStream | None
    ) -> None:
        self.path = path.encode("ascii")
        _, self.service, self.method = path.split("/")
        self.kind = kind
        self.handle = handle
        self.open = open_
        self.started = 0
        self.msg_received = 0
        self.msg_sent = 0
        self.handled = [0] * len(CODE_NAMES)
