"""KV: requests go on as bytes, but for what the cache, a namespace or an ordering must understand.

With `--experimental-serializable-ordering` no client sees an older revision after a newer one: a
serializable answer from before the newest revision that the proxy has passed on is asked for again,
of other members (etcd `client/v3/ordering`).

Source: etcd `server/proxy/grpcproxy/kv.go`, `client/v3/namespace/kv.go`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from keyraft.base.parsing import parse
from keyraft.client import Namespace
from keyraft.grpc import Router, UnaryCall, status
from keyraft.proto import rpc_pb2
from keyraft.proxy.grpcproxy.range_cache import RangeCache
from keyraft.proxy.grpcproxy.upstream import Upstream, credentials_of

RANGE: Final = b"/etcdserverpb.KV/Range"
PUT: Final = b"/etcdserverpb.KV/Put"
DELETE_RANGE: Final = b"/etcdserverpb.KV/DeleteRange"
TXN: Final = b"/etcdserverpb.KV/Txn"
COMPACT: Final = b"/etcdserverpb.KV/Compact"
_SERIALIZABLE: Final = b"\x38\x01"  # field 7 is true; may stand elsewhere by chance
NO_GREATER_REVISION: Final = (
    "etcdclient: no cluster members have a revision higher than the previously received revision"
)
ORDER_PAUSE_S: Final = 0.05
TXN_DEPTH_MAX: Final = 100


class Ordering:
    """The newest revision that was passed on."""

    def __init__(self) -> None:
        self.revision = 0

    def saw(self, revision: int) -> None:
        """An answer with this revision is passed on."""
        self.revision = max(self.revision, revision)


class KeysProxy:
    """Registered on a router. Without `space` and `ordering` these do not apply."""

    def __init__(
        self,
        upstream: Upstream,
        cache: RangeCache,
        space: Namespace | None = None,
        ordering: Ordering | None = None,
    ) -> None:
        self._upstream = upstream
        self._cache = cache
        self._space = space
        self._ordering = ordering

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.unary("/etcdserverpb.KV/Range", self.range)
        router.unary("/etcdserverpb.KV/Put", self.put)
        router.unary("/etcdserverpb.KV/DeleteRange", self.delete_range)
        router.unary("/etcdserverpb.KV/Txn", self.txn)
        router.unary("/etcdserverpb.KV/Compact", self.compact)

    # --- reads ----------------------------------------------------------------------------------

    def range(self, call: UnaryCall, request: bytes) -> bytes | None:
        """RangeRequest -> RangeResponse."""
        if _SERIALIZABLE in request:
            message = parse(rpc_pb2.RangeRequest, request)
            if message.serializable and not message.revision and message.key:
                if not credentials_of(call.metadata):
                    return self._range_by_cache(call, request, message)
        self._ask_range(call, request, None)
        return None

    def _range_by_cache(
        self, call: UnaryCall, request: bytes, message: rpc_pb2.RangeRequest
    ) -> bytes | None:
        cache = self._cache
        found = cache.get(request, self._ordering.revision if self._ordering else 0)
        if found is not None:
            return found
        name = (message.key, message.range_end)
        self._ask_range(call, request, (name, cache.generation(name)))
        return None

    def _ask_range(
        self,
        call: UnaryCall,
        request: bytes,
        kept: tuple[tuple[bytes, bytes], int] | None,
        tries: int = 0,
    ) -> None:
        sent = request
        if self._space is not None:
            message = parse(rpc_pb2.RangeRequest, request)
            self._space.into_range(message)
            sent = message.SerializeToString()
        elif kept is None and self._ordering is None:
            self._upstream.ask(call, RANGE, request, safe=True)
            return

        def done(code: int, text: str, reply: bytes) -> None:
            call.on_cancel = None
            if code:
                call.fail(code, text)
                return
            answer = rpc_pb2.RangeResponse.FromString(reply)
            if self._is_too_old(answer.header.revision):
                self._again(call, request, kept, tries)
                return
            if self._space is not None:
                self._space.strip_range(answer)
                reply = answer.SerializeToString()
            if kept is not None:
                self._cache.add(request, *kept, reply, answer.header.revision)
            call.respond(reply)

        self._upstream.ask_for(call, RANGE, sent, True, done)

    def _is_too_old(self, revision: int) -> bool:
        ordering = self._ordering
        if ordering is None:
            return False
        if revision < ordering.revision:
            return True
        ordering.saw(revision)
        return False

    def _again(
        self,
        call: UnaryCall,
        request: bytes,
        kept: tuple[tuple[bytes, bytes], int] | None,
        tries: int,
    ) -> None:
        """Asks the next member, after each round of all of them a little later."""
        members = self._upstream.endpoints
        if tries + 1 > 5 * members:
            call.fail(status.UNKNOWN, NO_GREATER_REVISION)
            return
        pause_s = ORDER_PAUSE_S if (tries + 1) % members == 0 else 0.0
        timer = self._upstream.loop.call_later(
            pause_s, self._ask_range, call, request, kept, tries + 1
        )
        call.on_cancel = lambda _call, _code: timer.cancel()

    # --- writes ---------------------------------------------------------------------------------

    def put(self, call: UnaryCall, request: bytes) -> None:
        """PutRequest -> PutResponse."""
        if self._space is None and self._ordering is None and not self._cache.active:
            self._upstream.ask(call, PUT, request, safe=False)
            return
        message = parse(rpc_pb2.PutRequest, request)
        writes = [(message.key, b"")]
        if self._space is not None:
            self._space.into_put(message)
            request = message.SerializeToString()
        self._write(call, PUT, request, writes, rpc_pb2.PutResponse)

    def delete_range(self, call: UnaryCall, request: bytes) -> None:
        """DeleteRangeRequest -> DeleteRangeResponse."""
        if self._space is None and self._ordering is None and not self._cache.active:
            self._upstream.ask(call, DELETE_RANGE, request, safe=False)
            return
        message = parse(rpc_pb2.DeleteRangeRequest, request)
        writes = [(message.key, message.range_end)]
        if self._space is not None:
            self._space.into_range(message)
            request = message.SerializeToString()
        self._write(call, DELETE_RANGE, request, writes, rpc_pb2.DeleteRangeResponse)

    def txn(self, call: UnaryCall, request: bytes) -> None:
        """TxnRequest -> TxnResponse."""
        if self._space is None and self._ordering is None and not self._cache.active:
            self._upstream.ask(call, TXN, request, safe=False)
            return
        message = parse(rpc_pb2.TxnRequest, request)
        writes = list(written_by(message))
        if self._space is not None:
            request = self._space.into_txn(message).SerializeToString()
        self._write(call, TXN, request, writes, rpc_pb2.TxnResponse)

    def _write(
        self,
        call: UnaryCall,
        method: bytes,
        request: bytes,
        writes: list[tuple[bytes, bytes]],
        kind: type[rpc_pb2.PutResponse | rpc_pb2.DeleteRangeResponse | rpc_pb2.TxnResponse],
    ) -> None:
        cache = self._cache
        for written in writes:
            cache.invalidate(*written)

        def done(code: int, text: str, reply: bytes) -> None:
            call.on_cancel = None
            for written in writes:
                cache.invalidate(*written)
            if code:
                call.fail(code, text)
                return
            if self._space is not None or self._ordering is not None:
                answer = kind.FromString(reply)
                if self._ordering is not None:
                    self._ordering.saw(answer.header.revision)
                if self._space is not None:
                    _strip(self._space, answer)
                    reply = answer.SerializeToString()
            call.respond(reply)

        self._upstream.ask_for(call, method, request, False, done)

    def compact(self, call: UnaryCall, request: bytes) -> None:
        """CompactionRequest -> CompactionResponse; no answer of an old revision is kept."""
        self._upstream.ask(call, COMPACT, request, safe=False)


def _strip(
    space: Namespace,
    answer: rpc_pb2.PutResponse | rpc_pb2.DeleteRangeResponse | rpc_pb2.TxnResponse,
) -> None:
    if isinstance(answer, rpc_pb2.PutResponse):
        space.strip_put(answer)
    elif isinstance(answer, rpc_pb2.DeleteRangeResponse):
        space.strip_delete(answer)
    else:
        space.strip_txn(answer)


def written_by(request: rpc_pb2.TxnRequest, depth: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """What a transaction may change, in both branches."""
    for operation in (*request.success, *request.failure):
        which = operation.WhichOneof("request")
        if which == "request_put":
            yield operation.request_put.key, b""
        elif which == "request_delete_range":
            yield operation.request_delete_range.key, operation.request_delete_range.range_end
        elif which == "request_txn" and depth < TXN_DEPTH_MAX:
            yield from written_by(operation.request_txn, depth + 1)
