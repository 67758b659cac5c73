"""Bodies of plain HTTP over HTTP/2 that are given to their readers as they come."""

from __future__ import annotations

import pytest

from keyraft.grpc import HttpRequest, Limits
from tests.grpc.bench import Bench
from tests.grpc.wire import DATA, END_HEADERS, END_STREAM, HEADERS, RST, WINDOW, frame


def opened(bench: Bench, length: int | None = None) -> tuple[HttpRequest, list[tuple[bytes, bool]]]:
    """A request whose body has not come, and what its reader is given."""
    bench.start()
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/early")]
    if length is not None:
        fields.append(("content-length", str(length)))
    bench.feed(frame(HEADERS, END_HEADERS, 1, bench.peer.block(*fields)))
    (request,) = bench.https
    given: list[tuple[bytes, bool]] = []
    assert request.coming
    request.on_body = lambda data, last: given.append((data, last))
    return request, given


def test_pieces_are_given_as_they_come_and_answered_before_the_end() -> None:
    bench = Bench(http=True)
    request, given = opened(bench)
    bench.feed(frame(DATA, 0, 1, b"one"))
    request.start(200, [])
    request.write(b"first")
    head, data = bench.out()
    assert (head.headers[":status"], data.payload) == ("200", b"first")
    bench.feed(frame(DATA, END_STREAM, 1, b"two"))
    assert given == [(b"one", False), (b"two", False), (b"", True)]
    assert not request.coming and len(bench.https) == 1
    request.end()
    assert bench.out()[-1].flags == END_STREAM
    assert not bench.server.streams and not bench.server.inbound_bytes


def test_a_reader_that_waits_is_given_nothing_and_the_client_gets_no_window() -> None:
    bench = Bench(Limits(stream_window_bytes=100), http=True)
    request, given = opened(bench)
    request.hold_reading(True)
    assert bench.feed(frame(DATA, 0, 1, b"x" * 60)) == []
    bench.feed(frame(DATA, END_STREAM, 1, b"y" * 40))
    assert given == []
    request.hold_reading(False)
    assert given == [(b"x" * 60 + b"y" * 40, False), (b"", True)]
    assert not bench.server.inbound_bytes


def test_a_body_may_be_longer_than_a_window_and_any_message() -> None:
    bench = Bench(Limits(stream_window_bytes=100, message_bytes_max=50), http=True)
    request, given = opened(bench)
    window = 100
    for _ in range(2_000):
        assert window >= 50
        window -= 50
        for answer in bench.feed(frame(DATA, 0, 1, b"x" * 50)):
            if answer.kind == WINDOW and answer.stream == 1:
                window += int.from_bytes(answer.payload, "big")
    assert sum(len(data) for data, _ in given) == 100_000
    assert not bench.server.inbound_bytes and request.coming


@pytest.mark.parametrize("answered", [False, True])
def test_a_client_that_leaves_is_told_once(answered: bool) -> None:
    bench = Bench(http=True)
    request, given = opened(bench)
    gone: list[int] = []
    request.on_close = lambda: gone.append(1)
    if answered:
        request.respond(400, [], b"no")
    bench.feed(frame(RST, 0, 1, b"\0\0\0\x08"))
    bench.feed(frame(DATA, 0, 1, b"late"))
    assert (gone, given) == ([] if answered else [1], [])
    assert not bench.server.streams and not bench.server.inbound_bytes


def test_what_comes_behind_an_answer_is_dropped() -> None:
    bench = Bench(http=True)
    request, given = opened(bench)
    request.respond(400, [], b"no")
    bench.feed(frame(DATA, 0, 1, b"late"))
    bench.feed(frame(DATA, END_STREAM, 1, b"later"))
    assert given == [] and not bench.server.streams and not bench.server.inbound_bytes


def test_a_false_length_is_a_fault() -> None:
    bench = Bench(http=True)
    _, given = opened(bench, length=5)
    out = bench.feed(frame(DATA, END_STREAM, 1, b"four"))
    assert [answer.kind for answer in out] == [RST]
    assert (b"", True) not in given
