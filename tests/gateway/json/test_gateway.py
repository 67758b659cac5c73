from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from keyraft.gateway.json.calls import INBOX_BYTES_MAX
from keyraft.gateway.json.encoding import SLOW_BYTES
from keyraft.gateway.json.methods import methods_of
from keyraft.grpc import CallEnd
from tests.gateway.json.asking import MESSAGE_BYTES_MAX, Asked, JsonPort


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.fixture
def port() -> JsonPort:
    return JsonPort()


def put(port: JsonPort, key: bytes, value: bytes) -> Any:
    answer = port.ask("/v3/kv/put", json.dumps({"key": b64(key), "value": b64(value)}))
    assert answer.status == 200, answer.text
    return answer.value


def test_every_path_has_a_method_of_the_member(port: JsonPort) -> None:
    methods = methods_of(port.router)
    assert len(methods) == 51
    assert all(method.route is not None for method in methods.values())
    found = {method.path for method in methods.values()}
    paths = {route.path for route in port.router}
    left = {path for path in paths - found if not path.startswith(b"/keyraftpb.")}
    assert left == {b"/etcdserverpb.KV/RangeStream"}  # etcd's own choice


def test_a_put_and_a_range(port: JsonPort) -> None:
    put(port, b"k", b"v")
    answer = port.ask("/v3/kv/range", b'{"key":"aw=="}')
    value = answer.value
    header = value.pop("header")
    assert set(header) == {"cluster_id", "member_id", "revision", "raft_term"}
    assert all(type(number) is str for number in header.values())
    revision = header["revision"]
    assert value == {
        "kvs": [
            {
                "key": "aw==",
                "create_revision": revision,
                "mod_revision": revision,
                "version": "1",
                "value": "dg==",
            }
        ],
        "count": "1",
    }
    assert answer.sent[b"content-type"] == b"application/json"
    assert answer.sent[b"grpc-metadata-content-type"] == b"application/grpc"
    assert answer.sent[b"access-control-allow-origin"] == b"*"


def test_the_old_prefix_is_the_same(port: JsonPort) -> None:
    put(port, b"k", b"v")
    assert port.ask("/v3beta/kv/range", b'{"key":"aw=="}').value["count"] == "1"


@pytest.mark.parametrize(
    ("target", "method", "status", "value"),
    [
        ("/v3/nothing", "POST", 404, {"code": 5, "message": "Not Found"}),
        ("/v3/kv/range/", "POST", 404, {"code": 5, "message": "Not Found"}),
        ("/v3/kv/rangestream", "POST", 404, {"code": 5, "message": "Not Found"}),
        ("/v3/", "GET", 404, {"code": 5, "message": "Not Found"}),
        ("/v3/kv/range", "GET", 501, {"code": 12, "message": "Method Not Allowed"}),
        ("/v3/watch", "PUT", 501, {"code": 12, "message": "Method Not Allowed"}),
    ],
)
def test_what_is_no_method(
    port: JsonPort, target: str, method: str, status: int, value: Any
) -> None:
    answer = port.ask(target, method=method)
    assert (answer.status, answer.value) == (status, value)


def test_other_versions_are_no_gateway(port: JsonPort) -> None:
    for target in ("/v3alpha/kv/range", "/v2/keys", "/v3x"):
        answer = port.ask(target)
        assert (answer.status, answer.text) == (404, b"404 page not found\n")


def test_without_the_flag_there_is_no_gateway() -> None:
    answer = JsonPort(json_gateway=False).ask("/v3/kv/range", b"{}")
    assert (answer.status, answer.text) == (404, b"404 page not found\n")


def test_paths_are_redirected_to_clean_ones(port: JsonPort) -> None:
    answer = port.ask("/v3//kv/./range?a=b")
    assert (answer.status, answer.sent[b"location"]) == (307, b"/v3/kv/range?a=b")
    answer = port.ask("/v3", method="GET")
    assert (answer.status, answer.sent[b"location"]) == (307, b"/v3/")
    assert answer.text == b'<a href="/v3/">Temporary Redirect</a>.\n\n'


def test_a_refusal_of_the_member(port: JsonPort) -> None:
    answer = port.ask("/v3/kv/range", b"")
    assert (answer.status, answer.value) == (
        400,
        {"code": 3, "message": "etcdserver: key is not provided"},
    )
    assert b"grpc-metadata-content-type" not in answer.sent
    answer = port.ask("/v3/kv/put", b'{"key":"aw==","lease":"7"}')
    assert (answer.status, answer.value["message"]) == (
        404,
        "etcdserver: requested lease not found",
    )


def test_what_follows_the_request_is_ignored(port: JsonPort) -> None:
    assert port.ask("/v3/kv/range", b'{"key":"aw=="} rubbish').status == 200


def test_an_invalid_token_asks_for_another(port: JsonPort) -> None:
    for path, body in (
        ("user/add", '{"name":"root","password":"p"}'),
        ("role/add", '{"name":"root"}'),
        ("user/grant", '{"user":"root","role":"root"}'),
        ("enable", "{}"),
    ):
        assert port.ask("/v3/auth/" + path, body, run_s=1.0).status == 200
    answer = port.ask("/v3/kv/range", b'{"key":"aw=="}', headers={b"authorization": b"nonsense"})
    assert (answer.status, answer.value["code"]) == (401, 16)
    assert answer.sent[b"www-authenticate"] == b"etcdserver: invalid auth token"
    answer = port.ask("/v3/auth/authenticate", '{"name":"root","password":"p"}', run_s=1.0)
    token = answer.value["token"].encode()
    for headers in (
        {b"authorization": token},
        {b"authorization": b"Bearer " + token},
        {b"grpc-metadata-token": token},
        {b"grpc-metadata-authorization": token},
    ):
        assert port.ask("/v3/kv/range", b'{"key":"aw=="}', headers=headers).status == 200
    stream = port.ask("/v3/maintenance/snapshot", b"{}")
    assert (stream.status, stream.lines) == (
        400,
        [{"error": {"code": 3, "message": "etcdserver: user name is empty"}}],
    )


def test_a_certificates_name_is_no_user_and_its_owner_is_told() -> None:
    port = JsonPort(client_cert_auth=True)

    def ask() -> Asked:
        request = Asked("/v3/kv/range", b'{"key":"aw=="}')
        request.scheme = "https"
        request.common_name = "root"
        port.gateway.handle(request)
        port.one.run(0.1)
        return request

    assert ask().status == 200
    port.auth_enabled = True
    answer = ask()
    assert answer.status == 400
    assert answer.text.startswith(b"CommonName of client sending a request against gateway")
    assert b"access-control-allow-origin" not in answer.sent


def test_deadlines(port: JsonPort) -> None:
    answer = port.ask("/v3/kv/range", b'{"key":"aw=="}', headers={b"grpc-timeout": b"x"})
    assert (answer.status, answer.value["message"]) == (400, "invalid grpc-timeout: x")
    answer = port.ask("/v3/kv/range", b'{"key":"aw=="}', headers={b"grpc-timeout": b"1n"})
    assert (answer.status, answer.value) == (
        504,
        {"code": 4, "message": "context deadline exceeded"},
    )
    stream = port.ask(
        "/v3/watch",
        b'{"create_request":{"key":"aw=="}}',
        headers={b"grpc-timeout": b"300m"},
    )
    assert [line["result"]["created"] for line in stream.lines] == [True]
    port.one.run(0.5)
    assert stream.ended
    assert stream.lines[-1] == {"error": {"code": 4, "message": "context deadline exceeded"}}
    silent = port.ask("/v3/watch", b"", headers={b"grpc-timeout": b"300m"}, run_s=1.0)
    assert (silent.status, len(silent.lines)) == (504, 1)


def test_a_watch_tells_events_a_line_each(port: JsonPort) -> None:
    stream = port.ask(
        "/v3/watch",
        b'{"create_request":{"key":"aw=="}} {"createRequest":{"key":"aw==","watchId":"7"}}',
    )
    put(port, b"k", b"v")
    port.one.run(0.2)
    assert not stream.ended
    created, second, *events = [line["result"] for line in stream.lines]
    assert created["created"] is True
    assert (second["created"], second["watch_id"]) == (True, "7")
    assert [event["events"][0]["kv"]["value"] for event in events] == ["dg==", "dg=="]


def test_renewals_in_one_body(port: JsonPort) -> None:
    assert port.ask("/v3/lease/grant", '{"ID":5,"TTL":"60"}').value["TTL"] == "60"
    stream = port.ask("/v3/lease/keepalive", '{"ID":5}\n{"ID":"6"}{"ID":5}')
    assert stream.ended
    assert [line["result"].get("TTL") for line in stream.lines] == ["60", None, "60"]
    bad = port.ask("/v3/lease/keepalive", "rubbish")
    assert (bad.status, bad.text, bad.sent.get(b"content-type")) == (200, b"", None)


def test_a_client_that_leaves_ends_its_calls(port: JsonPort) -> None:
    watch = port.router.find(b"/etcdserverpb.Watch/Watch")
    lock = port.router.find(b"/v3lockpb.Lock/Lock")
    assert watch is not None
    assert lock is not None
    stream = port.ask("/v3/watch", b'{"create_request":{"key":"aw=="}}')
    holder = port.ask("/v3/lock/lock", b'{"name":"bA=="}', run_s=0.5)
    waiter = port.ask("/v3/lock/lock", b'{"name":"bA=="}', run_s=0.5)
    assert (holder.status, waiter.status) == (200, 0)
    for request in (stream, waiter):
        assert request.on_close is not None
        request.on_close()
    port.one.run(0.5)
    assert (watch.started, watch.handled[1]) == (1, 1)
    assert (lock.started, lock.handled[0], lock.handled[1]) == (2, 1, 1)
    put(port, b"k", b"v")
    assert len(stream.lines) == 1


def test_ends_are_counted_and_told(port: JsonPort) -> None:
    told: list[CallEnd] = []
    port.router.ends.listen(told.append)
    put(port, b"k", b"v")
    port.ask("/v3/kv/range", b"{}")
    assert [(end.path, end.code, end.peer) for end in told] == [
        ("/etcdserverpb.KV/Put", 0, "127.0.0.1:1"),
        ("/etcdserverpb.KV/Range", 3, "127.0.0.1:1"),
    ]
    assert told[0].reply is not None
    assert told[1].text == "etcdserver: key is not provided"
    for route in port.router:
        assert route.started == sum(route.handled)


def test_a_slow_reader_of_a_watch_is_waited_for(port: JsonPort) -> None:
    stream = port.ask("/v3/watch", b'{"create_request":{"key":"aw=="}}', room=2000)
    for _ in range(50):
        put(port, b"k", b"v" * 400)
    port.one.run(0.5)
    assert stream.writable <= 0
    assert len(stream.text) < 10_000

    def seen() -> int:
        return sum(len(line["result"].get("events", ())) for line in stream.lines)

    while seen() < 50:  # it reads again
        before = len(stream.text)
        stream.room += 1_000_000
        assert stream.on_writable is not None
        stream.on_writable()
        port.one.run(0.2)
        assert len(stream.text) > before
    assert seen() == 50


def test_requests_that_a_stream_does_not_take_wait(port: JsonPort) -> None:
    stream = port.ask("/v3/watch", b'{"create_request":{"key":"aw=="}}' * 40, room=400)
    assert 0 < len(stream.lines) < 40
    stream.room = 1 << 20
    assert stream.on_writable is not None
    stream.on_writable()
    port.one.run(0.1)
    assert len(stream.lines) == 40
    assert INBOX_BYTES_MAX > 0


def test_a_request_that_is_too_long(port: JsonPort) -> None:
    body = json.dumps({"key": "aw==", "value": b64(bytes(MESSAGE_BYTES_MAX))})
    answer = port.ask("/v3/kv/put", body)
    assert (answer.status, answer.value["code"]) == (429, 8)
    assert answer.value["message"].startswith("grpc: received message larger than max (")


def test_long_bodies_and_answers_are_made_in_a_thread(port: JsonPort) -> None:
    for number in range(40):
        put(port, b"k%d" % number, bytes(SLOW_BYTES // 32))
    answer = port.ask("/v3/kv/range", b'{"key":"aw==","range_end":"bA=="}')
    assert not answer.pieces
    port.loop.settle()
    assert (answer.status, answer.value["count"]) == (200, "40")
    answer = port.ask("/v3/kv/range", b'{"key":"aw==","x":[' + b"1," * 6000 + b"1]}")
    assert not answer.pieces
    port.loop.settle()
    port.one.run(0.1)
    assert answer.status == 200
