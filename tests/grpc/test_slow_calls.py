"""Unary calls that took long are reported, whichever way they ended."""

from __future__ import annotations

from keyraft.grpc import ServerConnection, SlowCall
from tests.grpc.bench import Bench
from tests.grpc.wire import RST, frame


class SlowBench(Bench):
    """Reports what takes 0.3 s; `reports` are the calls."""

    def __init__(self, slow_s: float = 0.3) -> None:
        super().__init__()
        self.reports: list[SlowCall] = []
        self.router.report_slow(slow_s, lambda: self.now, self.reports.append)
        self.server = ServerConnection(self.router, self.server.limits, 0.0, peer="1.2.3.4:5")
        self.start()
        for stream in (1, 3):  # the answers' short way is prepared by the first ones
            self.feed(self.peer.unary(stream, "/t.T/Echo", b""))


def test_only_a_slow_answer_is_reported_and_with_its_time() -> None:
    bench = SlowBench()
    bench.feed(
        bench.peer.unary(5, "/t.T/Hold", b"question") + bench.peer.unary(7, "/t.T/Hold", b"")
    )
    bench.now = 0.29
    bench.held[1].respond(b"quick")
    assert bench.reports == []
    bench.out()
    bench.now = 0.5
    bench.held[0].respond(b"answer")
    assert bench.reports == [SlowCall("/t.T/Hold", "1.2.3.4:5", 0.5, b"question", b"answer")]


def test_every_answer_of_a_late_turn_is_reported() -> None:
    bench = SlowBench()
    bench.feed(b"".join(bench.peer.unary(n, "/t.T/Hold", b"%d" % n) for n in (5, 7, 9)))
    bench.now = 1.0
    for call in bench.held:
        call.respond(b"")
    assert [call.request for call in bench.reports] == [b"5", b"7", b"9"]


def test_refused_given_up_and_expired_calls_count_too() -> None:
    bench = SlowBench()
    requests = [bench.peer.unary(n, "/t.T/Hold", b"%d" % n) for n in (5, 7, 9)]
    expiring = bench.peer.unary(11, "/t.T/Hold", b"11", ("grpc-timeout", "2S"))
    bench.feed(b"".join(requests) + expiring)
    bench.now = 1.0
    bench.held[0].fail(5, "no")
    bench.feed(frame(RST, 0, 7, b"\0\0\0\x08"))
    bench.now = 2.0
    bench.server.tick(bench.now)
    bench.now = 3.0
    bench.server.connection_lost(bench.now)
    told = [(call.request, call.took_s, call.reply) for call in bench.reports]
    assert told == [(b"5", 1.0, None), (b"7", 1.0, None), (b"11", 2.0, None), (b"9", 3.0, None)]


def test_below_the_clocks_resolution_every_call_is_reported() -> None:
    bench = SlowBench(0.000_001)
    bench.reports.clear()
    bench.feed(bench.peer.unary(5, "/t.T/Echo", b"e"))
    bench.feed(bench.peer.unary(7, "/t.T/Fail", b"f"))
    assert [(call.path, call.took_s, call.reply) for call in bench.reports] == [
        ("/t.T/Echo", 0.0, b"e"),
        ("/t.T/Fail", 0.0, None),
    ]


def test_streams_are_not_reported() -> None:
    bench = SlowBench()
    bench.feed(bench.peer.unary(5, "/t.T/Talk", b""))
    bench.now = 9.0
    bench.streams[0].finish()
    assert bench.reports == []
