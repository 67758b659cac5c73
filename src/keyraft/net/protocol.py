"""A socket and its HTTP/2 connection, for both ends.

Bytes are parsed when they arrive, up to one slice of work (`grpc.Limits.slice_work`). With the rest
the connection waits for its next turn (`Turns`) and is not read meanwhile. Output is collected:
every connection that has some is written once in each turn of the loop, by one `call_soon` for all
of them.

Time: a connection gets the time of an exact clock. The loop's clock may count whole milliseconds
(uvloop), and so be late. A timer may fire early; then it is set again. No deadline is applied
early: a client that gets DEADLINE_EXCEEDED while it has time left tries again, and its request is
carried out twice.

Back pressure: when the socket's buffer is above its mark, the connection gets `pause_output` and
the socket is not read. So a slow reader costs at most one buffer and its flow-control windows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar, cast

if TYPE_CHECKING:  # each end has its own class
    from keyraft.grpc import ClientConnection, ServerConnection

WRITE_BUFFER_BYTES: Final = 1_048_576  # the socket's backlog at which a connection is held
TURN_WORK: Final = 25_000  # of all connections in one turn of the loop, about 25 ms
HEAVY_WORK: Final = 5_000  # of it for connections that need more than a slice
LIGHT_BYTES_MAX: Final = 4_096  # waiting bytes; a connection with more counts as heavy
COALESCE_CONNECTIONS_MIN: Final = 8  # with output in one turn count as load
TIMER_TICKS_PER_S: Final = 1_000  # of the loop's timers
_FOREVER: Final = float("inf")

C = TypeVar("C", "ServerConnection", "ClientConnection")


class _Flushed(Protocol):
    def flush(self) -> None:
        """Writes the collected output."""


class Flusher:
    """The connections to be written at the end of this turn, and the turns of those to be read.

    While at least COALESCE_CONNECTIONS_MIN connections have output, writing waits for `hold_turns`
    more turns: under load this makes fewer and larger writes for a little latency. Zero turns it
    off.
    """

    __slots__ = ("_dirty", "_held", "_hold_turns", "_loop", "turns")

    def __init__(self, loop: asyncio.AbstractEventLoop, hold_turns: int = 0) -> None:
        self._loop = loop
        self._dirty: list[_Flushed] = []
        self._hold_turns = hold_turns
        self._held = 0
        self.turns = Turns(loop, self)

    def mark(self, protocol: _Flushed) -> None:
        """Has a connection flushed; once a turn is enough."""
        if not self._dirty:
            self._loop.call_soon(self._turn)
        self._dirty.append(protocol)

    def _turn(self) -> None:
        if self._held < self._hold_turns and len(self._dirty) >= COALESCE_CONNECTIONS_MIN:
            self._held += 1
            self._loop.call_soon(self._turn)
        else:
            self.flush()

    def flush(self) -> None:
        """Writes all marked connections."""
        self._held = 0
        dirty, self._dirty = self._dirty, []
        for protocol in dirty:
            protocol.flush()


class _Served(Protocol):
    """A connection that waits for its turn."""

    def serve(self) -> int:
        """Does one slice of the waiting work and returns how much that was.

        If more is left it queues itself again.
        """


class Turns:
    """The order in which waiting connections get their slices of work.

    A turn of the loop does about TURN_WORK for all connections together: first for arriving bytes,
    then for the queue. Heavy connections, which sent more than a slice of work, share HEAVY_WORK in
    each turn, in order. So a turn stays short, which matters because a put takes three or four of
    them. Light connections, which only came too late in a turn, all go on in the next.
    """

    __slots__ = ("_flusher", "_heavy", "_light", "_loop", "left", "scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, flusher: Flusher) -> None:
        self._loop = loop
        self._flusher = flusher
        self._light: deque[_Served] = deque()
        self._heavy: deque[_Served] = deque()
        self.left = TURN_WORK  # of this turn; what arrives is handled at once while there is some
        self.scheduled = False  # a new turn begins soon

    def charge(self, work: int) -> None:
        """Counts work that was done at once."""
        self.left -= work
        if not self.scheduled:
            self.schedule()

    def wait(self, served: _Served, heavy: bool) -> None:
        """Queues a connection that is not queued; `heavy`: one that needs more than a slice."""
        (self._heavy if heavy else self._light).append(served)
        if not self.scheduled:
            self.schedule()

    def schedule(self) -> None:
        """Has a new turn begin soon; whoever charges work and finds none scheduled calls it."""
        self.scheduled = True
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.scheduled = False
        self.left = TURN_WORK
        light, heavy = self._light, self._heavy
        if not light and not heavy:
            return
        floor = self.left - HEAVY_WORK
        for _ in range(len(heavy)):
            work = heavy.popleft().serve()  # it may call `charge` for requests it hands out
            self.left -= work
            if self.left <= floor:
                break
        for _ in range(len(light)):
            if self.left <= 0:
                break
            work = light.popleft().serve()
            self.left -= work
        if not self.scheduled:
            self.schedule()
        self._flusher.flush()


class Http2Protocol(asyncio.Protocol, Generic[C]):
    """The asyncio end of one connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        flusher: Flusher,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`clock` is the loop's, but exact."""
        self.loop = loop
        self.flusher = flusher
        self.turns = flusher.turns
        self.clock = clock
        self.connection: C | None = None
        self.transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _FOREVER
        self._paused = False
        self._queued = False  # waits for a turn
        self._plain = True

    def start(self, connection: C) -> None:
        """From here on the socket speaks HTTP/2."""
        self.connection = connection
        connection.on_output = partial(self.flusher.mark, self)
        if connection.has_output:
            self.flusher.mark(self)

    def lost(self, reason: str) -> None:
        """The socket is gone; for subclasses."""

    def time_up(self) -> None:
        """The timer fired before there was a connection; for subclasses."""

    # --- asyncio --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        # TLS would make a record of each piece.
        self._plain = transport.get_extra_info("sslcontext") is None

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        if connection is not None:
            self.take(connection, data)

    def take(self, connection: C, data: bytes) -> None:
        """Lets the connection handle arrived bytes: now, or when it has its turn."""
        turns = self.turns
        now = self.clock()
        if self._queued or turns.left <= 0:
            connection.hold(data, now)
            if not self._queued:
                self._wait(heavy=connection.pending_bytes > LIGHT_BYTES_MAX)
            return
        connection.receive(data, now)
        work = connection.work
        turns.left -= work  # as `charge` does
        if not turns.scheduled:
            turns.schedule()
        if work >= connection.limits.slice_work and connection.wants_turn:
            self._wait(heavy=True)
        self.arm()

    def _wait(self, heavy: bool) -> None:
        """Queues for a turn; until then nothing more is read."""
        self._queued = True
        if self.transport is not None:
            self.transport.pause_reading()
        self.turns.wait(self, heavy)

    def serve(self) -> int:
        """Does one slice of the waiting work (Turns)."""
        self._queued = False
        connection, transport = self.connection, self.transport
        assert connection is not None and transport is not None
        if self._paused and not connection.closed:
            return 0  # continues when the socket takes output again
        connection.resume_output(self.clock())
        if connection.wants_turn:
            self._wait(heavy=True)
        elif not transport.is_closing() and not self._paused:
            transport.resume_reading()
        if not connection.closed:
            self.arm()
        return max(connection.work, 1)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.cancel_timer()
        if self.connection is not None:
            self.connection.connection_lost(self.clock())
            if self.connection.wants_resume and not self._queued:
                self._wait(heavy=True)
        self.lost("" if exc is None else str(exc))

    def pause_writing(self) -> None:
        self._paused = True
        if self.connection is not None and self.transport is not None:
            self.connection.pause_output()
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self.connection is not None and self.transport is not None:
            if not self._queued:
                self._wait(heavy=False)

    # --- output ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Writes all output; called once per turn."""
        connection, transport = self.connection, self.transport
        if connection is None or transport is None:
            return
        if connection.bulky and self._plain:
            pieces = connection.take_pieces()
            if not transport.is_closing():
                transport.writelines(pieces)
        else:
            data = connection.take_output()
            if data and not transport.is_closing():
                transport.write(data)
        if connection.closed:
            transport.close()
        if connection.wants_resume and not self._paused and not self._queued:
            self._wait(heavy=True)

    # --- time -----------------------------------------------------------------------------------

    def arm(self) -> None:
        """Sets the timer, so that `tick` is called in time."""
        connection = self.connection
        assert connection is not None, "a timer for a connection that is not there"
        due = connection.next_deadline()
        if due is not None and due < self._timer_at:
            self.call_at(due)

    def call_at(self, due: float) -> None:
        """Moves the timer; it fires at most one tick of the loop early or late."""
        self.cancel_timer()
        self._timer_at = due
        ticks = max(ceil((due - self.clock()) * TIMER_TICKS_PER_S), 1)
        self._timer = self.loop.call_later(ticks / TIMER_TICKS_PER_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = _FOREVER
        if self.connection is None:
            self.time_up()
        else:
            self.connection.tick(self.clock())
            self.arm()

    def cancel_timer(self) -> None:
        """Forgets the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = _FOREVER
