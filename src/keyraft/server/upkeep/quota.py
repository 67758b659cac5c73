"""How large the database may become, and what a request would add to it.

The cost is etcd's estimate, not a measurement: 256 bytes of overhead per put, 64 per lease (etcd
`server/storage/quota.go`). It is asked twice: before a proposal, where a refusal raises NOSPACE
for this member, and at apply, where only the answer says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from keyraft.base.limits import QUOTA_BACKEND_BYTES
from keyraft.proto import rpc_pb2

PUT_OVERHEAD_BYTES: Final = 256
LEASE_OVERHEAD_BYTES: Final = 64
UNLIMITED_BYTES: Final = 1 << 62


class Sized(Protocol):
    """What holds data."""

    @property
    def size_in_use_bytes(self) -> int:
        """Bytes that hold data; what was freed is written again before the database grows."""


class Quota:
    """The rule for one member. `quota_bytes` 0 means the default, negative none at all.

    DEVIATION: what counts is the data, not the file. Freed pages are used again, so a member whose
    users have deleted and compacted takes writes again without a defragmentation.

    `room` is what a put's encoded request may take so that no closer look is needed; it is one
    heartbeat old at most, and generous by no more than what was written since.
    """

    __slots__ = ("_backend", "_used_bytes", "bytes_max", "room")

    def __init__(self, quota_bytes: int, backend: Sized) -> None:
        self._backend = backend
        self.bytes_max = quota_bytes or QUOTA_BACKEND_BYTES
        self.room = 0
        self._used_bytes = 0
        self.refresh()

    def refresh(self) -> None:
        """Looks at the database's size."""
        self._used_bytes = self._backend.size_in_use_bytes
        if self.bytes_max < 0:
            self.room = UNLIMITED_BYTES
        else:
            self.room = self.bytes_max - self._used_bytes - PUT_OVERHEAD_BYTES

    def allows(self, cost: int) -> bool:
        """Whether there is room for `cost` more bytes."""
        return self.bytes_max < 0 or self._used_bytes + cost < self.bytes_max

    def allows_txn(self, request: rpc_pb2.TxnRequest) -> bool:
        """A transaction that puts nothing costs nothing and always passes."""
        cost = txn_cost(request)
        return cost == 0 or self.allows(cost)

    def remaining(self) -> int:
        """Bytes left; negative when over."""
        return self.bytes_max - self._used_bytes


def put_cost(request: rpc_pb2.PutRequest) -> int:
    """Bytes that a put may add."""
    return PUT_OVERHEAD_BYTES + len(request.key) + len(request.value)


def _branch_cost(ops: Iterable[rpc_pb2.RequestOp]) -> int:
    total = 0
    for op in ops:
        which = op.WhichOneof("request")
        if which == "request_put":
            total += put_cost(op.request_put)
        elif which == "request_txn":
            total += txn_cost(op.request_txn)
    return total


def txn_cost(request: rpc_pb2.TxnRequest) -> int:
    """The dearer branch; nested transactions included."""
    return max(_branch_cost(request.success), _branch_cost(request.failure))
