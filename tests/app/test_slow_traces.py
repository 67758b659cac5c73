"""The line "trace": the steps of a slow request, and never a value."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import Message

from keyraft.app.slow_traces import TRACES_PER_S_MAX, SlowTraces
from keyraft.grpc import CallEnd, Route, Router
from keyraft.logs.zap import ZapLogger
from keyraft.proto import rpc_pb2 as pb

NOW_S = 50.0
TOOK_S = 0.4


class Lines:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, line: bytes) -> None:
        self.lines.append(json.loads(line))


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.5

    def __call__(self) -> float:
        return self.now


def route(path: str) -> Route:
    return Router().unary(path, lambda call, request: None)


def ended(path: str, request: bytes, reply: bytes | None, code: int = 0) -> CallEnd:
    sizes = (len(request), 0 if reply is None else len(reply))
    return CallEnd(path, route(path), "10.0.0.1:7", None, code, "", TOOK_S, request, reply, *sizes)


def traces(carried_s: float) -> tuple[SlowTraces, Lines, Clock]:
    """Of a member that began to carry the request out so long before its end."""
    lines, clock = Lines(), Clock()
    began_s = NOW_S - TOOK_S
    member: Any = SimpleNamespace(
        loop=SimpleNamespace(time=lambda: NOW_S),
        queue=SimpleNamespace(began_s=NOW_S - carried_s),
        counters=SimpleNamespace(
            request_times=SimpleNamespace(last_read=(began_s, NOW_S - carried_s))
        ),
    )
    return SlowTraces(ZapLogger((lines,)), clock, member), lines, clock


HEADER = pb.ResponseHeader(cluster_id=1 << 63, member_id=9, revision=300, raft_term=200)
SECRET = b"secret" * 50
PUT = pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=SECRET))


@pytest.mark.parametrize(
    ("method", "request_", "reply", "operation", "detail", "first", "last"),
    [
        (
            "Range",
            pb.RangeRequest(key=b"a", range_end=b"b", limit=7),
            pb.RangeResponse(header=HEADER, count=40),
            "range",
            "{range_begin:a; range_end:b; response_count:7; response_revision:300; }",
            "agreement among raft nodes before linearized reading",
            "range keys and send them",
        ),
        (
            "Put",
            pb.PutRequest(key=b"k", value=SECRET),
            pb.PutResponse(header=HEADER),
            "put",
            "{key:k; req_size:306; response_revision:300; }",
            "process raft request",
            "store the key",
        ),
        (
            "DeleteRange",
            pb.DeleteRangeRequest(key=b"a", range_end=b"b"),
            pb.DeleteRangeResponse(header=HEADER, deleted=4),
            "delete_range",
            "{key:a; range_end:b; response_revision:300; }",
            "process raft request",
            "delete the keys",
        ),
        (
            "Txn",
            pb.TxnRequest(compare=[pb.Compare(key=b"k", value=SECRET)], success=[PUT]),
            pb.TxnResponse(header=HEADER, succeeded=True),
            "transaction",
            "{read_only:false; response_revision:300; }",
            "process raft request",
            "carry out the operations",
        ),
        (
            "Compact",
            pb.CompactionRequest(revision=250),
            pb.CompactionResponse(header=HEADER),
            "compact",
            "{revision:250; response_revision:300; }",
            "process raft request",
            "check and update compact revision",
        ),
    ],
)
def test_a_slow_request_is_told_with_its_steps(
    method: str,
    request_: Message,
    reply: Message,
    operation: str,
    detail: str,
    first: str,
    last: str,
) -> None:
    request = request_.SerializeToString()
    for carried_s, steps in (
        (0.15, [f"'{first}'  (duration: 250ms)", f"'{last}'  (duration: 150ms)"]),
        (0.01, [f"'{first}'  (duration: 390ms)"]),
        (0.4, [f"'{last}'  (duration: 400ms)"]),
    ):
        slow, lines, _ = traces(carried_s)
        slow.report(ended(f"/etcdserverpb.KV/{method}", request, reply.SerializeToString()))
        (line,) = lines.lines
        assert (line["level"], line["msg"], line["operation"]) == ("info", "trace", operation)
        assert (line["detail"], line["duration"]) == (detail, "400ms")
        assert line["steps"] == steps and line["step_count"] == len(steps)
        assert line["start"] < line["end"]
        assert "secret" not in json.dumps(line)


def test_other_calls_and_refusals_have_none() -> None:
    slow, lines, _ = traces(0.1)
    slow.report(ended("/etcdserverpb.Lease/LeaseGrant", b"", b""))
    slow.report(ended("/etcdserverpb.KV/Put", b"", None, code=14))
    slow.report(ended("/etcdserverpb.KV/Put", b"\xff", b""))
    assert not lines.lines


def test_so_many_are_told_in_a_second() -> None:
    slow, lines, clock = traces(0.1)
    call = ended("/etcdserverpb.KV/Put", b"", b"")
    for _ in range(3 * TRACES_PER_S_MAX):
        slow.report(call)
    assert len(lines.lines) == TRACES_PER_S_MAX
    clock.now += 1.0
    slow.report(call)
    assert len(lines.lines) == TRACES_PER_S_MAX + 1
