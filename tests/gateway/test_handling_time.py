"""How long RPCs take, as `--metrics=extensive` tells."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from keyraft.gateway import HandlingTime
from keyraft.grpc import Limits, ServerConnection
from tests.grpc.bench import Bench
from tests.grpc.wire import RST, frame
from tests.support.programs import OURS
from tests.support.server import Server, serving

NAME = "grpc_server_handling_seconds"


def test_each_end_of_a_call_is_observed_in_its_method() -> None:
    bench = Bench()
    told = HandlingTime(bench.router)
    bench.server = ServerConnection(bench.router, Limits(), 0.0, clock=lambda: bench.now)
    bench.start()
    bench.feed(bench.peer.unary(1, "/t.T/Echo", b""))
    for stream in (3, 5):
        bench.feed(bench.peer.unary(stream, "/t.T/Hold", b""))
    bench.feed(bench.peer.unary(7, "/t.T/Nothing", b""))
    bench.now = 0.2
    bench.held[0].respond(b"")
    bench.now = 20.0
    bench.feed(frame(RST, 0, 5, b"\0\0\0\x08"))
    (family,) = told.families()
    assert (family.name, family.kind) == (NAME, "histogram")
    found = {
        (labels["grpc_method"], suffix, labels.get("le", "")): value
        for suffix, labels, value in family.samples
    }
    assert [found["Echo", "_bucket", le] for le in ("0.005", "10", "+Inf")] == [1, 1, 1]
    assert [found["Hold", "_bucket", le] for le in ("0.1", "0.25", "10", "+Inf")] == [0, 1, 1, 2]
    assert (found["Hold", "_sum", ""], found["Hold", "_count", ""]) == (20.2, 2)
    assert found["Talk", "_count", ""] == 0
    assert ("Nothing", "_count", "") not in found


@pytest.mark.real
@pytest.mark.parametrize("level", ["basic", "extensive"])
def test_a_member_tells_when_asked_to(tmp_path: Path, level: str) -> None:
    server = Server(OURS, tmp_path / "data", flags=(f"--metrics={level}",))
    with serving(server), urllib.request.urlopen(f"http://{server.endpoint}/metrics") as answer:
        text = answer.read().decode()
    series = f'{NAME}_count{{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}} 0'
    assert (series in text) == (level == "extensive")
