"""The line "request stats": counts and sizes as the original's, and never a value."""

from __future__ import annotations

import json
from math import inf

import pytest
from google.protobuf.message import Message

from keyraft.app.request_stats import CONTENT_CHARACTERS_MAX, RequestStats
from keyraft.grpc import CallEnd, Route, Router
from keyraft.logs.zap import ZapLogger
from keyraft.proto import rpc_pb2 as pb


class Lines:
    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def write(self, line: bytes) -> None:
        self.lines.append(json.loads(line))


def no_handler(call: object, request: bytes) -> None:
    """Of methods that nobody calls."""


def ended(route: Route, request: bytes, reply: bytes | None) -> CallEnd:
    path, sizes = route.path.decode(), (len(request), 0 if reply is None else len(reply))
    return CallEnd(path, route, "10.0.0.1:7", None, 0, "", 0.35, request, reply, *sizes)


def reported(method: str, request: bytes, reply: bytes | None) -> dict[str, object]:
    lines = Lines()
    stats = RequestStats(ZapLogger((lines,)), lambda: 1_700_000_000.5)
    stats.report(ended(Router().unary(f"/etcdserverpb.{method}", no_handler), request, reply))
    (line,) = lines.lines
    assert (line["level"], line["msg"], line["time spent"]) == ("warn", "request stats", "350ms")
    assert (line["remote"], line["response type"]) == ("10.0.0.1:7", f"/etcdserverpb.{method}")
    assert str(line["start time"]).startswith("2023-11-1") and ".150000" in str(line["start time"])
    return line


def header() -> pb.ResponseHeader:
    return pb.ResponseHeader(cluster_id=1 << 63, member_id=9, revision=300, raft_term=200)


def put(value: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=value))


SECRET = b"secret" * 50
TXN = pb.TxnRequest(
    compare=[pb.Compare(target="VALUE", key=b"a", value=SECRET), pb.Compare(key=b"b", version=1)],
    success=[put(SECRET), put(b"")],
    failure=[pb.RequestOp(request_range=pb.RangeRequest(key=b"a", range_end=b"\0"))],
)


@pytest.mark.parametrize(
    ("method", "request_", "reply", "counts", "content"),
    [
        (
            "KV/Range",
            pb.RangeRequest(key=b"a\x00", range_end=b"z", limit=3, sort_order="DESCEND"),
            pb.RangeResponse(header=header(), kvs=[{"key": b"a", "value": b"$"}], count=70_000),
            (0, 70_000),
            r'key:"a\x00" range_end:"z" limit:3 sort_order:DESCEND',
        ),
        ("KV/Range", pb.RangeRequest(key=b"a"), pb.RangeResponse(header=header()), (0, 0), 'key:"a"'),
        (
            "KV/Put",
            pb.PutRequest(key=b"a", value=SECRET, lease=7, prev_kv=True),
            pb.PutResponse(header=header()),
            (1, 0),
            'key:"a" value_size:300 lease:7 prev_kv:true',
        ),
        (
            "KV/DeleteRange",
            pb.DeleteRangeRequest(key=b"a"),
            pb.DeleteRangeResponse(header=header(), deleted=200, prev_kvs=[{"key": b"a"}]),
            (0, 200),
            'key:"a"',
        ),
        (
            "KV/Txn",
            TXN,
            pb.TxnResponse(header=header(), succeeded=True),
            (2, 0),
            'compare:<target:VALUE key:"a" value_size:300> compare:<key:"b" version:1> '
            'success:<request_put:<key:"k" value_size:300>> success:<request_put:<key:"k">> '
            'failure:<request_range:<key:"a" range_end:"\\x00">>',
        ),
    ],
)  # fmt: skip
def test_counts_sizes_and_content(
    method: str, request_: Message, reply: Message, counts: tuple[int, int], content: str
) -> None:
    raw, answer = request_.SerializeToString(), reply.SerializeToString()
    line = reported(method, raw, answer)
    size = sum(op.ByteSize() for op in TXN.success) if method == "KV/Txn" else len(raw)
    assert (line["request count"], line["response count"]) == counts
    assert (line["request size"], line["response size"]) == (size, len(answer))
    assert line["request content"] == content
    assert "secret" not in json.dumps(line)


def test_what_failed_has_no_answer_to_count() -> None:
    line = reported("KV/Range", pb.RangeRequest(key=b"a").SerializeToString(), None)
    assert (line["response count"], line["response size"]) == (0, 0)
    line = reported("KV/Txn", TXN.SerializeToString(), None)
    assert (line["request count"], line["request size"]) == (0, 0)


def test_other_methods_and_garbage_count_nothing() -> None:
    line = reported("Lease/LeaseGrant", b"\x08\x05", b"")
    numbers = [
        line[f"{what} {unit}"] for what in ("request", "response") for unit in ("count", "size")
    ]
    assert (numbers, line["request content"]) == ([-1] * 4, "")
    assert reported("KV/Put", b"\xff", None)["request content"] == ""


def test_a_long_request_is_cut() -> None:
    request = pb.RangeRequest(key=b"k" * 1_000_000, range_end=b"l" * 1_000_000)
    content = str(reported("KV/Range", request.SerializeToString(), None)["request content"])
    assert content.startswith('key:"kkk') and content.endswith("...")
    assert len(content) == CONTENT_CHARACTERS_MAX + 3


def test_with_debug_lines_every_request_has_one() -> None:
    router = Router()
    RequestStats(ZapLogger(()), lambda: 0.0).watch(router, 0.3)
    assert router.ends.from_s == 0.3
    RequestStats(ZapLogger((), "debug"), lambda: 0.0).watch(router, 0.3)
    assert router.ends.from_s == -inf


def test_streams_and_unknown_methods_have_no_line() -> None:
    lines = Lines()
    stats = RequestStats(ZapLogger((lines,)), lambda: 0.0)
    watch = Router().stream("/etcdserverpb.Watch/Watch", no_handler)  # type: ignore[arg-type]
    end = ended(watch, b"", None)
    stats.report(end)
    stats.report(end._replace(route=None))
    assert lines.lines == []
