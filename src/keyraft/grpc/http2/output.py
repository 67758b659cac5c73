"""The sending half of a connection: output, flow control, and the order of sending.

Output waits in three places. `_out` is for the socket now; it is taken once per turn. Send queues
hold DATA that a window does not admit. Streams in `_waiting` have window of their own, and wait for
the connection's window, for the socket (`pause_output`), for `_out` to be taken when it holds
`output_bytes_max`, or for the connection's next slice. So a client that reads slowly cannot fill
the memory, and one with many small frames cannot hold others up.

Invariants: no window goes below zero by our sending; `queued_bytes` is the sum of all send queues;
a stream in `_waiting` has a queue; frames of one stream leave in the order they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, cast

from keyraft.grpc.limits import DATA_BYTES_PER_WORK, FRAME_WORK, Limits

from . import frames, states
from .hpack import Header, HpackEncoder
from .settings import Settings
from .stream import Http2Stream, SendQueue

BULK_BYTES_MIN: Final = 65_536  # output with at least so many bytes is not joined
BULK_PIECE_BYTES_MIN: Final = 2_048  # if its pieces have so many on average
COPIED_BYTES_MAX: Final = frames.FRAME_BYTES_DEFAULT  # a chunk so small is copied


def _nothing() -> None:
    """The default of `on_output`."""


class Output:
    """What goes out. `on_output` is called when output appears while there was none."""

    def __init__(self, limits: Limits, encoder: HpackEncoder) -> None:
        self.limits = limits
        self.encoder = encoder
        self.on_output: Callable[[], None] = _nothing
        self.bytes_out = 0
        self._out: list[bytes] = []
        self._out_bytes = 0  # DATA in `_out`, as far as the limit needs it
        self._awake = False
        self._blocked = False  # the socket takes no more
        self.work = 0  # done in this slice
        self.send_window = frames.WINDOW_DEFAULT
        self.settings = Settings()  # the peer's
        self._waiting: dict[int, Http2Stream] = {}
        self.queued_bytes = 0
        self._sent_since_ping = False  # HEADERS or DATA went out since the peer's last PING

    def _forget(self, stream: Http2Stream) -> None:
        """Removes an ended stream from all tables."""
        raise NotImplementedError

    def _queue_drained(self, stream: Http2Stream) -> None:
        """The send queue was full and has room again."""
        raise NotImplementedError

    # --- taking ----------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self.on_output()

    def take_output(self) -> bytes:
        """The bytes to write now; the caller writes all of them."""
        data = b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        self._awake = False
        self.bytes_out += len(data)
        return data

    @property
    def bulky(self) -> bool:
        """Whether the output is in pieces so large that joining them costs more than it saves."""
        return self._out_bytes >= BULK_BYTES_MIN + BULK_PIECE_BYTES_MIN * len(self._out)

    def take_pieces(self) -> list[bytes]:
        """The same as `take_output` gives, not joined."""
        out, self._out = self._out, []
        self._out_bytes = 0
        self._awake = False
        self.bytes_out += sum(map(len, out))
        return out

    @property
    def has_output(self) -> bool:
        """Whether `take_output` would give anything."""
        return bool(self._out)

    @property
    def stalled(self) -> bool:
        """Whether parsing and sending wait: for the socket, for output to be taken, or for the
        next slice."""
        return (
            self._blocked
            or self._out_bytes >= self.limits.output_bytes_max
            or self.work >= self.limits.slice_work
        )

    def pause_output(self) -> None:
        """The socket's buffer is full: no more DATA, no more parsing, until `resume_output`."""
        self._blocked = True

    # --- sending --------------------------------------------------------------------------------

    def _send_headers(self, stream: Http2Stream, fields: Iterable[Header], ends: bool) -> None:
        self._sent_since_ping = True
        block = self.encoder.encode(fields)
        flags = frames.END_STREAM if ends else 0
        self._out.append(
            frames.header_block(stream.stream_id, block, flags, self.settings.max_frame_size)
        )
        stream.state = states.send(stream.state, states.HEADERS_END if ends else states.HEADERS)

    def _send_message(self, stream: Http2Stream, message: bytes) -> None:
        """One gRPC message as DATA: at once where windows and socket admit it whole."""
        size = len(message) + 5
        if (
            stream.queue is None
            and size <= self.send_window
            and size <= stream.send_window
            and size <= self.settings.max_frame_size
            and not self._blocked
            and self._out_bytes < self.limits.output_bytes_max
        ):
            self._sent_since_ping = True
            self.send_window -= size
            stream.send_window -= size
            self._out_bytes += size
            self._out.append(
                frames.MESSAGE_HEADER.pack(size << 8, 0, stream.stream_id, 0, size - 5)
            )
            self._out.append(message)
            return
        self._send_data(stream, b"\0" + (size - 5).to_bytes(4, "big") + message)

    def _send_data(self, stream: Http2Stream, chunk: bytes) -> None:
        """Sends DATA at once where all may go; else it waits in the stream's queue."""
        queue = stream.queue
        if queue is None:
            size = len(chunk)
            if (
                size <= self.send_window
                and size <= stream.send_window
                and 0 < size <= self.settings.max_frame_size
                and not self._blocked
                and self._out_bytes < self.limits.output_bytes_max
            ):
                self._sent_since_ping = True
                self.send_window -= size
                stream.send_window -= size
                self._out_bytes += size
                self._out.append(frames.HEADER.pack(size << 8, 0, stream.stream_id))
                self._out.append(chunk)
                return
            queue = stream.queue = SendQueue()
        if len(chunk) > COPIED_BYTES_MAX:
            chunk = cast("bytes", memoryview(chunk))  # frames are cut out of it, not copied
        queue.chunks.append(chunk)
        self._queued(stream, queue, len(chunk))

    def _queued(self, stream: Http2Stream, queue: SendQueue, size: int) -> None:
        queue.bytes += size
        self.queued_bytes += size
        if queue.bytes >= self.limits.stream_queue_bytes:
            queue.full = True
        self._pump(stream)

    def _send_pieces(self, stream: Http2Stream, head: bytes, pieces: list[bytes]) -> None:
        """One gRPC message, head and pieces: a frame for each piece, none of which is copied.

        All pieces but the last are of one size, and the last is not larger.
        """
        piece_bytes = len(pieces[0])
        size = len(head) + piece_bytes * (len(pieces) - 1) + len(pieces[-1])
        first = frames.PREFIX.pack(0, size) + head
        size += 5
        stream_id = stream.stream_id
        if (
            stream.queue is None
            and size <= self.send_window
            and size <= stream.send_window
            and len(first) + piece_bytes <= self.settings.max_frame_size
            and not self._blocked
            and self._out_bytes < self.limits.output_bytes_max
        ):
            self._sent_since_ping = True
            self.send_window -= size
            stream.send_window -= size
            self._out_bytes += size
            out = self._out
            pack = frames.HEADER.pack
            out.append(pack(len(first) + piece_bytes << 8, 0, stream_id) + first)
            out.append(pieces[0])
            if len(pieces) > 1:
                between = [pack(piece_bytes << 8, 0, stream_id)] * (2 * len(pieces) - 2)
                between[1::2] = pieces[1:]
                between[-2] = pack(len(pieces[-1]) << 8, 0, stream_id)
                out += between
            return
        queue = stream.queue
        if queue is None:
            queue = stream.queue = SendQueue()
        queue.chunks.append(first)
        queue.chunks.extend(pieces)
        self._queued(stream, queue, size)

    def _end_stream(self, stream: Http2Stream, trailers: list[Header] | None) -> None:
        """Ends our half, after everything queued."""
        queue = stream.queue
        if queue is not None:
            queue.ends, queue.end = True, trailers
            self._pump(stream)
        elif trailers is not None:
            self._send_headers(stream, trailers, ends=True)
            self._sent_end(stream)
        else:
            self._out.append(frames.frame(frames.DATA, frames.END_STREAM, stream.stream_id, b""))
            stream.state = states.send(stream.state, states.DATA_END)
            self._sent_end(stream)

    def _sent_end(self, stream: Http2Stream) -> None:
        """Our half is closed; a server's stream is over then."""
        if stream.state == states.CLOSED:
            self._forget(stream)

    def _pump(self, stream: Http2Stream) -> None:
        """Sends of one stream's queue all that windows and socket admit."""
        while self._pump_frame(stream):
            pass

    def _pump_waiting(self) -> None:
        """Sends of all waiting queues in turn, a frame each."""
        waiting = self._waiting
        while waiting:
            stream_id = next(iter(waiting))
            stream = waiting.pop(stream_id)
            if stream.queue is not None and self._pump_frame(stream):
                waiting[stream_id] = stream  # to the end of the queue
            elif stream_id in waiting:
                return  # back in its place: no stream can send

    def _pump_frame(self, stream: Http2Stream) -> bool:
        """Sends one DATA frame of a queue; returns whether another may follow."""
        queue = stream.queue
        if queue is None:
            return False
        if queue.chunks:
            chunk = queue.chunks[0]
            size = min(
                len(chunk) - queue.offset,
                stream.send_window,
                self.settings.max_frame_size,
                frames.FRAME_BYTES_DEFAULT,
            )
            if size <= 0:
                return False  # until the stream's own window grows
            size = min(size, self.send_window)
            if size <= 0 or self.stalled:
                self._waiting[stream.stream_id] = stream
                return False
            piece = chunk[queue.offset : queue.offset + size]
            queue.offset += size
            if queue.offset == len(chunk):
                queue.chunks.popleft()
                queue.offset = 0
            queue.bytes -= size
            self.queued_bytes -= size
            self.work += FRAME_WORK + size // DATA_BYTES_PER_WORK
            self._sent_since_ping = True
            self.send_window -= size
            stream.send_window -= size
            self._out_bytes += size
            last = queue.ends and queue.end is None and not queue.chunks
            flags = frames.END_STREAM if last else 0
            self._out.append(frames.HEADER.pack(size << 8, flags, stream.stream_id))
            self._out.append(piece)
            if last:
                stream.queue = None
                stream.state = states.send(stream.state, states.DATA_END)
                self._sent_end(stream)
                return False
            if queue.chunks:
                return True
        self._waiting.pop(stream.stream_id, None)
        stream.queue = None
        if queue.ends:
            self._end_stream(stream, queue.end)
        elif queue.full:
            self._queue_drained(stream)
        return False
