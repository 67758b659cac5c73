"""Small requests on an HTTP/1.1 connection, as clients send them one after the other."""

from __future__ import annotations

from tests.net.test_http1_connection import GET, Scene


def test_a_request_that_comes_whole_is_handed_out_by_the_turn_that_brings_it() -> None:
    scene = Scene(lambda request: request.respond(200, [], request.body))
    put = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
    scene.connection.data_received(put + b"one" + put + b"t")
    assert [request.body for request in scene.requests] == [b"one"]
    scene.feed(b"wo" + put)
    scene.feed(b"six" + GET)
    assert [request.body for request in scene.requests] == [b"one", b"two", b"six", b""]
    assert [request.method for request in scene.requests] == ["POST"] * 3 + ["GET"]
    assert scene.socket.sent.count(b"HTTP/1.1 200 OK") == 4


def test_a_long_head_is_not_kept_for_the_next_request() -> None:
    scene = Scene(lambda request: request.respond(200, [], b""))
    long = GET.replace(b"\r\n\r\n", b"\r\nX: %b\r\n\r\n" % (b"x" * 2_000))
    scene.feed(GET + GET)
    first, second = scene.requests
    assert first.headers is second.headers == [(b"host", b"h")]
    scene.feed(long + long + GET)
    assert [len(request.headers) for request in scene.requests[2:]] == [2, 2, 1]
    assert scene.requests[2].headers is not scene.requests[3].headers
