"""The client's ends of calls: `ClientCall` for unary methods, `ClientStream` for the others.

Ownership: the connection makes a call and forgets it when it ends; a program may keep it as long
as it likes; after the end its methods do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from . import status
from .http2 import states
from .http2.hpack import Header
from .http2.stream import Http2Stream
from .limits import Limits

Metadata = Sequence[Header]
Done = Callable[[int, str, bytes], None]


class RpcError(Exception):
    """A call that ended with a status other than OK."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{status.CODE_NAMES[code] if 0 <= code <= 16 else code}: {text}")
        self.code = code
        self.text = text


class ClientReceiver(Protocol):
    """Receives the answers on a stream."""

    def on_message(self, message: bytes) -> None:
        """One response message."""

    def on_end(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        """The call is over; called exactly once, and nothing after it."""

    def on_writable(self) -> None:
        """The send queue has drained after it had been full."""


class CallsConnection(Protocol):
    """A client's connection, as the calls on it see it."""

    limits: Limits

    def cancel(self, call: ClientCall, code: int, text: str) -> None:
        """Ends a call now, with this status."""

    def send(self, stream: ClientStream, message: bytes) -> None:
        """Sends one message."""

    def half_close(self, stream: ClientStream) -> None:
        """No message will follow."""

    def pause_reading(self, stream: ClientStream) -> None:
        """Stops delivery."""

    def resume_reading(self, stream: ClientStream) -> None:
        """Resumes delivery."""


class ClientCall(Http2Stream):
    """One unary call. `unprocessed`: the server said that it did not process it."""

    __slots__ = (
        "answered",
        "connection",
        "deadline_s",
        "done",
        "metadata",
        "over",
        "path",
        "reply",
        "request",
        "unprocessed",
    )

    def __init__(
        self,
        connection: CallsConnection,
        path: bytes,
        metadata: tuple[Header, ...],
        request: bytes,
        done: Done,
        deadline_s: float | None,
    ) -> None:
        self.stream_id = 0
        self.state = states.IDLE
        self.send_window = 0
        self.queue = None
        self.inbox = None
        self.connection = connection
        self.path = path
        self.metadata = metadata
        self.request = request
        self.done = done
        self.deadline_s = deadline_s
        self.over = False
        self.answered = False  # the response headers have come
        self.unprocessed = False
        self.reply: bytes | None = None

    def cancel(self) -> None:
        """Cancels the call; it ends with CANCELLED now."""
        self.connection.cancel(self, status.CANCELLED, "context canceled")

    def ended(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        """Tells the program; the connection calls it once."""
        if code == status.OK and self.reply is None:
            code, text = status.INTERNAL, "cardinality violation: no response message"
        self.done(code, text, self.reply or b"")


class ClientStream(ClientCall):
    """One streaming call of any kind."""

    __slots__ = ("early", "half_closed", "receiver")

    receiver: ClientReceiver
    half_closed: bool
    early: list[bytes]

    @property
    def writable(self) -> int:
        """Bytes that may be queued before the limit."""
        limit = self.connection.limits.stream_queue_bytes
        if self.stream_id == 0:
            return limit - sum(map(len, self.early))
        return limit if self.queue is None else limit - self.queue.bytes

    def send(self, message: bytes) -> None:
        """Sends one message; does nothing when the call is over or half closed."""
        if not self.over and not self.half_closed:
            self.connection.send(self, message)

    def half_close(self) -> None:
        """No message will follow."""
        if not self.over and not self.half_closed:
            self.connection.half_close(self)

    def pause_reading(self) -> None:
        """Stops `on_message`; the server's flow-control window fills up."""
        self.connection.pause_reading(self)

    def resume_reading(self) -> None:
        """Resumes delivery."""
        self.connection.resume_reading(self)

    def ended(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        self.receiver.on_end(code, text, trailers)
