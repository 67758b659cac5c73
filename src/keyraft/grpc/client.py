"""The client's end of a connection: calls to frames, answers to callbacks.

A call is told its end exactly once, whatever happens: the answer, a reset, a GOAWAY, its
deadline, its cancellation, or the loss of the connection. Calls beyond the server's
SETTINGS_MAX_CONCURRENT_STREAMS wait in line, without a stream.

The part of a header block that is the same from call to call is remembered until the encoder's
table changes; the timeout, which is not, is a literal of its own behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from keyraft.base.gotext import quote

from . import status
from .client_calls import ClientCall, ClientReceiver, ClientStream, Done, Metadata
from .deadline import format_timeout
from .field_validity import check_fields
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
from .limits import (
    KNOWN_FIELD_BLOCK_BYTES_MAX,
    KNOWN_FIELD_BLOCKS_MAX,
    LOST_WORK,
    MESSAGE_WORK,
    REQUEST_WORK,
    Limits,
)

_INDEXED: Final[frozenset[bytes | Header]] = frozenset(
    (b":authority", b":path", b"content-type", b"user-agent", b"te", b"hasleader")
)
_SECRET: Final = frozenset((b"authorization", b"token"))
_ANSWER_PSEUDO: Final = frozenset((b":status",))
_NO_PSEUDO: Final[frozenset[bytes]] = frozenset()

# The timeout's literal, without indexing (RFC 7541 §6.2.2): its name never changes.
_TIMEOUT_NAME: Final = bytes((len(b"grpc-timeout"),)) + b"grpc-timeout"


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
        self.now = now
        self.keepalive.heard(now)
        self.keepalive.always = keepalive_without_calls
        self.draining = False
        self.on_idle: Callable[[], None] | None = None
        self._line: deque[ClientCall] = deque()
        self._blocks: dict[tuple[bytes, tuple[Header, ...]], bytes] = {}
        self._blocks_generation = -1
        self._fields: dict[bytes, list[Header]] = {}
        self._good_heads: set[bytes] = set()  # subsets of `_fields` for the short way
        self._good_tails: set[bytes] = set()
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
        call = ClientCall(self, path, tuple(metadata), request, done, deadline_s)
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
        call = ClientStream(self, path, tuple(metadata), b"", _no_reply, deadline_s)
        call.receiver = receiver
        call.half_closed = False
        call.early = []
        self._start(call)
        return call

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
            elif len(self._blocks) < KNOWN_FIELD_BLOCKS_MAX:
                self._blocks[key] = block
        return block

    def _start(self, call: ClientCall) -> None:
        if self.closed or self.draining:
            call.over = call.unprocessed = True
            call.ended(status.UNAVAILABLE, self.close_reason or "the connection is draining", {})
            return
        if len(self.streams) >= self.settings.max_concurrent_streams or self._line:
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
        call.send_window = self.settings.initial_window_size
        call.state = states.OPEN
        self.streams[stream_id] = call
        block = self._request_block(call.path, call.metadata)
        if call.deadline_s is not None:
            timeout = format_timeout(call.deadline_s - self.now)
            block += b"\0" + _TIMEOUT_NAME + bytes((len(timeout),)) + timeout
            self.deadlines.add(call.deadline_s, stream_id, self.streams)
        out = self._out
        if len(block) <= frames.FRAME_BYTES_DEFAULT:
            out.append(frames.HEADER.pack(len(block) << 8 | 1, frames.END_HEADERS, stream_id))
            out.append(block)
        else:
            out.append(frames.header_block(stream_id, block, 0, self.settings.max_frame_size))
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
            and size <= self.settings.max_frame_size
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
        while (
            self._line
            and len(self.streams) < self.settings.max_concurrent_streams
            and not self.draining
        ):
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
        if not stream.over:
            self._resume_inbox(stream)

    def _inbox_ended(self, stream: Http2Stream, inbox: Inbox) -> None:
        assert isinstance(stream, ClientCall)
        self._finish(stream, inbox.trailers)

    # --- the short way --------------------------------------------------------------------------

    def _parse(self, data: bytes) -> int:
        """As in the base, but a small unary answer in one piece is taken whole.

        It consists of a header block and a trailer block that are known to be those of a good
        answer, and one DATA frame between them.
        """
        pos, end = 0, len(data)
        unpack, unpack_message = frames.HEADER.unpack_from, frames.MESSAGE_HEADER.unpack_from
        streams, limits = self.streams, self.limits
        heads, tails = self._good_heads, self._good_tails
        output_bytes_max = limits.output_bytes_max
        slice_work = limits.slice_work
        while (
            end - pos >= 9
            and self._out_bytes < output_bytes_max
            and not self._blocked
            and self.work < slice_work
        ):
            word, flags, stream_id = unpack(data, pos)
            stop = pos + 9 + (word >> 8)
            if stop > end:
                self._check_size(word >> 8)
                break
            if (
                word & 0xFF == frames.HEADERS
                and flags == frames.END_HEADERS
                and end - stop >= 14
                and data[pos + 9 : stop] in heads
                and self._unfinished is None
            ):
                call = streams.get(stream_id)
                if type(call) is ClientCall and call.state == states.HALF_CLOSED_LOCAL:
                    data_word, flags, data_stream_id, packed, length = unpack_message(data, stop)
                    after = stop + 14 + length
                    if (
                        data_word == length + 5 << 8
                        and flags == 0
                        and data_stream_id == stream_id
                        and packed == 0
                        and length <= limits.message_bytes_max
                        and length < frames.FRAME_BYTES_DEFAULT - 5
                        and length <= limits.stream_window_bytes - 5
                        and end - after >= 9
                        and not call.answered
                    ):
                        tail_word, flags, tail_stream_id = unpack(data, after)
                        tail = after + 9 + (tail_word >> 8)
                        if (
                            tail_word & 0xFF == frames.HEADERS
                            and flags == frames.END_HEADERS | frames.END_STREAM
                            and tail_stream_id == stream_id
                            and tail <= end
                            and data[after + 9 : tail] in tails
                        ):
                            self.work += REQUEST_WORK
                            self._credit(length + 5)
                            call.state = states.CLOSED
                            call.over = True
                            self._forget(call)
                            call.done(0, "", data[stop + 14 : after])
                            self._after_call()
                            pos = tail
                            continue
                word, flags, stream_id = unpack(data, pos)
            self._frame(word & 0xFF, flags, stream_id & frames.STREAM_ID_MAX, data, pos + 9, stop)
            pos = stop
        return pos

    def _after_call(self) -> None:
        """A call has ended: the next in line, or nothing left to do."""
        if self._line:
            self._next_in_line()
        if not self.streams:
            if self.draining and not self.closed:
                self._drained()
            elif self.on_idle is not None:
                self.on_idle()

    # --- answers --------------------------------------------------------------------------------

    def _forget_blocks(self) -> None:
        self._fields.clear()
        self._good_heads.clear()
        self._good_tails.clear()

    def _classify(self, block: bytes, fields: list[Header]) -> None:
        """Notes blocks that can only be a good answer's."""
        values = dict(fields)
        if (
            check_fields(fields, _ANSWER_PSEUDO) is None
            and values.get(b":status") == b"200"
            and _is_grpc(values)
        ):
            self._good_heads.add(block)
        elif (
            check_fields(fields, _NO_PSEUDO) is None
            and values.get(b"grpc-status") == b"0"
            and not values.get(b"grpc-message")
        ):
            self._good_tails.add(block)

    def _headers(self, stream_id: int, block: bytes, ends: bool) -> None:
        fields = self._fields.get(block)
        if fields is None:
            generation = self.decoder.table.generation
            fields = self.decoder.decode(block)
            if self.decoder.table.generation != generation:
                self._forget_blocks()
            if self.decoder.oversize:
                raise StreamFault(stream_id, ENHANCE_YOUR_CALM, "a header list above the limit")
            if self.decoder.table.generation == generation and (
                len(block) <= KNOWN_FIELD_BLOCK_BYTES_MAX
            ):
                if len(self._fields) >= KNOWN_FIELD_BLOCKS_MAX:
                    self._forget_blocks()
                self._fields[block] = fields
                self._classify(block, fields)
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
            text = f"unexpected content-type {quote(content_type)}"
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
            if stop > len(data) or self._leave(stream, inbox):
                break
            self.work += MESSAGE_WORK
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
        if inbox is not None and (inbox.paused or inbox.due):
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
        self._after_call()

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

    def _expire(self, now: float) -> None:
        for stream_id in self.deadlines.due(now, self.limits.slice_work // LOST_WORK):
            call = self.streams.get(stream_id)
            if isinstance(call, ClientCall):
                self.cancel(call, status.DEADLINE_EXCEEDED, "context deadline exceeded")
        for call in [c for c in self._line if c.deadline_s is not None and c.deadline_s <= now]:
            self._line.remove(call)
            self._over(call, status.DEADLINE_EXCEEDED, "context deadline exceeded", {})

    def next_deadline(self) -> float | None:
        due = super().next_deadline()
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
