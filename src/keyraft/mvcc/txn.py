"""Transactions: compare, choose a branch, carry it out (etcd `txn/txn.go`).

All compares of all nested transactions are decided before anything is written, and everything that
can refuse an operation of the chosen branches is checked then too, so a refusal changes nothing.
A sub-response carries a header with only the revision; that of a nested transaction is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from ..base.errors import CompactedError, FutureRevisionError
from ..proto import rpc_pb2
from ..proto.mvcc_pb2 import KeyValue
from . import read
from .wire import field, header, varint

if TYPE_CHECKING:
    from .store import Store

_EQUAL: Final = rpc_pb2.Compare.EQUAL
_GREATER: Final = rpc_pb2.Compare.GREATER
_LESS: Final = rpc_pb2.Compare.LESS
_NOT_EQUAL: Final = rpc_pb2.Compare.NOT_EQUAL
_VERSION: Final = rpc_pb2.Compare.VERSION
_CREATE: Final = rpc_pb2.Compare.CREATE
_MOD: Final = rpc_pb2.Compare.MOD
_VALUE: Final = rpc_pb2.Compare.VALUE
_LEASE: Final = rpc_pb2.Compare.LEASE

T = TypeVar("T", int, bytes)

Path = list[bool]
"""Which branch each transaction takes, in the order of meeting them; consumed from the front."""


def is_read_only(request: rpc_pb2.TxnRequest) -> bool:
    """Whether it needs no log entry: every operation of both branches is a plain range."""
    return all(op.WhichOneof("request") == "request_range" for op in request.success) and all(
        op.WhichOneof("request") == "request_range" for op in request.failure
    )


def is_serializable(request: rpc_pb2.TxnRequest) -> bool:
    """Whether a read-only one may skip the read index."""
    return all(op.request_range.serializable for op in request.success) and all(
        op.request_range.serializable for op in request.failure
    )


def run(store: Store, request: rpc_pb2.TxnRequest) -> bytes:
    """The TxnResponse without its header."""
    path: Path = []
    _decide(store, request, path)
    _check(store, request, Decisions(path))
    body = _execute(store, request, Decisions(path))
    store.end()
    return body


class Decisions:
    """Hands out the decisions one by one."""

    __slots__ = ("_at", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def take(self) -> bool:
        """The next decision."""
        self._at += 1
        return self._path[self._at - 1]


def _decide(store: Store, request: rpc_pb2.TxnRequest, path: Path) -> None:
    holds = all(_compare(store, compare) for compare in request.compare)
    path.append(holds)
    for op in request.success if holds else request.failure:
        if op.WhichOneof("request") == "request_txn":
            _decide(store, op.request_txn, path)


def _check(store: Store, request: rpc_pb2.TxnRequest, path: Decisions) -> None:
    for op in request.success if path.take() else request.failure:
        kind = op.WhichOneof("request")
        if kind == "request_range":
            wanted = op.request_range.revision
            if wanted > store.revision:
                raise FutureRevisionError
            if wanted and wanted < store.compact_revision:
                raise CompactedError
        elif kind == "request_put":
            store.check_put(op.request_put)
        elif kind == "request_txn":
            _check(store, op.request_txn, path)


def _execute(store: Store, request: rpc_pb2.TxnRequest, path: Decisions) -> bytes:
    succeeded = path.take()
    out = [b"\x10\x01" if succeeded else b""]
    for op in request.success if succeeded else request.failure:
        kind = op.WhichOneof("request")
        if kind == "request_range":
            current = store.pending_revision
            body = read.run(store, op.request_range, current)
            response = field(b"\x0a", header(current) + body)
        elif kind == "request_put":
            body = store.do_put(op.request_put)
            response = field(b"\x12", header(store.pending_revision) + body)
        elif kind == "request_delete_range":
            body = store.do_delete_range(op.request_delete_range)
            response = field(b"\x1a", header(store.pending_revision) + body)
        elif kind == "request_txn":
            response = field(b"\x22", header(0) + _execute(store, op.request_txn, path))
        else:
            response = b""
        out.append(b"\x1a" + varint(len(response)) + response)
    return b"".join(out)


def _compare(store: Store, compare: rpc_pb2.Compare) -> bool:
    """Whether the compare holds, for a range: for each key of it."""
    target = compare.target
    keys = read.live_keys(store, compare.key, compare.range_end)
    if not keys:
        # A missing key has no value, not even an empty one; its numbers are 0.
        return target != _VALUE and _holds(compare.result, 0, _wanted(compare))
    if target == _VALUE:
        value = compare.value
        return all(_holds(compare.result, _stored(store, key).value, value) for key in keys)
    wanted = _wanted(compare)
    return all(_holds(compare.result, _actual(store, key, target), wanted) for key in keys)


def _wanted(compare: rpc_pb2.Compare) -> int:
    """The number compared with; 0 when the union holds another target's."""
    target = compare.target
    if target == _VERSION:
        return compare.version
    if target == _CREATE:
        return compare.create_revision
    if target == _MOD:
        return compare.mod_revision
    return compare.lease if target == _LEASE else 0


def _actual(store: Store, key: bytes, target: int) -> int:
    if target == _LEASE:
        return _stored(store, key).lease
    found = store.index.get(key, store.revision)
    assert found is not None, key
    if target == _VERSION:
        return found[3]
    if target == _CREATE:
        return found[2]
    return found[0] if target == _MOD else 0


def _stored(store: Store, key: bytes) -> KeyValue:
    stored = store.latest(key)
    assert stored is not None, key
    return read.parse_stored(stored)


def _holds(result: int, actual: T, wanted: T) -> bool:
    if result == _EQUAL:
        return actual == wanted
    if result == _NOT_EQUAL:
        return actual != wanted
    if result == _GREATER:
        return actual > wanted
    if result == _LESS:
        return actual < wanted
    return True
