"""The general path of answers: section by section and frame by frame, to their calls.

`client` has the fast path for complete OK answers; both give the same result.
"""

from __future__ import annotations

from collections.abc import Mapping

from keyraft.base import http_status
from keyraft.base.gotext import quote

from . import status
from .client_calls import ClientCall, ClientStream
from .client_field_blocks import ANSWER_PSEUDO, NO_PSEUDO, ResponseBlocks, is_grpc
from .field_validity import check_fields
from .http2 import states
from .http2.connection import Connection
from .http2.errors import (
    CANCEL,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    ConnectionFault,
    StreamFault,
    code_name,
)
from .http2.hpack import HpackEncoder
from .http2.stream import Http2Stream, StreamInbox
from .limits import MESSAGE_WORK, Limits


class Responses(Connection):
    """The answers to the calls of one connection. `_over` ends each call, once."""

    is_client = True

    def __init__(self, limits: Limits, encoder: HpackEncoder) -> None:
        super().__init__(limits, encoder)
        self._response_blocks = ResponseBlocks(self.decoder)

    def _after_call(self) -> None:
        """A call has ended, and a stream may be free."""
        raise NotImplementedError

    def _headers(self, stream_id: int, block: bytes, ends: bool) -> None:
        fields = self._response_blocks.fields(stream_id, block)
        if stream_id & 1 == 0 or self._state_of(stream_id) == states.IDLE:
            raise ConnectionFault(PROTOCOL_ERROR, "a stream that we did not open")
        event = states.HEADERS_END if ends else states.HEADERS
        stream = self._step(stream_id, event)
        if stream is None:
            return
        assert isinstance(stream, ClientCall)
        if stream.answered:
            if not ends or check_fields(fields, NO_PSEUDO) is not None:
                raise StreamFault(stream_id, PROTOCOL_ERROR, "malformed trailers")
            self._ends(stream, dict(reversed(fields)))
            return
        fault = check_fields(fields, ANSWER_PSEUDO)
        values = dict(reversed(fields))
        http_text = values.get(b":status", b"")
        if fault is not None or len(http_text) != 3 or not http_text.isdigit():
            raise StreamFault(stream_id, PROTOCOL_ERROR, fault or "an answer without :status")
        if http_text[:1] == b"1":
            if ends:
                raise StreamFault(stream_id, PROTOCOL_ERROR, "an interim answer that ends")
            return
        stream.answered = True
        if b"grpc-status" in values and ends:
            self._ends(stream, values)
        elif http_text != b"200" or not is_grpc(values):
            self._not_grpc(stream, http_text, values)
        elif ends:
            self._ends(stream, values)

    def _not_grpc(self, call: ClientCall, http_text: bytes, values: dict[bytes, bytes]) -> None:
        """An answer from something that is no gRPC server (a proxy, an HTTP/1 handler)."""
        number = int(http_text)
        code = status.from_http_status(number)
        if number != http_status.OK:
            text = f"unexpected HTTP status code received from server: {number}"
        else:
            content_type = values.get(b"content-type", b"")
            text = f"unexpected content-type {quote(content_type)}"
        if call.stream_id in self.streams:
            self._reset(call, CANCEL)
        self._over(call, code, text, values)

    def _messages(self, stream: Http2Stream, inbox: StreamInbox) -> None:
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
            self._reset(stream, NO_ERROR)  # nothing more needs to be sent
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
            code = status.from_reset_code(reset_code)
            late = stream.deadline_s is not None and stream.deadline_s <= self.now
            if code == status.CANCELLED and late:
                # The server saw the deadline first (grpc-go `handleRSTStream` says the same).
                code = status.DEADLINE_EXCEEDED
            self._over(stream, code, text, {})
        elif self.closed:
            self._over(stream, status.UNAVAILABLE, self.close_reason, {})
        else:
            text = f"stream error: {code_name(reset_code)}"
            self._over(stream, status.INTERNAL, text, {})

    def cancel(self, call: ClientCall, code: int, text: str) -> None:
        """Ends a call from this side."""
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
                stream.inbox = StreamInbox(self.limits.stream_window_bytes)
            stream.inbox.paused = True

    def resume_reading(self, stream: ClientStream) -> None:
        """ClientStream.resume_reading."""
        if not stream.over:
            self._resume_inbox(stream)

    def _inbox_ended(self, stream: Http2Stream, inbox: StreamInbox) -> None:
        assert isinstance(stream, ClientCall)
        self._finish(stream, inbox.trailers)

    def _queue_drained(self, stream: Http2Stream) -> None:
        if isinstance(stream, ClientStream) and not stream.over:
            stream.receiver.on_writable()
