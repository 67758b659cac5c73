"""The server's end of one HTTP/1.1 connection.

    idle -> head -> body -> answer -> idle ...      one request at a time, in the order they came
                        \\-> refused -> lingering -> closed

A client port hands a request out with its whole body (`early` off). A peer port does so as soon as
the head is there (`early` on), because databases are larger than memory. Pipelined requests wait in
the buffer. Each is handled in a turn of the loop of its own, so that one connection never has two
turns in a row. On a client port turns are shared with all its connections (`net.protocol.Turns`).
Every wait for the client has a limit (`limits.Http1Limits`); how long an answer takes is up to its
handler.

Ownership: the connection owns its transport from its creation on; a handler owns its request until
it has ended the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from keyraft.base import http_status

from .bodies import Body
from .chunks import ChunkDecoder, ChunkError
from .heads import (
    CHUNKED,
    Http1RequestHead,
    RefusedError,
    parse_request,
)
from .request import Http1Request
from .service import Http1Service

WRITE_BUFFER_BYTES: Final = 262_144  # the socket's backlog at which a connection is held
KEPT_HEAD_BYTES_MAX: Final = 1_024  # of the last head, kept by a connection for the next request
_FOREVER: Final = float("inf")
_STEP_WORK: Final = 50  # for a head or a piece of a body, without its request's own work
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Http1Connection(asyncio.Protocol):
    """One socket that speaks HTTP/1.1."""

    def __init__(
        self,
        service: Http1Service,
        transport: asyncio.Transport,
        scheme: str,
        on_lost: Callable[[], None],
    ) -> None:
        """Takes the transport over, and starts the time limit of the first head."""
        self.transport = transport
        self.scheme = scheme
        self.limits = service.limits
        self.close_after = False  # this answer is the last
        self._service = service
        self._loop = service.loop
        self._on_lost = on_lost
        self._plain = transport.get_extra_info("sslcontext") is None
        self._buffer = b""
        self._in_head = True  # a head is awaited, and has its time limit
        self._scanned = 0  # so many bytes hold no end of a head
        self._raw_head = b""  # the last one
        self._head: Http1RequestHead | None = None
        self._request: Http1Request | None = None
        # the body that is being read
        self._reading = False
        self._chunks: ChunkDecoder | None = None
        self._left = 0
        self._unwanted_bytes = 0
        self._span_bytes = 0
        self._body_until_s = _FOREVER
        self._continue_due = False
        # why nothing is read or written now
        self._held = False  # reading is paused
        self._full = False  # the client does not read
        self._scheduled = False
        self._stopping = False
        self._closing = False
        self._taken = False
        self._on_data: Callable[[bytes], None] | None = None  # of an upgraded connection
        self._due_s = _FOREVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = _FOREVER
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._wait(self.limits.head_s_max)

    # --- asyncio ------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._on_data is not None:
            self._on_data(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._scheduled:
            return
        if self._service.open:
            self._go_on()
        else:
            self._go_on_soon()

    def eof_received(self) -> bool:
        request = self._request
        if request is None and self._buffer and not self._closing and self._plain:
            self._refuse(RefusedError(http_status.BAD_REQUEST))
            return True
        if request is None or self._reading or request.started or request.on_close is not None:
            return False
        # Half closed: a client that sends nothing more still wants its answer.
        self.close_after = True
        return self._plain

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._buffer = b""
        self._wait_until(_FOREVER)
        request, self._request = self._request, None
        if request is not None:
            request.lost()
        self._on_lost()

    def pause_writing(self) -> None:
        self._full = True
        if not self._taken and not self._closing:
            self._wait(self.limits.output_stall_s_max)

    def resume_writing(self) -> None:
        self._full = False
        if self._taken or self._closing:
            return
        self._wait_until(_FOREVER)
        if self._request is None:
            self._next()
            return
        if self._reading:
            self._wait(self.limits.body_span_s)
        if self._request.on_writable is not None:
            self._request.on_writable()

    # --- for the request and the server -------------------------------------------------------

    def must_close(self, head: Http1RequestHead) -> bool:
        """Whether the connection ends with an answer that begins now."""
        if self._stopping or self._continue_due:
            return True  # a client that got no 100 Continue may send its body or not
        return self._reading and self._left > self.limits.body_unwanted_bytes_max

    def write(self, data: bytes) -> None:
        """Queues bytes; does nothing when the connection is closed, as uvloop would raise."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def answered(self) -> None:
        """The answer is written."""
        if self.close_after or self._stopping:
            self._close()
        elif not self._reading:
            self._next()
        else:
            # The rest of an unwanted body is read and dropped, so that another request may follow.
            assert self._request is not None, "an answer without a request"
            self._unwanted_bytes = len(self._request.incoming.take_all())
            self._hold(False)
            self._wait(self.limits.body_span_s)
            self._go_on_soon()

    def upgrade(self, on_data: Callable[[bytes], None]) -> None:
        """What comes from now on is no HTTP; with the end of the answer the connection ends."""
        self._on_data = on_data
        self.close_after = True
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._loop.call_soon(self.data_received, data)

    def hold_reading(self, on: bool) -> None:
        """Stops reading, or goes on."""
        self._hold(on)

    def give_up_limits(self) -> None:
        """From now on the owner of the answer sees to timeouts of this connection."""
        self._taken = True
        self._wait_until(_FOREVER)

    def shutdown(self) -> None:
        """Ends the connection: now, or after the answer that is under way."""
        self._stopping = True
        if self._request is None or self._taken or (self._reading and not self._service.early):
            self.abort()

    def abort(self) -> None:
        """Ends the connection now."""
        self._closing = True
        self.transport.abort()

    # --- reading ------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Takes one step with what has arrived."""
        self._scheduled = False
        if self._closing:
            return
        if self._reading:
            self._take_body()
        elif self._request is not None:
            self._hold(len(self._buffer) > self.limits.head_bytes_max)
        elif self._buffer and not self._full:
            self._take_head()

    def _go_on_soon(self) -> None:
        """The next step is for another turn of the loop."""
        if not self._scheduled and not self._closing:
            self._scheduled = True
            self._service.soon(self)

    def serve(self) -> int:
        """That step (net.protocol.Turns)."""
        self._go_on()
        return _STEP_WORK

    def _hold(self, hold: bool) -> None:
        if hold != self._held and not self.transport.is_closing():
            self._held = hold
            if hold:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _take_head(self) -> None:
        """Finds the end of the head and begins the request."""
        buffer, limits = self._buffer, self.limits
        if buffer[:1] in (b"\r", b"\n"):  # empty lines before a request are nothing (RFC 9112 §2.2)
            buffer = self._buffer = buffer.lstrip(b"\r\n")
        if not self._in_head:
            self._in_head = True
            self._wait(limits.head_s_max)
        start = max(self._scanned - 3, 0)
        at = buffer.find(b"\n\r\n", start, limits.head_bytes_max)
        bare = buffer.find(b"\n\n", start, limits.head_bytes_max if at < 0 else at + 1)
        end = at + 3 if bare < 0 else bare + 2
        if at < 0 and bare < 0:
            self._scanned = len(buffer)
            if len(buffer) >= limits.head_bytes_max:
                self._refuse(RefusedError(http_status.HEADER_FIELDS_TOO_LARGE))
            return
        raw, self._buffer, self._scanned = buffer[:end], buffer[end:], 0
        try:
            self._begin(self._head_of(raw))
        except RefusedError as refusal:
            self._refuse(refusal)

    def _head_of(self, raw: bytes) -> Http1RequestHead:
        """The request's head; raises RefusedError. A client mostly sends the same one again."""
        if raw == self._raw_head and self._head is not None:
            return self._head
        if raw.count(b"\n") > self.limits.header_lines_max:
            raise RefusedError(http_status.HEADER_FIELDS_TOO_LARGE)
        head = parse_request(raw)
        kept = len(raw) <= KEPT_HEAD_BYTES_MAX
        self._raw_head, self._head = (raw, head) if kept else (b"", None)
        return head

    def _begin(self, head: Http1RequestHead) -> None:
        service, limits = self._service, self.limits
        if not service.early and head.length > limits.body_bytes_max:
            raise RefusedError(http_status.CONTENT_TOO_LARGE)
        self._in_head = False
        self._wait_until(_FOREVER)
        request = Http1Request(self, head, Body(self._wanted))
        self._request = request
        # A client that has begun to send its body does not wait to be told.
        self._continue_due = (
            head.expects_continue and head.length != 0 and head.minor >= 1 and not self._buffer
        )
        buffer, size = self._buffer, head.length
        if size == 0 or (0 < size <= len(buffer) and not service.early):
            # The whole request has come at once, as small ones do.
            request.body, self._buffer = buffer[:size], buffer[size:]
            request.incoming.end()
            service.hand_out(request)
            return
        self._reading = True
        self._chunks = ChunkDecoder() if head.length == CHUNKED else None
        self._left = max(head.length, 0)
        self._unwanted_bytes = self._span_bytes = 0
        self._body_until_s = _FOREVER
        if service.early:
            self._wait(limits.body_span_s)
            service.hand_out(request)
        else:
            self._body_until_s = self._loop.time() + limits.body_s_max
            self._wanted()
            self._wait(limits.body_span_s)
        if self._buffer:
            self._go_on_soon()

    def _wanted(self) -> None:
        """The handler waits for more of the body."""
        if self._continue_due:
            self._continue_due = False
            self.write(_CONTINUE)
        if self._held and not self._scheduled:
            self._span_bytes = 0
            self._wait(self.limits.body_span_s)
            self._hold(False)

    def _take_body(self) -> None:
        data, self._buffer = self._buffer, b""
        chunks, limits = self._chunks, self.limits
        if chunks is not None:
            if len(data) > limits.turn_bytes_max:
                data, self._buffer = data[: limits.turn_bytes_max], data[limits.turn_bytes_max :]
            self._span_bytes += len(data)
            try:
                content = chunks.feed(data)
            except ChunkError:
                self._broken_body()
                return
            if chunks.ended:
                self._buffer = chunks.rest + self._buffer
                self._reading = False
        else:
            content, self._buffer = data[: self._left], data[self._left :]
            self._span_bytes += len(content)
            self._left -= len(content)
            self._reading = self._left > 0
        self._pass_on(content)
        if self._closing:
            return
        if not self._reading:
            self._body_ended()
        elif self._buffer:
            self._hold(True)
            self._go_on_soon()
        else:
            request = self._request
            assert request is not None, "a body without a request"
            self._hold(
                request.incoming.unread_bytes > limits.body_unread_bytes_max and self._service.early
            )

    def _pass_on(self, content: bytes) -> None:
        request, limits = self._request, self.limits
        assert request is not None, "a body without a request"
        if request.done:
            self._unwanted_bytes += len(content)
            if self._unwanted_bytes > limits.body_unwanted_bytes_max:
                self._close()
        elif content:
            request.incoming.put(content)
            if not self._service.early and request.incoming.unread_bytes > limits.body_bytes_max:
                self._refuse(RefusedError(http_status.CONTENT_TOO_LARGE))

    def _body_ended(self) -> None:
        request = self._request
        assert request is not None, "a body without a request"
        self._chunks = None
        self._wait_until(_FOREVER)
        self._hold(False)
        request.incoming.end()
        if request.done:
            self._next()
        elif not self._service.early:
            request.body = request.incoming.take_all()
            self._service.hand_out(request)

    def _broken_body(self) -> None:
        """The bytes that follow could be taken for a request, so this is the last one."""
        request = self._request
        assert request is not None, "a body without a request"
        self._reading = False
        self.close_after = True
        if self._service.early and not request.done:
            request.incoming.fail()
        else:
            self._refuse(RefusedError(http_status.BAD_REQUEST))

    def _next(self) -> None:
        """The connection is free for another request."""
        self._request = None
        self._hold(False)
        if self._taken:
            self._taken = False
            self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        if self._full:
            return  # the client must first read its answers
        if self._buffer:
            self._go_on_soon()
        else:
            self._wait(self.limits.idle_s_max)

    # --- ending -------------------------------------------------------------------------------

    def _refuse(self, refusal: RefusedError) -> None:
        """Answers with the reason, and ends the connection."""
        request = self._request
        if request is not None:
            if request.started:
                self.abort()
            request.lost()
        if not self.transport.is_closing():
            self.transport.write(refusal.answer)
            self._close(linger=True)

    def _close(self, linger: bool = False) -> None:
        """Ends the connection when its last bytes are sent, or after a time limit.

        `linger`: the client may still be sending, and a reset would destroy the answer before it is
        read. So for a moment its bytes are read and dropped (Go `closeWriteAndWait`).
        """
        self._closing = True
        self._request = None
        self._buffer = b""
        if (linger or self._reading) and self._plain and not self.transport.is_closing():
            self.transport.write_eof()
            self._hold(False)
            self._wait(self.limits.linger_s_max)
        else:
            self.transport.close()
            self._wait(self.limits.closing_s_max)

    # --- time ---------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self._wait_until(self._loop.time() + seconds)

    def _wait_until(self, due_s: float) -> None:
        """Sets the time limit; a timer that fires early is set again, which is cheap."""
        self._due_s = due_s
        if due_s < self._timer_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_s = due_s
            self._timer = self._loop.call_at(due_s, self._fired)
        elif self._closing and due_s == _FOREVER and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fired(self) -> None:
        self._timer, self._timer_s = None, _FOREVER
        if self._due_s == _FOREVER:
            return
        if self._loop.time() < self._due_s - 0.001:
            self._wait_until(self._due_s)
            return
        due_s, self._due_s = self._due_s, _FOREVER
        if self._reading and not self._closing and not self._full:
            limits = self.limits
            waited_for = not self._held and not self._scheduled
            slow = waited_for and self._span_bytes < limits.body_span_bytes_min
            if not slow and due_s < self._body_until_s:
                self._span_bytes = 0
                self._wait_until(min(self._loop.time() + limits.body_span_s, self._body_until_s))
                return
        if self._closing and not self.transport.is_closing():
            # Lingering is over; bytes that are not sent yet get some more time.
            self.transport.close()
            self._wait(self.limits.closing_s_max)
            return
        self.abort()
