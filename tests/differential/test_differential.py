"""Keyraft answers what the original answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyraft.proto import rpc_pb2
from tests.differential.compare import Answer, difference, everything, hash_operation
from tests.differential.operations import KV, Generator, Operation
from tests.differential.runner import run, run_with_watches
from tests.support.server import ORACLE, OURS, Server, needs_oracle


@pytest.fixture
def original(tmp_path: Path) -> Iterator[Server]:
    server = Server(ORACLE, tmp_path / "original").start()
    yield server
    server.stop()


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Server]:
    server = Server(OURS, tmp_path / "ours").start()
    yield server
    server.stop()


def test_one_seed_makes_one_run() -> None:
    first, second = Generator(1, with_leases=True), Generator(1, with_leases=True)
    for _ in range(300):
        assert first.next() == second.next()


def test_the_comparison_sees_a_wrong_revision_text_and_code() -> None:
    pairs = rpc_pb2.RangeResponse(count=1)
    pairs.header.revision = 7
    wrong = rpc_pb2.RangeResponse(count=1)
    wrong.header.revision = 8
    operation = everything()
    assert difference(operation, Answer(pairs), Answer(pairs)) == (False, "")
    assert difference(operation, Answer(pairs), Answer(wrong)) == (True, "")
    assert difference(operation, Answer(None, 3, "a"), Answer(None, 3, "b"))[0]
    assert difference(operation, Answer(None, 3, "a"), Answer(None, 11, "a"))[0]
    assert difference(operation, Answer(pairs), Answer(None, 3, "a"))[0]


def test_an_excuse_covers_its_own_case_only() -> None:
    sort_refused = Answer(None, 3, "etcdserver: invalid sort option")
    plain = rpc_pb2.RangeRequest(key=b"a")
    odd = rpc_pb2.RangeRequest(key=b"a", sort_order=7)
    fine = Answer(rpc_pb2.RangeResponse())
    for request, excused in ((plain, False), (odd, True)):
        operation = Operation(KV + "Range", request.SerializeToString(), request)
        assert difference(operation, fine, sort_refused)[0] is not excused
    compacted = Answer(None, 11, "etcdserver: mvcc: required revision has been compacted")
    hashed = Answer(rpc_pb2.HashKVResponse(hash=1, hash_revision=6))
    assert difference(hash_operation(5), compacted, hashed)[0]


@pytest.mark.real
@needs_oracle()
@pytest.mark.parametrize("seed", [1])
def test_random_operations_get_the_originals_answers(
    seed: int, original: Server, ours: Server
) -> None:
    report = run(seed, 1_500, original.endpoint, ours.endpoint)
    assert not report.difference, report


@pytest.mark.real
@needs_oracle()
@pytest.mark.parametrize("seed", [1])
def test_random_operations_with_leases_and_watches(
    seed: int, original: Server, ours: Server
) -> None:
    report = run_with_watches(seed, 1_000, original.endpoint, ours.endpoint)
    assert not report.difference, report
    assert report.events > 1_000, report


@pytest.mark.soak
@needs_oracle()
def test_many_random_operations_with_leases_and_watches(original: Server, ours: Server) -> None:
    report = run_with_watches(200, 20_000, original.endpoint, ours.endpoint)
    print(report)
    assert not report.difference, report


@pytest.mark.soak
@needs_oracle()
@pytest.mark.parametrize("seed", range(100, 105))
def test_many_random_operations(seed: int, original: Server, ours: Server) -> None:
    report = run(seed, 20_000, original.endpoint, ours.endpoint)
    print(report)
    assert not report.difference, report
