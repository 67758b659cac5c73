"""The parts of the client that ask no server: endpoints, requests, transactions, prefixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.client import (
    create_revision,
    delete,
    errors,
    exists,
    get,
    lease_of,
    nested,
    prefix_end,
    put,
    value,
    version,
)
from keyraft.client.endpoint import parse
from keyraft.client.namespace import Namespace
from keyraft.client.requests import FROM_KEY, key_range, range_request
from keyraft.client.txn import Txn
from keyraft.proto import rpc_pb2


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "tls"),
    [
        ("127.0.0.1:2379", "127.0.0.1", 2379, "", None),
        ("http://a.example:1", "a.example", 1, "", False),
        ("https://a.example", "a.example", 2379, "", True),
        ("https://[::1]:5", "::1", 5, "", True),
        ("[::1]", "::1", 2379, "", None),
        ("unix:///run/etcd.sock", "", 0, "/run/etcd.sock", False),
        ("unixs:here.sock", "", 0, "here.sock", True),
        (":4", "127.0.0.1", 4, "", None),
    ],
)
def test_endpoints_are_read(text: str, host: str, port: int, path: str, tls: bool | None) -> None:
    found = parse(text)
    assert (found.host, found.port, found.path, found.tls) == (host, port, path, tls)


@pytest.mark.parametrize("text", ["ftp://a:1", "a:b", "a:70000", "[::1", "[::1]x", "unix://"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


@given(st.binary(), st.binary())
def test_a_prefix_ends_where_the_keys_with_it_end(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    inside = key >= prefix and (end == FROM_KEY or key < end)
    assert inside == key.startswith(prefix)


def test_forms_of_range_exclude_each_other() -> None:
    with pytest.raises(ValueError):
        key_range(b"a", b"b", prefix=True)
    with pytest.raises(ValueError):
        key_range(b"a", prefix=True, from_key=True)
    assert key_range("", prefix=True) == (FROM_KEY, FROM_KEY)
    assert key_range("a", from_key=True) == (b"a", FROM_KEY)


def test_sorting_by_key_upwards_asks_for_nothing() -> None:
    request = range_request("a", sort_by="key", order="ascend")
    assert request.sort_order == rpc_pb2.RangeRequest.NONE
    assert range_request("a", sort_by="mod").sort_order == rpc_pb2.RangeRequest.ASCEND


def test_a_transaction_says_what_was_written() -> None:
    made = (
        Txn()
        .when(value("a") == "1", version("b") > 2, lease_of("c") != 3, create_revision("d") < 4)
        .then(put("x", "y", lease=7), nested(Txn().when(exists("n")).then(get("n"))))
        .otherwise(delete("p", prefix=True))
        .request
    )
    assert [compare.result for compare in made.compare] == [0, 1, 3, 2]
    assert made.compare[0].value == b"1" and made.compare[2].lease == 3
    assert made.success[0].request_put.lease == 7
    assert made.success[1].request_txn.compare[0].version == 0
    assert made.failure[0].request_delete_range.range_end == b"q"


def test_a_value_is_compared_with_bytes_and_a_number_with_a_number() -> None:
    with pytest.raises(TypeError):
        _ = value("a") == 1
    with pytest.raises(TypeError):
        _ = version("a") == "1"


@given(st.binary(min_size=1), st.binary(min_size=1), st.binary())
def test_a_namespace_holds_exactly_the_keys_of_its_prefix(
    prefix: bytes, key: bytes, other: bytes
) -> None:
    space = Namespace(prefix)
    request = rpc_pb2.RangeRequest(key=key, range_end=FROM_KEY)
    space.into_range(request)
    wire = prefix + other
    seen = wire >= request.key and (request.range_end == FROM_KEY or wire < request.range_end)
    expected = key == FROM_KEY or other >= key
    assert seen == expected
    pair = rpc_pb2.RangeResponse(kvs=[{"key": wire}])
    space.strip_range(pair)
    assert pair.kvs[0].key == other


def test_texts_of_the_wire_become_kinds() -> None:
    found = errors.from_status(11, "etcdserver: mvcc: required revision has been compacted")
    assert isinstance(found, errors.CompactedError)
    assert isinstance(errors.from_status(14, "gone"), errors.UnavailableError)
    assert isinstance(errors.from_status(4, "late"), errors.DeadlineError)
    reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    assert isinstance(errors.from_cancel_reason(reason), errors.PermissionDeniedError)
    assert isinstance(
        errors.from_cancel_reason("mvcc: watcher range is empty"),
        errors.WatchCanceledByServerError,
    )
