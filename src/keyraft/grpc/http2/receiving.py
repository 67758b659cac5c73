"""Handles each received frame (RFC 9113 §5, §6).

Invariants: header blocks are decoded in the order of the wire, even for refused streams;
`inbound_bytes` is the sum of all inboxes; an ended stream is in no table, except for the memory of
resets.
"""

from __future__ import annotations

from math import inf

from keyraft.grpc.limits import (
    BLOCK_BYTES_PER_WORK,
    DATA_BYTES_PER_WORK,
    FRAME_WORK,
    LOST_WORK,
    STREAMS_PER_WORK,
    Limits,
)

from . import frames, states
from .errors import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    ConnectionFault,
    HpackError,
    StreamFault,
)
from .field_block import UnfinishedBlock
from .floods import Floods
from .goaway import DRAIN_PING, Goaway
from .hpack import HpackDecoder, HpackEncoder
from .output import Output
from .stream import Http2Stream, ResetStreams, StreamInbox


class Receiving(Output):
    """Frames in; `Connection` feeds them and tells the time. Raises ConnectionFault."""

    is_client = False

    def __init__(self, limits: Limits, encoder: HpackEncoder) -> None:
        super().__init__(limits, encoder)
        self.closed = False
        self.close_reason = ""
        self.now = 0.0

        self.decoder = HpackDecoder(limits.header_list_bytes_max)
        self._unfinished: UnfinishedBlock | None = None  # a field block that CONTINUATION goes on

        self.streams: dict[int, Http2Stream] = {}
        self._was_reset = ResetStreams()
        self.last_peer_stream = 0  # highest stream that the peer opened
        self.next_stream = 1  # the next that we open (client)

        self._recv_window = limits.connection_window_bytes
        self._recv_unacked = 0
        self.inbound_bytes = 0
        self._due: dict[Http2Stream, StreamInbox] = {}  # with messages left when a slice ended

        self.goaway = Goaway()
        self.floods = Floods(limits)
        self.handshake_by = inf  # when the peer's SETTINGS must have come

    # --- what a subclass adds -------------------------------------------------------------------

    def _headers(self, stream_id: int, block: bytes, ends: bool) -> None:
        raise NotImplementedError

    def _messages(self, stream: Http2Stream, inbox: StreamInbox) -> None:
        """Delivers the messages in `inbox`, as far as the receiver takes them."""
        raise NotImplementedError

    def _remote_end(self, stream: Http2Stream) -> None:
        """END_STREAM came, after the last DATA was put into the inbox."""
        raise NotImplementedError

    def _inbox_ended(self, stream: Http2Stream, inbox: StreamInbox) -> None:
        """All messages before the end of a paused stream have been delivered."""
        raise NotImplementedError

    def _stream_lost(self, stream: Http2Stream, reset_code: int, by_peer: bool) -> None:
        """The stream ended by RST_STREAM, or with the connection; it is already forgotten."""
        raise NotImplementedError

    def _ping_received(self, provoked: bool) -> None:
        """A PING that is not an acknowledgement; raises ConnectionFault when they are too many.

        `provoked`: we sent HEADERS or DATA since the one before.
        """

    def _goaway_from_peer(self, last_stream: int, code: int, text: bytes) -> None:
        """The peer opens no more streams (server) or takes no more (client)."""

    def _settings_changed(self) -> None:
        """The peer's settings have been applied."""

    # --- frames ---------------------------------------------------------------------------------

    def _check_size(self, length: int) -> None:
        """Checks a frame's size; our SETTINGS_MAX_FRAME_SIZE is always the default."""
        if length > frames.FRAME_BYTES_DEFAULT:
            raise ConnectionFault(FRAME_SIZE_ERROR, "a frame above SETTINGS_MAX_FRAME_SIZE")

    def _frame(
        self, kind: int, flags: int, stream_id: int, data: bytes, start: int, stop: int
    ) -> None:
        """One whole frame, whose payload is data[start:stop]."""
        self._check_size(stop - start)
        self.work += FRAME_WORK + (stop - start) // DATA_BYTES_PER_WORK
        unfinished = self._unfinished
        if unfinished is not None and (
            kind != frames.CONTINUATION or stream_id != unfinished.stream_id
        ):
            raise ConnectionFault(PROTOCOL_ERROR, "a header block is interrupted")
        if not self.settings.received and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(PROTOCOL_ERROR, "the first frame is not SETTINGS")
        try:
            if kind == frames.DATA:
                self._data_frame(flags, stream_id, data[start:stop])
            elif kind == frames.HEADERS:
                self._headers_frame(flags, stream_id, data[start:stop])
            elif kind == frames.WINDOW_UPDATE:
                self._window_update_frame(stream_id, data[start:stop])
            elif kind == frames.PING:
                self._ping_frame(flags, stream_id, data[start:stop])
            elif kind == frames.SETTINGS:
                self._settings_frame(flags, stream_id, data[start:stop])
            elif kind == frames.RST_STREAM:
                self._rst_stream_frame(stream_id, data[start:stop])
            elif kind == frames.CONTINUATION:
                self._continuation_frame(flags, stream_id, data[start:stop])
            elif kind == frames.GOAWAY:
                self._goaway_frame(stream_id, data[start:stop])
            elif kind == frames.PRIORITY:
                self._priority_frame(stream_id, data[start:stop])
            elif kind == frames.PUSH_PROMISE:
                raise ConnectionFault(PROTOCOL_ERROR, "a push, which nobody allowed")
            else:  # RFC 9113 §5.5: unknown types are ignored
                self.floods.odd_frames.spend(self.now)
        except StreamFault as fault:
            self._fault(fault)

    def _fault(self, fault: StreamFault) -> None:
        """Answers a stream error with RST_STREAM."""
        self.floods.stream_faults.spend(self.now)
        stream = self.streams.get(fault.stream_id)
        if stream is None:
            if self._state_of(fault.stream_id) == states.IDLE:  # an idle stream cannot be reset
                raise ConnectionFault(fault.code, fault.text)
            self._out.append(frames.rst_stream(fault.stream_id, fault.code))
            self._was_reset.add(fault.stream_id)
        else:
            self._reset(stream, fault.code)
            self._stream_lost(stream, fault.code, by_peer=False)

    def _state_of(self, stream_id: int) -> int:
        """The state of a stream that is not in `streams`."""
        if stream_id in self._was_reset:
            return states.RESET
        ours = (stream_id & 1) == (1 if self.is_client else 0)
        highest = self.next_stream - 1 if ours else self.last_peer_stream
        return states.CLOSED if stream_id <= highest else states.IDLE

    def _step(self, stream_id: int, event: int) -> Http2Stream | None:
        """The state table's answer to a received frame; None: ignore it."""
        if stream_id == 0:
            raise ConnectionFault(PROTOCOL_ERROR, "a stream's frame on stream 0")
        stream = self.streams.get(stream_id)
        state = self._state_of(stream_id) if stream is None else stream.state
        following, verdict = states.receive(state, event)
        if verdict == states.ACCEPT and stream is not None:
            stream.state = following
            return stream
        if verdict == states.IGNORE:
            if state == states.RESET and following == states.CLOSED:
                self._was_reset.pop(stream_id, None)
            return None
        if verdict >= states.CONNECTION:
            raise ConnectionFault(
                verdict - states.CONNECTION, "a frame that the stream's state forbids"
            )
        raise StreamFault(stream_id, verdict, "a frame that the stream's state forbids")

    def _headers_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(PROTOCOL_ERROR, "HEADERS on stream 0")
        start, stop = 0, len(payload)
        if flags & frames.PADDED:
            if not payload:
                raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS too short")
            start, stop = 1, stop - payload[0]
        depends_on_itself = False
        if flags & frames.PRIORITY_FLAG:
            dependency = int.from_bytes(payload[start : start + 4], "big")
            depends_on_itself = dependency & frames.STREAM_ID_MAX == stream_id
            start += 5
        if start > stop:
            raise ConnectionFault(PROTOCOL_ERROR, "padding longer than its frame")
        ends = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self._whole_block(stream_id, payload[start:stop], ends)
        else:
            self._unfinished = UnfinishedBlock(stream_id, payload[start:stop], ends)
        if depends_on_itself:
            raise StreamFault(stream_id, PROTOCOL_ERROR, "a stream that depends on itself")

    def _continuation_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        unfinished = self._unfinished
        if unfinished is None:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        unfinished.add(payload, self.limits)
        if flags & frames.END_HEADERS:
            self._unfinished = None
            self._whole_block(stream_id, bytes(unfinished.data), unfinished.ends_stream)

    def _whole_block(self, stream_id: int, block: bytes, ends: bool) -> None:
        if len(block) > self.limits.header_block_bytes_max:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block above the limit")
        self.work += len(block) // BLOCK_BYTES_PER_WORK
        try:
            self._headers(stream_id, block, ends)
        except HpackError as error:
            raise ConnectionFault(COMPRESSION_ERROR, str(error)) from error

    def _data_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        length = len(payload)
        if stream_id == 0:
            raise ConnectionFault(PROTOCOL_ERROR, "DATA on stream 0")
        self._credit(length)
        if flags & frames.PADDED:
            if not length or payload[0] >= length:
                raise ConnectionFault(PROTOCOL_ERROR, "padding longer than its frame")
            payload = payload[1 : length - payload[0]]
        ends = flags & frames.END_STREAM
        if not payload and not ends:
            self.floods.empty_frames.spend(self.now)
        stream = self._step(stream_id, states.DATA_END if ends else states.DATA)
        if stream is None:
            return
        inbox = stream.inbox
        if inbox is None:
            inbox = stream.inbox = StreamInbox(self.limits.stream_window_bytes)
        inbox.window_left -= length
        if inbox.window_left < 0:
            raise StreamFault(stream_id, FLOW_CONTROL_ERROR, "DATA beyond the stream's window")
        inbox.received_bytes += len(payload)
        inbox.data += payload
        self.inbound_bytes += len(payload)
        if not inbox.paused and not inbox.due:
            self._messages(stream, inbox)
        if ends and stream.inbox is inbox:
            self._remote_end(stream)
        elif stream.inbox is inbox and not inbox.paused and not inbox.due:
            self._grant(stream, inbox)

    def _leave(self, stream: Http2Stream, inbox: StreamInbox) -> bool:
        """Whether the slice is over, so that the inbox's next message waits for the next slice."""
        if self.work < self.limits.slice_work:
            return False
        inbox.due = True
        self._due[stream] = inbox
        return True

    def _drop_inbox(self, stream: Http2Stream) -> None:
        inbox = stream.inbox
        if inbox is not None:
            self.inbound_bytes -= inbox.held_bytes()
            stream.inbox = None

    def _credit(self, length: int) -> None:
        """Gives back connection window in large steps, whichever stream the bytes were for."""
        self._recv_unacked += length
        if self._recv_unacked * 2 > self._recv_window:
            if self._recv_unacked > self._recv_window:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "DATA beyond the connection's window")
            self._out.append(frames.window_update(0, self._recv_unacked))
            self._recv_unacked = 0

    def _grant(self, stream: Http2Stream, inbox: StreamInbox) -> None:
        """Gives back stream window, while the peer may still send."""
        used = self.limits.stream_window_bytes - inbox.window_left
        if used * 2 > self.limits.stream_window_bytes and stream.state in (
            states.OPEN,
            states.HALF_CLOSED_LOCAL,
        ):
            inbox.window_left += used
            self._out.append(frames.window_update(stream.stream_id, used))

    def _window_update_frame(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        self.floods.window_updates.spend(self.now)
        increment = int.from_bytes(payload, "big") & frames.WINDOW_MAX
        if stream_id == 0:
            if increment == 0:
                raise ConnectionFault(PROTOCOL_ERROR, "a window update of zero")
            self.send_window += increment
            if self.send_window > frames.WINDOW_MAX:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "the connection's window overflows")
            self._pump_waiting()
            return
        stream = self._step(stream_id, states.WINDOW_UPDATE)
        if increment == 0:
            raise StreamFault(stream_id, PROTOCOL_ERROR, "a window update of zero")
        if stream is None:
            return
        stream.send_window += increment
        if stream.send_window > frames.WINDOW_MAX:
            raise StreamFault(stream_id, FLOW_CONTROL_ERROR, "the stream's window overflows")
        if stream.queue is not None:
            self._pump(stream)

    def _ping_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "PING of a wrong size")
        if flags & frames.ACK:
            if payload == DRAIN_PING and self.goaway.final_at != inf:
                self._finish_drain()
            return
        # gRPC-Go sends a ping after our frames to measure bandwidth; other pings are counted.
        provoked, self._sent_since_ping = self._sent_since_ping, False
        if not provoked:
            self.floods.pings.spend(self.now)
        self._out.append(frames.ping(payload, frames.ACK))
        self._ping_received(provoked)

    def _settings_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(FRAME_SIZE_ERROR, "an acknowledgement with a payload")
            self.settings.confirmed()
            return
        if len(payload) % 6:
            raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        self.floods.settings.spend(self.now)
        self.settings.received = True
        self.handshake_by = inf
        for identifier, value in frames.parse_settings(payload):
            self._apply_setting(identifier, value)
        self._out.append(frames.SETTINGS_ACK)
        self._settings_changed()
        self._pump_waiting()

    def _apply_setting(self, identifier: int, value: int) -> None:
        settings = self.settings
        before = settings.initial_window_size
        settings.apply(identifier, value, self.is_client)
        if identifier == frames.SETTINGS_HEADER_TABLE_SIZE:
            self.encoder.limit(value)
        elif identifier == frames.SETTINGS_INITIAL_WINDOW_SIZE:
            self.work += len(self.streams) // STREAMS_PER_WORK
            for stream in self.streams.values():
                stream.send_window += value - before
                if stream.send_window > frames.WINDOW_MAX:
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "a stream's window overflows")
                if stream.queue is not None and stream.send_window > 0:
                    self._waiting[stream.stream_id] = stream

    def _rst_stream_frame(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        self.floods.resets.spend(self.now)
        stream = self._step(stream_id, states.RST_STREAM)
        if stream is not None:
            self.work += LOST_WORK
            self._forget(stream)
            self._stream_lost(stream, int.from_bytes(payload, "big"), by_peer=True)

    def _goaway_frame(self, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "GOAWAY of a wrong size")
        self.floods.odd_frames.spend(self.now)
        self.goaway.received = True
        last = int.from_bytes(payload[:4], "big") & frames.STREAM_ID_MAX
        self._goaway_from_peer(last, int.from_bytes(payload[4:8], "big"), payload[8:])

    def _priority_frame(self, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(PROTOCOL_ERROR, "PRIORITY on stream 0")
        self.floods.odd_frames.spend(self.now)
        if len(payload) != 5:
            raise StreamFault(stream_id, FRAME_SIZE_ERROR, "PRIORITY of a wrong size")
        if int.from_bytes(payload[:4], "big") & frames.STREAM_ID_MAX == stream_id:
            raise StreamFault(stream_id, PROTOCOL_ERROR, "a stream that depends on itself")

    # --- settings and window of our own ------------------------------------------------------------

    def _send_preface(self, values: list[tuple[int, int]]) -> None:
        """Sends our SETTINGS, and raises the connection's window to the configured size."""
        self._out.append(frames.settings(values))
        self.settings.sent()
        if self._recv_window > frames.WINDOW_DEFAULT:
            increment = self._recv_window - frames.WINDOW_DEFAULT
            self._out.append(frames.window_update(0, increment))

    # --- the end of streams ---------------------------------------------------------------------

    def _reset(self, stream: Http2Stream, code: int) -> None:
        """Sends RST_STREAM and removes the stream; frames still under way will be dropped."""
        self._out.append(frames.rst_stream(stream.stream_id, code))
        self._was_reset.add(stream.stream_id)
        stream.state = states.RESET
        self._forget(stream)

    def _forget(self, stream: Http2Stream) -> None:
        """Removes an ended stream from all tables."""
        self.streams.pop(stream.stream_id, None)
        self._waiting.pop(stream.stream_id, None)
        self._drop_inbox(stream)
        if stream.queue is not None:
            self.queued_bytes -= stream.queue.bytes
            stream.queue = None
        if not self.streams and self.goaway.is_final:
            self._drained()

    def _drained(self) -> None:
        if not self.closed:
            self.closed = True
            self.close_reason = "drained"
            self._wake()

    def _finish_drain(self) -> None:
        self._out.append(self.goaway.settled(self.last_peer_stream))
        if not self.streams:
            self._drained()
