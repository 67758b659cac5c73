"""The client's end of a connection: calls to frames, answers to callbacks.

Each call ends exactly once: with the answer, a reset, a GOAWAY, its deadline, its cancellation, or
the loss of the connection. Calls beyond the server's SETTINGS_MAX_CONCURRENT_STREAMS wait in a
queue, without a stream.

The fast path takes a whole answer that comes in one piece, if its field blocks are known to be
those of an OK answer. All others go through `Connection._frame` and `responses`; both give the same
result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from . import status
from .client_calls import ClientCall, ClientReceiver, ClientStream, Done, Metadata
from .client_field_blocks import RequestBlocks, timeout_literal
from .http2 import frames, states
from .http2.errors import NO_ERROR, code_name
from .http2.hpack import Header, HpackEncoder
from .limits import LOST_WORK, REQUEST_WORK, Limits
from .responses import Responses
from .waiting_calls import WaitingCalls

_INDEXED: Final[frozenset[bytes | Header]] = frozenset(
    (b":authority", b":path", b"content-type", b"user-agent", b"te", b"hasleader")
)
_SECRET: Final = frozenset((b"authorization", b"token"))


class ClientConnection(Responses):
    """One connection to a server.

    `draining` says that it takes no new calls (GOAWAY, or no stream numbers left);
    `keepalive_without_calls` that keepalive pings go out also while nothing is under way.
    """

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
        super().__init__(limits, HpackEncoder(_INDEXED, _SECRET))
        self.now = now
        self.keepalive.heard(now)
        self.keepalive.always = keepalive_without_calls
        self.draining = False
        self.on_idle: Callable[[], None] | None = None
        self._waiting_calls = WaitingCalls()
        self._request_blocks = RequestBlocks(self.encoder, scheme, authority, user_agent)
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

    def _start(self, call: ClientCall) -> None:
        if self.closed or self.draining:
            call.over = call.unprocessed = True
            call.ended(status.UNAVAILABLE, self.close_reason or "the connection is draining", {})
            return
        if len(self.streams) >= self.settings.max_concurrent_streams or self._waiting_calls:
            self._waiting_calls.append(call)
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
        block = self._request_blocks.of(call.path, call.metadata)
        if call.deadline_s is not None:
            block += timeout_literal(call.deadline_s - self.now)
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
        while len(self.streams) < self.settings.max_concurrent_streams and not self.draining:
            call = self._waiting_calls.next_call()
            if call is None:
                return
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

    # --- the short way --------------------------------------------------------------------------

    def _parse(self, data: bytes) -> int:
        """As in the base class, but with the fast path for a small unary answer in one piece.

        Such an answer is a known header block, one DATA frame, and a known trailer block.
        """
        pos, end = 0, len(data)
        unpack, unpack_message = frames.HEADER.unpack_from, frames.MESSAGE_HEADER.unpack_from
        streams, limits = self.streams, self.limits
        headers, trailers = self._response_blocks.headers, self._response_blocks.trailers
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
                and data[pos + 9 : stop] in headers
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
                            and data[after + 9 : tail] in trailers
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
        """A call has ended: starts the next in the queue, or finishes draining."""
        if self._waiting_calls:
            self._next_in_line()
        if not self.streams:
            if self.draining and not self.closed:
                self._drained()
            elif self.on_idle is not None:
                self.on_idle()

    def _lose_all(self, code: int) -> None:
        super()._lose_all(code)
        self._dissolve_line()

    def _dissolve_line(self) -> None:
        for call in self._waiting_calls.take_all():
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

    def _expire(self, now: float) -> None:
        for stream_id in self.deadlines.due(now, self.limits.slice_work // LOST_WORK):
            call = self.streams.get(stream_id)
            if isinstance(call, ClientCall):
                self.cancel(call, status.DEADLINE_EXCEEDED, "context deadline exceeded")
        for call in self._waiting_calls.take_expired(now):
            self._over(call, status.DEADLINE_EXCEEDED, "context deadline exceeded", {})

    def next_deadline(self) -> float | None:
        return self._waiting_calls.next_deadline(super().next_deadline())

    def close(self, now: float) -> None:
        """Ends the connection; calls still open end with UNAVAILABLE."""
        self.now = now
        self.abort(NO_ERROR, "the client connection is closing")


def _no_reply(code: int, text: str, reply: bytes) -> None:
    """A stream's `done`, which is never called."""
