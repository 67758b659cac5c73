"""Requests of a stream out of a body that is still coming: each is answered as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from keyraft.gateway.json.decoding import SLOW_MARKS
from keyraft.gateway.json.methods import methods_of
from keyraft.gateway.json.stream_body import RESCANNED_BYTES_MAX
from keyraft.grpc import SERVER_STREAM
from tests.gateway.json.asking import MESSAGE_BYTES_MAX, Asked, JsonPort

CREATE = b'{"create_request":{"key":"aw=="}}'
CANCEL = b'{"cancel_request":{"watch_id":"%d"}}'


@pytest.fixture
def port() -> Iterator[JsonPort]:
    yield JsonPort()


class Coming(Asked):
    """A request whose body comes piece by piece."""

    def __init__(self, port: JsonPort, target: str = "/v3/watch", room: int = 1 << 20) -> None:
        super().__init__(target, room=room)
        self.coming = True
        self._run = partial(port.one.run, 0.1)
        assert port.gateway.takes_early(target)
        port.gateway.handle(self)
        self._run()

    def give(self, data: bytes, last: bool = False) -> None:
        assert not self.held and self.on_body is not None
        self.on_body(data, last)
        self._run()


def told(stream: Asked) -> list[str]:
    """What each line says of which watch."""
    words = []
    for line in stream.lines:
        result = line["result"]
        kind = next(name for name in ("created", "canceled", "events", "header") if name in result)
        words.append(f"{kind} {result.get('watch_id', '0')}")
    return words


def test_every_request_is_answered_when_it_has_come(port: JsonPort) -> None:
    stream = Coming(port)
    stream.give(CREATE)
    assert told(stream) == ["created 0"]
    stream.give(CREATE[:9])
    assert told(stream) == ["created 0"]
    stream.give(CREATE[9:] + b" \n" + CANCEL % 0 + CANCEL[:4])
    assert told(stream) == ["created 0", "created 1", "canceled 0"]
    port.ask("/v3/kv/put", b'{"key":"aw==","value":"dg=="}')
    assert told(stream)[3:] == ["events 1"]
    assert not stream.ended
    stream.give(CANCEL[4:] % 1, last=True)
    assert told(stream)[4:] == ["canceled 1"]


def test_renewals_come_one_by_one_too(port: JsonPort) -> None:
    port.ask("/v3/lease/grant", b'{"ID":"7","TTL":"60"}')
    stream = Coming(port, "/v3/lease/keepalive")
    for count in range(1, 4):
        stream.give(b'{"ID":7}')
        assert [line["result"]["TTL"] for line in stream.lines] == ["60"] * count
    stream.give(b"", last=True)
    assert stream.ended


def test_wherever_a_body_is_cut_it_means_the_same(port: JsonPort) -> None:
    body = CREATE + b"\n" + CREATE + CANCEL % 1 + b' {"create_request":{"key":"bGFzdA=="}} '
    expected = ["created 0", "created 1", "canceled 1", "created 2"]
    for cut in range(len(body) + 1):
        stream = Coming(port)
        stream.give(body[:cut])
        stream.give(body[cut:])
        assert told(stream) == expected, cut
        assert stream.on_close is not None
        stream.on_close()


@pytest.mark.parametrize("nonsense", [b"]", b'{"ID":[]}', b'{"x"', b'{"create'])
def test_what_is_no_request_is_the_end_of_them(port: JsonPort, nonsense: bytes) -> None:
    stream = Coming(port, "/v3/lease/keepalive")
    stream.give(b'{"ID":"7"}' + nonsense)
    stream.give(b'{"ID":"7"}', last=True)
    assert (len(stream.lines), stream.ended) == (1, True)


def test_many_values_are_read_in_a_thread_and_nothing_is_read_meanwhile(port: JsonPort) -> None:
    stream = Coming(port)
    stream.give(CREATE * SLOW_MARKS)
    assert stream.held and not stream.pieces
    port.loop.settle()
    port.one.run(0.2)
    assert len(stream.lines) == SLOW_MARKS and not stream.held


def test_a_client_that_does_not_read_is_not_read_from(port: JsonPort) -> None:
    stream = Coming(port, room=400)
    padded = CREATE.replace(b"aw==", b"a2tr" * 50_000)
    given = 0
    while not stream.held:
        stream.give(padded)
        given += 1
        assert given < 100
    assert 0 < len(stream.lines) < given
    stream.room = 1 << 30
    assert stream.on_writable is not None
    stream.on_writable()
    port.one.run(0.1)
    assert len(stream.lines) == given and not stream.held


def test_a_request_above_the_limit_ends_the_stream(port: JsonPort) -> None:
    stream = Coming(port)
    stream.give(CREATE)
    piece = b"a2tr" * 50_000
    stream.give(b'{"create_request":{"key":"' + piece)
    for _ in range(MESSAGE_BYTES_MAX // len(piece) * 2):
        if stream.ended:
            break
        stream.give(piece)
    assert stream.ended
    assert stream.lines[-1]["error"]["code"] == 8


def test_a_value_in_very_many_pieces_is_read_at_the_end(port: JsonPort) -> None:
    stream = Coming(port)
    size = 300_000
    long = CREATE.replace(b"aw==", b"a2tr" * (size // 4))
    for at in range(0, size, 10_000):
        stream.give(long[at : at + 10_000])
    assert sum(range(0, size, 10_000)) > RESCANNED_BYTES_MAX
    stream.give(long[size:] + CREATE)
    assert not stream.pieces
    stream.give(b"", last=True)
    assert told(stream)[:2] == ["created 0", "created 1"]


def test_a_refusal_needs_no_body(port: JsonPort) -> None:
    stream = Asked("/v3/watch", method="GET")
    stream.coming = True
    port.gateway.handle(stream)
    assert (stream.status, stream.ended) == (501, True)


def test_the_paths_of_streams_are_those_whose_requests_are_many(port: JsonPort) -> None:
    streams = {
        path
        for path, method in methods_of(port.router).items()
        if not method.is_unary and method.route is not None and method.route.kind != SERVER_STREAM
    }
    assert streams == {"/v3/watch", "/v3/lease/keepalive"}
    assert all(map(port.gateway.takes_early, streams))
    assert not port.gateway.takes_early("/v3/kv/put")
    assert not JsonPort(json_gateway=False).gateway.takes_early("/v3/watch")
