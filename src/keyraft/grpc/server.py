"""The server's end of a connection: requests to handlers, answers to frames.

The short way: a unary request whose header block is remembered and whose DATA frame follows in
the same read is answered, or handed to its handler, without a frame, a header or a task being
made into an object. Everything else goes through `Connection._frame`; both ways give the same
result for the same bytes, which the tests check by feeding byte by byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from keyraft.base.errors import EtcdError, PostponedError, RawError

from . import status
from .calls import Call, Stream
from .deadline import Deadlines
from .fields import check_fields
from .head import RequestHead
from .heads import Heads
from .http import HttpRequest, HttpStream
from .http2 import frames, states
from .http2.connection import Connection
from .http2.errors import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    ConnectionFault,
    StreamFault,
)
from .http2.hpack import Encoder, Header
from .http2.stream import Http2Stream, Inbox
from .limits import (
    PING_IDLE_INTERVAL_S_MIN,
    PING_STRIKES_MAX,
    STREAM_BATCH_MESSAGES_MAX,
    Limits,
)
from .postponing import postpone
from .router import BIDI_STREAM, CLIENT_STREAM, UNARY, Route, Router, StreamHandler

_CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_RESPONSE: Final[list[Header]] = [(b":status", b"200"), _CONTENT_TYPE]
_OK_TRAILERS: Final[list[Header]] = [(b"grpc-status", b"0")]
_INDEXED: Final[frozenset[bytes | Header]] = frozenset((_CONTENT_TYPE, *_OK_TRAILERS))
_NO_PSEUDO: Final[frozenset[bytes]] = frozenset()

_FRAME_WORD_MAX: Final = frames.FRAME_BYTES_DEFAULT << 8 | 0xFF

HttpHandler = Callable[[HttpRequest], None]


class _Answer:
    """The frames of a small OK answer but for stream, length and message, as two structs.

    Both blocks are stable: sending them again changes neither table.
    """

    __slots__ = ("head", "head5", "head_block", "tail", "tail5", "tail_block")

    def __init__(self, head_block: bytes, tail_block: bytes) -> None:
        self.head_block = head_block
        self.tail_block = tail_block
        self.head5 = len(head_block).to_bytes(3, "big") + b"\x01\x04"
        self.tail5 = len(tail_block).to_bytes(3, "big") + b"\x01\x05"
        self.head = struct.Struct(f">5sI{len(head_block)}sIBIBI").pack
        self.tail = struct.Struct(f">5sI{len(tail_block)}s").pack


class ServerConnection(Connection):
    """One client. `on_http`, if given, takes requests that are not gRPC."""

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
    ) -> None:
        super().__init__(limits, Encoder(_INDEXED))
        self.router = router
        self.peer = peer
        self.common_name = common_name
        self.scheme = scheme
        self.on_http = on_http
        self.streams_opened = 0
        self.now = self._read_at = now
        self._preface_seen = False
        self._handshake_by = now + limits.handshake_s_max
        self._heads = Heads(self.decoder, router)
        self._answer: _Answer | None = None
        self._reply_bytes_max = 0
        self._deadlines = Deadlines()
        self._ping_at = -PING_IDLE_INTERVAL_S_MIN
        self._ping_strikes = 0
        values = [
            (frames.SETTINGS_INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
            (frames.SETTINGS_MAX_HEADER_LIST_SIZE, limits.header_list_bytes_max),
        ]
        if limits.streams_advertised is not None:
            values.append((frames.SETTINGS_MAX_CONCURRENT_STREAMS, limits.streams_advertised))
        self._streams_max = min(limits.streams_max, limits.streams_advertised or limits.streams_max)
        self._send_preface(values)

    # --- receiving ------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> int:
        pos, end = 0, len(data)
        if not self._preface_seen:
            known = min(end, len(frames.PREFACE))
            if data[:known] != frames.PREFACE[:known]:
                raise ConnectionFault(PROTOCOL_ERROR, "no HTTP/2 connection preface")
            if known < len(frames.PREFACE):
                return 0
            self._preface_seen = True
            pos = known
        unpack, unpack_message = frames.HEADER.unpack_from, frames.MESSAGE_HEADER.unpack_from
        unpack_prefix = frames.PREFIX.unpack_from
        heads, streams, limits = self._heads.blocks, self.streams, self.limits
        output_bytes_max = limits.output_bytes_max
        recv_bytes_due = self._recv_window // 2
        message_bytes_max = min(
            limits.message_bytes_max, frames.FRAME_BYTES_DEFAULT - 5, limits.stream_window_bytes - 5
        )
        while end - pos >= 9 and self._out_bytes < output_bytes_max and not self._blocked:
            word, flags, stream_id = unpack(data, pos)
            stop = pos + 9 + (word >> 8)
            if stop > end:
                self._check_size(word >> 8)
                break
            kind = word & 0xFF
            if (
                kind == frames.HEADERS
                and flags == frames.END_HEADERS
                and self.last_peer_stream < stream_id <= frames.STREAM_ID_MAX
                and stream_id & 1
                and word <= _FRAME_WORD_MAX
                and self._block is None
                and self.peer_settings_seen
            ):
                block = data[pos + 9 : stop]
                found = heads.get(block)
                head, timeout_s = self._heads.decode(block) if found is None else found
                self.last_peer_stream = stream_id
                pos = stop
                route = head.unary
                if (
                    route is None
                    or len(streams) >= self._streams_max
                    or self.queued_bytes > limits.outbound_bytes_max
                    or self.goaway_sent
                ):
                    try:
                        self._request(head, timeout_s, stream_id, False)
                    except StreamFault as fault:
                        self._fault(fault)
                    continue
                call = Call(
                    self,
                    stream_id,
                    states.OPEN,
                    self.peer_initial_window,
                    head,
                    None if timeout_s is None else self.now + timeout_s,
                )
                self.streams_opened += 1
                route.started += 1
                if end - stop >= 14:
                    word, flags, data_stream_id, packed, length = unpack_message(data, stop)
                    stop += 14 + length
                    if (
                        word == length + 5 << 8
                        and flags == frames.END_STREAM
                        and data_stream_id == stream_id
                        and packed == 0
                        and stop <= end
                        and length <= message_bytes_max
                        and (head.content_length is None or head.content_length == length + 5)
                    ):
                        self._recv_unacked += length + 5
                        if self._recv_unacked > recv_bytes_due:
                            self._credit(0)
                        self._unary(call, route, data[pos + 14 : stop])
                        pos = stop
                        if not call.done:
                            self._register(call)
                        continue
                self._register(call)
                continue
            if kind == frames.DATA and flags == frames.END_STREAM and word >= 5 << 8:
                # Clients that send many requests in one go send all HEADERS before all DATA.
                waiting = streams.get(stream_id)
                if type(waiting) is Call and waiting.state == states.OPEN:
                    head = waiting.head
                    size = word >> 8
                    packed, length = unpack_prefix(data, pos + 9)
                    if (
                        length == size - 5
                        and packed == 0
                        and length <= message_bytes_max
                        and waiting.inbox is None
                        and not waiting.done
                        and head.unary is not None
                        and self._block is None
                        and (head.content_length is None or head.content_length == size)
                    ):
                        self._recv_unacked += size
                        if self._recv_unacked > recv_bytes_due:
                            self._credit(0)
                        self._unary(waiting, head.unary, data[pos + 14 : stop])
                        pos = stop
                        continue
            if kind == frames.DATA and not flags:
                stream = streams.get(stream_id)
                if type(stream) is Stream:
                    taken = self._stream_messages(stream, data, pos, end)
                    if taken != pos:
                        pos = taken
                        continue
            self._frame(kind, flags, stream_id & frames.STREAM_ID_MAX, data, pos + 9, stop)
            pos = stop
        return pos

    def _stream_messages(self, stream: Stream, data: bytes, pos: int, end: int) -> int:
        """Messages of a bidirectional stream, each whole in a DATA frame of its own, as many as
        stand in a row: where the first frame not taken begins. What is not so plain is left to
        the long way."""
        inbox = stream.inbox
        route = stream.head.route
        handler = stream.handler
        if (
            inbox is None
            or handler is None
            or inbox.paused
            or inbox.data
            or stream.done
            or stream.state not in (states.OPEN, states.HALF_CLOSED_LOCAL)
            or route is None
            or route.kind != BIDI_STREAM
            or self._block is not None
        ):
            return pos
        start = pos
        stops: list[int] = []
        messages: list[bytes] = []
        room = min(inbox.window_left, self._recv_window - self._recv_unacked)
        unpack = frames.MESSAGE_HEADER.unpack_from
        length_max = min(self.limits.message_bytes_max, frames.FRAME_BYTES_DEFAULT - 5)
        most = 1 if stream.takes_many is None else STREAM_BATCH_MESSAGES_MAX
        head, size = b"", 0
        while len(messages) < most:
            # Requests of one kind have frames of one size: their heads are the same bytes.
            if size and data[pos : pos + 14] == head:
                stop = pos + size
            elif end - pos >= 14:
                word, flags, stream_id, packed, length = unpack(data, pos)
                if (
                    word != length + 5 << 8
                    or flags
                    or stream_id != stream.stream_id
                    or packed
                    or length > length_max
                ):
                    break
                head, size = data[pos : pos + 14], length + 14
                stop = pos + size
            else:
                break
            if stop > end or stop - start > room:
                break
            messages.append(data[pos + 14 : stop])
            stops.append(stop)
            pos = stop
        if not messages:
            return start
        taken = self._hand_over(stream, handler, messages)
        bytes_taken = stops[taken - 1] - start - 9 * taken
        inbox.window_left -= bytes_taken
        inbox.received_bytes += bytes_taken
        inbox.messages += taken
        route.msg_received += taken
        self._credit(bytes_taken)
        if inbox.window_left * 2 < self.limits.stream_window_bytes:
            if stream.inbox is inbox and not inbox.paused:
                self._grant(stream, inbox)
        return stops[taken - 1]

    def _hand_over(self, stream: Stream, handler: StreamHandler, messages: list[bytes]) -> int:
        """Gives messages to their handler; how many it took, at least one."""
        try:
            if len(messages) > 1 and stream.takes_many is not None:
                return stream.takes_many(messages)
            handler.on_message(messages[0])
        except PostponedError as later:  # only ever the first one's
            postpone(stream, messages[0], later, self._unary)
        except (EtcdError, RawError) as error:
            self.finish(stream, error.code, error.text)
        return 1

    def _unary(self, call: Call, route: Route, message: bytes) -> None:
        """A unary request that is whole, to its handler."""
        call.state = states.HALF_CLOSED_REMOTE
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
            self._deadlines.add(call.deadline_s, call.stream_id, self.streams)

    def _headers(self, stream_id: int, block: bytes, ends: bool) -> None:
        head, timeout_s = self._heads.blocks.get(block) or self._heads.decode(block)
        event = states.HEADERS_END if ends else states.HEADERS
        if self._state_of(stream_id) != states.IDLE or stream_id in self.streams:
            stream = self._step(stream_id, event)
            if stream is not None:
                self._trailers(stream, head.fields, ends)
            return
        if not stream_id & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "a client's stream with an even number")
        self.last_peer_stream = stream_id
        self._request(head, timeout_s, stream_id, ends)

    def _request(
        self, head: RequestHead, timeout_s: float | None, stream_id: int, ends: bool
    ) -> None:
        """A new stream; raises StreamFault."""
        if head.oversize:
            raise StreamFault(stream_id, FRAME_SIZE_ERROR, "a header list above the limit")
        if head.malformed is not None:
            raise StreamFault(stream_id, PROTOCOL_ERROR, head.malformed)
        if ends and head.content_length:
            raise StreamFault(stream_id, PROTOCOL_ERROR, "a content-length without content")
        if self.goaway_sent and self._drain_at is None:
            self._remember_reset(stream_id)  # above the last stream of our GOAWAY: ignored
            return
        if not self._admits():
            self._out.append(frames.rst_stream(stream_id, REFUSED_STREAM))
            self._remember_reset(stream_id)
            if not self._resets.spend(self.now):
                raise ConnectionFault(ENHANCE_YOUR_CALM, "too many streams")
            return
        self.streams_opened += 1
        state = states.HALF_CLOSED_REMOTE if ends else states.OPEN
        window = self.peer_initial_window
        if head.is_http and self.on_http is not None:
            http = HttpStream(self, stream_id, state, window, head)
            self.streams[stream_id] = http
            if ends:
                self._remote_end(http)
            return
        deadline = None if timeout_s is None else self.now + timeout_s
        route = head.route
        if head.refusal is not None or route is None:
            assert head.refusal is not None
            call = Call(self, stream_id, state, window, head, deadline)
            self.streams[stream_id] = call
            http_status, code, text = head.refusal
            self._refuse(call, http_status, code, text)
            return
        route.started += 1
        if route.kind == UNARY:
            call = Call(self, stream_id, state, window, head, deadline)
            self._register(call)
            if ends:
                self._remote_end(call)
            return
        assert route.open is not None
        stream = Stream(self, stream_id, state, window, head, deadline)
        stream.headers_sent = False
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

    def _messages(self, stream: Http2Stream, inbox: Inbox) -> None:
        if isinstance(stream, HttpStream):
            if len(inbox.data) > self.limits.message_bytes_max:
                self._drop_inbox(stream)
                stream.respond(413, [], b"request body too large\n")
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
            if stop > len(data):
                break
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

    def _message(self, call: Call, inbox: Inbox, message: bytes) -> None:
        """One request message, whole."""
        route = call.head.route
        assert route is not None
        route.msg_received += 1
        if inbox.messages > 1 and route.kind not in (BIDI_STREAM, CLIENT_STREAM):
            self.finish(call, status.INTERNAL, "grpc: more than one request message")
        elif isinstance(call, Stream):
            assert call.handler is not None
            try:
                call.handler.on_message(message)
            except PostponedError as later:
                postpone(call, message, later, self._unary)
            except (EtcdError, RawError) as error:
                self.finish(call, error.code, error.text)
        else:
            # The handler starts when the client half-closes: some clients do so with an empty
            # frame of its own, and an answer before it would have to come with a reset.
            inbox.message = message
            self.inbound_bytes += len(message)

    def _remote_end(self, stream: Http2Stream) -> None:
        inbox = stream.inbox
        if isinstance(stream, HttpStream):
            body = b"" if inbox is None else bytes(inbox.data)
            self._check_length(stream, stream.head, len(body))
            self._drop_inbox(stream)
            assert self.on_http is not None
            stream.body = body
            self.on_http(stream)
            return
        assert isinstance(stream, Call)
        if stream.done:
            return
        self._check_length(stream, stream.head, 0 if inbox is None else inbox.received_bytes)
        if inbox is not None and inbox.paused:
            inbox.half_closed = True
            return
        self._half_close(stream)

    def _check_length(self, stream: Http2Stream, head: RequestHead, received: int) -> None:
        if head.content_length is not None and head.content_length != received:
            raise StreamFault(stream.stream_id, PROTOCOL_ERROR, "a false content-length")

    def _half_close(self, call: Call) -> None:
        inbox = call.inbox
        messages = 0 if inbox is None else inbox.messages
        route = call.head.route
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
                stream.inbox = Inbox(self.limits.stream_window_bytes)
            stream.inbox.paused = True

    def resume_reading(self, stream: Stream) -> None:
        """Stream.resume_reading."""
        inbox = stream.inbox
        if inbox is None or not inbox.paused or stream.done:
            return
        inbox.paused = False
        awake, self._awake = self._awake, True
        self._messages(stream, inbox)
        if stream.inbox is inbox and not inbox.paused:
            if inbox.half_closed:
                self._half_close(stream)
            else:
                self._grant(stream, inbox)
        self._end_turn(awake)

    # --- answering ------------------------------------------------------------------------------

    def respond(self, call: Call, message: bytes) -> None:
        """Call.respond: the message and status OK."""
        size = len(message) + 5
        answer = self._answer
        stream_id = call.stream_id
        route = call.head.route
        assert route is not None
        if (
            answer is not None
            and size <= self._reply_bytes_max
            and size <= self.send_window
            and size <= call.send_window
            and call.state == states.HALF_CLOSED_REMOTE
            and not self._blocked
        ):
            call.done = True
            self._sent_since_ping = True
            self.send_window -= size
            self._out_bytes += size
            out = self._out
            out.append(
                answer.head(
                    answer.head5, stream_id, answer.head_block, size << 8, 0, stream_id, 0, size - 5
                )
            )
            out.append(message)
            out.append(answer.tail(answer.tail5, stream_id, answer.tail_block))
            call.state = states.CLOSED
            route.msg_sent += 1
            route.handled[0] += 1
            if call.queue is None and call.inbox is None and not self.goaway_sent:
                self.streams.pop(stream_id, None)
            else:
                self._forget(call)
            if not self._awake:
                self._awake = True
                self.on_output()
            return
        self._respond_slowly(call, message)

    def _respond_slowly(self, call: Call, message: bytes) -> None:
        route = call.head.route
        assert route is not None
        awake, self._awake = self._awake, True
        call.done = True
        self.streams[call.stream_id] = call
        self._send_headers(call, _RESPONSE, ends=False)
        self._send_message(call, message)
        route.msg_sent += 1
        route.handled[0] += 1
        self._end_stream(call, _OK_TRAILERS)
        self._prepare_answer()
        self._end_turn(awake)

    def _prepare_answer(self) -> None:
        """Makes the short way's frames once both blocks no longer change the table."""
        if self._answer is not None:
            return
        encoder = self.encoder
        if encoder.settled(_RESPONSE) and encoder.settled(_OK_TRAILERS):
            self._answer = _Answer(encoder.encode(_RESPONSE), encoder.encode(_OK_TRAILERS))
            self._reply_bytes_max = self.peer_frame_bytes_max

    def _settings_changed(self) -> None:
        self._answer = None

    def send(self, stream: Stream, message: bytes) -> None:
        """Stream.send."""
        if not stream.headers_sent:
            stream.headers_sent = True
            self._send_headers(stream, _RESPONSE, ends=False)
        self._send_message(stream, message)
        route = stream.head.route
        assert route is not None
        route.msg_sent += 1
        if not self._awake:
            self._wake()

    def send_framed(self, stream: Stream, framed: bytes, count: int) -> None:
        """Stream.send_framed."""
        if not stream.headers_sent:
            stream.headers_sent = True
            self._send_headers(stream, _RESPONSE, ends=False)
        self._send_data(stream, framed)
        route = stream.head.route
        assert route is not None
        route.msg_sent += count
        if not self._awake:
            self._wake()

    def send_shared(self, stream: Stream, head: bytes, pieces: list[bytes]) -> None:
        """Stream.send_shared."""
        if not stream.headers_sent:
            stream.headers_sent = True
            self._send_headers(stream, _RESPONSE, ends=False)
        self._send_pieces(stream, head, pieces)
        route = stream.head.route
        assert route is not None
        route.msg_sent += 1
        if not self._awake:
            self._wake()

    def finish(self, call: Call, code: int, text: str) -> None:
        """Call.fail and Stream.finish: trailers, alone when nothing was sent before."""
        route = call.head.route
        if route is not None:
            route.handled[code if 0 <= code < len(route.handled) else status.UNKNOWN] += 1
        call.done = True
        awake, self._awake = self._awake, True
        self.streams[call.stream_id] = call
        trailers: list[Header] = [(b"grpc-status", b"%d" % code)]
        if text:
            trailers.append((b"grpc-message", status.encode_text(text)))
        if not (isinstance(call, Stream) and call.headers_sent):
            trailers = [*_RESPONSE, *trailers]
        self._end_stream(call, trailers)
        self._end_turn(awake)

    def _refuse(self, call: Call, http_status: int, code: int, text: str) -> None:
        """A request that reaches no handler."""
        call.done = True
        self._end_stream(
            call,
            [
                (b":status", b"%d" % http_status),
                _CONTENT_TYPE,
                (b"grpc-status", b"%d" % code),
                (b"grpc-message", status.encode_text(text)),
            ],
        )

    def _sent_end(self, stream: Http2Stream) -> None:
        if stream.state == states.HALF_CLOSED_LOCAL:
            # The client may still be sending; it is told to stop, without blame (RFC 9113 §8.1).
            self._reset(stream, NO_ERROR)
        else:
            self._forget(stream)

    # --- plain HTTP -----------------------------------------------------------------------------

    def http_headers(self, stream: HttpStream, fields: list[Header]) -> None:
        """HttpStream.start."""
        self._send_headers(stream, fields, ends=False)
        self._wake()

    def http_data(self, stream: HttpStream, data: bytes) -> None:
        """HttpStream.write."""
        self._send_data(stream, data)
        self._wake()

    def http_end(self, stream: HttpStream) -> None:
        """HttpStream.end."""
        self._end_stream(stream, None)
        self._wake()

    def http_abort(self, stream: HttpStream, code: int) -> None:
        """HttpStream.abort."""
        self._reset(stream, code)
        self._wake()

    # --- the end of calls -----------------------------------------------------------------------

    def _stream_lost(self, stream: Http2Stream, reset_code: int, by_peer: bool) -> None:
        if isinstance(stream, HttpStream):
            stream.lost()
        elif isinstance(stream, Call) and not stream.done:
            self._cancel(stream, status.CANCELLED)

    def _cancel(self, call: Call, code: int) -> None:
        """Stops the work of a call that is over for the client."""
        call.done = call.cancelled = True
        route = call.head.route
        if route is not None:
            route.handled[code] += 1
        if isinstance(call, Stream):
            if call.handler is not None:
                call.handler.on_cancel(code)
        elif call.on_cancel is not None:
            call.on_cancel(code)

    def _expire(self, now: float) -> None:
        if not self.peer_settings_seen and now >= self._handshake_by:
            self._die(PROTOCOL_ERROR, "no HTTP/2 handshake in time")
            return
        for stream_id in self._deadlines.due(now):
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
            stop(status.DEADLINE_EXCEEDED)
        if call.done:
            return
        if call.queue is None:
            self.finish(call, status.DEADLINE_EXCEEDED, "context deadline exceeded")
            return
        # What waits will not be read in time, and the status cannot overtake it.
        call.done = True
        if call.head.route is not None:
            call.head.route.handled[status.DEADLINE_EXCEEDED] += 1
        self._reset(call, CANCEL)

    def next_deadline(self) -> float | None:
        if self.closed:
            return None
        due = self._deadlines.next(super().next_deadline())
        if not self.peer_settings_seen and (due is None or self._handshake_by < due):
            return self._handshake_by
        return due

    def _queue_drained(self, stream: Http2Stream) -> None:
        if isinstance(stream, Stream) and not stream.done and stream.handler is not None:
            stream.handler.on_writable()
        elif isinstance(stream, HttpStream):
            stream.drained()

    def _ping_received(self, provoked: bool) -> None:
        """gRPC-Go's keepalive enforcement (http2_server.go, handlePing)."""
        now, last = self.now, self._ping_at
        self._ping_at = now
        if provoked:
            self._ping_strikes = 0
            return
        minimum = self.limits.keepalive_min_time_s if self.streams else PING_IDLE_INTERVAL_S_MIN
        if now < last + minimum:
            self._ping_strikes += 1
            if self._ping_strikes > PING_STRIKES_MAX:
                raise ConnectionFault(ENHANCE_YOUR_CALM, "too_many_pings")
