"""Callers that time out and try again as etcd's own Go client does, over the real transport.

Bytes of HTTP/2 go between a caller and the member's own `net.ServerProtocol`, so the server's
clock, its timers and its answers at a deadline are in the simulation, too. The rules are those of
`client/v3/retry_interceptor.go` and of gRPC-Go below it:

    the answer                              a write            what may be repeated
    surely not looked at (refused, GOAWAY)  once more          once more
    Canceled or DeadlineExceeded            again, while the caller's own time is not over
    not supported for a learner             again              again
    Unavailable                             fails              again
    anything else                           fails              fails

Attempts go to the members in turn; after each round over a quorum of them the client pauses.
Clocks of members may run fast or slow, but not for deadlines: the original is no better there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final, NamedTuple, cast

from keyraft.base.errors import LearnerNotSupportedError
from keyraft.grpc import ClientConnection, status
from keyraft.net import CLIENT_LIMITS
from keyraft.net.server import ServerProtocol
from sim.cluster import SimCluster
from sim.node import Node

LATENCY_S: Final = 0.0001  # between a client and its member: one machine
TRIES_MAX: Final = 100
BACKOFF_S: Final = 0.025
BACKOFF_JITTER: Final = 0.1
DIAL_AGAIN_S: Final = 0.05  # while no member can be reached

PATHS: Final[Mapping[str, tuple[bytes, bool]]] = {
    "Range": (b"/etcdserverpb.KV/Range", True),
    "Put": (b"/etcdserverpb.KV/Put", False),
    "DeleteRange": (b"/etcdserverpb.KV/DeleteRange", False),
    "Txn": (b"/etcdserverpb.KV/Txn", False),
    "LeaseGrant": (b"/etcdserverpb.Lease/LeaseGrant", True),
    "LeaseRevoke": (b"/etcdserverpb.Lease/LeaseRevoke", True),
}
"""Methods: their paths, and whether the client repeats them when the server is unavailable."""


class CallOutcome(NamedTuple):
    """How a call ended for its caller."""

    code: int
    text: str
    reply: bytes
    sent: bool  # a member may have seen it


class ClientLine:
    """One connection to one life of a member: the client's end, and the server's transport."""

    def __init__(self, cluster: SimCluster, node: Node) -> None:
        self._loop = cluster.loop
        self._node = node
        self._held: list[bytes] | None = None  # while the server does not read
        self._flushing = False
        self._due_s = float("inf")
        self.member = node.member
        self.http = ClientConnection(CLIENT_LIMITS, self._loop.time(), authority="m:2379")
        self.http.on_output = self._output
        assert node.server is not None, "somebody lives there"
        self._server = ServerProtocol(node.server)
        self._server.connection_made(cast("asyncio.BaseTransport", self))
        node.lines.append(self._broken)
        self._output()

    # --- the client's end ---------------------------------------------------------------------

    def _output(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        data = self.http.take_output()
        if data:
            self._loop.call_later(LATENCY_S, self._node.later_in, self.member, self._arrive, data)
        due_s = self.http.next_deadline()
        if due_s is not None and due_s < self._due_s:
            self._due_s = due_s
            self._loop.call_later(due_s - self._loop.time(), self._tick)

    def _tick(self) -> None:
        self._due_s = float("inf")
        self.http.tick(self._loop.time())
        self._output()

    def _receive(self, data: bytes) -> None:
        self.http.receive(data, self._loop.time())
        self._output()

    def _broken(self) -> None:
        """The member's life is over."""
        self._loop.call_later(LATENCY_S, self._lost)

    def _lost(self) -> None:
        self.http.connection_lost(self._loop.time())

    # --- the server's transport ---------------------------------------------------------------

    def _arrive(self, data: bytes) -> None:
        if self._held is not None:
            self._held.append(data)
        else:
            self._server.data_received(data)

    def write(self, data: bytes) -> None:
        """asyncio.Transport"""
        self._loop.call_later(LATENCY_S, self._receive, data)

    def writelines(self, pieces: list[bytes]) -> None:
        """asyncio.Transport"""
        self.write(b"".join(pieces))

    def pause_reading(self) -> None:
        """asyncio.Transport"""
        if self._held is None:
            self._held = []

    def resume_reading(self) -> None:
        """asyncio.Transport"""
        held, self._held = self._held, None
        for data in held or ():
            self._node.later_in(self.member, self._arrive, data)

    def is_closing(self) -> bool:
        """asyncio.Transport"""
        return False

    def close(self) -> None:
        """asyncio.Transport"""
        self._broken()

    abort = close

    def get_extra_info(self, name: str) -> Any:
        """asyncio.Transport"""
        return ("127.0.0.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        """asyncio.Transport"""


class Caller:
    """One client with a connection to every member that it has called."""

    def __init__(self, cluster: SimCluster, chance: Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._lines: dict[int, ClientLine] = {}
        self._next = 0
        self.repeated = 0  # attempts but the first

    def call(
        self, method: str, request: bytes, timeout_s: float, done: Callable[[CallOutcome], None]
    ) -> None:
        """Calls `done` once, by the deadline at the latest."""
        _Attempts(self, method, request, timeout_s, done).begin()

    def line(self) -> ClientLine | None:
        """A connection to the next member, also to one that stands still."""
        nodes = [node for node in self._cluster.nodes.values() if node.member is not None]
        if not nodes:
            return None
        if not self._next:
            self._next = self._chance.randrange(0, len(nodes))
        self._next += 1
        node = nodes[self._next % len(nodes)]
        line = self._lines.get(node.id)
        if line is None or line.http.closed or line.http.draining or line.member is not node.member:
            line = self._lines[node.id] = ClientLine(self._cluster, node)
        return line

    def backoff_s(self, attempt: int) -> float:
        """How long to wait before this attempt."""
        if attempt % (len(self._cluster.nodes) // 2 + 1):
            return 0.0
        return BACKOFF_S * (1 + BACKOFF_JITTER * (2 * self._chance.random() - 1))


class _Attempts:
    """One call, as often as it takes."""

    def __init__(
        self,
        caller: Caller,
        method: str,
        request: bytes,
        timeout_s: float,
        done: Callable[[CallOutcome], None],
    ) -> None:
        self._caller = caller
        self._loop = caller._cluster.loop
        self._path, self._repeatable = PATHS[method]
        self._request = request
        self._deadline_s = self._loop.time() + timeout_s
        self._done = done
        self._attempt = 0
        self._sent = False
        self._unprocessed = False

    def begin(self) -> None:
        """Makes an attempt."""
        left_s = self._deadline_s - self._loop.time()
        if left_s <= 0:
            self._end(status.DEADLINE_EXCEEDED, "context deadline exceeded", b"")
            return
        line = self._caller.line()
        if line is None:
            self._loop.call_later(min(DIAL_AGAIN_S, left_s), self.begin)
            return

        def ended(code: int, text: str, reply: bytes) -> None:
            self._answered(call.unprocessed, code, text, reply)

        call = line.http.unary(
            self._path, self._request, ended, self._loop.time(), timeout_s=left_s
        )

    def _answered(self, unprocessed: bool, code: int, text: str, reply: bytes) -> None:
        if unprocessed and not self._unprocessed:
            self._unprocessed = True  # gRPC-Go repeats it by itself, once
            self._loop.call_soon(self.begin)
            return
        self._sent = self._sent or not unprocessed
        if code in (status.CANCELLED, status.DEADLINE_EXCEEDED):
            again = self._loop.time() < self._deadline_s
        else:
            again = text == LearnerNotSupportedError.text or (
                self._repeatable and code == status.UNAVAILABLE
            )
        self._attempt += 1
        if not again or self._attempt >= TRIES_MAX:
            self._end(code, text, reply)
            return
        self._caller.repeated += 1
        wait_s = self._caller.backoff_s(self._attempt)
        left_s = self._deadline_s - self._loop.time()
        self._loop.call_later(max(min(wait_s, left_s), 0.0), self.begin)

    def _end(self, code: int, text: str, reply: bytes) -> None:
        self._done(CallOutcome(code, text, reply, self._sent))
