"""One HTTP/2 connection, the part both ends share: frames in, frames out, and every rule between.

Five verbs: feed (`receive`), tick (`tick`), deadline (`next_deadline`), take output
(`take_output`), and events, which are method calls on the subclass. Time only ever comes in as
`now`, in seconds of one monotonic clock. `receiving` has what each frame does, `output` what goes
out; which storey owns what is in docs/ARCHITECTURE.md, "The storeys of a connection".

Invariant: after `closed` nothing is parsed and nothing but what is already in the output is sent.
"""

from __future__ import annotations

from collections import deque
from math import inf

from keyraft.grpc.deadline import Deadlines
from keyraft.grpc.limits import Limits

from . import frames, states
from .errors import (
    CANCEL,
    INTERNAL_ERROR,
    NO_ERROR,
    ConnectionFault,
)
from .hpack import HpackEncoder
from .keepalive import OURS, Keepalive
from .receiving import Receiving
from .stream import Http2Stream, StreamInbox


class Connection(Receiving):
    """State and slow path; `ServerConnection` and `ClientConnection` add the calls.

    `on_output` is called when output appears while there was none; `closed` says that the socket
    is to be closed once the output is written, `close_reason` why.
    """

    def __init__(self, limits: Limits, encoder: HpackEncoder) -> None:
        super().__init__(limits, encoder)
        self.bytes_in = 0
        self.keepalive = Keepalive(limits)
        self.deadlines = Deadlines()  # of calls
        self._lost: deque[Http2Stream] = (
            deque()
        )  # ended with the connection; their handlers are not yet told
        self._pending = b""  # received, not yet parsed
        self._unseen = False  # whether whole frames may be in it

    # --- feeding --------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> int:
        """Handles whole frames from the start of `data`; returns the bytes used."""
        pos, end = 0, len(data)
        unpack = frames.HEADER.unpack_from
        while end - pos >= 9 and not self.stalled:
            word, flags, stream_id = unpack(data, pos)
            stop = pos + 9 + (word >> 8)
            if stop > end:
                self._check_size(word >> 8)
                break
            self._frame(word & 0xFF, flags, stream_id & frames.STREAM_ID_MAX, data, pos + 9, stop)
            pos = stop
        return pos

    def receive(self, data: bytes, now: float) -> None:
        """Takes bytes, split anywhere, and handles whole frames for one slice.

        `wants_turn` tells whether there is more to do.
        """
        self.work = 0
        if self.closed:
            return
        # The same as `hold`, written out because every read comes here.
        keepalive = self.keepalive
        keepalive.due = now + keepalive.interval_s
        keepalive.unanswered = False
        self.bytes_in += len(data)
        self._pending = self._pending + data if self._pending else data
        self._unseen = True
        self._advance(now)

    def hold(self, data: bytes, now: float) -> None:
        """Takes bytes and leaves them for the next slice."""
        if not self.closed:
            keepalive = self.keepalive
            keepalive.due = now + keepalive.interval_s
            keepalive.unanswered = False
            self.bytes_in += len(data)
            self._pending = self._pending + data if self._pending else data
            self._unseen = True

    @property
    def pending_bytes(self) -> int:
        """Received and not yet handled."""
        return len(self._pending)

    def _advance(self, now: float) -> None:
        if self.closed:
            return
        self.now = now
        awake, self._awake = self._awake, True
        data, self._pending = self._pending, b""
        try:
            if self._due:
                self._deliver_due()
            used = self._parse(data)
            self._pending = data[used:] if used else data
            self._unseen = bool(self._pending) and self.stalled
        except ConnectionFault as fault:
            self._die(fault.code, fault.text)
        self._end_turn(awake)

    def _resume_inbox(self, stream: Http2Stream) -> None:
        """Resumes delivery: of messages that came meanwhile, then of the end, or gives window."""
        inbox = stream.inbox
        if inbox is None or not inbox.paused:
            return
        inbox.paused = False
        awake, self._awake = self._awake, True
        self._deliver(stream, inbox)
        self._end_turn(awake)

    def _deliver(self, stream: Http2Stream, inbox: StreamInbox) -> None:
        self._messages(stream, inbox)
        if stream.inbox is inbox and not inbox.paused and not inbox.due:
            if inbox.half_closed:
                self._inbox_ended(stream, inbox)
            else:
                self._grant(stream, inbox)

    def _deliver_due(self) -> None:
        """Messages that were left when slices ended."""
        due, self._due = self._due, {}
        for stream, inbox in due.items():
            inbox.due = False
            if stream.inbox is inbox and not inbox.paused:
                self._deliver(stream, inbox)

    def _end_turn(self, awake: bool) -> None:
        self._awake = awake
        if not awake and (self._out or self.closed):
            self._awake = True
            self.on_output()

    @property
    def wants_resume(self) -> bool:
        """Whether `resume_output` has something to do once the output is taken."""
        return (
            not self.closed
            and (
                bool(self._waiting)
                or (self._unseen and len(self._pending) >= frames.HEADER_BYTES)
                or bool(self._due)
            )
        ) or bool(self._lost)

    @property
    def wants_turn(self) -> bool:
        """Whether work was left when the slice ended: `resume_output` begins the next slice."""
        return self.work >= self.limits.slice_work and not self._blocked and self.wants_resume

    def resume_output(self, now: float) -> None:
        """Continues waiting work, for one slice, when the socket or the turn allows it."""
        self._blocked = False
        self.work = 0
        if self.closed:
            return
        self.now = now
        awake, self._awake = self._awake, True
        self._pump_waiting()
        self._end_turn(awake)
        if (self._unseen or self._due) and not self.stalled:
            self._advance(now)

    def connection_lost(self, now: float) -> None:
        """The socket is gone; every stream ends."""
        self.now = now
        self.work = 0
        if not self.closed:
            self.closed = True
            self.close_reason = self.close_reason or "connection lost"
        self._out.clear()
        self._lose_all(CANCEL)

    def _lose_all(self, code: int) -> None:
        streams = list(self.streams.values())
        self.streams.clear()
        self._waiting.clear()
        self.queued_bytes = self.inbound_bytes = 0
        self._due.clear()
        for stream in streams:
            stream.queue = stream.inbox = None
            stream.state = states.CLOSED
        self._lose(streams, code)

    def _lose(self, streams: list[Http2Stream], code: int) -> None:
        """Ends streams that are already removed from `streams`."""
        for stream in streams:
            self._stream_lost(stream, code, by_peer=False)

    def _die(self, code: int, text: str) -> None:
        """Ends the connection with GOAWAY."""
        if self.closed:
            return
        self.closed = True
        self.close_reason = text
        self._pending = b""
        self._out.append(frames.goaway(self.last_peer_stream, code, text.encode("utf-8")))
        self._lose_all(code)

    def abort(self, code: int, text: str) -> None:
        """Ends the connection at once, for a reason at this end."""
        awake, self._awake = self._awake, True
        self._die(code, text)
        self._end_turn(awake)

    # --- time -----------------------------------------------------------------------------------

    def shutdown(self, now: float) -> None:
        """Graceful end: no new streams, the open ones finish (see `goaway`)."""
        if self.closed or self.goaway.sent:
            return
        self.now = now
        awake, self._awake = self._awake, True
        self._out.append(self.goaway.announced(now + self.limits.drain_grace_s))
        self._end_turn(awake)

    def tick(self, now: float) -> None:
        """Does what is due; call it at `next_deadline()` or later."""
        if self.closed:
            return
        self.now = now
        awake, self._awake = self._awake, True
        if now >= self.goaway.final_at:
            self._finish_drain()
        if now >= self.keepalive.due and (self.keepalive.always or self.streams):
            self._ping(now)
        if not self.closed:
            self._expire(now)
        self._end_turn(awake)

    def _expire(self, now: float) -> None:
        """Ends streams whose deadline has passed."""

    def _ping(self, now: float) -> None:
        if self.keepalive.unanswered:
            self._die(INTERNAL_ERROR if self.is_client else NO_ERROR, "keepalive timeout")
        else:
            self.keepalive.asked(now)
            self._out.append(frames.ping(OURS))

    def next_deadline(self) -> float | None:
        """When `tick` is due next; None: not at all."""
        if self.closed:
            return None
        due = self.goaway.final_at
        keepalive = self.keepalive
        if keepalive.due < due and (keepalive.always or self.streams):
            due = keepalive.due
        if self.handshake_by < due:
            due = self.handshake_by
        heap = self.deadlines.heap
        if heap and heap[0][0] < due:
            due = heap[0][0]
        return None if due == inf else due

    def check(self) -> None:
        """Asserts the invariants; for tests and verify runs."""
        if self.closed:
            assert not self.streams, len(self.streams)
            return
        self.decoder.table.check()
        self.encoder.table.check()
        queued = sum(s.queue.bytes for s in self.streams.values() if s.queue is not None)
        assert queued == self.queued_bytes, (queued, self.queued_bytes)
        inbound = sum(s.inbox.held_bytes() for s in self.streams.values() if s.inbox is not None)
        assert inbound == self.inbound_bytes, (inbound, self.inbound_bytes)
        assert self.send_window >= 0, self.send_window
        assert 0 <= self._recv_unacked <= self._recv_window, self._recv_unacked
        for stream_id, stream in self._waiting.items():
            assert self.streams.get(stream_id) is stream, stream_id
        for stream_id, stream in self.streams.items():
            assert stream.state not in (states.IDLE, states.CLOSED, states.RESET), stream_id
