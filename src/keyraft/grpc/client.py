"""The client's end of a connection: calls to frames, answers to callbacks.

A call is told its end exactly once, whatever happens: the answer, a reset, a GOAWAY, its
deadline, its cancellation, or the loss of the connection. Calls beyond the server's
SETTINGS_MAX_CONCURRENT_STREAMS wait in line, without a stream.

The part of a header block that is the same from call to call is remembered until the encoder's
table changes; the timeout, which is not, is a literal of its own behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from . import status
from .deadline import Deadlines, format_timeout
from .head import check_fields
from .http2 import frames, states
from .http2.connection import Connection
from .http2.errors import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    ConnectionFault,
    StreamFault,
    code_name,
)
from .http2.hpack import Encoder, Header
from .http2.stream import Http2Stream, Inbox
from .limits import HEAD_MEMO_BLOCK_BYTES_MAX, HEAD_MEMO_ENTRIES_MAX, Limits

_INDEXED: Final[frozenset[bytes | Header]] = frozenset(
    (b":authority", b":path", b"content-type", b"user-agent", b"te", b"hasleader")
)
_SECRET: Final = frozenset((b"authorization", b"token"))
_ANSWER_PSEUDO: Final = frozenset((b":status",))
_NO_PSEUDO: Final[frozenset[bytes]] = frozenset()

Metadata = Sequence[Header]
Done = Callable[[int, str, bytes], None]


class RpcError(Exception):
    """A call that ended with a status other than OK."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{status.CODE_NAMES[code] if 0 <= code <= 16 else code}: {text}")
        self.code = code
        self.text = text


class ClientReceiver(Protocol):
    """What a program does with the answers on a stream."""

    def on_message(self, message: bytes) -> None:
        """One response message."""

    def on_end(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        """The call is over; called exactly once, and nothing after it."""

    def on_writable(self) -> None:
        """The send queue has drained after it had been full."""


class ClientCall(Http2Stream):
    """One unary call. `unprocessed`: the server said that it never looked at it."""

    __slots__ = (
        "answered",
        "block",
        "connection",
        "deadline_s",
        "done",
        "over",
        "reply",
        "request",
        "unprocessed",
    )

    def __init__(
        self,
        connection: ClientConnection,
        block: Callable[[], bytes],
        request: bytes,
        done: Done,
        deadline_s: float | None,
    ) -> None:
        super().__init__(0, states.IDLE, 0)
        self.connection = connection
        self.block = block
        self.request = request
        self.done = done
        self.deadline_s = deadline_s
        self.over = False
        self.answered = False  # the response headers have come
        self.unprocessed = False
        self.reply: bytes | None = None

    def cancel(self) -> None:
        """Gives the call up; it ends with CANCELLED now."""
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
        """Stops `on_message`; the server runs into its window."""
        self.connection.pause_reading(self)

    def resume_reading(self) -> None:
        """Takes delivery up again."""
        self.connection.resume_reading(self)

    def ended(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        self.receiver.on_end(code, text, trailers)


class ClientConnection(Connection):
    """One connection to a server.

    `draining` says that it takes no new calls (GOAWAY, or no stream numbers left);
    `keepalive_without_calls` that keepalive pings go out also while nothing is under way.
    """

    is_client = True

    def __init__(
        self,
        limits: Limits,
        now: float,
        *,
        authority: str,
        scheme: str = "http",
        user_agent: str = "keyraft",
        keepalive_without_calls: bool = False,
    ) -> None:
        super().__init__(limits, Encoder(_INDEXED, _SECRET))
        self.now = self._read_at = now
        self.draining = False
        self.on_idle: Callable[[], None] | None = None
        self._keepalive_without_calls = keepalive_without_calls
        self._line: deque[ClientCall] = deque()
        self._deadlines = Deadlines()
        self._blocks: dict[tuple[bytes, tuple[Header, ...]], bytes] = {}
        self._blocks_generation = -1
        self._fields: dict[bytes, list[Header]] = {}
        self._first: list[Header] = [
            (b":method", b"POST"),
            (b":scheme", scheme.encode("ascii")),
        ]
        self._then: list[Header] = [
            (b":authority", authority.encode("ascii")),
            (b"content-type", b"application/grpc"),
            (b"user-agent", user_agent.encode("ascii")),
            (b"te", b"trailers"),
        ]
        self._out.append(frames.PREFACE)
        self._send_preface(
            [
                (frames.SETTINGS_ENABLE_PUSH, 0),
                (frames.SETTINGS_INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                (frames.SETTINGS_MAX_HEADER_LIST_SIZE, limits.header_list_bytes_max),
            ]
        )

    # --- calling --------------------------------------------------------------------------------

    def unary(
        self,
        path: bytes,
        request: bytes,
        done: Done,
        now: float,
        *,
        metadata: Metadata = (),
        timeout_s: float | None = None,
    ) -> ClientCall:
        """Starts a unary call; `done(code, text, reply)` is called once."""
        self.now = now
        deadline_s = None if timeout_s is None else now + timeout_s
        call = ClientCall(self, self._block_maker(path, metadata), request, done, deadline_s)
        self._start(call)
        return call

    def stream(
        self,
        path: bytes,
        receiver: ClientReceiver,
        now: float,
        *,
        metadata: Metadata = (),
        timeout_s: float | None = None,
    ) -> ClientStream:
        """Starts a streaming call."""
        self.now = now
        deadline_s = None if timeout_s is None else now + timeout_s
        block = self._block_maker(path, metadata)
        call = ClientStream(self, block, b"", _no_reply, deadline_s)
        call.receiver = receiver
        call.half_closed = False
        call.early = []
        self._start(call)
        return call

    def _block_maker(self, path: bytes, metadata: Metadata) -> Callable[[], bytes]:
        return lambda: self._request_block(path, tuple(metadata))

    def _request_block(self, path: bytes, metadata: tuple[Header, ...]) -> bytes:
        """The request's header block without its timeout; must be sent if it was made."""
        encoder = self.encoder
        if self._blocks_generation != encoder.generation:
            self._blocks.clear()
        key = (path, metadata)
        block = self._blocks.get(key)
        if block is None:
            fields = [*self._first, (b":path", path), *self._then, *metadata]
            settled = encoder.settled(fields)
            block = encoder.encode(fields)
            if not settled:
                self._blocks.clear()
                self._blocks_generation = encoder.generation
            elif len(self._blocks) < HEAD_MEMO_ENTRIES_MAX:
                self._blocks[key] = block
        return block

    def _start(self, call: ClientCall) -> None:
        if self.closed or self.draining:
            call.over = call.unprocessed = True
            call.ended(status.UNAVAILABLE, self.close_reason or "the connection is draining", {})
            return
        if len(self.streams) >= self.peer_streams_max or self._line:
            self._line.append(call)
            return
        self._begin(call)

    def _begin(self, call: ClientCall) -> None:
        """Gives a call its stream and sends what it has."""
        stream_id = self.next_stream
        self.next_stream += 2
        if self.next_stream > frames.STREAM_ID_MAX:
            self.draining = True
        call.stream_id = stream_id
        call.send_window = self.peer_initial_window
        call.state = states.OPEN
        self.streams[stream_id] = call
        block = call.block()
        if call.deadline_s is not None:
            timeout = format_timeout(call.deadline_s - self.now)
            block += self.encoder.encode([(b"grpc-timeout", timeout)])
            self._deadlines.add(call.deadline_s, stream_id, self.streams)
        out = self._out
        out.append(frames.header_block(stream_id, block, 0, self.peer_frame_bytes_max))
        if isinstance(call, ClientStream):
            for message in call.early:
                self._send_message(call, message)
            call.early.clear()
            if call.half_closed:
                self._end_stream(call, None)
        else:
            self._send_request(call)
        if not self._awake:
            self._awake = True
            self.on_output()

    def _send_request(self, call: ClientCall) -> None:
        """A unary call's only message, with END_STREAM."""
        size = len(call.request) + 5
        if (
            size <= self.send_window
            and size <= call.send_window
            and size <= self.peer_frame_bytes_max
            and not self._blocked
        ):
            self.send_window -= size
            call.send_window -= size
            self._out_bytes += size
            stream_id = call.stream_id
            self._out.append(
                frames.MESSAGE_HEADER.pack(size << 8, frames.END_STREAM, stream_id, 0, size - 5)
            )
            self._out.append(call.request)
            call.state = states.HALF_CLOSED_LOCAL
        else:
            self._send_message(call, call.request)
            self._end_stream(call, None)
        call.request = b""

    def _next_in_line(self) -> None:
        if self.closed or self.draining:
            return
        while self._line and len(self.streams) < self.peer_streams_max and not self.draining:
            call = self._line.popleft()
            if not call.over:
                self._begin(call)

    def send(self, stream: ClientStream, message: bytes) -> None:
        """ClientStream.send."""
        if stream.stream_id == 0:
            stream.early.append(message)
            return
        self._send_message(stream, message)
        self._wake()

    def half_close(self, stream: ClientStream) -> None:
        """ClientStream.half_close."""
        stream.half_closed = True
        if stream.stream_id:
            self._end_stream(stream, None)
            self._wake()

    def cancel(self, call: ClientCall, code: int, text: str) -> None:
        """Ends a call from our side."""
        if call.over:
            return
        awake, self._awake = self._awake, True
        if call.stream_id:
            self._reset(call, CANCEL)
        self._over(call, code, text, {})
        self._end_turn(awake)

    def pause_reading(self, stream: ClientStream) -> None:
        """ClientStream.pause_reading."""
        if not stream.over:
            if stream.inbox is None:
                stream.inbox = Inbox(self.limits.stream_window_bytes)
            stream.inbox.paused = True

    def resume_reading(self, stream: ClientStream) -> None:
        """ClientStream.resume_reading."""
        inbox = stream.inbox
        if inbox is None or not inbox.paused or stream.over:
            return
        inbox.paused = False
        awake, self._awake = self._awake, True
        self._messages(stream, inbox)
        if stream.inbox is inbox and not inbox.paused:
            if inbox.half_closed:
                self._finish(stream, inbox.trailers)
            else:
                self._grant(stream, inbox)
        self._end_turn(awake)

    # --- answers --------------------------------------------------------------------------------

    def _headers(self, stream_id: int, block: bytes, ends: bool) -> None:
        fields = self._fields.get(block)
        if fields is None:
            generation = self.decoder.table.generation
            fields = self.decoder.decode(block)
            if self.decoder.table.generation != generation:
                self._fields.clear()
            if self.decoder.oversize:
                raise StreamFault(stream_id, ENHANCE_YOUR_CALM, "a header list above the limit")
            if self.decoder.table.generation == generation and (
                len(block) <= HEAD_MEMO_BLOCK_BYTES_MAX
            ):
                if len(self._fields) >= HEAD_MEMO_ENTRIES_MAX:
                    self._fields.clear()
                self._fields[block] = fields
        if stream_id & 1 == 0 or self._state_of(stream_id) == states.IDLE:
            raise ConnectionFault(PROTOCOL_ERROR, "a stream that we did not open")
        event = states.HEADERS_END if ends else states.HEADERS
        stream = self._step(stream_id, event)
        if stream is None:
            return
        assert isinstance(stream, ClientCall)
        if stream.answered:
            if not ends or check_fields(fields, _NO_PSEUDO) is not None:
                raise StreamFault(stream_id, PROTOCOL_ERROR, "malformed trailers")
            self._ends(stream, dict(reversed(fields)))
            return
        fault = check_fields(fields, _ANSWER_PSEUDO)
        values = dict(reversed(fields))
        http_status = values.get(b":status", b"")
        if fault is not None or len(http_status) != 3 or not http_status.isdigit():
            raise StreamFault(stream_id, PROTOCOL_ERROR, fault or "an answer without :status")
        if http_status[:1] == b"1":
            if ends:
                raise StreamFault(stream_id, PROTOCOL_ERROR, "an interim answer that ends")
            return
        stream.answered = True
        if b"grpc-status" in values and ends:
            self._ends(stream, values)
        elif http_status != b"200" or not _is_grpc(values):
            self._not_grpc(stream, http_status, values)
        elif ends:
            self._ends(stream, values)

    def _not_grpc(self, call: ClientCall, http_status: bytes, values: dict[bytes, bytes]) -> None:
        """An answer from something that is no gRPC server (a proxy, an HTTP/1 handler)."""
        number = int(http_status)
        code = status.from_http_status(number)
        if number != 200:
            text = f"unexpected HTTP status code received from server: {number}"
        else:
            content_type = values.get(b"content-type", b"")
            text = f"unexpected content-type {status.quote(content_type)}"
        if call.stream_id in self.streams:
            self._reset(call, CANCEL)
        self._over(call, code, text, values)

    def _messages(self, stream: Http2Stream, inbox: Inbox) -> None:
        assert isinstance(stream, ClientCall)
        if not stream.answered:
            raise StreamFault(stream.stream_id, PROTOCOL_ERROR, "DATA before the response headers")
        data = inbox.data
        start = 0
        while len(data) - start >= 5 and not inbox.paused:
            length = int.from_bytes(data[start + 1 : start + 5], "big")
            if data[start]:
                text = "grpc: compressed flag set with identity or empty encoding"
                self.cancel(stream, status.INTERNAL, text)
                return
            if length > self.limits.message_bytes_max:
                text = (
                    f"grpc: received message larger than max "
                    f"({length} vs. {self.limits.message_bytes_max})"
                )
                self.cancel(stream, status.RESOURCE_EXHAUSTED, text)
                return
            stop = start + 5 + length
            if stop > len(data):
                break
            message = bytes(data[start + 5 : stop])
            start = stop
            inbox.messages += 1
            if isinstance(stream, ClientStream):
                stream.receiver.on_message(message)
            elif stream.reply is None:
                stream.reply = message
            else:
                text = "cardinality violation: more than one response message"
                self.cancel(stream, status.INTERNAL, text)
            if stream.inbox is not inbox:
                return
        if start:
            del data[:start]
            self.inbound_bytes -= start
        if self.inbound_bytes > self.limits.inbound_bytes_max:
            self.cancel(stream, status.RESOURCE_EXHAUSTED, "too many bytes of unread answers")

    def _remote_end(self, stream: Http2Stream) -> None:
        """END_STREAM on DATA: a gRPC answer ends with trailers instead."""
        assert isinstance(stream, ClientCall)
        text = "server closed the stream without sending trailers"
        self._ends(stream, {b"grpc-status": b"13", b"grpc-message": text.encode()})

    def _ends(self, stream: ClientCall, trailers: dict[bytes, bytes]) -> None:
        inbox = stream.inbox
        if inbox is not None and inbox.paused:
            inbox.half_closed = True
            inbox.trailers = trailers
        else:
            self._finish(stream, trailers)

    def _finish(self, stream: ClientCall, trailers: dict[bytes, bytes]) -> None:
        value = trailers.get(b"grpc-status", b"")
        if value.isdigit() and len(value) <= 9:
            code = int(value)
            text = status.decode_text(trailers.get(b"grpc-message", b""))
        else:
            code, text = status.UNKNOWN, "the answer has no grpc-status"
        if code == status.OK and stream.inbox is not None and stream.inbox.data:
            code, text = status.INTERNAL, "unexpected EOF"
        if stream.state == states.HALF_CLOSED_REMOTE:
            self._reset(stream, NO_ERROR)  # our half is of no use any more
        else:
            self._forget(stream)
        self._over(stream, code, text, trailers)

    def _over(
        self, call: ClientCall, code: int, text: str, trailers: Mapping[bytes, bytes]
    ) -> None:
        if call.over:
            return
        call.over = True
        call.ended(code, text, trailers)
        if self._line:
            self._next_in_line()
        if not self.streams:
            if self.draining and not self.closed:
                self._drained()
            elif self.on_idle is not None:
                self.on_idle()

    def _stream_lost(self, stream: Http2Stream, reset_code: int, by_peer: bool) -> None:
        assert isinstance(stream, ClientCall)
        if by_peer:
            stream.unprocessed = reset_code == REFUSED_STREAM
            text = f"stream terminated by RST_STREAM with error code: {code_name(reset_code)}"
            self._over(stream, status.from_reset_code(reset_code), text, {})
        elif self.closed:
            self._over(stream, status.UNAVAILABLE, self.close_reason, {})
        else:
            text = f"stream error: {code_name(reset_code)}"
            self._over(stream, status.INTERNAL, text, {})

    def _lose_all(self, code: int) -> None:
        super()._lose_all(code)
        self._dissolve_line()

    def _dissolve_line(self) -> None:
        line, self._line = self._line, deque()
        for call in line:
            call.unprocessed = True
            self._over(call, status.UNAVAILABLE, self.close_reason, {})

    def _goaway_from_peer(self, last_stream: int, code: int, text: bytes) -> None:
        self.draining = True
        reason = text.decode("utf-8", "replace")
        self.close_reason = f"received GOAWAY: {code_name(code)} {reason}".rstrip()
        for stream_id in [i for i in self.streams if i > last_stream]:
            call = self.streams[stream_id]
            assert isinstance(call, ClientCall)
            self._forget(call)
            call.state = states.CLOSED
            call.unprocessed = True
            self._over(call, status.UNAVAILABLE, self.close_reason, {})
        self._dissolve_line()
        if not self.streams:
            self._drained()

    def _settings_changed(self) -> None:
        self._next_in_line()

    def _queue_drained(self, stream: Http2Stream) -> None:
        if isinstance(stream, ClientStream) and not stream.over:
            stream.receiver.on_writable()

    def _keepalive_wanted(self) -> bool:
        return bool(self.streams) or self._keepalive_without_calls

    def _expire(self, now: float) -> None:
        for stream_id in self._deadlines.due(now):
            call = self.streams.get(stream_id)
            if isinstance(call, ClientCall):
                self.cancel(call, status.DEADLINE_EXCEEDED, "context deadline exceeded")
        for call in [c for c in self._line if c.deadline_s is not None and c.deadline_s <= now]:
            self._line.remove(call)
            self._over(call, status.DEADLINE_EXCEEDED, "context deadline exceeded", {})

    def next_deadline(self) -> float | None:
        if self.closed:
            return None
        due = self._deadlines.next(super().next_deadline())
        for call in self._line:
            if call.deadline_s is not None and (due is None or call.deadline_s < due):
                due = call.deadline_s
        return due

    def close(self, now: float) -> None:
        """Ends the connection; calls still open end with UNAVAILABLE."""
        self.now = now
        self.abort(NO_ERROR, "the client connection is closing")


def _no_reply(code: int, text: str, reply: bytes) -> None:
    """A stream's `done`, which is never called."""


def _is_grpc(values: Mapping[bytes, bytes]) -> bool:
    content_type = values.get(b"content-type", b"")
    rest = content_type.removeprefix(b"application/grpc")
    return rest != content_type and rest[:1] in (b"", b"+", b";")
