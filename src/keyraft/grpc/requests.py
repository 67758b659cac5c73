"""The general path of requests: header by header and frame by frame, to their handlers.

`server` has the fast path for complete, plain requests; both give the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from keyraft.base import http_status
from keyraft.base.errors import EtcdError, PostponedError, RawError

from . import status
from .answering import Answering
from .calls import Call, Stream
from .field_blocks import FieldBlocks
from .field_validity import check_fields
from .http import HttpRequest, HttpStream
from .http2 import frames, states
from .http2.errors import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    ConnectionFault,
    StreamFault,
)
from .http2.hpack import Header
from .http2.stream import Http2Stream, StreamInbox
from .keepalive_enforcement import KeepaliveEnforcement
from .limits import (
    LOST_WORK,
    MESSAGE_WORK,
    REQUEST_WORK,
    Limits,
    http_work,
    text_bytes_max,
)
from .postponing import postpone
from .request_header import RequestHeader
from .route import BIDI_STREAM, CLIENT_STREAM, UNARY, Route
from .router import Router

_NO_PSEUDO: Final[frozenset[bytes]] = frozenset()

HttpHandler = Callable[[HttpRequest], None]


class Requests(Answering):
    """One client's requests. `on_http`, if given, takes those that are not gRPC.

    It gets them with their whole bodies, but those to targets for which `early` is true as soon as
    their header is there.
    """

    def __init__(
        self,
        router: Router,
        limits: Limits,
        now: float,
        *,
        peer: str = "",
        common_name: str | None = None,
        scheme: str = "http",
        on_http: HttpHandler | None = None,
        early: Callable[[str], bool] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock` gives the time at the end of a call.

        Without it, the time when the connection was last fed is used.
        """
        super().__init__(limits, router.ends, clock)
        self.router = router
        self.peer = peer
        self.common_name = common_name
        self.scheme = scheme
        self.on_http = on_http
        self._early = early
        self.streams_opened = 0
        self.now = now
        self.keepalive.heard(now)
        self.handshake_by = now + limits.handshake_s_max
        self._preface_seen = False
        self._field_blocks = FieldBlocks(self.decoder, router)
        self._enforcement = KeepaliveEnforcement(limits)
        values = [
            (frames.SETTINGS_INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
            (frames.SETTINGS_MAX_HEADER_LIST_SIZE, limits.header_list_bytes_max),
        ]
        if limits.streams_advertised is not None:
            values.append((frames.SETTINGS_MAX_CONCURRENT_STREAMS, limits.streams_advertised))
        self._streams_max = min(limits.streams_max, limits.streams_advertised or limits.streams_max)
        self._send_preface(values)

    # --- receiving ------------------------------------------------------------------------------

    def _unary(self, call: Call, route: Route, message: bytes) -> None:
        """Gives a complete unary request to its handler."""
        call.state = states.HALF_CLOSED_REMOTE
        call.request = message
        route.msg_received += 1
        try:
            reply = route.handle(call, message)  # type: ignore[misc]  # a unary route has it
        except PostponedError as later:
            postpone(call, message, later, self._unary)
            return
        except (EtcdError, RawError) as error:
            self.finish(call, error.code, error.text)
            return
        if reply is not None and not call.done:
            self.respond(call, reply)

    def _admits(self) -> bool:
        """Whether a new stream may start at all."""
        return (
            len(self.streams) < self._streams_max
            and self.queued_bytes <= self.limits.outbound_bytes_max
        )

    def _register(self, call: Call) -> None:
        self.streams[call.stream_id] = call
        if call.deadline_s is not None:
            self.deadlines.add(call.deadline_s, call.stream_id, self.streams)

    def _headers(self, stream_id: int, block: bytes, ends: bool) -> None:
        header, timeout_s = self._field_blocks.known.get(block) or self._field_blocks.decode(block)
        event = states.HEADERS_END if ends else states.HEADERS
        if self._state_of(stream_id) != states.IDLE or stream_id in self.streams:
            stream = self._step(stream_id, event)
            if stream is not None:
                self._trailers(stream, header.fields, ends)
            return
        if not stream_id & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "a client's stream with an even number")
        self.last_peer_stream = stream_id
        self._request(header, timeout_s, stream_id, ends)

    def _request(
        self, header: RequestHeader, timeout_s: float | None, stream_id: int, ends: bool
    ) -> None:
        """A new stream; raises StreamFault."""
        self.work += REQUEST_WORK
        if header.oversize:
            raise StreamFault(stream_id, FRAME_SIZE_ERROR, "a header list above the limit")
        if header.malformed is not None:
            raise StreamFault(stream_id, PROTOCOL_ERROR, header.malformed)
        if ends and header.content_length:
            raise StreamFault(stream_id, PROTOCOL_ERROR, "a content-length without content")
        if self.goaway.is_final:
            self._was_reset.add(
                stream_id
            )  # it is above the last stream of our GOAWAY, so it is ignored
            return
        if not self._admits():
            self._out.append(frames.rst_stream(stream_id, REFUSED_STREAM))
            self._was_reset.add(stream_id)
            self.floods.resets.spend(self.now, "too many streams")
            return
        self.streams_opened += 1
        state = states.HALF_CLOSED_REMOTE if ends else states.OPEN
        window = self.settings.initial_window_size
        if header.is_http and self.on_http is not None:
            http = HttpStream(self, stream_id, state, window, header)
            self.streams[stream_id] = http
            if ends:
                self._remote_end(http)
            elif self._early is not None and self._early(http.target):
                http.coming = True
                self.work += http_work(http.target)
                self.on_http(http)
            return
        deadline = None if timeout_s is None else self.now + timeout_s
        route = header.route
        if header.refusal is not None or route is None:
            assert header.refusal is not None
            call = Call(self, stream_id, state, window, header, deadline)
            self.streams[stream_id] = call
            http_status, code, text = header.refusal
            self._refuse(call, http_status, code, text)
            return
        route.started += 1
        if route.kind == UNARY:
            call = Call(self, stream_id, state, window, header, deadline)
            self._register(call)
            if ends:
                self._remote_end(call)
            return
        assert route.open is not None
        stream = Stream(self, stream_id, state, window, header, deadline)
        stream.route = route
        stream.headers_sent = False
        stream.received_bytes = stream.sent_bytes = 0
        stream.handler = None
        stream.takes_many = None
        self._register(stream)
        try:
            handler = route.open(stream)
        except (EtcdError, RawError) as error:
            self.finish(stream, error.code, error.text)
            return
        stream.handler = handler
        stream.takes_many = getattr(handler, "on_messages", None)
        if ends and not stream.done:
            self._remote_end(stream)

    def _trailers(self, stream: Http2Stream, fields: list[Header], ends: bool) -> None:
        if not ends or check_fields(fields, _NO_PSEUDO) is not None:
            raise StreamFault(stream.stream_id, PROTOCOL_ERROR, "malformed trailers")
        self._remote_end(stream)

    def _messages(self, stream: Http2Stream, inbox: StreamInbox) -> None:
        if isinstance(stream, HttpStream):
            if stream.coming:
                piece = bytes(inbox.data)
                inbox.data.clear()
                self.inbound_bytes -= len(piece)
                self.work += MESSAGE_WORK
                stream.take(piece, last=False)
            elif len(inbox.data) > text_bytes_max(self.limits.message_bytes_max):
                self._drop_inbox(stream)
                stream.respond(http_status.CONTENT_TOO_LARGE, [], b"request body too large\n")
            elif self.inbound_bytes > self.limits.inbound_bytes_max:
                raise StreamFault(stream.stream_id, ENHANCE_YOUR_CALM, "too much unread")
            return
        assert isinstance(stream, Call)
        data = inbox.data
        if stream.done:
            self.inbound_bytes -= len(data)
            data.clear()
            return
        start = 0
        while len(data) - start >= 5 and not inbox.paused:
            length = int.from_bytes(data[start + 1 : start + 5], "big")
            fault = self._message_fault(stream, data[start], length)
            if fault is not None:
                self.finish(stream, *fault)
                return
            stop = start + 5 + length
            if stop > len(data) or self._leave(stream, inbox):
                break
            self.work += REQUEST_WORK
            message = bytes(data[start + 5 : stop])
            start = stop
            inbox.messages += 1
            self._message(stream, inbox, message)
            if stream.inbox is not inbox:
                return
        if start:
            del data[:start]
            self.inbound_bytes -= start
        if self.inbound_bytes > self.limits.inbound_bytes_max:
            self.finish(
                stream,
                status.RESOURCE_EXHAUSTED,
                "grpc: too many bytes of unfinished requests on this connection",
            )

    def _message_fault(self, call: Call, packed: int, length: int) -> tuple[int, str] | None:
        """gRPC-Go's refusals of a message by its five-byte prefix."""
        if packed == 1:
            return status.INTERNAL, "grpc: compressed flag set with identity or empty encoding"
        if packed:
            return status.INTERNAL, f"grpc: received unexpected payload format {packed}"
        largest = self.limits.message_bytes_max
        if length > largest:
            return (
                status.RESOURCE_EXHAUSTED,
                f"grpc: received message larger than max ({length} vs. {largest})",
            )
        return None

    def _message(self, call: Call, inbox: StreamInbox, message: bytes) -> None:
        """One request message, whole."""
        route = call.header.route
        assert route is not None
        route.msg_received += 1
        if inbox.messages > 1 and route.kind not in (BIDI_STREAM, CLIENT_STREAM):
            self.finish(call, status.INTERNAL, "grpc: more than one request message")
        elif isinstance(call, Stream):
            assert call.handler is not None
            call.received_bytes += len(message)
            try:
                call.handler.on_message(message)
            except PostponedError as later:
                postpone(call, message, later, self._unary)
            except (EtcdError, RawError) as error:
                self.finish(call, error.code, error.text)
        else:
            # The handler starts when the client half-closes. Some clients do so with a separate
            # empty frame, and an answer before that would need a reset.
            inbox.message = message
            self.inbound_bytes += len(message)

    def _remote_end(self, stream: Http2Stream) -> None:
        inbox = stream.inbox
        if isinstance(stream, HttpStream):
            if stream.coming:
                received = 0 if inbox is None else inbox.received_bytes
                self._check_length(stream, stream.header, received)
                if inbox is not None and inbox.paused:
                    inbox.half_closed = True
                else:
                    self._drop_inbox(stream)
                    stream.take(b"", last=True)
                return
            body = b"" if inbox is None else bytes(inbox.data)
            self._check_length(stream, stream.header, len(body))
            self._drop_inbox(stream)
            assert self.on_http is not None
            self.work += http_work(stream.target)
            stream.body = body
            self.on_http(stream)
            return
        assert isinstance(stream, Call)
        if stream.done:
            return
        self._check_length(stream, stream.header, 0 if inbox is None else inbox.received_bytes)
        if inbox is not None and (inbox.paused or inbox.due):
            inbox.half_closed = True
            return
        self._half_close(stream)

    def _check_length(self, stream: Http2Stream, header: RequestHeader, received: int) -> None:
        if header.content_length is not None and header.content_length != received:
            raise StreamFault(stream.stream_id, PROTOCOL_ERROR, "a false content-length")

    def _half_close(self, call: Call) -> None:
        inbox = call.inbox
        messages = 0 if inbox is None else inbox.messages
        route = call.header.route
        assert route is not None
        if inbox is not None and inbox.data:
            self.finish(call, status.INTERNAL, "unexpected EOF")
        elif messages == 0 and route.kind not in (BIDI_STREAM, CLIENT_STREAM):
            self.finish(call, status.INTERNAL, "EOF")
        elif isinstance(call, Stream):
            self._drop_inbox(call)
            if call.handler is not None:
                try:
                    call.handler.on_half_close()
                except (EtcdError, RawError) as error:
                    self.finish(call, error.code, error.text)
        else:
            assert inbox is not None and inbox.message is not None
            message = inbox.message
            self._drop_inbox(call)
            route.msg_received -= 1  # counted when it came
            self._unary(call, route, message)

    def pause_reading(self, stream: Stream) -> None:
        """Stream.pause_reading."""
        if not stream.done:
            if stream.inbox is None:
                if stream.state == states.HALF_CLOSED_REMOTE:
                    return
                stream.inbox = StreamInbox(self.limits.stream_window_bytes)
            stream.inbox.paused = True

    def resume_reading(self, stream: Stream) -> None:
        """Stream.resume_reading."""
        if not stream.done:
            self._resume_inbox(stream)

    def _inbox_ended(self, stream: Http2Stream, inbox: StreamInbox) -> None:
        if isinstance(stream, HttpStream):
            self._drop_inbox(stream)
            stream.take(b"", last=True)
            return
        assert isinstance(stream, Call), "plain HTTP has no messages"
        self._half_close(stream)

    def http_hold(self, stream: HttpStream, on: bool) -> None:
        """HttpStream.hold_reading."""
        if not on:
            self._resume_inbox(stream)
            return
        if stream.inbox is None:
            stream.inbox = StreamInbox(self.limits.stream_window_bytes)
        stream.inbox.paused = True

    # --- the end of calls -----------------------------------------------------------------------

    def resume_output(self, now: float) -> None:
        super().resume_output(now)
        self._lose_some()

    def _lose(self, streams: list[Http2Stream], code: int) -> None:
        """From now on their handlers cannot send; their `on_cancel` is called in slices."""
        for stream in streams:
            assert isinstance(stream, Call | HttpStream)
            if not stream.done:
                stream.done = True
                self._lost.append(stream)
        self._lose_some()

    def _lose_some(self) -> None:
        lost, most = self._lost, self.limits.slice_work
        while lost and self.work < most:
            self.work += LOST_WORK
            stream = lost.popleft()
            if isinstance(stream, Call):
                self._cancel(stream, status.CANCELLED)
            elif isinstance(stream, HttpStream) and stream.on_close is not None:
                stream.on_close()

    def _stream_lost(self, stream: Http2Stream, reset_code: int, by_peer: bool) -> None:
        if isinstance(stream, HttpStream):
            stream.lost()
        elif isinstance(stream, Call) and not stream.done:
            self._cancel(stream, status.CANCELLED)

    def _cancel(self, call: Call, code: int) -> None:
        """Cancels the work of a call that has ended for the client."""
        call.done = call.cancelled = True
        if isinstance(call, Stream):
            if call.handler is not None:
                call.handler.on_cancel(code)
        elif call.on_cancel is not None:
            call.on_cancel(call, code)
        self._ended(call, code, "")

    def _expire(self, now: float) -> None:
        if now >= self.handshake_by:
            self._die(PROTOCOL_ERROR, "no HTTP/2 handshake in time")
            return
        for stream_id in self.deadlines.due(now, self.limits.slice_work // LOST_WORK):
            call = self.streams.get(stream_id)
            if isinstance(call, Call) and not call.done:
                self._deadline_passed(call)

    def _deadline_passed(self, call: Call) -> None:
        call.cancelled = True
        stop = call.on_cancel
        if isinstance(call, Stream):
            if call.handler is not None:
                call.handler.on_cancel(status.DEADLINE_EXCEEDED)
        elif stop is not None:
            stop(call, status.DEADLINE_EXCEEDED)
        if not call.done:
            self.drop(call, status.DEADLINE_EXCEEDED, "context deadline exceeded")

    def drop(self, call: Call, code: int, text: str) -> None:
        """Stream.drop."""
        if call.queue is None and call.stream_id not in self._replies:
            self.finish(call, code, text)
            return
        # The queued messages will not be read in time, and the status cannot overtake them.
        call.done = True
        self._reset(call, CANCEL)
        self._wake()
        self._ended(call, code, text)

    def _queue_drained(self, stream: Http2Stream) -> None:
        if isinstance(stream, Stream) and not stream.done and stream.handler is not None:
            stream.handler.on_writable()
        elif isinstance(stream, HttpStream):
            stream.drained()
        elif stream.stream_id in self._replies:
            self._replies[stream.stream_id]()

    def _ping_received(self, provoked: bool) -> None:
        self._enforcement.ping(self.now, provoked, idle=not self.streams)
