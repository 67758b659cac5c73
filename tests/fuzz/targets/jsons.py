"""The JSON gateway: requests as JSON, headers that become metadata, websockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from keyraft.gateway.json.decoding import NotDecodedError, _decode_quickly, decode
from keyraft.gateway.json.encoding import message_json
from keyraft.gateway.json.fields import table_of
from keyraft.gateway.json.metadata import BadHeaderError, annotate
from keyraft.gateway.json.protojson import ProtoJsonError, read_message
from keyraft.gateway.json.scanner import SyntaxProblem, find_value
from keyraft.proto import rpc_pb2
from tests.gateway.json.asking import Asked, JsonPort
from tests.gateway.json.test_websocket import UPGRADE
from tests.server.harness import RUNNING

from ..target import Choices, Target
from .calls import REQUESTS

KINDS = [REQUESTS[path] for path in sorted(REQUESTS)]
TXN = KINDS.index(rpc_pb2.TxnRequest)


def read_json(data: bytes) -> None:
    """A body for the message that the first byte names.

    The quick reader takes only what the long one takes, to the same message; what was read is
    written and read again to the same.
    """
    kind: Any = KINDS[data[0] % len(KINDS)] if data else KINDS[0]
    body = data[1:]
    table = table_of(kind.DESCRIPTOR)
    try:
        message = decode(kind, table, body)
    except NotDecodedError as refusal:
        str(refusal).encode()
        return
    again = decode(kind, table, message_json(kind, table, message))
    assert kind.FromString(again) == kind.FromString(message), body
    quick = _decode_quickly(table, body)
    if quick is not None:
        slow = kind()
        try:
            read_message(table, slow, body.strip(b" \t\r\n"))
        except ProtoJsonError as error:
            raise AssertionError(f"taken quickly, refused slowly: {error}") from error
        assert slow == kind.FromString(quick), body


def _constant(word: str) -> Any:
    raise ValueError(word)


def scan(data: bytes) -> None:
    """What the scanner takes for a value Python's reader takes, too, and the other way round."""
    try:
        found = find_value(data)
    except SyntaxProblem as problem:
        str(problem).encode()
        found = None
        taken = False
    else:
        taken = found is not None
    try:
        text = data[slice(*found)] if found else data
        json.loads(text.decode("utf-8", "replace"), parse_constant=_constant)
    except RecursionError:
        return
    except ValueError as error:
        assert not taken or "digits" in str(error), (data, error)
        return
    if not taken:
        assert not data.strip() or data[:3] == b"\xef\xbb\xbf", data


def read_headers(data: bytes) -> None:
    """Header lines, and what they are as metadata."""
    lines = [line.partition(b":") for line in data.split(b"\n")]
    try:
        metadata, timeout_s = annotate([(name.lower(), value) for name, _, value in lines])
    except BadHeaderError as refusal:
        refusal.text.encode()
        return
    assert timeout_s is None or timeout_s == timeout_s  # no NaN
    assert all(name == name.lower() for name in metadata)


_PORT = JsonPort()
"""One for all inputs: a websocket's end leaves nothing behind."""


def talk_websocket(data: bytes) -> None:
    """Bytes on an open websocket of a watch, a range or keep-alives."""
    choices = Choices(data)
    path = choices.choice(("/v3/watch", "/v3/kv/range", "/v3/lease/keepalive", "/v3/none"))
    request = Asked(path, method="GET", headers=dict(UPGRADE))
    _PORT.gateway.handle(request)
    _PORT.one.run(0.01)
    if request.on_data is None:
        return
    rest = choices.rest()
    for at in range(0, len(rest), 300):
        if request.ended:
            break
        request.on_data(rest[at : at + 300])
        _PORT.one.run(0.01)
    if request.on_close is not None:
        request.on_close()
    _PORT.one.run(0.01)
    RUNNING.pop(id(_PORT.one), None)


def _frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    head = bytes((opcode | (0x80 if final else 0), 0x80 | min(len(payload), 126)))
    if len(payload) >= 126:
        head += len(payload).to_bytes(2, "big")
    return head + bytes(4) + payload  # masked with zeros


def _websocket_seeds() -> Iterator[bytes]:
    watch = b'{"create_request":{"key":"Zm9v","range_end":"AA=="}}'
    yield b"\0" + _frame(1, watch) + _frame(9, b"ping") + _frame(8, b"\x03\xe8")
    yield b"\0" + _frame(1, watch[:20], False) + _frame(0, watch[20:]) + _frame(2, watch)
    yield b"\x40" + _frame(1, b'{"key":"Zm9v"}')
    yield b"\x80" + _frame(1, b'{"ID":"7"}' * 20)


_TXN_JSON = (
    b'{"compare":[{"key":"Zm9v","target":"VALUE","result":"EQUAL","value":"YmFy"}],'
    b'"success":[{"requestPut":{"key":"Zm9v","value":"YQ==","lease":"7"}}],'
    b'"failure":[{"request_range":{"key":"Zm9v","sort_order":1}},{"request_txn":{}}]}'
)


def _body_of(kind: Any, body: bytes) -> bytes:
    return bytes((KINDS.index(kind),)) + body


ALL = (
    Target(
        "json_requests",
        read_json,
        lambda: [
            _body_of(rpc_pb2.TxnRequest, _TXN_JSON),
            _body_of(rpc_pb2.RangeRequest, b'{"key":"Zm9v","limit":"5","serializable":true}'),
            _body_of(
                rpc_pb2.WatchRequest, b'{"create_request":{"key":"Zm9v","filters":["NOPUT"]}}'
            ),
            _body_of(rpc_pb2.MemberAddRequest, b'{"peerURLs":["http://a:1"],"isLearner":null}'),
            _body_of(rpc_pb2.LeaseGrantRequest, b'{"TTL":1e1,"ID":"-9223372036854775808"}'),
        ],
        (b'"requestTxn":', b'{"success":[', b"null", b"\\u0000", b"\\ud800", b"1e3", b"-0", b'"'),
        held_bytes=4 << 20,
        held_per_byte=1_000,
        grown={
            "operations": lambda n: (
                bytes((TXN,))
                + b'{"success":['
                + b",".join([b'{"requestPut":{"key":"Zm9v"}}'] * n)
                + b"]}"
            ),
            "unknown": lambda n: bytes((TXN,)) + b'{"x":' + b"[" * n,
            "strings": lambda n: bytes((TXN,)) + b'{"' + b"\\u0061" * n + b'":1}',
        },
    ),
    Target(
        "json_scanner",
        scan,
        lambda: [_TXN_JSON, b'[1, -2.5e+7, "a\\n\\u00e9", true, null, {}] rest', b"  "],
        (b"\\u", b"\\", b'"', b"1E", b"-", b"tru", b"\xef\xbb\xbf", b"\x7f", b"\xe2\x80\xa8"),
        grown={
            "brackets": lambda n: b"[" * n + b"]" * n,
            "spaces": lambda n: b" " * n,
            "digits": lambda n: b"1" * n,
            "escapes": lambda n: b'"' + b"\\n" * n + b'"',
        },
    ),
    Target(
        "json_headers",
        read_headers,
        lambda: [
            b"authorization:t.1\ngrpc-timeout:5S\ngrpc-metadata-x:y",
            b"grpc-metadata-a-bin:YWJj\ngrpc-metadata-b-bin:=\naccept:*/*",
        ],
        (b"grpc-metadata-", b"-bin:", b"grpc-timeout:", b"\n", b"99999999H", b"\xc2\xb2"),
        grown={"headers": lambda n: b"\n".join(b"grpc-metadata-%d:v" % k for k in range(n))},
    ),
    Target(
        "websocket",
        talk_websocket,
        _websocket_seeds,
        (_frame(9, b""), _frame(8, b""), _frame(1, b"{}"), b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        held_bytes=16 << 20,
        seconds=1.0,
    ),
)
