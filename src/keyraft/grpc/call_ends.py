"""The end of a call: counted, and told to who listens (docs/ARCHITECTURE.md, "The end of a call").

Every started call ends once: answered, failed, cancelled by its client, after its deadline, or lost
with its connection. A request that reaches no method is a call that ends at once; it has no route
and so no counter, as in the original. A request that is reset before it becomes a call (a malformed
one, or one above the limit of streams) has no end.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final, NamedTuple, Protocol

from . import status
from .route import Route

REPLY_HEAD_BYTES: Final = 64  # holds the header of every answer of etcd's
CLOCK_RESOLUTION_S: Final = 0.001
"""The resolution of the clocks that feed connections; a loop's is fixed within a turn."""


class CallEnd(NamedTuple):
    """How one call ended. Bytes are those of messages, without what frames them."""

    path: str
    route: Route | None
    """The method; None where the request reached none."""
    peer: str
    common_name: str | None
    code: int
    text: str
    """The error text that the client got; empty if none."""
    took_s: float
    """Since the call's header had come."""
    request: bytes
    """Of a unary call; empty if its handler was not reached."""
    reply: bytes | None
    """Of a unary call that was answered."""
    received_bytes: int
    sent_bytes: int


class CallHeader(Protocol):
    """What a call asked for."""

    path: bytes
    route: Route | None


class EndedCall(Protocol):
    """What is told of a call."""

    began_s: float
    request: bytes

    @property
    def header(self) -> CallHeader:
        """What it asked for."""

    @property
    def peer(self) -> str:
        """The client's address."""

    @property
    def common_name(self) -> str | None:
        """The CN of the client's certificate."""

    @property
    def connection(self) -> object:
        """What brought it."""

    @property
    def received_bytes(self) -> int:
        """Of the messages that reached the handler."""

    @property
    def sent_bytes(self) -> int:
        """Of the messages sent before the end."""


Listener = Callable[[CallEnd], None]


class Recorder(Protocol):
    """Who puts down all ends, at the least cost: an answered unary call is only added to a list."""

    answered: list[Any]
    """Gets a unary call over gRPC and the first `REPLY_HEAD_BYTES` of its answer, in turn."""

    def soon(self) -> None:
        """Something may come into the list in this turn."""

    def tell(self, call: EndedCall, code: int, text: str, reply: bytes | None, now: float) -> None:
        """Any other end."""


class CallEnds:
    """The listeners for ends of calls.

    `from_s` is the shortest duration that any listener wants; without listeners it is infinite, and
    a call only compares it. `recorder`, if there is one, is told of every end; it is set before the
    first connection.
    """

    __slots__ = ("_listeners", "from_s", "recorder")

    def __init__(self) -> None:
        self._listeners: tuple[tuple[float, Listener], ...] = ()
        self.from_s = inf
        self.recorder: Recorder | None = None

    def listen(self, listener: Listener, at_least_s: float = 0.0) -> None:
        """Adds a listener for calls that took so long; for all, if below the clock's resolution.

        It holds for connections made from now on. The listener is called in the call's last turn:
        it must be quick and raise nothing.
        """
        least = at_least_s if at_least_s >= CLOCK_RESOLUTION_S else -inf
        self._listeners = (*self._listeners, (least, listener))
        self.from_s = min(self.from_s, least)

    def leave(self, listener: Listener) -> None:
        """Removes a listener."""
        self._listeners = tuple(pair for pair in self._listeners if pair[1] != listener)
        self.from_s = min((least for least, _ in self._listeners), default=inf)

    def tell(self, call: EndedCall, code: int, text: str, reply: bytes | None, now: float) -> None:
        """Calls the listeners for one ended call."""
        took_s = now - call.began_s
        end = CallEnd(
            call.header.path.decode("utf-8", "replace"),
            call.header.route,
            call.peer,
            call.common_name,
            code,
            text,
            took_s,
            call.request,
            reply,
            call.received_bytes,
            call.sent_bytes if reply is None else len(reply),
        )
        for least, listener in self._listeners:
            if took_s >= least:
                listener(end)


def count_end(handled: list[int], code: int) -> None:
    """Counts one end; a code that gRPC does not have is UNKNOWN."""
    handled[code if 0 <= code < len(handled) else status.UNKNOWN] += 1
