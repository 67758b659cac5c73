"""Transactions: compare, choose a branch, carry it out (etcd `txn/txn.go`).

All compares, also of nested transactions, are decided before anything is written. All checks of the
chosen operations are done then, too, so a refusal changes nothing. A sub-response carries a header
with only the revision; that of a nested transaction is empty.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from ..base.errors import CompactedError, FutureRevisionError
from ..proto import rpc_pb2
from . import compares, read
from .changes import delete_steps, end_steps
from .wire import field, header, varint

if TYPE_CHECKING:
    from .store import Store

Path = list[bool]
"""The branch of each transaction, in the order in which they are met; consumed from the front."""


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


def steps(store: Store, request: rpc_pb2.TxnRequest) -> Generator[None, None, bytes]:
    """Carries a transaction out; the value is the TxnResponse without its header.

    Between two steps nothing else may write; reads see the revision before. All steps must be done,
    or the store is unusable, unless the transaction only reads.
    """
    path: Path = []
    yield from _decide(store, request, path, store.revision)
    _check(store, request, Decisions(path), store.revision, store.compact_revision)
    body = yield from _execute(store, request, Decisions(path), None)
    yield from end_steps(store)
    return body


def read_steps(store: Store, request: rpc_pb2.TxnRequest) -> Generator[None, None, bytes]:
    """The same for a read-only transaction, which sees the revision of its first step."""
    view = View(store.revision, store.compact_revision)
    pin = store.compactions.pin()
    try:
        path: Path = []
        yield from _decide(store, request, path, view.revision)
        _check(store, request, Decisions(path), view.revision, view.compact_revision)
        return (yield from _execute(store, request, Decisions(path), view))
    finally:
        store.compactions.unpin(pin)


class View:
    """The revision that a read-only transaction sees."""

    __slots__ = ("compact_revision", "revision")

    def __init__(self, revision: int, compact_revision: int) -> None:
        self.revision = revision
        self.compact_revision = compact_revision


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


def _decide(
    store: Store, request: rpc_pb2.TxnRequest, path: Path, at: int
) -> Generator[None, None, None]:
    holds = True
    for compare in request.compare:
        if compare.range_end:
            holds = yield from compares.holds_steps(store, compare, at)
        else:
            holds = compares.holds(store, compare, at)
        if not holds:
            break
    path.append(holds)
    for op in request.success if holds else request.failure:
        if op.WhichOneof("request") == "request_txn":
            yield from _decide(store, op.request_txn, path, at)


def _check(
    store: Store, request: rpc_pb2.TxnRequest, path: Decisions, newest: int, oldest: int
) -> None:
    for op in request.success if path.take() else request.failure:
        kind = op.WhichOneof("request")
        if kind == "request_range":
            wanted = op.request_range.revision
            if wanted > newest:
                raise FutureRevisionError
            if wanted and wanted < oldest:
                raise CompactedError
        elif kind == "request_put":
            store.check_put(op.request_put)
        elif kind == "request_txn":
            _check(store, op.request_txn, path, newest, oldest)


def _execute(
    store: Store, request: rpc_pb2.TxnRequest, path: Decisions, view: View | None
) -> Generator[None, None, bytes]:
    """`view`: of a read-only transaction; None: reads see the transaction's own changes."""
    succeeded = path.take()
    out = [b"\x10\x01" if succeeded else b""]
    for op in request.success if succeeded else request.failure:
        kind = op.WhichOneof("request")
        if kind == "request_range":
            wanted = op.request_range
            current = store.pending_revision if view is None else view.revision
            oldest = store.compact_revision if view is None else view.compact_revision
            body = yield from read.steps(store, wanted, current, oldest)
            response = field(b"\x0a", header(current) + body)
            if wanted.range_end:
                yield
        elif kind == "request_put":
            body = store.do_put(op.request_put)
            response = field(b"\x12", header(store.pending_revision) + body)
        elif kind == "request_delete_range":
            body = yield from delete_steps(store, op.request_delete_range)
            response = field(b"\x1a", header(store.pending_revision) + body)
        elif kind == "request_txn":
            body = yield from _execute(store, op.request_txn, path, view)
            response = field(b"\x22", header(0) + body)
        else:
            response = b""
        out.append(b"\x1a" + varint(len(response)) + response)
    return b"".join(out)
