"""The load generator makes the requests it says and reports what it measured."""

from __future__ import annotations

from array import array
from random import Random

from keyraft.lab.load_generator import (
    Results,
    format_report,
    key_maker,
    put_maker,
    range_request,
    txn_maker,
)
from keyraft.proto import rpc_pb2


def test_requests_are_messages() -> None:
    make_put = put_maker(key_maker(16, 1000, True, Random(1)), b"v" * 300)
    put = rpc_pb2.PutRequest.FromString(make_put(1007))
    assert put == rpc_pb2.PutRequest(key=b"0000000000000007", value=b"v" * 300)
    txn = rpc_pb2.TxnRequest.FromString(txn_maker(make_put, 3)(5))
    keys = [op.request_put.key for op in txn.success]
    assert keys == [b"%016d" % number for number in (15, 16, 17)]
    get = rpc_pb2.RangeRequest.FromString(range_request(b"a", b"b", 500, True))
    assert get == rpc_pb2.RangeRequest(key=b"a", range_end=b"b", limit=500, serializable=True)


def test_random_keys_stay_in_their_space() -> None:
    make_key = key_maker(4, 10, False, Random(1))
    assert {make_key(number) for number in range(200)} == {b"%04d" % n for n in range(10)}


def test_the_report_has_the_form_of_etcds_tool() -> None:
    results = Results(array("d", [0.001 * n for n in range(1, 1001)]), {"etcdserver: x": 2}, 2.0)
    report = format_report(results)
    assert "Summary:\n  Total:\t2.0000 secs.\n  Slowest:\t1.0000 secs.\n" in report
    assert "  Requests/sec:\t500.0000\n" in report
    assert "  50% in 0.5000 secs.\n" in report
    assert "  99.9% in 0.9990 secs.\n" in report
    assert "Error distribution:\n  [2]\tetcdserver: x\n" in report
    rows = report.split("histogram:\n")[1].split("\n\n")[0].splitlines()
    assert sum(int(row.split("[")[1].split("]")[0]) for row in rows) == 1000


def test_a_run_without_answers_reports_too() -> None:
    assert "Requests/sec" not in format_report(Results(errors={"x": 1}, total_s=1.0))
