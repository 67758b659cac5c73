"""What a request would add to the database: etcd's estimate, not a measurement.

256 bytes of overhead per put, 64 per lease (etcd `server/storage/quota.go`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from keyraft.proto import rpc_pb2

PUT_OVERHEAD_BYTES: Final = 256
LEASE_OVERHEAD_BYTES: Final = 64


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
    """The cost of the more expensive branch, including nested transactions."""
    return max(_branch_cost(request.success), _branch_cost(request.failure))
