"""The server's answers: one message and its status, a stream's messages, trailers, plain HTTP.

The fast path: the frames of a small answer are prepared once and then only filled in. All other
answers go through `Output`; both paths add the same headers to the client's table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import inf
from typing import Final

from . import status
from .call_ends import REPLY_HEAD_BYTES, CallEnds, count_end
from .calls import Call, Stream
from .http import HttpStream
from .http2 import frames, states
from .http2.connection import Connection
from .http2.errors import NO_ERROR
from .http2.hpack import Header, HpackEncoder
from .http2.stream import Http2Stream
from .limits import Limits
from .route import Metadata

_REPLY_SIZE: Final = REPLY_HEAD_BYTES + 5
_CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_RESPONSE: Final[list[Header]] = [(b":status", b"200"), _CONTENT_TYPE]
_OK_TRAILERS: Final[list[Header]] = [(b"grpc-status", b"0")]
_INDEXED: Final[frozenset[bytes | Header]] = frozenset((_CONTENT_TYPE, *_OK_TRAILERS))


class _Answer:
    """The frames of a small OK answer without stream, length and message, as two structs.

    Both header blocks are stable: sending them again does not change the table.
    """

    __slots__ = ("head", "head5", "head_block", "tail", "tail5", "tail_block")

    def __init__(self, head_block: bytes, tail_block: bytes) -> None:
        self.head_block = head_block
        self.tail_block = tail_block
        self.head5 = len(head_block).to_bytes(3, "big") + b"\x01\x04"
        self.tail5 = len(tail_block).to_bytes(3, "big") + b"\x01\x05"
        self.head = struct.Struct(f">5sI{len(head_block)}sIBIBI").pack
        self.tail = struct.Struct(f">5sI{len(tail_block)}s").pack


class Answering(Connection):
    """What calls and streams send; `requests` makes them."""

    def __init__(
        self, limits: Limits, ends: CallEnds, clock: Callable[[], float] | None = None
    ) -> None:
        super().__init__(limits, HpackEncoder(_INDEXED))
        self._answer: _Answer | None = None
        self._ends = ends
        self._told_s = ends.from_s  # a listener wants calls that took so long
        self._told_before = -inf  # so in this turn: calls that began before this
        self._recorder = ends.recorder
        self._recorded = None if ends.recorder is None else ends.recorder.answered
        self._clock = clock or (lambda: self.now)
        self._reply_bytes_max = 0
        self._replies: dict[int, Callable[[], None]] = {}  # stream → its `on_writable`

    # --- gRPC -----------------------------------------------------------------------------------

    def respond(self, call: Call, message: bytes) -> None:
        """Call.respond: the message and status OK."""
        size = len(message) + 5
        answer = self._answer
        stream_id = call.stream_id
        route = call.header.route
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
            if call.queue is None and call.inbox is None and not self.goaway.sent:
                self.streams.pop(stream_id, None)
            else:
                self._forget(call)
            if not self._awake:
                self._awake = True
                self.on_output()
                self._told_before = self._clock() - self._told_s
                if self._recorder is not None:
                    self._recorder.soon()
            recorded = self._recorded
            if recorded is not None:
                recorded += (call, message if size <= _REPLY_SIZE else message[:REPLY_HEAD_BYTES])
            if call.began_s <= self._told_before:
                self._ends.tell(call, status.OK, "", message, self._clock())
            return
        self._respond_slowly(call, message)

    def _respond_slowly(self, call: Call, message: bytes) -> None:
        route = call.header.route
        assert route is not None
        awake, self._awake = self._awake, True
        call.done = True
        self.streams[call.stream_id] = call
        self._send_headers(call, _RESPONSE, ends=False)
        self._send_message(call, message)
        route.msg_sent += 1
        self._end_stream(call, _OK_TRAILERS)
        self._prepare_answer()
        self._end_turn(awake)
        self._ended(call, status.OK, "", message)

    def begin_reply(self, call: Call, size: int, on_writable: Callable[[], None]) -> None:
        """Call.begin_reply: header and length of the message."""
        awake, self._awake = self._awake, True
        self.streams[call.stream_id] = call
        self._replies[call.stream_id] = on_writable
        self._send_headers(call, _RESPONSE, ends=False)
        self._send_data(call, frames.PREFIX.pack(0, size))
        self._end_turn(awake)

    def send_reply(self, call: Call, piece: bytes) -> None:
        """Call.send_reply."""
        self._send_data(call, piece)
        if not self._awake:
            self._wake()

    def end_reply(self, call: Call, summary: bytes) -> None:
        """Call.end_reply: the status OK."""
        call.done = True
        awake, self._awake = self._awake, True
        if call.header.route is not None:
            call.header.route.msg_sent += 1
        self._end_stream(call, _OK_TRAILERS)
        self._end_turn(awake)
        self._ended(call, status.OK, "", summary)

    def _ended(self, call: Call, code: int, text: str, reply: bytes | None = None) -> None:
        """Counts the end of a call.

        Every end comes here once, except for the fast path of `respond`, which does the same in
        place.
        """
        if self._replies:
            self._replies.pop(call.stream_id, None)
        route = call.header.route
        if route is not None:
            count_end(route.handled, code)
        now = self._clock()
        if self._recorder is not None:
            self._recorder.tell(call, code, text, reply, now)
        if call.began_s <= now - self._told_s:
            self._ends.tell(call, code, text, reply, now)

    def _prepare_answer(self) -> None:
        """Makes the frames of the fast path once both blocks no longer change the table."""
        if self._answer is not None:
            return
        encoder = self.encoder
        if encoder.settled(_RESPONSE) and encoder.settled(_OK_TRAILERS):
            self._answer = _Answer(encoder.encode(_RESPONSE), encoder.encode(_OK_TRAILERS))
            self._reply_bytes_max = self.settings.max_frame_size

    def _settings_changed(self) -> None:
        self._answer = None

    def _begin(self, stream: Stream) -> None:
        stream.headers_sent = True
        self._send_headers(stream, _RESPONSE, ends=False)

    def begin(self, stream: Stream, metadata: Metadata) -> None:
        """Stream.begin: sends only the header."""
        stream.headers_sent = True
        self._send_headers(stream, [*_RESPONSE, *metadata], ends=False)
        self._wake()

    def send(self, stream: Stream, message: bytes) -> None:
        """Stream.send."""
        if not stream.headers_sent:
            self._begin(stream)
        self._send_message(stream, message)
        stream.sent_bytes += len(message)
        stream.route.msg_sent += 1
        if not self._awake:
            self._wake()

    def send_framed(self, stream: Stream, framed: bytes, count: int) -> None:
        """Stream.send_framed."""
        if not stream.headers_sent:
            self._begin(stream)
        self._send_data(stream, framed)
        stream.sent_bytes += len(framed) - 5 * count
        stream.route.msg_sent += count
        if not self._awake:
            self._wake()

    def send_shared(self, stream: Stream, head: bytes, pieces: list[bytes]) -> None:
        """Stream.send_shared."""
        if not stream.headers_sent:
            self._begin(stream)
        self._send_pieces(stream, head, pieces)
        stream.sent_bytes += len(head) + len(pieces[0]) * (len(pieces) - 1) + len(pieces[-1])
        stream.route.msg_sent += 1
        if not self._awake:
            self._wake()

    def finish(self, call: Call, code: int, text: str, metadata: Metadata = ()) -> None:
        """Call.fail and Stream.finish: trailers, alone when nothing was sent before."""
        if call.stream_id in self._replies:
            self.drop(call, code, text)  # the message is begun and will not be whole
            return
        call.done = True
        awake, self._awake = self._awake, True
        self.streams[call.stream_id] = call
        trailers: list[Header] = [(b"grpc-status", b"%d" % code)]
        if text:
            trailers.append((b"grpc-message", status.encode_text(text)))
        trailers.extend(metadata)
        if not (isinstance(call, Stream) and call.headers_sent):
            trailers = [*_RESPONSE, *trailers]
        self._end_stream(call, trailers)
        self._end_turn(awake)
        self._ended(call, code, text)

    def drop(self, call: Call, code: int, text: str) -> None:
        """Stream.drop."""
        raise NotImplementedError

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
        self._ended(call, code, text)

    def _sent_end(self, stream: Http2Stream) -> None:
        if stream.state == states.HALF_CLOSED_LOCAL:
            # The client may still be sending; it is told to stop with NO_ERROR (RFC 9113 §8.1).
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
