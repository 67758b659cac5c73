"""Checks of the KV service before a request is proposed (etcd `v3rpc/key.go`).

Each function raises the error of the first fault, in etcd's order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from keyraft.base.intervals import Intervals

from ..base.errors import (
    DuplicateKeyError,
    EmptyKeyError,
    InvalidSortOptionError,
    KeyNotFoundError,
    LeaseProvidedError,
    RawError,
    TooManyOpsError,
    ValueProvidedError,
)
from ..base.limits import TXN_OPS_MAX
from ..proto import rpc_pb2
from .read import has_revision_filters, is_default_order

_SORT_ORDER_MAX: Final = 2
_SORT_TARGET_MAX: Final = 4
_UNIMPLEMENTED: Final = 12


def check_range(request: rpc_pb2.RangeRequest) -> None:
    """Raises EmptyKeyError, InvalidSortOptionError."""
    if not request.key:
        raise EmptyKeyError
    if not 0 <= request.sort_order <= _SORT_ORDER_MAX:
        raise InvalidSortOptionError
    if not 0 <= request.sort_target <= _SORT_TARGET_MAX:
        raise InvalidSortOptionError


def check_range_stream(request: rpc_pb2.RangeRequest) -> None:
    """Raises as `check_range`, and RawError for options that streams do not support."""
    check_range(request)
    if not is_default_order(request):
        raise RawError(_UNIMPLEMENTED, "RangeStream does not support custom sort orders")
    if has_revision_filters(request):
        raise RawError(_UNIMPLEMENTED, "RangeStream does not support revision filters")


def check_put(request: rpc_pb2.PutRequest) -> None:
    """Raises EmptyKeyError, ValueProvidedError, LeaseProvidedError.

    A request that `wire.plain_put` recognises needs no check: it has a key and nothing to ignore.
    """
    if not request.key:
        raise EmptyKeyError
    if request.ignore_value and request.value:
        raise ValueProvidedError
    if request.ignore_lease and request.lease:
        raise LeaseProvidedError


def check_delete_range(request: rpc_pb2.DeleteRangeRequest) -> None:
    """Raises EmptyKeyError."""
    if not request.key:
        raise EmptyKeyError


def check_txn(request: rpc_pb2.TxnRequest, ops_max: int = TXN_OPS_MAX) -> None:
    """Raises TooManyOpsError, what the checks of its operations raise, and DuplicateKeyError."""
    _check_txn(request, ops_max)
    _check_overlaps(request.success)
    _check_overlaps(request.failure)


def _check_txn(request: rpc_pb2.TxnRequest, ops_max: int) -> None:
    ops = max(len(request.compare), len(request.success), len(request.failure))
    if ops > ops_max:
        raise TooManyOpsError
    for compare in request.compare:
        if not compare.key:
            raise EmptyKeyError
    for branch in (request.success, request.failure):
        for op in branch:
            kind = op.WhichOneof("request")
            if kind == "request_range":
                check_range(op.request_range)
            elif kind == "request_put":
                check_put(op.request_put)
            elif kind == "request_delete_range":
                check_delete_range(op.request_delete_range)
            elif kind == "request_txn":
                _check_txn(op.request_txn, ops_max - ops)
            else:
                raise KeyNotFoundError


def _check_overlaps(ops: Iterable[rpc_pb2.RequestOp]) -> tuple[set[bytes], Intervals]:
    """What the operations put and delete; raises DuplicateKeyError if they touch a key twice.

    The branches of one nested transaction exclude each other, so both may put the same key.
    """
    deletes = Intervals()
    puts: set[bytes] = set()
    nested: list[rpc_pb2.TxnRequest] = []
    own: list[bytes] = []
    for op in ops:
        kind = op.WhichOneof("request")
        if kind == "request_delete_range":
            key, end = op.request_delete_range.key, op.request_delete_range.range_end
            # One to the end of the keyspace, written with the end \\0, is empty here, as in etcd: it
            # never counts as overlapping.
            deletes.add(key, end or key + b"\x00")
        elif kind == "request_txn":
            nested.append(op.request_txn)
        elif kind == "request_put":
            own.append(op.request_put.key)
    for txn in nested:
        puts_then, deletes_then = _check_overlaps(txn.success)
        puts_else, deletes_else = _check_overlaps(txn.failure)
        for key in puts_then:
            if key in puts or deletes.has(key):
                raise DuplicateKeyError
        puts |= puts_then
        for key in puts_else:
            if (key in puts and key not in puts_then) or deletes.has(key):
                raise DuplicateKeyError
        puts |= puts_else
        for inner in (deletes_then, deletes_else):
            for begin, stop in inner:
                deletes.add(begin, stop)
    for key in own:
        if key in puts or deletes.has(key):
            raise DuplicateKeyError
        puts.add(key)
    return puts, deletes
