"""Every way to end a call, counted once and told once; who asks for slow ones hears of those only."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keyraft.base.errors import EmptyKeyError, PostponedError
from keyraft.grpc import CallEnd, Limits, Stream, status
from tests.grpc.bench import Bench, EndRecorder, Recorder
from tests.grpc.wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST,
    WINDOW,
    frame,
    message,
)

STREAM = 7  # the one whose end is looked at; smaller ones have prepared the answers' short way


class Ways:
    """Ways to end a call, each begun on a connection with a few calls behind it; `cut` is how its
    bytes come."""

    def __init__(self, cut: int, listen: bool) -> None:
        limits = Limits(message_bytes_max=1_000)
        self.cut = cut
        self.recorder = EndRecorder() if listen else None
        self.bench = Bench(limits, listen_from_s=0.0 if listen else None, recorder=self.recorder)
        self.bench.router.stream("/t.T/Refuse", self._refuse)
        self.bench.router.unary("/t.T/Later", self._later)
        self.bench.start(window=100)
        for stream in (1, 3, 5):
            self.bench.feed(self.bench.peer.unary(stream, "/t.T/Echo", b""))
        self.bench.ends.clear()
        if self.recorder is not None:
            assert self.recorder.codes() == [0, 0, 0]
            self.recorder.forget()
        self.postponed: list[PostponedError] = []
        self.again: list[Callable[[EmptyKeyError | None], None]] = []

    def _refuse(self, stream: Stream) -> Recorder:
        raise EmptyKeyError

    def _later(self, call: object, request: bytes) -> bytes:
        raise PostponedError(self.again.append)

    def unary(self, path: str, *extra: tuple[str, str], body: bytes = b"body") -> None:
        self.bench.feed(self.bench.peer.unary(STREAM, path, body, *extra), self.cut)

    def stream(self, path: str, *messages: bytes, extra: tuple[tuple[str, str], ...] = ()) -> None:
        data = frame(HEADERS, END_HEADERS, STREAM, self.bench.peer.request(path, *extra))
        data += b"".join(frame(DATA, 0, STREAM, message(one)) for one in messages)
        self.bench.feed(data, self.cut)

    def feed(self, kind: int, flags: int = 0, payload: bytes = b"", stream: int = STREAM) -> None:
        self.bench.feed(frame(kind, flags, stream, payload), self.cut)

    def passes(self, now: float) -> None:
        self.bench.now = now
        self.bench.server.tick(now)

    # --- unary ----------------------------------------------------------------------------------

    def answered(self) -> None:
        self.unary("/t.T/Echo")

    def answered_later(self) -> None:
        self.unary("/t.T/Hold")
        self.bench.held[0].respond(b"answer")
        self.bench.held[0].respond(b"again")
        self.bench.held[0].fail(5, "and again")

    def answered_beyond_the_window(self) -> None:
        self.unary("/t.T/Echo", body=b"x" * 900)

    def failed(self) -> None:
        self.unary("/t.T/Fail")

    def failed_later(self) -> None:
        self.unary("/t.T/Hold")
        self.bench.held[0].fail(5, "no")
        self.bench.held[0].respond(b"but yes")

    def failed_with_a_code_of_its_own(self) -> None:
        self.unary("/t.T/Hold")
        self.bench.held[0].fail(99, "no")

    def postponed_and_refused(self) -> None:
        self.unary("/t.T/Later")
        self.again[0](EmptyKeyError())

    def postponed_and_cancelled(self) -> None:
        self.unary("/t.T/Later")
        self.cancelled_by_client()
        self.again[0](None)

    def message_too_large(self) -> None:
        self.unary("/t.T/Echo", body=b"x" * 1_001)

    def no_message(self) -> None:
        self.stream("/t.T/Hold")
        self.feed(DATA, END_STREAM)

    def two_messages(self) -> None:
        self.stream("/t.T/Hold", b"one", b"two")

    def cancelled_by_client(self) -> None:
        self.feed(RST, 0, b"\0\0\0\x08")

    def cancelled(self) -> None:
        self.unary("/t.T/Hold")
        self.cancelled_by_client()
        self.bench.held[0].respond(b"late")

    def broke_the_rules_of_its_stream(self) -> None:
        self.unary("/t.T/Hold")
        self.feed(WINDOW, 0, b"\0\0\0\0")

    def broke_the_rules_of_the_connection(self) -> None:
        self.unary("/t.T/Hold")
        self.feed(WINDOW, 0, b"\0\0\0\0", stream=0)
        self.bench.server.connection_lost(1.0)

    def out_of_time(self) -> None:
        self.unary("/t.T/Hold", ("grpc-timeout", "1S"))
        self.passes(1.0)
        self.passes(2.0)
        self.bench.held[0].respond(b"late")

    def out_of_time_in_better_words(self) -> None:
        self.unary("/t.T/Hold", ("grpc-timeout", "1S"))
        self.bench.held[0].on_cancel = lambda call, code: call.fail(14, "request timed out")
        self.passes(1.0)

    def lost(self) -> None:
        self.unary("/t.T/Hold")
        self.bench.server.connection_lost(1.0)
        self.bench.server.connection_lost(2.0)

    def aborted(self) -> None:
        self.unary("/t.T/Hold")
        self.bench.server.abort(0, "enough")
        self.bench.server.connection_lost(1.0)

    def drained(self) -> None:
        self.unary("/t.T/Hold")
        self.bench.server.shutdown(0.0)
        self.bench.held[0].respond(b"the last")

    def left_by_client(self) -> None:
        self.unary("/t.T/Hold")
        self.feed(GOAWAY, 0, bytes(8), stream=0)
        self.bench.held[0].respond(b"the last")

    # --- no method ------------------------------------------------------------------------------

    def unknown_method(self) -> None:
        self.unary("/t.T/Nothing")

    def unknown_encoding(self) -> None:
        self.unary("/t.T/Echo", ("grpc-encoding", "gzip"))

    def no_timeout(self) -> None:
        self.unary("/t.T/Echo", ("grpc-timeout", "soon"))

    # --- streams --------------------------------------------------------------------------------

    def finished(self) -> None:
        self.stream("/t.T/Talk", b"echo")
        self.bench.streams[0].finish()
        self.bench.streams[0].finish(5, "again")
        self.feed(RST, 0, b"\0\0\0\x08")

    def finished_in_a_message(self) -> None:
        self.stream("/t.T/Many", b"a", b"finish", b"b")

    def refused_at_once(self) -> None:
        self.stream("/t.T/Refuse", b"a")

    def half_closed(self) -> None:
        self.stream("/t.T/Talk", b"a")
        self.feed(DATA, END_STREAM)
        self.bench.streams[0].finish()

    def stream_cancelled(self) -> None:
        self.stream("/t.T/Talk", b"a")
        self.cancelled_by_client()
        self.bench.streams[0].finish()

    def stream_aborted(self) -> None:
        self.stream("/t.T/Talk")
        self.bench.streams[0].abort(16, "who are you")

    def stream_lost(self) -> None:
        self.stream("/t.T/Talk", b"pause", b"a")
        self.bench.server.connection_lost(1.0)

    def stream_out_of_time(self) -> None:
        self.stream("/t.T/Talk", extra=(("grpc-timeout", "1S"),))
        self.passes(1.0)

    def out_of_time_while_answers_wait(self) -> None:
        self.stream("/t.T/Talk", extra=(("grpc-timeout", "1S"),))
        self.bench.streams[0].send(b"x" * 500)
        self.passes(1.0)

    def dropped_with_a_code_of_its_own(self) -> None:
        self.stream("/t.T/Talk")
        self.bench.streams[0].send(b"x" * 500)
        self.bench.streams[0].drop(99, "slow")


WAYS: dict[Callable[[Ways], None], int] = {
    Ways.answered: status.OK,
    Ways.answered_later: status.OK,
    Ways.answered_beyond_the_window: status.OK,
    Ways.failed: status.INVALID_ARGUMENT,
    Ways.failed_later: status.NOT_FOUND,
    Ways.failed_with_a_code_of_its_own: 99,
    Ways.postponed_and_refused: status.INVALID_ARGUMENT,
    Ways.postponed_and_cancelled: status.CANCELLED,
    Ways.message_too_large: status.RESOURCE_EXHAUSTED,
    Ways.no_message: status.INTERNAL,
    Ways.two_messages: status.INTERNAL,
    Ways.cancelled: status.CANCELLED,
    Ways.broke_the_rules_of_its_stream: status.CANCELLED,
    Ways.broke_the_rules_of_the_connection: status.CANCELLED,
    Ways.out_of_time: status.DEADLINE_EXCEEDED,
    Ways.out_of_time_in_better_words: status.UNAVAILABLE,
    Ways.lost: status.CANCELLED,
    Ways.aborted: status.CANCELLED,
    Ways.drained: status.OK,
    Ways.left_by_client: status.OK,
    Ways.unknown_method: status.UNIMPLEMENTED,
    Ways.unknown_encoding: status.UNIMPLEMENTED,
    Ways.no_timeout: status.INTERNAL,
    Ways.finished: status.OK,
    Ways.finished_in_a_message: status.NOT_FOUND,
    Ways.refused_at_once: status.INVALID_ARGUMENT,
    Ways.half_closed: status.OK,
    Ways.stream_cancelled: status.CANCELLED,
    Ways.stream_aborted: status.UNAUTHENTICATED,
    Ways.stream_lost: status.CANCELLED,
    Ways.stream_out_of_time: status.DEADLINE_EXCEEDED,
    Ways.out_of_time_while_answers_wait: status.DEADLINE_EXCEEDED,
    Ways.dropped_with_a_code_of_its_own: 99,
}
NO_METHOD = (Ways.unknown_method, Ways.unknown_encoding, Ways.no_timeout)


@pytest.mark.slow
@pytest.mark.parametrize("listen", [False, True], ids=["nobody", "somebody"])
@pytest.mark.parametrize("cut", [0, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_each_way_to_end_a_call_is_counted_and_told_once(
    way: Callable[[Ways], None], cut: int, listen: bool
) -> None:
    ways = Ways(cut, listen)
    bench = ways.bench
    before = sum(route.handled[status.OK] for route in bench.router)
    way(ways)
    bench.out()
    code = WAYS[way]
    ended = [sum(route.handled[code] for route in bench.router) for code in range(17)]
    ended[status.OK] -= before
    assert sum(ended) == (0 if way in NO_METHOD else 1)
    if way not in NO_METHOD:
        assert ended[code if code < 17 else status.UNKNOWN] == 1
    assert sum(route.started for route in bench.router) == sum(ended) + before
    assert [end.code for end in bench.ends] == ([code] if listen else [])
    if ways.recorder is not None:
        assert ways.recorder.codes() == [code]
    for end in bench.ends:
        assert (end.route is None) == (way in NO_METHOD)
        assert (end.reply is not None) == (code == status.OK and end.path in UNARY_PATHS)


UNARY_PATHS = ("/t.T/Echo", "/t.T/Hold", "/t.T/Later")


def test_what_is_reset_before_it_is_a_call_does_not_end() -> None:
    bench = Bench(Limits(streams_max=1), listen_from_s=0.0)
    bench.start()
    bench.feed(bench.peer.unary(1, "/t.T/Hold", b""))
    out = bench.feed(bench.peer.unary(3, "/t.T/Hold", b""))
    out += bench.feed(frame(HEADERS, END_HEADERS, 5, bench.peer.block((":path", "/t.T/Hold"))))
    assert [(f.kind, f.stream) for f in out] == [(RST, 3), (RST, 5)]
    assert bench.ends == []
    assert [route.started for route in bench.router if route.started] == [1]


class SlowBench(Bench):
    """Reports what takes 0.3 s."""

    def __init__(self, slow_s: float = 0.3) -> None:
        super().__init__(listen_from_s=slow_s)
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
    assert bench.ends == []
    bench.out()
    bench.now = 0.5
    bench.held[0].respond(b"answer")
    route = bench.router.find(b"/t.T/Hold")
    assert bench.ends == [
        CallEnd(
            "/t.T/Hold", route, "1.2.3.4:5", None, 0, "", 0.5, b"question", b"answer", 8, 6
        )
    ]  # fmt: skip


def test_every_answer_of_a_late_turn_is_reported() -> None:
    bench = SlowBench()
    bench.feed(b"".join(bench.peer.unary(n, "/t.T/Hold", b"%d" % n) for n in (5, 7, 9)))
    bench.now = 1.0
    for call in bench.held:
        call.respond(b"")
    assert [call.request for call in bench.ends] == [b"5", b"7", b"9"]


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
    told = [(call.request, call.took_s, call.reply) for call in bench.ends]
    assert told == [(b"5", 1.0, None), (b"7", 1.0, None), (b"11", 2.0, None), (b"9", 3.0, None)]


def test_below_the_clocks_resolution_every_call_is_reported() -> None:
    bench = SlowBench(0.000_001)
    bench.ends.clear()
    bench.feed(bench.peer.unary(5, "/t.T/Echo", b"e"))
    bench.feed(bench.peer.unary(7, "/t.T/Fail", b"f"))
    assert [(call.path, call.took_s, call.reply) for call in bench.ends] == [
        ("/t.T/Echo", 0.0, b"e"),
        ("/t.T/Fail", 0.0, None),
    ]


def test_a_stream_tells_what_went_over_it() -> None:
    bench = SlowBench()
    head = frame(HEADERS, END_HEADERS, 5, bench.peer.request("/t.T/Many"))
    bench.feed(head + frame(DATA, 0, 5, message(b"echo")) + frame(DATA, 0, 5, message(b"12")))
    bench.feed(frame(DATA, 0, 5, message(b"345")), cut=2)
    bench.now = 9.0
    bench.streams[0].send_framed(message(b"a") + message(b"bc"), 2)
    bench.streams[0].send_shared(b"head", [b"piece", b"end"])
    bench.streams[0].finish(5, "enough")
    (end,) = bench.ends
    assert (end.path, end.code, end.text, end.took_s) == ("/t.T/Many", 5, "enough", 9.0)
    assert (end.request, end.reply) == (b"", None)
    assert (end.received_bytes, end.sent_bytes) == (4 + 2 + 3, 4 + 1 + 2 + 4 + 5 + 3)


def test_each_listener_has_its_own_patience() -> None:
    bench = Bench(listen_from_s=0.0)
    late: list[CallEnd] = []
    bench.router.ends.listen(late.append, 1.0)
    bench.start()
    for stream in (1, 3, 5):
        bench.feed(bench.peer.unary(stream, "/t.T/Echo", b"%d" % stream))
    bench.feed(bench.peer.unary(7, "/t.T/Hold", b"7"))
    bench.now = 1.0
    bench.held[0].respond(b"")
    assert [end.request for end in bench.ends] == [b"1", b"3", b"5", b"7"]
    assert [end.request for end in late] == [b"7"]
