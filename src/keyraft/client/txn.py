"""Transactions, written as comparisons and operations.

    answer = await (
        client.txn()
        .when(value("lock") == "me", version("counter") > 0)
        .then(put("counter", "8"), get("lock"))
        .otherwise(get("counter"))
        .commit()
    )
    if answer.succeeded: ...

All comparisons must hold (none: always) for `then`; else `otherwise` is carried out; either as one
step at one revision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from keyraft.client.requests import (
    FROM_KEY,
    Bytes,
    delete_request,
    prefix_end,
    put_request,
    range_request,
    to_bytes,
)
from keyraft.proto.lazy import rpc_pb2

Operation: TypeAlias = "rpc_pb2.RequestOp"
Comparison: TypeAlias = "rpc_pb2.Compare"


class Target:
    """One property of a key (or of every key of a range), to be compared with a constant."""

    __slots__ = ("_end", "_field", "_key", "_target")

    def __init__(self, field: str, target: int, key: Bytes, range_end: Bytes = b"") -> None:
        self._field = field
        self._target = target
        self._key = to_bytes(key)
        self._end = to_bytes(range_end)

    def to(self, range_end: Bytes) -> Target:
        """The same of all keys in [key, range_end)."""
        return Target(self._field, self._target, self._key, range_end)

    def of_prefix(self) -> Target:
        """The same of all keys that begin with the key."""
        return Target(self._field, self._target, self._key, prefix_end(self._key))

    def from_key(self) -> Target:
        """The same of all keys at or after the key."""
        return Target(self._field, self._target, self._key, FROM_KEY)

    def compare(self, result: int, constant: int | Bytes) -> Comparison:
        """The comparison with `constant`; `result` is a rpc_pb2.Compare.CompareResult."""
        if self._field == "value":
            if isinstance(constant, int):
                raise TypeError("a value is compared with bytes or str")
            constant = to_bytes(constant)
        elif not isinstance(constant, int):
            raise TypeError(f"{self._field} is compared with an int")
        fields: dict[str, Any] = {self._field: constant}
        return rpc_pb2.Compare(
            result=result,  # type: ignore[arg-type]  # the stub wants its enum's own type
            target=self._target,  # type: ignore[arg-type]  # likewise
            key=self._key,
            range_end=self._end,
            **fields,
        )

    __hash__ = None  # type: ignore[assignment]  # == makes a comparison, so no set may hold it

    def __eq__(self, constant: int | Bytes) -> Comparison:  # type: ignore[override]  # see class
        return self.compare(rpc_pb2.Compare.EQUAL, constant)

    def __ne__(self, constant: int | Bytes) -> Comparison:  # type: ignore[override]  # see class
        return self.compare(rpc_pb2.Compare.NOT_EQUAL, constant)

    def __gt__(self, constant: int | Bytes) -> Comparison:
        return self.compare(rpc_pb2.Compare.GREATER, constant)

    def __lt__(self, constant: int | Bytes) -> Comparison:
        return self.compare(rpc_pb2.Compare.LESS, constant)


def value(key: Bytes) -> Target:
    """The key's value."""
    return Target("value", rpc_pb2.Compare.VALUE, key)


def version(key: Bytes) -> Target:
    """How often the key was put since it was created; 0 when it does not exist."""
    return Target("version", rpc_pb2.Compare.VERSION, key)


def create_revision(key: Bytes) -> Target:
    """The revision of the key's creation; 0 when it does not exist."""
    return Target("create_revision", rpc_pb2.Compare.CREATE, key)


def mod_revision(key: Bytes) -> Target:
    """The revision of the key's last change; 0 when it does not exist."""
    return Target("mod_revision", rpc_pb2.Compare.MOD, key)


def lease_of(key: Bytes) -> Target:
    """The id of the lease that the key hangs on; 0 for none."""
    return Target("lease", rpc_pb2.Compare.LEASE, key)


def exists(key: Bytes) -> Comparison:
    """The key is there."""
    return version(key) > 0


def missing(key: Bytes) -> Comparison:
    """The key is not there."""
    return version(key) == 0


def get(key: Bytes, range_end: Bytes | None = None, **options: Any) -> Operation:
    """A read in a transaction; the options are those of `range_request`."""
    return rpc_pb2.RequestOp(request_range=range_request(key, range_end, **options))


def put(key: Bytes, new_value: Bytes = b"", **options: Any) -> Operation:
    """A write in a transaction; the options are those of `put_request`."""
    return rpc_pb2.RequestOp(request_put=put_request(key, new_value, **options))


def delete(key: Bytes, range_end: Bytes | None = None, **options: Any) -> Operation:
    """A deletion in a transaction; the options are those of `delete_request`."""
    return rpc_pb2.RequestOp(request_delete_range=delete_request(key, range_end, **options))


def nested(inner: Txn) -> Operation:
    """A transaction inside a transaction."""
    return rpc_pb2.RequestOp(request_txn=inner.request)


Commit = Callable[["rpc_pb2.TxnRequest", "float | None"], Awaitable["rpc_pb2.TxnResponse"]]


class Txn:
    """A transaction under construction; `commit` may be called again."""

    __slots__ = ("_commit", "request")

    def __init__(self, commit: Commit | None = None) -> None:
        self._commit = commit
        self.request = rpc_pb2.TxnRequest()

    def when(self, *comparisons: Comparison) -> Txn:
        """Adds comparisons, all of which must hold."""
        self.request.compare.extend(comparisons)
        return self

    def then(self, *operations: Operation) -> Txn:
        """Adds what is done when they hold."""
        self.request.success.extend(operations)
        return self

    def otherwise(self, *operations: Operation) -> Txn:
        """Adds what is done when one does not."""
        self.request.failure.extend(operations)
        return self

    async def commit(self, timeout_s: float | None = None) -> rpc_pb2.TxnResponse:
        """Carries it out; `responses` answer the operations of the branch taken, in order."""
        if self._commit is None:
            raise ValueError("a nested transaction is committed by the one around it")
        return await self._commit(self.request, timeout_s)
