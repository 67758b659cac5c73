from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from tests.gateway.json.asking import Asked, JsonPort

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
UPGRADE = {
    b"connection": b"keep-alive, Upgrade",
    b"upgrade": b"websocket",
    b"sec-websocket-version": b"13",
    b"sec-websocket-key": KEY,
}


class Client:
    """A client's end of a websocket."""

    def __init__(self, port: JsonPort, target: str, **headers: bytes) -> None:
        self.port = port
        more = {name.replace("_", "-").encode(): value for name, value in headers.items()}
        self.request = port.ask(target, method="GET", headers={**UPGRADE, **more})
        self.wire = Connection(ConnectionType.CLIENT)
        self.lines: list[Any] = []
        self.pongs = 0
        self.closed: int | None = None
        self.read()

    def read(self) -> None:
        """Takes what has come."""
        data, self.request.pieces = self.request.text, []
        if data:
            self.wire.receive_data(data)
        for event in self.wire.events():
            if isinstance(event, TextMessage):
                self.lines.append(json.loads(event.data))
            elif isinstance(event, Pong):
                self.pongs += 1
            elif isinstance(event, CloseConnection):
                self.closed = event.code

    def send(self, *events: Event, run_s: float = 0.2) -> None:
        """Sends, and takes the answers."""
        self.raw(self.wire.send(event) for event in events)
        self.port.one.run(run_s)
        self.read()

    def raw(self, pieces: Iterable[bytes]) -> None:
        assert self.request.on_data is not None
        for piece in pieces:
            self.request.on_data(piece)

    def say(self, text: str, run_s: float = 0.2) -> None:
        self.send(TextMessage(data=text), run_s=run_s)


@pytest.fixture
def port() -> JsonPort:
    return JsonPort()


def put(port: JsonPort, value: str) -> None:
    assert port.ask("/v3/kv/put", f'{{"key":"aw==","value":"{value}"}}').status == 200


def test_the_handshake(port: JsonPort) -> None:
    answer = Client(port, "/v3/watch", sec_websocket_protocol=b"Bearer, token").request
    assert answer.status == 101
    assert answer.sent == {
        b"upgrade": b"websocket",
        b"connection": b"Upgrade",
        b"sec-websocket-accept": b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        b"sec-websocket-protocol": b"Bearer",
    }


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        ({b"sec-websocket-version": b"12"}, "GET", 400),
        ({b"sec-websocket-key": b""}, "GET", 400),
        ({b"sec-websocket-key": b"YQ=="}, "GET", 400),
        ({}, "POST", 405),
    ],
)
def test_handshakes_that_are_refused(
    port: JsonPort, headers: dict[bytes, bytes], method: str, status: int
) -> None:
    answer = port.ask("/v3/watch", method=method, headers={**UPGRADE, **headers})
    assert answer.status == status
    assert answer.sent[b"sec-websocket-version"] == b"13"


def test_a_watch_whose_requests_come_one_by_one(port: JsonPort) -> None:
    client = Client(port, "/v3/watch")
    client.say('{"create_request":{"key":"aw=="}}')
    assert client.lines[-1]["result"]["created"] is True
    put(port, "dg==")
    client.send(Ping())
    assert client.pongs == 1
    assert client.lines[-1]["result"]["events"][0]["kv"]["value"] == "dg=="
    client.say('{"create_request":{"key":"aw==","watch_id":7}}{"cancel_request":{"watch_id":0}}')
    assert [line["result"].get("watch_id") for line in client.lines[-2:]] == ["7", None]
    assert client.lines[-1]["result"]["canceled"] is True


def test_a_request_in_many_pieces(port: JsonPort) -> None:
    client = Client(port, "/v3/lease/keepalive")
    text = '{"ID":"5"}'
    for char in text[:-1]:
        client.send(TextMessage(data=char, message_finished=False), run_s=0.01)
    client.send(TextMessage(data=text[-1], message_finished=True))
    assert len(client.lines) == 1
    client.send(BytesMessage(data=b'{"ID":'), run_s=0.01)  # a value in two messages
    client.send(BytesMessage(data=b'"6"}'))
    assert client.lines[-1]["result"]["ID"] == "6"


def test_a_method_with_one_answer(port: JsonPort) -> None:
    client = Client(port, "/v3/kv/put")
    client.say('{"key":"aw==","value":"dg=="}')
    assert client.lines[0]["header"]["revision"] == "2"
    assert (client.closed, client.request.ended) == (1000, True)


def test_what_is_wrong_is_a_message(port: JsonPort) -> None:
    client = Client(port, "/v3/nothing")
    assert (client.lines, client.closed) == ([{"code": 5, "message": "Not Found"}], 1000)
    client = Client(port, "/v3/kv/range")
    client.say("[")
    client.say("}")
    assert client.lines[0]["code"] == 3
    client = Client(port, "/v3/lease/keepalive")
    client.say("rubbish")
    assert (client.lines, client.closed) == ([], 1000)


def test_a_token_in_the_subprotocol_or_a_cookie(port: JsonPort) -> None:
    for path, body in (
        ("user/add", '{"name":"root","password":"p"}'),
        ("role/add", '{"name":"root"}'),
        ("user/grant", '{"user":"root","role":"root"}'),
        ("enable", "{}"),
    ):
        assert port.ask("/v3/auth/" + path, body, run_s=1.0).status == 200
    answer = port.ask("/v3/auth/authenticate", '{"name":"root","password":"p"}', run_s=1.0)
    token = answer.value["token"].encode()
    for headers, allowed in (
        ({"sec_websocket_protocol": b"Bearer, " + token}, True),
        ({"sec_websocket_protocol": b"Bearer," + token}, True),
        ({"cookie": b"a=b; token=" + token}, True),
        ({"authorization": token}, False),  # not passed on
        ({}, False),
    ):
        client = Client(port, "/v3/watch", **headers)
        client.say('{"create_request":{"key":"aw=="}}')
        assert client.lines[0]["result"].get("canceled", False) is not allowed


def test_a_client_that_closes_ends_its_call(port: JsonPort) -> None:
    watch = port.router.find(b"/etcdserverpb.Watch/Watch")
    assert watch is not None
    client = Client(port, "/v3/watch")
    client.say('{"create_request":{"key":"aw=="}}')
    client.send(CloseConnection(code=1000))
    assert (client.closed, client.request.ended, watch.handled[1]) == (1000, True, 1)
    client = Client(port, "/v3/watch")
    assert client.request.on_close is not None
    client.request.on_close()
    assert watch.handled[1] == 2
    assert watch.started == sum(watch.handled)


def test_frames_that_break_the_protocol_end_it(port: JsonPort) -> None:
    client = Client(port, "/v3/watch")
    client.raw([b"\x81\x02ab"])  # not masked
    client.read()
    assert client.request.ended
    assert client.closed == 1002


def test_a_message_with_very_many_values_is_refused(port: JsonPort) -> None:
    client = Client(port, "/v3/kv/range")
    client.say('{"key":"aw==","x":[' + "1," * 5000 + "1]}")
    assert client.lines == [{"code": 3, "message": "too many values in one message"}]
    assert client.closed == 1000


def test_messages_are_bounded(port: JsonPort) -> None:
    client = Client(port, "/v3/watch")
    for _ in range(40):
        if not client.request.ended:
            client.send(TextMessage(data="[" * 100_000, message_finished=False), run_s=0.0)
    assert client.closed == 1009


def test_requests_that_are_not_taken_stop_the_reading(port: JsonPort) -> None:
    client = Client(port, "/v3/watch")
    request: Asked = client.request
    request.room = 0
    big = '{"create_request":{"key":"' + "A" * 400_000 + '"}}'
    for _ in range(6):
        client.raw([client.wire.send(TextMessage(data=big))])
        port.one.run(0.1)
    assert request.held
    request.room = 1 << 30
    assert request.on_writable is not None
    request.on_writable()
    port.one.run(0.1)
    assert not request.held
    client.read()
    assert len(client.lines) == 6
