"""The JSON gateway on real sockets: HTTP/1.1, HTTP/2 over TLS, websockets, and on which ports."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from tests.net.certificates import make_authority
from tests.support.ports import free_ports
from tests.support.server import OURS, Server, serving

pytestmark = pytest.mark.real

PATIENT_S = 60.0
RANGE = b'{"key":"aw=="}'


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(OURS, tmp_path_factory.mktemp("json") / "data")
    with serving(server):
        yield server


def post(port: int, path: str, body: bytes) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENT_S)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    json_body = "json" in (answer.headers["content-type"] or "")
    return answer.status, json.loads(text) if json_body else text


def test_a_watch_over_http1_tells_what_comes(member: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", member.client_port, timeout=PATIENT_S)
    connection.request("POST", "/v3/watch", b'{"create_request":{"key":"dw=="}}')
    answer = connection.getresponse()
    assert json.loads(answer.readline())["result"]["created"] is True
    assert post(member.client_port, "/v3/kv/put", b'{"key":"dw==","value":"MQ=="}')[0] == 200
    assert json.loads(answer.readline())["result"]["events"][0]["kv"]["value"] == "MQ=="
    connection.close()


def test_a_watch_over_a_websocket(member: Server) -> None:
    with socket.create_connection(("127.0.0.1", member.client_port), PATIENT_S) as plain:
        wire = WSConnection(ConnectionType.CLIENT)
        plain.sendall(wire.send(Request(host="localhost", target="/v3/watch")))

        def next_event() -> Any:
            while True:
                for event in wire.events():
                    return event
                wire.receive_data(plain.recv(65_536) or None)

        assert isinstance(next_event(), AcceptConnection)
        plain.sendall(wire.send(TextMessage(data='{"create_request":{"key":"eA=="}}')))
        created = json.loads(next_event().data)
        assert created["result"]["created"] is True
        assert post(member.client_port, "/v3/kv/put", b'{"key":"eA==","value":"MQ=="}')[0] == 200
        event = json.loads(next_event().data)
        assert event["result"]["events"][0]["kv"]["value"] == "MQ=="
        plain.sendall(wire.send(CloseConnection(code=1000)))
        assert isinstance(next_event(), CloseConnection)
        assert plain.recv(1) == b""


def test_large_values_come_and_go(member: Server) -> None:
    value = "QUFB" * 450_000  # 1.3 MiB
    body = json.dumps({"key": "YmlnMQ==", "value": value}).encode()
    assert post(member.client_port, "/v3/kv/put", body)[0] == 200
    status, answer = post(member.client_port, "/v3/kv/range", b'{"key":"YmlnMQ=="}')
    assert (status, answer["kvs"][0]["value"]) == (200, value)
    status, answer = post(
        member.client_port, "/v3/kv/put", b'{"key":"' + b"QUFB" * 1_000_000 + b'"}'
    )
    assert status == 413


def test_flags_say_where_there_is_a_gateway(tmp_path: Path) -> None:
    http_port = free_ports(1)[0]
    apart = Server(
        OURS, tmp_path / "apart", flags=[f"--listen-client-http-urls=http://127.0.0.1:{http_port}"]
    )
    without = Server(OURS, tmp_path / "without", flags=["--enable-grpc-gateway=false"])
    with serving(apart, without):
        assert post(http_port, "/v3/kv/range", RANGE)[0] == 200
        with pytest.raises((OSError, http.client.HTTPException)):
            post(apart.client_port, "/v3/kv/range", RANGE)
        assert post(without.client_port, "/v3/kv/range", RANGE)[0] == 404


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_http2_over_tls(tmp_path: Path) -> None:
    files = make_authority(tmp_path, "somebody")
    port = free_ports(1)[0]
    secure = Server(
        OURS,
        tmp_path / "secure",
        flags=[
            f"--listen-client-urls=http://127.0.0.1:{port},https://127.0.0.1:{port}",
            f"--cert-file={files.server_cert}",
            f"--key-file={files.server_key}",
        ],
    )
    secure.client_port = port
    with serving(secure):
        curl = ["curl", "-s", "--http2", "--cacert", str(files.ca), "-w", "%{http_version}"]
        found = subprocess.run(
            [*curl, "-d", RANGE.decode(), f"https://127.0.0.1:{port}/v3/kv/range"],
            capture_output=True,
            timeout=PATIENT_S,
            check=False,
        )
        assert found.stdout.endswith(b"2"), found
        assert "header" in json.loads(found.stdout[:-1])
        # Requests of a stream are answered as they come, while the body is open.
        curl = ["curl", "-sN", "--http2", "--cacert", str(files.ca), "-X", "POST", "-T", "."]
        with subprocess.Popen(
            [*curl, f"https://127.0.0.1:{port}/v3/watch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        ) as watch:
            assert watch.stdin is not None and watch.stdout is not None
            for number in range(3):
                watch.stdin.write(b'{"create_request":{"key":"aw=="}}\n')
                told = json.loads(watch.stdout.readline())["result"]
                assert told["created"] and told.get("watch_id", "0") == str(number)
            watch.kill()
