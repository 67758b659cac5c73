"""Lines of the audit log: what is shown of each request, never a value, and never too much."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from keyraft.audit.fields import (
    DETAILS_CHARACTERS_MAX,
    KEY_BYTES_MAX,
    SHOWN,
    details,
    plain_key,
)
from keyraft.audit.lines import AuditLines, Batch
from keyraft.gateway.json.methods import methods_of
from keyraft.grpc import Router, status
from keyraft.proto import election_pb2, lock_pb2, rpc_pb2
from keyraft.proto import rpc_pb2 as pb

SECRET = "a-secret-0d1e"
HIDDEN = {"value", "password", "hashedPassword", "prev_kv", "token"}
KV = "/etcdserverpb.KV/"


def filled(message: Message, depth: int = 0) -> Message:
    """With every field set, each text and value a secret."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            if depth < 4:
                one = getattr(message, field.name)
                filled(one.add() if field.is_repeated else one, depth + 1)
                if not field.is_repeated:
                    one.SetInParent()
        else:
            hidden = field.name in HIDDEN
            value: object = 1
            if field.type == field.TYPE_STRING:
                value = SECRET if hidden else field.name
            elif field.type == field.TYPE_BYTES:
                value = SECRET.encode() if hidden else b"k"
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


def requests() -> list[tuple[str, Message]]:
    found: list[tuple[str, Message]] = []
    for kinds, package in (
        (rpc_pb2, "etcdserverpb"),
        (lock_pb2, "v3lockpb"),
        (election_pb2, "v3electionpb"),
    ):
        for name in dir(kinds):
            if name.endswith("Request"):
                for method in SHOWN:
                    called = method.rpartition("/")[2]
                    if method.startswith(f"/{package}.") and name.endswith(f"{called}Request"):
                        found.append((method, filled(getattr(kinds, name)())))
    return found


@pytest.mark.parametrize(("method", "request_"), requests(), ids=lambda one: str(one)[:50])
def test_no_secret_is_shown_of_any_request(method: str, request_: Message) -> None:
    shown = details(method, request_.SerializeToString())
    assert SECRET not in shown
    json.loads(shown or "{}")


def test_every_method_of_the_gateway_is_known_or_has_nothing_to_show() -> None:
    paths = {method.path.decode() for method in methods_of(Router()).values()}
    nothing = {path for path in paths if path not in SHOWN}
    assert {path.rpartition("/")[2] for path in nothing} == {
        "LeaseLeases", "MemberList", "Status", "Defragment", "Hash", "Snapshot",
        "AuthEnable", "AuthDisable", "AuthStatus", "UserList", "RoleList",
    }  # fmt: skip


def shown(method: str, request: Message) -> dict[str, object]:
    found = json.loads(details(KV + method, request.SerializeToString()))
    assert isinstance(found, dict)
    return found


def test_a_transaction_shows_what_it_compares_and_does() -> None:
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"p", value=b"v", lease=-1))
    inner = pb.TxnRequest(success=[put])
    txn = pb.TxnRequest(
        compare=[pb.Compare(key=b"c", value=b"v", range_end=b"d")],
        success=[put, pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"\xff"))],
        failure=[pb.RequestOp(request_txn=inner)],
    )
    one = {"put": {"key": "p", "lease": "ffffffffffffffff"}}
    assert shown("Txn", txn) == {
        "compare": [{"key": "c", "range_end": "d"}],
        "success": [one, {"delete": {"key_base64": "/w=="}}],
        "failure": [{"txn": {"success": [one]}}],
    }


def test_what_is_cut_says_so() -> None:
    long = b"x" * (KEY_BYTES_MAX + 1)
    assert shown("Put", pb.PutRequest(key=long)) == {
        "key": "x" * KEY_BYTES_MAX,
        "key_bytes": KEY_BYTES_MAX + 1,
    }
    broken = shown("Put", pb.PutRequest(key=b"\xff" * 5_000))
    assert b64decode(str(broken["key_base64"])) == b"\xff" * KEY_BYTES_MAX
    put = pb.RequestOp(request_put=pb.PutRequest(key=long))
    text = details(KV + "Txn", pb.TxnRequest(success=[put] * 100).SerializeToString())
    found = json.loads(text)
    listed = sum(1 for one in found["success"] if one["put"])
    assert len(text) < 2 * DETAILS_CHARACTERS_MAX and 0 < listed < 100
    assert listed + found["left_out"] == 100
    assert details(KV + "Put", b"\x0a\x05ab") == '{"malformed":true}'


def nested(depth: int) -> bytes:
    inner = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"deep"))])
    for _ in range(depth):
        inner = pb.TxnRequest(success=[pb.RequestOp(request_txn=inner)])
    return inner.SerializeToString()


def test_transactions_in_transactions_are_shown_to_a_depth() -> None:
    assert "deep" in details(KV + "Txn", nested(3))
    deep = details(KV + "Txn", nested(40))
    assert "deep" not in deep and json.loads(deep)["left_out"] == 1


@given(key=st.binary(max_size=300), value=st.binary(max_size=300), lease=st.integers(0, 9))
def test_the_quick_look_at_a_key_agrees_with_the_whole(
    key: bytes, value: bytes, lease: int
) -> None:
    for method, message in (
        ("Put", pb.PutRequest(key=key, value=value, lease=lease)),
        ("Range", pb.RangeRequest(key=key, limit=lease)),
        ("DeleteRange", pb.DeleteRangeRequest(key=key, range_end=value)),
    ):
        request = message.SerializeToString()
        quick = plain_key(KV + method, request)
        if quick is not None:
            assert shown(method, message) == {"key": quick}
        elif 0 < len(key) < 128 and method == "Put" and not lease:
            assert "key_base64" in shown(method, message)


@given(st.binary(max_size=40))
def test_anything_may_come(request_: bytes) -> None:
    for method in (KV + "Put", KV + "Txn", KV + "Range"):
        plain_key(method, request_)
        json.loads(details(method, request_) or "{}")


HEADER = pb.ResponseHeader(cluster_id=1 << 63, member_id=1 << 63, revision=300, raft_term=2)
UNIX = 1_700_000_000.25


def origin(method: str, stage: str = "") -> tuple[str, str, str, str, str, str]:
    return (f"/etcdserverpb.{method}", 'al"ice', "cn", "10.0.0.7:5", "grpc", stage)


def lines(batch: Batch) -> list[dict[str, object]]:
    made = AuditLines(status.CODE_NAMES).lines(batch)
    return [json.loads(line) for line in made.splitlines()]


def test_a_batch_becomes_its_lines() -> None:
    put = pb.PutRequest(key=b"k", value=b"v" * 50).SerializeToString()
    reply = pb.PutResponse(header=HEADER).SerializeToString()
    origins = [origin("KV/Put"), origin("KV/Txn")]
    txn = pb.TxnResponse(header=HEADER, succeeded=True).SerializeToString()
    columns = (
        origins,
        [0, 1, 0],
        [put, b"", '{"key":"long"}'],
        [reply, txn, reply],
        [1.0, 1.0, 2.0],
    )
    refused = (origin("KV/Range"), b"\x0a\x01k", None, 7, "etcdserver: permission denied", 4.0, 0.5)
    got = lines((UNIX, 3, columns, [2, 1.5, 3, 2.25], [refused]))
    base = {"user": 'al"ice', "certificate": "cn", "remote": "10.0.0.7:5", "via": "grpc"}
    ok = {"code": "OK", "revision": 300}
    start = "2023-11-14T22:13:2"
    assert got == [
        {"time": f"{start}2.500000Z", "lost": 3},
        {
            "time": f"{start}1.750000Z", "method": "/etcdserverpb.KV/Put", **base,
            "request": {"key": "k"}, **ok, "took_ms": 500.0,
        },
        {
            "time": f"{start}1.750000Z", "method": "/etcdserverpb.KV/Txn", **base, **ok,
            "succeeded": True, "took_ms": 500.0,
        },
        {
            "time": f"{start}2.500000Z", "method": "/etcdserverpb.KV/Put", **base,
            "request": {"key": "long"}, **ok, "took_ms": 250.0,
        },
        {
            "time": f"{start}4.250000Z", "method": "/etcdserverpb.KV/Range", **base,
            "request": {"key": "k"}, "code": "PermissionDenied",
            "error": "etcdserver: permission denied", "took_ms": 500.0,
        },
    ]  # fmt: skip


def test_a_grant_says_which_lease_and_a_stream_its_stage() -> None:
    reply = pb.LeaseGrantResponse(header=HEADER, ID=255).SerializeToString()
    grant = (origin("Lease/LeaseGrant"), b"", reply, 0, "", 0.0, 0.0)
    stream = (origin("Watch/Watch", "end"), b"", None, 99, "x" * 5_000, 0.0, 0.0)
    first, second = lines((UNIX, 0, ([], [], [], [], []), [0, 1.0], [grant, stream]))
    assert (first["granted"], first["revision"]) == ("ff", 300)
    assert (second["stage"], second["code"], len(str(second["error"]))) == (
        "end",
        "Code(99)",
        1_024,
    )
