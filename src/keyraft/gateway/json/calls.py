"""A gateway's request as the router's handlers see it: a unary call, or a stream.

Each is the gateway's end of one HTTP request, owns its answer, and ends once: answered, failed,
given up by its client, or after its deadline. The end is counted and told like that of any call
(`grpc.call_ends`).

A stream's answer begins with its first message; one that fails before gets its HTTP status then.
What is sent waits in the connection's output, and `writable` counts it; so a slow reader costs what
it does on HTTP/2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from keyraft.base import http_status
from keyraft.base.clock import Loop, Timer
from keyraft.base.errors import EtcdError, PostponedError, RawError
from keyraft.gateway.json.encoding import SLOW_BYTES, error_json, error_line, message_json
from keyraft.gateway.json.methods import Method
from keyraft.gateway.json.statuses import http_status_of
from keyraft.grpc import CallEnds, Metadata, Route, StreamHandler, count_end, status

Header = tuple[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
FROM_GRPC: Final = (b"grpc-metadata-content-type", b"application/grpc")
DEADLINE_TEXT: Final = "context deadline exceeded"
INBOX_BYTES_MAX: Final = 1_048_576  # requests of a stream that wait, before more are read


class Answer(Protocol):
    """The part of an HTTP request (`grpc.HttpRequest`) that answers it; a websocket has it, too."""

    on_close: Callable[[], None] | None
    on_writable: Callable[[], None] | None

    @property
    def peer(self) -> str:
        """The client's address."""

    @property
    def common_name(self) -> str | None:
        """The CN of the client's verified certificate."""

    @property
    def writable(self) -> int:
        """Bytes that may be written before the limit."""

    def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        """Answers whole."""

    def start(self, status: int, headers: list[Header]) -> None:
        """Begins an answer."""

    def write(self, data: bytes) -> None:
        """A piece of it."""

    def end(self) -> None:
        """Ends it."""

    def abort(self) -> None:
        """Breaks it off."""


class CallOwner(Protocol):
    """What calls need of their gateway."""

    ends: CallEnds
    clock: Callable[[], float]

    @property
    def loop(self) -> Loop:
        """The loop."""

    def in_thread(self, work: Callable[[], bytes], done: Callable[[bytes], None]) -> None:
        """Has `work` done elsewhere; `done` is called on the loop."""


def refuse(answer: Answer, extra: list[Header], code: int, text: str) -> None:
    """Answers with a refusal."""
    headers = [JSON, *extra]
    if code == status.UNAUTHENTICATED:
        headers.append((b"www-authenticate", text.encode("utf-8", "replace")))
    answer.respond(http_status_of(code), headers, error_json(code, text))


class JsonCall:
    """What unary calls and streams have in common."""

    __slots__ = (
        "_answer",
        "_extra",
        "_owner",
        "_timer",
        "began_s",
        "cancelled",
        "deadline_s",
        "done",
        "header",
        "metadata",
        "on_cancel",
        "received_bytes",
        "request",
        "route",
        "sent_bytes",
        "ticket",
    )

    ticket: bytes

    def __init__(
        self,
        owner: CallOwner,
        method: Method,
        answer: Answer,
        extra: list[Header],
        metadata: Mapping[bytes, bytes],
    ) -> None:
        assert method.route is not None, "a method without a route is refused before"
        self._owner = owner
        self._answer = answer
        self._extra = extra
        self._timer: Timer | None = None
        self.header = method
        self.route: Route = method.route
        self.metadata = metadata
        self.began_s = owner.clock()
        self.deadline_s: float | None = None
        self.on_cancel: Callable[[Any, int], None] | None = None
        self.cancelled = False
        self.done = False
        self.request = b""
        self.received_bytes = 0
        self.sent_bytes = 0
        self.route.started += 1
        answer.on_close = self._closed

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._answer.peer

    @property
    def common_name(self) -> str | None:
        """None: a certificate names no user here, in etcd neither."""
        return None

    @property
    def certificate(self) -> str | None:
        """The CN of the certificate of the connection."""
        return self._answer.common_name

    @property
    def connection(self) -> JsonCall:
        """What brought it: a request of its own."""
        return self

    def limit(self, timeout_s: float | None) -> None:
        """Sets the deadline, so many seconds after the call began."""
        if timeout_s is not None:
            self.deadline_s = self.began_s + timeout_s
            self._timer = self._owner.loop.call_later(timeout_s, self._expired)

    def _expired(self) -> None:
        self._timer = None
        if self.done:
            return
        wait_s = (self.deadline_s or 0.0) - self._owner.clock()
        if wait_s > 0:  # a loop's clock may be ahead of the exact one
            self._timer = self._owner.loop.call_later(wait_s, self._expired)
            return
        self.cancelled = True
        self._stop_work(status.DEADLINE_EXCEEDED)
        if not self.done:
            self.fail(status.DEADLINE_EXCEEDED, DEADLINE_TEXT)

    def _closed(self) -> None:
        """The client is gone."""
        if not self.done:
            self.done = self.cancelled = True
            self._stop_work(status.CANCELLED)
            self._ended(status.CANCELLED, "")

    def _stop_work(self, code: int) -> None:
        raise NotImplementedError

    def fail(self, code: int, text: str) -> None:
        """Ends the call with a status other than OK."""
        raise NotImplementedError

    def _ended(self, code: int, text: str, reply: bytes | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        count_end(self.route.handled, code)
        ends = self._owner.ends
        now = self._owner.clock()
        if ends.recorder is not None:
            ends.recorder.tell(self, code, text, reply, now)
        if self.began_s <= now - ends.from_s:
            ends.tell(self, code, text, reply, now)


class JsonUnaryCall(JsonCall):
    """One request, one answer."""

    __slots__ = ()

    def start(self, message: bytes) -> None:
        """Gives the request to its handler."""
        self.request = message
        self.received_bytes = len(message)
        self.route.msg_received += 1
        self._handle()

    def _handle(self) -> None:
        assert self.route.handle is not None, "a unary route has a handler"
        try:
            reply = self.route.handle(self, self.request)
        except PostponedError as later:
            later.when(self._again)
            return
        except (EtcdError, RawError) as refusal:
            self.fail(refusal.code, refusal.text)
            return
        if reply is not None:
            self.respond(reply)

    def _again(self, error: EtcdError | None) -> None:
        if not self.done:
            if error is None:
                self._handle()
            else:
                self.fail(error.code, error.text)

    def respond(self, message: bytes) -> None:
        """Answers; nothing happens when the call is over."""
        if self.done:
            return
        self.done = True
        self.route.msg_sent += 1
        header = self.header
        if len(message) > SLOW_BYTES:
            self._owner.in_thread(
                partial(message_json, header.reply, header.reply_table, message), self._write
            )
        else:
            self._write(message_json(header.reply, header.reply_table, message))
        self._ended(status.OK, "", message)

    def _write(self, body: bytes) -> None:
        self._answer.respond(http_status.OK, [JSON, FROM_GRPC, *self._extra], body)

    def fail(self, code: int, text: str) -> None:
        """Answers with a refusal; nothing happens when the call is over."""
        if not self.done:
            self.done = True
            refuse(self._answer, self._extra, code, text)
            self._ended(code, text)

    def _stop_work(self, code: int) -> None:
        if self.on_cancel is not None:
            self.on_cancel(self, code)


class JsonStream(JsonCall):
    """A streaming call; one message a line."""

    __slots__ = (
        "_half_closed",
        "_handler",
        "_inbox",
        "_input_ended",
        "_paused",
        "_started",
        "on_room",
    )

    def __init__(
        self,
        owner: CallOwner,
        method: Method,
        answer: Answer,
        extra: list[Header],
        metadata: Mapping[bytes, bytes],
    ) -> None:
        super().__init__(owner, method, answer, extra, metadata)
        self._inbox: deque[bytes] = deque()
        self._input_ended = False
        self._half_closed = False
        self._paused = False
        self._started = False
        self._handler: StreamHandler | None = None
        self.on_room: Callable[[], None] | None = None
        """Called when requests that waited are delivered."""
        answer.on_writable = self._drained

    def open(self) -> None:
        """Begins the stream."""
        assert self.route.open is not None, "a route for streams opens them"
        try:
            self._handler = self.route.open(self)
        except (EtcdError, RawError) as refusal:
            self.finish(refusal.code, refusal.text)

    # --- requests -----------------------------------------------------------------------------

    def put(self, message: bytes) -> None:
        """One request, encoded."""
        if not self.done:
            self._inbox.append(message)
            self._deliver()

    def end_input(self) -> None:
        """No request follows."""
        self._input_ended = True
        self._deliver()

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should be read."""
        return self._paused and sum(map(len, self._inbox)) > INBOX_BYTES_MAX

    def _deliver(self) -> None:
        handler = self._handler
        if handler is None:
            return
        while self._inbox and not self._paused and not self.done:
            message = self._inbox.popleft()
            self.route.msg_received += 1
            self.received_bytes += len(message)
            self._give(handler, message)
        if self.on_room is not None and not self._paused and not self.done:
            self.on_room()
        if (
            self._input_ended
            and not self._inbox
            and not self._paused
            and not self._half_closed
            and not self.done
        ):
            self._half_closed = True
            try:
                handler.on_half_close()
            except (EtcdError, RawError) as refusal:
                self.finish(refusal.code, refusal.text)

    def _give(self, handler: StreamHandler, message: bytes) -> None:
        try:
            handler.on_message(message)
        except PostponedError as later:
            self._paused = True
            later.when(partial(self._again, handler, message))
        except (EtcdError, RawError) as refusal:
            self.finish(refusal.code, refusal.text)

    def _again(self, handler: StreamHandler, message: bytes, error: EtcdError | None) -> None:
        if self.done:
            return
        if error is not None:
            self.abort(error.code, error.text)
            return
        self._paused = False
        self._give(handler, message)
        self._deliver()

    def pause_reading(self) -> None:
        """Stops delivery."""
        self._paused = True

    def resume_reading(self) -> None:
        """Takes delivery up again."""
        if self._paused:
            self._paused = False
            self._deliver()

    # --- answers ------------------------------------------------------------------------------

    @property
    def writable(self) -> int:
        """Bytes that may still be queued."""
        return self._answer.writable

    def begin(self, metadata: Metadata) -> None:
        """Nothing: an answer begins with its first message."""

    def send(self, message: bytes) -> None:
        """One message, one line."""
        if self.done:
            return
        self._begin()
        self.sent_bytes += len(message)
        self.route.msg_sent += 1
        self._answer.write(self.header.line(message))

    def send_framed(self, framed: bytes, count: int) -> None:
        """Several messages with gRPC's five bytes before each."""
        if self.done:
            return
        self._begin()
        lines: list[bytes] = []
        at, end = 0, len(framed)
        while at < end:
            start = at + 5
            at = start + int.from_bytes(framed[at + 1 : start], "big")
            lines.append(self.header.line(framed[start:at]))
        self.sent_bytes += end - 5 * count
        self.route.msg_sent += count
        self._answer.write(b"".join(lines))

    def send_shared(self, head: bytes, pieces: list[bytes]) -> None:
        """One message in pieces."""
        self.send(b"".join((head, *pieces)))

    def _begin(self) -> None:
        if not self._started:
            self._started = True
            self._answer.start(http_status.OK, [JSON, FROM_GRPC, *self._extra])

    def finish(self, code: int = 0, text: str = "", metadata: Metadata = ()) -> None:
        """Ends the stream, after everything sent before."""
        if self.done:
            return
        self.done = True
        self._inbox.clear()
        if not self._started:
            self._answer.start(http_status_of(code), [*([JSON] if code else []), *self._extra])
        if code:
            self._answer.write(error_line(code, text))
        self._answer.end()
        self._ended(code, text)

    def fail(self, code: int, text: str) -> None:
        """The same."""
        self.finish(code, text)

    def drop(self, code: int, text: str) -> None:
        """The end now; what was not read is lost."""
        if self.done:
            return
        if self._answer.writable > 0:
            self.finish(code, text)
            return
        self.done = True
        self._inbox.clear()
        self._answer.abort()
        self._ended(code, text)

    def abort(self, code: int, text: str) -> None:
        """The end from outside the handler."""
        if not self.done:
            self._stop_work(code)
            self.finish(code, text)

    def _stop_work(self, code: int) -> None:
        if self._handler is not None:
            self._handler.on_cancel(code)

    def _drained(self) -> None:
        if not self.done and self._handler is not None:
            self._handler.on_writable()
