"""A deadline is never answered before it is over, whatever the loop's clock says."""

from __future__ import annotations

from typing import Any

import pytest

from keyraft.grpc import Call, Limits, Router
from keyraft.net.server import Server, ServerProtocol
from sim.loop import CoarseLoop, SimLoop
from tests.grpc.wire import PREFACE, Frame, Peer, settings


class Pipe:
    """A transport that keeps what is written, with the exact time of it."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.written: list[tuple[float, bytes]] = []

    def write(self, data: bytes) -> None:
        self.written.append((self._loop.time(), data))

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None:
        """There is no end to it."""


class Line:
    """One connection to a server whose only method never answers."""

    def __init__(self) -> None:
        self.exact = SimLoop()
        self.calls: list[Call] = []
        router = Router()
        router.unary("/t.T/Hold", self._hold)
        coarse: Any = CoarseLoop(self.exact)
        server = Server(coarse, router, Limits(), None, clock=self.exact.time)
        self.pipe: Any = Pipe(self.exact)
        self.peer = Peer()
        self.protocol = ServerProtocol(server)
        self.protocol.connection_made(self.pipe)
        self.protocol.data_received(PREFACE + settings())
        self.until(self.exact.time())
        self.answers()

    def _hold(self, call: Any, request: bytes) -> None:
        self.calls.append(call)

    def until(self, when_s: float) -> None:
        self.exact.run_until(when_s)

    def answers(self) -> list[tuple[float, Frame]]:
        written, self.pipe.written = self.pipe.written, []
        return [(when_s, frame) for when_s, data in written for frame in self.peer.read(data)]


@pytest.mark.slow
@pytest.mark.parametrize("timeout_us", [1, 300, 999, 1_000, 1_400, 1_500, 1_600, 15_000, 15_499])
def test_no_deadline_is_answered_early_by_a_loop_that_counts_milliseconds(timeout_us: int) -> None:
    line = Line()
    for number in range(200):
        begun_s = 1.0 + number * 0.1 + number * 0.000_047
        line.until(begun_s)
        request = line.peer.unary(
            2 * number + 1, "/t.T/Hold", b"", ("grpc-timeout", f"{timeout_us}u")
        )
        line.protocol.data_received(request)
        line.until(begun_s + 0.09)
        ((answered_s, frame),) = line.answers()
        assert frame.headers["grpc-status"] == "4"
        late_s = answered_s - (begun_s + timeout_us * 1e-6)
        assert 0.0 <= late_s < 0.002, (number, late_s)


def test_a_timer_that_fires_early_is_set_again_and_not_at_every_turn() -> None:
    line = Line()
    line.until(1.0009)
    line.protocol.data_received(line.peer.unary(1, "/t.T/Hold", b"", ("grpc-timeout", "1000m")))
    before = line.exact.steps
    line.until(3.0)
    assert len(line.answers()) == 1
    assert line.exact.steps - before < 8
