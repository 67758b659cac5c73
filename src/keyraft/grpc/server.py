"""The server's end of a connection: requests to handlers, answers to frames.

The fast path: a unary request with a remembered header block, whose DATA frame follows in the same
read, is handed to its handler without an object for a frame, a header or a task. All others go
through `Connection._frame` and `requests`. Both paths give the same result for the same bytes,
which tests check by feeding byte by byte.
"""

from __future__ import annotations

from typing import Final

from keyraft.base.errors import EtcdError, PostponedError, RawError

from .calls import Call, Stream
from .http2 import frames, states
from .http2.errors import (
    PROTOCOL_ERROR,
    ConnectionFault,
    StreamFault,
)
from .limits import (
    BLOCK_BYTES_PER_WORK,
    DATA_BYTES_PER_WORK,
    FRAME_WORK,
    MESSAGE_WORK,
    REQUEST_WORK,
    STREAM_BATCH_MESSAGES_MAX,
)
from .postponing import postpone
from .requests import Requests
from .route import BIDI_STREAM, StreamHandler

_FRAME_WORD_MAX: Final = frames.FRAME_BYTES_DEFAULT << 8 | 0xFF


class ServerConnection(Requests):
    """One client's connection; requests take the fast path as far as possible."""

    def _parse(self, data: bytes) -> int:
        pos, end = 0, len(data)
        self._told_before = self.now - self._told_s
        if self._recorder is not None:
            self._recorder.soon()
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
        blocks, streams, limits = self._field_blocks.known, self.streams, self.limits
        output_bytes_max = limits.output_bytes_max
        recv_bytes_due = self._recv_window // 2
        message_bytes_max = min(
            limits.message_bytes_max, frames.FRAME_BYTES_DEFAULT - 5, limits.stream_window_bytes - 5
        )
        slice_work = limits.slice_work
        settings, goaway = self.settings, self.goaway
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
            kind = word & 0xFF
            if (
                kind == frames.HEADERS
                and flags == frames.END_HEADERS
                and self.last_peer_stream < stream_id <= frames.STREAM_ID_MAX
                and stream_id & 1
                and word <= _FRAME_WORD_MAX
                and self._unfinished is None
                and settings.received
            ):
                block = data[pos + 9 : stop]
                found = blocks.get(block)
                if found is None:
                    self.work += len(block) // BLOCK_BYTES_PER_WORK
                    found = self._field_blocks.decode(block)
                header, timeout_s = found
                self.work += REQUEST_WORK
                self.last_peer_stream = stream_id
                pos = stop
                route = header.unary
                if (
                    route is None
                    or len(streams) >= self._streams_max
                    or self.queued_bytes > limits.outbound_bytes_max
                    or goaway.sent
                ):
                    try:
                        self._request(header, timeout_s, stream_id, False)
                    except StreamFault as fault:
                        self._fault(fault)
                    continue
                call = Call(
                    self,
                    stream_id,
                    states.OPEN,
                    settings.initial_window_size,
                    header,
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
                        and (header.content_length is None or header.content_length == length + 5)
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
                    header = waiting.header
                    size = word >> 8
                    packed, length = unpack_prefix(data, pos + 9)
                    if (
                        length == size - 5
                        and packed == 0
                        and length <= message_bytes_max
                        and waiting.inbox is None
                        and not waiting.done
                        and header.unary is not None
                        and self._unfinished is None
                        and (header.content_length is None or header.content_length == size)
                    ):
                        self.work += FRAME_WORK + size // DATA_BYTES_PER_WORK
                        self._recv_unacked += size
                        if self._recv_unacked > recv_bytes_due:
                            self._credit(0)
                        self._unary(waiting, header.unary, data[pos + 14 : stop])
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
        """Takes consecutive messages of a stream; returns where the first frame not taken begins.

        Each is complete in a DATA frame of its own; all others are left to the general path.
        """
        inbox = stream.inbox
        route = stream.route
        handler = stream.handler
        if (
            inbox is None
            or handler is None
            or inbox.paused
            or inbox.data
            or stream.done
            or stream.state not in (states.OPEN, states.HALF_CLOSED_LOCAL)
            or route.kind != BIDI_STREAM
            or self._unfinished is not None
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
            # Requests of one kind have frames of one size, so the bytes of their headers are the
            # same.
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
        self.work += REQUEST_WORK + MESSAGE_WORK * taken
        inbox.window_left -= bytes_taken
        inbox.received_bytes += bytes_taken
        inbox.messages += taken
        stream.received_bytes += bytes_taken - 5 * taken
        route.msg_received += taken
        self._credit(bytes_taken)
        if inbox.window_left * 2 < self.limits.stream_window_bytes:
            if stream.inbox is inbox and not inbox.paused:
                self._grant(stream, inbox)
        return stops[taken - 1]

    def _hand_over(self, stream: Stream, handler: StreamHandler, messages: list[bytes]) -> int:
        """Gives messages to their handler; returns how many it took, at least one."""
        try:
            if len(messages) > 1 and stream.takes_many is not None:
                return stream.takes_many(messages)
            handler.on_message(messages[0])
        except PostponedError as later:  # raised only for the first one
            postpone(stream, messages[0], later, self._unary)
        except (EtcdError, RawError) as error:
            self.finish(stream, error.code, error.text)
        return 1
