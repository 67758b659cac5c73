"""One stream, as both ends keep it: state, send window, two queues.

And the streams reset lately.
"""

from __future__ import annotations

from collections import deque

from keyraft.grpc.limits import RESET_MEMORY_STREAMS_MAX

from .hpack import Header


class SendQueue:
    """DATA that waits for a window or for the socket, and how the stream ends after it."""

    __slots__ = ("bytes", "chunks", "end", "ends", "full", "offset")

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.offset = 0  # bytes of the first chunk already sent
        self.bytes = 0  # bytes not yet sent
        self.ends = False  # no chunk will follow
        self.end: list[Header] | None = None  # the trailers, or None for END_STREAM on DATA
        self.full = False  # the limit was reached; tell the handler when it drains


class StreamInbox:
    """DATA received and not yet delivered: an incomplete message, or all when reading is paused."""

    __slots__ = (
        "data",
        "due",
        "half_closed",
        "message",
        "messages",
        "paused",
        "received_bytes",
        "trailers",
        "window_left",
    )

    def __init__(self, window_left: int) -> None:
        self.data = bytearray()
        self.window_left = window_left
        self.received_bytes = 0  # DATA content so far, for content-length
        self.messages = 0  # delivered so far
        self.message: bytes | None = None  # a unary call's, until the client half-closes
        self.paused = False
        self.due = False  # messages wait for the connection's next slice
        self.half_closed = False  # END_STREAM has come; told to the handler after all messages
        self.trailers: dict[bytes, bytes] = {}  # a client's, with `half_closed`

    def held_bytes(self) -> int:
        """The bytes that count for the connection's `inbound_bytes`."""
        return len(self.data) + (0 if self.message is None else len(self.message))


class Http2Stream:
    """One stream; the connection owns and changes it."""

    __slots__ = ("inbox", "queue", "send_window", "state", "stream_id")

    def __init__(self, stream_id: int, state: int, send_window: int) -> None:
        self.stream_id = stream_id
        self.state = state
        self.send_window = send_window
        self.queue: SendQueue | None = None
        self.inbox: StreamInbox | None = None


class ResetStreams(dict[int, None]):
    """The streams that we reset lately: frames for them that were under way are dropped."""

    __slots__ = ()

    def add(self, stream_id: int) -> None:
        """Adds a stream; the oldest is dropped."""
        self[stream_id] = None
        if len(self) > RESET_MEMORY_STREAMS_MAX:
            del self[next(iter(self))]
