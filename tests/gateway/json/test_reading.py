"""What the readers take and refuse; the words are those that etcd 3.7.1 answered with."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.gateway.json.decoding import NotDecodedError, _decode_quickly, decode, is_slow
from keyraft.gateway.json.fields import table_of
from keyraft.gateway.json.methods import methods_of
from keyraft.gateway.json.protojson import read_message
from keyraft.gateway.json.scanner import EndOfText, SyntaxProblem, find_value
from keyraft.grpc import Router
from keyraft.proto import rpc_pb2
from tests.differential.json_requests import Requests

RANGE = table_of(rpc_pb2.RangeRequest.DESCRIPTOR)
TXN = table_of(rpc_pb2.TxnRequest.DESCRIPTOR)


def read(body: bytes, kind: Any = rpc_pb2.RangeRequest) -> Any:
    return kind.FromString(decode(kind, table_of(kind.DESCRIPTOR), body))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"null", "proto: syntax error (line 1:1): unexpected token null"),
        (b'["key"]', "proto: syntax error (line 1:1): unexpected token ["),
        (b'"a" ', 'proto: syntax error (line 1:1): unexpected token "a"'),
        (b"12abc", "proto: syntax error (line 1:1): unexpected token 12"),
        (b'{"key":"Zm9v",}', "invalid character '}' looking for beginning of object key string"),
        (b'{"key":"Zm9v"', "unexpected EOF"),
        (b'{"key":12}', "proto: (line 1:8): invalid value for bytes field key: 12"),
        (b'{"limit":1.5}', "proto: (line 1:10): invalid value for int64 field limit: 1.5"),
        (b'{"limit":" 5"}', 'proto: (line 1:10): invalid value for int64 field limit: " 5"'),
        (b'{"rangeEnd":[]}', "proto: (line 1:13): invalid value for bytes field rangeEnd: ["),
        (b'{"range_end":1}', "proto: (line 1:14): invalid value for bytes field rangeEnd: 1"),
        (b'{"key":"YQ==","key":"YQ=="}', 'proto: (line 1:15): duplicate field "key"'),
        (b'{"rangeEnd":"","range_end":""}', 'proto: (line 1:16): duplicate field "range_end"'),
        (b'{"key":"YW-+"}', 'proto: (line 1:8): invalid value for bytes field key: "YW-+"'),
        (b'\n {"key":"Y\n"}', "invalid character '\\n' in string literal"),
        (b'\n {"ke\xffy":"Y"}', "proto: syntax error (line 1:2): invalid UTF-8 in string"),
        (b'{\n  "key":\n  1}', "proto: (line 3:3): invalid value for bytes field key: 1"),
        (b'{"x":"\\ud800"}', "proto: unexpected EOF"),
        (
            b'{"x":"\\udc00\\ud800"}',
            'proto: syntax error (line 1:6): invalid escape code "\\\\ud800" in string',
        ),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b'{"key" 1}', "invalid character '1' after object key"),
        (b'{"key":1 1}', "invalid character '1' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b'{"limit":-}', "invalid character '}' in numeric literal"),
        (b'{"limit":1.}', "invalid character '}' after decimal point in numeric literal"),
        (b'{"limit":1e+}', "invalid character '}' in exponent of numeric literal"),
        (b'{"limit":01}', "invalid character '1' after object key:value pair"),
        (b'{"limit":tru}', "invalid character '}' in literal true (expecting 'e')"),
        (b'{"a":"\\x"}', "invalid character 'x' in string escape code"),
        (b'{"a":"\\u00g0"}', "invalid character 'g' in \\u hexadecimal character escape"),
        (b'{"a":"\\u00', "unexpected EOF"),
        (b"'", "invalid character '\\'' looking for beginning of value"),
        (b"\xff", "invalid character 'ÿ' looking for beginning of value"),
        (b"[" * 10_001, "invalid character '[' exceeded max depth"),
    ],
)
def test_refusals(body: bytes, text: str) -> None:
    with pytest.raises(NotDecodedError) as refusal:
        read(body)
    assert str(refusal.value) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"success":[null]}', "proto: syntax error (line 1:13): unexpected token null"),
        (b'{"success":{}}', "proto: syntax error (line 1:12): unexpected token {"),
        (
            b'{"success":[{"request_range":{},"request_put":{}}]}',
            'proto: (line 1:33): error parsing "request_put", oneof '
            "etcdserverpb.RequestOp.request is already set",
        ),
    ],
)
def test_refusals_of_transactions(body: bytes, text: str) -> None:
    with pytest.raises(NotDecodedError) as refusal:
        read(body, rpc_pb2.TxnRequest)
    assert str(refusal.value) == text


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", {}),
        (b" \n", {}),
        (b"{}", {}),
        (b'{"key":"YQ=="}', {"key": b"a"}),
        (b'{"key":"YQ"}', {"key": b"a"}),
        (b'{"key":"YR=="}', {"key": b"a"}),
        (b'{"key":"_-8="}', {"key": b"\xff\xef"}),
        (b'{"key":"_-8"}', {"key": b"\xff\xef"}),
        (b'{"key":"Y\\nQ=="}', None),
        (b'{"key":"Y\\u0051=="}', {"key": b"a"}),
        (b'{"key":null,"limit":null}', {}),
        (b'{"rangeEnd":"YQ==","key":""}', {"range_end": b"a"}),
        (b'{"limit":"5"}', {"limit": 5}),
        (b'{"limit":5e0}', {"limit": 5}),
        (b'{"limit":"50e-1"}', {"limit": 5}),
        (b'{"limit":1.50e1}', {"limit": 15}),
        (b'{"limit":-0}', {}),
        (b'{"limit":9223372036854775807}', {"limit": (1 << 63) - 1}),
        (b'{"limit":"-9223372036854775808"}', {"limit": -(1 << 63)}),
        (b'{"limit":9223372036854775808}', None),
        (b'{"limit":1e19}', None),
        (b'{"limit":""}', None),
        (b'{"limit":true}', None),
        (b'{"serializable":true}', {"serializable": True}),
        (b'{"serializable":"true"}', None),
        (b'{"serializable":1}', None),
        (b'{"sortOrder":"ASCEND"}', {"sort_order": 1}),
        (b'{"sort_order":2}', {"sort_order": 2}),
        (b'{"sort_order":99}', {"sort_order": 99}),
        (b'{"sort_order":"NOTHING"}', {}),
        (b'{"sort_order":"1"}', {}),
        (b'{"sort_order":1.5}', None),
        (b'{"x":{"a":[1,"\\ud83d\\ude00",true,null,{}]},"limit":1}', {"limit": 1}),
        (b'{"[a.b]":1,"@type":"x"}', {}),
    ],
)
def test_what_is_taken(body: bytes, fields: dict[str, Any] | None) -> None:
    if fields is None:
        try:
            read(body)
        except NotDecodedError:
            return
        assert body == b'{"key":"Y\\nQ=="}'
        return
    assert read(body) == rpc_pb2.RangeRequest(**fields)


def test_deep_transactions_are_refused() -> None:
    depth = 200
    body = b'{"success":[{"request_txn":' * depth + b"{}" + b"}]}" * depth
    with pytest.raises(NotDecodedError, match="exceeded max recursion depth"):
        read(body, rpc_pb2.TxnRequest)


def test_the_quick_reader_takes_nothing_that_the_exact_one_refuses() -> None:
    requests = Requests(11)
    methods = methods_of(Router())
    quick = 0
    for _ in range(3000):
        request = requests.next()
        method = methods.get(request.path)
        if method is None:
            continue
        found = _decode_quickly(method.request_table, request.body)
        if found is None:
            continue
        quick += 1
        exact = method.request()
        value = find_value(request.body)
        assert value is not None
        read_message(method.request_table, exact, request.body[value[0] : value[1]])
        assert method.request.FromString(found) == exact, request
    assert quick > 1000


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.slow
@given(VALUES, st.sampled_from(["", " ", "]", "{", "1", "x"]))
def test_the_scanner_finds_the_end_of_any_value(value: Any, behind: str) -> None:
    text = json.dumps(value)
    if text[-1].isdigit() and behind == "1":
        behind = " "
    raw = ("\n" + text + behind).encode()
    assert find_value(raw) == (1, 1 + len(text))


@pytest.mark.slow
@given(VALUES, st.randoms())
def test_a_value_that_is_cut_may_go_on(value: Any, chance: random.Random) -> None:
    text = json.dumps([value]).encode()
    cut = chance.randrange(1, len(text))
    with pytest.raises(EndOfText):
        find_value(text[:cut])


@given(st.binary(max_size=60))
def test_the_scanner_agrees_with_json(raw: bytes) -> None:
    try:
        found = find_value(b"[" + raw + b"]")
    except SyntaxProblem:
        found = None
    try:
        json.loads((b"[" + raw + b"]").decode("latin-1"))
        valid = b"NaN" not in raw and b"Infinity" not in raw
    except (ValueError, RecursionError):
        valid = False
    if valid:
        assert found == (0, len(raw) + 2)
    elif found is not None:  # the bracket of `raw` closed it
        assert found[1] < len(raw) + 2


def test_bodies_with_many_values_are_slow() -> None:
    assert is_slow(b"[" + b"1," * 6000 + b"1]")
    assert is_slow(b'"' + b"\\u0041" * 3000 + b'"')
    assert not is_slow(b'{"key":"' + b"A" * 1_000_000 + b'"}')
    assert TXN.by_name["success"].repeated
    assert RANGE.by_name["rangeEnd"] is RANGE.by_name["range_end"]
