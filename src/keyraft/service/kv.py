"""KV: Range, RangeStream, Put, DeleteRange, Txn, Compact.

A plain put is not parsed here, and no call needs a task or a future: the engine calls a callback
with the answer. The order of the checks: the guard, the quota, the request's own form; then the
engine's: apply gap, permissions, size (etcd `api/v3rpc/key.go`, `quota.go`, `v3_server.go`).
"""

from __future__ import annotations

from keyraft.base.parsing import parse
from keyraft.grpc import SERVER_STREAM, Router, ServerStream, StreamHandler, UnaryCall
from keyraft.mvcc import (
    check_delete_range,
    check_put,
    check_range,
    check_txn,
    cost,
    is_read_only,
    plain_put,
    plain_range,
)
from keyraft.proto import rpc_pb2
from keyraft.service.guard import Guard
from keyraft.service.ports import Keys
from keyraft.service.rangestream import RangeStreamHandler


class KVService:
    """Registered on a router."""

    def __init__(self, keys: Keys, guard: Guard) -> None:
        self._keys = keys
        self._guard = guard
        self._admit = guard.admit
        self._identify = guard.identify
        self._check_read = guard.check_read
        self._rules = guard.rules
        self._space = keys.space
        self._get = keys.get
        self._put = keys.put

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.unary("/etcdserverpb.KV/Range", self.range)
        router.unary("/etcdserverpb.KV/Put", self.put)
        router.unary("/etcdserverpb.KV/DeleteRange", self.delete_range)
        router.unary("/etcdserverpb.KV/Txn", self.txn)
        router.unary("/etcdserverpb.KV/Compact", self.compact)
        router.stream("/etcdserverpb.KV/RangeStream", self.range_stream, SERVER_STREAM)

    # --- writes -------------------------------------------------------------------------------

    def put(self, call: UnaryCall, request: bytes) -> bytes | None:
        """PutRequest -> PutResponse."""
        self._admit(call)
        if not plain_put(request):
            message = parse(rpc_pb2.PutRequest, request)
            self._space.check(cost.put_cost(message))
            check_put(message)
        elif len(request) >= self._space.room:
            self._space.check(cost.PUT_OVERHEAD_BYTES + len(request))
        if self._rules.enabled:
            self._put(call, request, self._identify(call))
        else:
            self._put(call, request)
        return None

    def delete_range(self, call: UnaryCall, request: bytes) -> bytes | None:
        """DeleteRangeRequest -> DeleteRangeResponse."""
        self._admit(call)
        check_delete_range(parse(rpc_pb2.DeleteRangeRequest, request))
        self._keys.delete_range(call, request, self._identify(call))
        return None

    def txn(self, call: UnaryCall, request: bytes) -> bytes | None:
        """TxnRequest -> TxnResponse; one that only reads is no write."""
        self._admit(call)
        message = parse(rpc_pb2.TxnRequest, request)
        if needed := cost.txn_cost(message):
            self._space.check(needed)
        check_txn(message, self._keys.txn_ops_max)
        if is_read_only(message):
            return self._keys.read_txn(call, message, self._guard.who(call))
        self._keys.txn(call, request, self._identify(call))
        return None

    def compact(self, call: UnaryCall, request: bytes) -> bytes | None:
        """CompactionRequest -> CompactionResponse, a physical one once the rows are gone."""
        self._admit(call)
        self._guard.check_admin(call)
        self._keys.compact(call, request, self._identify(call))
        return None

    # --- reads --------------------------------------------------------------------------------

    def range(self, call: UnaryCall, request: bytes) -> bytes | None:
        """RangeRequest -> RangeResponse."""
        key = plain_range(request)
        if key is None:
            message = parse(rpc_pb2.RangeRequest, request)
            self._admit(call, message.serializable)
            check_range(message)
            return self._keys.range(call, message, self._guard.who(call))
        serializable = request[-1] == 1 and len(request) == len(key) + 4
        self._admit(call, serializable)
        if self._rules.enabled:
            return self._get(call, key, serializable, self._check_read)
        return self._get(call, key, serializable)

    def range_stream(self, stream: ServerStream) -> StreamHandler:
        """RangeRequest -> RangeStreamResponses; raises what the guard refuses."""
        return RangeStreamHandler(self._keys, self._guard, stream)
