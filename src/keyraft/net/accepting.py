"""Accepting connections: at most as many as there are places; no client can end it.

A place is a descriptor that a connection may use; the process reserves others for its files, pipes
and peers (etcd `server/embed/etcd.go`, reservedInternalFDNum). When no place is free a new
connection is closed at once, so that its client tries another member. A connection holds its place
from the accept on, also during its TLS handshake, until its descriptor is closed.

DEVIATION: etcd leaves connections beyond its limit in the listener's backlog, where they hang.

When the system itself has no descriptor left, accepting pauses for a moment. Otherwise the loop
would be woken for the same connection again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .protocol import Http2Protocol

if TYPE_CHECKING:
    from .tls import Failed, Handshakes, ServerTLS

ACCEPTS_PER_TURN: Final = 64  # of one listener; others get their turn in between
ACCEPT_REST_S: Final = 0.5  # after the system refused to accept
TLS_ACCEPTS_PER_TURN: Final = 16  # they cost the loop more than others do
FIRST_BYTE_S_MAX: Final = 10.0  # where it tells whether the client speaks TLS
_TLS_HANDSHAKE: Final = b"\x16"  # of a record (RFC 8446 §5.1); no HTTP begins so
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

Say = Callable[[str], None]
"""Called with the reason when connections begin to be refused."""


class Places:
    """How many connections may be open at once; several listeners may share them."""

    __slots__ = ("_say", "_told", "most", "refused", "taken")

    def __init__(self, most: int, say: Say | None = None) -> None:
        self.most = most
        self.taken = 0
        self.refused = 0  # never falls
        self._say = say
        self._told = False

    def take(self) -> bool:
        """Takes a place, if one is free."""
        if self.taken < self.most:
            self.taken += 1
            return True
        self.refused += 1
        if not self._told:
            self._told = True
            if self._say is not None:
                self._say(f"{self.most} connections are open")
        return False

    def give_back(self) -> None:
        """A connection is closed."""
        assert self.taken > 0, self.taken
        self.taken -= 1
        if self.taken <= self.most // 2:
            self._told = False  # a place is free: the next refusal is logged again


class _Accepted(socket.socket):
    """A socket that gives its place back when its descriptor is closed.

    uvloop detaches a transport's socket when it closes the descriptor itself; asyncio closes it.
    """

    __slots__ = ("_places",)
    _places: Places | None

    def _leave(self) -> None:
        places, self._places = self._places, None
        if places is not None:
            places.give_back()

    def detach(self) -> int:
        self._leave()
        return super().detach()

    def close(self) -> None:
        self._leave()
        super().close()

    def __del__(self) -> None:
        self._leave()


class Acceptor:
    """Accepts from one listening socket, which it owns, and makes a protocol of each connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        make: Callable[[], asyncio.BaseProtocol],
        tls: ServerTLS | None,
        places: Places,
        say: Say | None = None,
        failed: Failed | None = None,
        plain_too: bool = False,
    ) -> None:
        """`plain_too`: take connections without TLS, too; the first byte tells which."""
        listening.setblocking(False)
        self._family, self._type = int(listening.family), int(listening.type)
        if tls is not None and self._family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # what is accepted has it, too
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop = loop
        self._listening = listening
        self._make = make
        self._places = places
        self._say = say
        self._plain_too = plain_too
        self._handshakes: Handshakes | None = None
        self._accepts_per_turn = ACCEPTS_PER_TURN
        if tls is not None:
            from .tls import Handshakes  # most members start without

            self._handshakes = Handshakes(loop, tls, make, failed)
            self._accepts_per_turn = TLS_ACCEPTS_PER_TURN
        self._starting: set[asyncio.Task[None]] = set()
        self._rest: asyncio.TimerHandle | None = None
        self._told = False
        self._closed = False

    def start(self) -> None:
        """Begins to accept; earlier connections have waited in the backlog."""
        self._rest = None
        if not self._closed:
            self._loop.add_reader(self._listening.fileno(), self.accept)

    def accept(self) -> None:
        """Accepts connections from the backlog, at most ACCEPTS_PER_TURN."""
        for _ in range(self._accepts_per_turn):
            try:
                # `accept` without a socket's object that would be made into another one.
                accepted, address = self._listening._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # the client has closed it already
                self._pause(error)
                return
            self._told = False
            if not self._places.take():
                os.close(accepted)
                continue
            self._begin(accepted, address)

    def _pause(self, error: OSError) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._rest = self._loop.call_later(ACCEPT_REST_S, self.start)
        if not self._told and self._say is not None:
            self._told = True
            self._say(os.strerror(error.errno or 0).lower())

    def _begin(self, accepted: int, address: object) -> None:
        """`accepted`: a descriptor."""
        taken = _Accepted(self._family, self._type, 0, fileno=accepted)
        taken._places = self._places
        taken.setblocking(False)
        if self._handshakes is not None and not self._plain_too:
            self._handshakes.begin(taken, address)
            return
        task = self._loop.create_task(self._connect(taken, address))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _connect(self, taken: socket.socket, address: object) -> None:
        """Makes the transport, once it is known whether the client speaks TLS."""
        if self._handshakes is not None:
            try:
                async with asyncio.timeout(FIRST_BYTE_S_MAX):
                    first = await _first_byte(self._loop, taken)
            except (OSError, TimeoutError):
                taken.close()
                return
            except asyncio.CancelledError:
                taken.close()
                raise
            if first == _TLS_HANDSHAKE:
                self._handshakes.begin(taken, address)
                return
        with contextlib.suppress(OSError, TimeoutError):
            await self._hand_over(taken)

    async def _hand_over(self, taken: socket.socket) -> None:
        """The loop makes the transport, and tells the protocol."""
        made: list[asyncio.BaseProtocol] = []

        def make() -> asyncio.BaseProtocol:
            made.append(self._make())
            return made[0]

        try:
            await self._loop.connect_accepted_socket(make, taken)
        except asyncio.CancelledError:
            # uvloop does not call `connection_lost` of a protocol that has closed its transport
            # itself.
            for protocol in made:
                if isinstance(protocol, Http2Protocol):
                    protocol.transport = None  # uvloop raises for a write to it
                    protocol.lost("")
            raise

    def close(self) -> None:
        """Stops listening; handshakes under way are ended."""
        if self._closed:
            return
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()
        for task in list(self._starting):
            task.cancel()
        if self._handshakes is not None:
            self._handshakes.close()


async def _first_byte(loop: asyncio.AbstractEventLoop, accepted: socket.socket) -> bytes:
    """Waits for the first byte and leaves it in the socket; empty when the other end has closed."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return accepted.recv(1, socket.MSG_PEEK)
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(accepted.fileno(), _wake, readable)
        try:
            await readable
        finally:
            loop.remove_reader(accepted.fileno())


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def bind(
    host: str | None, port: int, *, reuse_port: bool, reuse_address: bool
) -> list[socket.socket]:
    """Sockets bound to every address of `host` (None: all), not yet listening. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                opened = socket.socket(family, kind, protocol)
            except OSError:
                continue  # an address family that this system lacks
            bound.append(opened)
            if reuse_address:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind(address)
    except OSError:
        for opened in bound:
            opened.close()
        raise
    if not bound:
        raise OSError(errno.EADDRNOTAVAIL, "no address to listen on")
    return bound


def bind_unix(path: str) -> socket.socket:
    """A socket bound to a path; removes an old socket file that nobody listens on, as etcd does."""
    opened = socket.socket(socket.AF_UNIX)
    try:
        if os.path.exists(path):
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
        opened.bind(path)
    except OSError:
        opened.close()
        raise
    return opened
