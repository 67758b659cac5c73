"""KV: Range, RangeStream, Put, DeleteRange, Txn, Compact.

A put costs no parsing here when it is a plain one, and no task or future ever: the answer is given
by the callback that apply calls. A range of one key at the present is answered at once when the
member may read right now. Order of the checks: the guard, the quota, the request's own shape, the
apply gap, permissions, size (etcd `api/v3rpc/key.go`, `quota.go`, `v3_server.go`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from keyraft.auth import Identity
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import Router, UnaryCall
from keyraft.mvcc import (
    check_delete_range,
    check_put,
    check_range,
    check_txn,
    cost,
    is_read_only,
    is_serializable,
    plain_put,
    plain_range,
)
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from keyraft.service.guard import Guard
from keyraft.service.rangestream import RangeStreams
from keyraft.service.slicing import in_slices


class _PhysicalCompaction:
    """Waits for the rows to be gone before it answers."""

    ticket: bytes
    on_cancel: Callable[[Any, int], None] | None

    def __init__(
        self, call: UnaryCall, revision: int, when_done: Callable[[int, Callable[[], None]], None]
    ) -> None:
        self._call = call
        self.began_s = call.began_s
        self.cancelled = False
        self._revision = revision
        self._when_done = when_done

    def respond(self, message: bytes) -> None:
        """The revision is compacted for readers."""
        self._when_done(self._revision, lambda: self._call.respond(message))

    def fail(self, code: int, text: str) -> None:
        """Refused."""
        self._call.fail(code, text)


class KVService:
    """Registered on a router; one per member."""

    def __init__(self, member: Member, guard: Guard) -> None:
        self._member = member
        self._guard = guard
        self._store = member.store
        self._encode_header = member.headers.encode
        self._leadership = member.leadership

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.unary("/etcdserverpb.KV/Range", self.range)
        router.unary("/etcdserverpb.KV/Put", self.put)
        router.unary("/etcdserverpb.KV/DeleteRange", self.delete_range)
        router.unary("/etcdserverpb.KV/Txn", self.txn)
        router.unary("/etcdserverpb.KV/Compact", self.compact)
        router.stream(
            "/etcdserverpb.KV/RangeStream",
            RangeStreams(self._member, self._guard).open,
            kind="server_stream",
        )

    # --- writes -------------------------------------------------------------------------------

    def put(self, call: UnaryCall, request: bytes) -> bytes | None:
        """PutRequest -> PutResponse."""
        self._guard.admit(call)
        member = self._member
        if not plain_put(request):
            message = parse(rpc_pb2.PutRequest, request)
            self._check_quota(cost.put_cost(message))
            check_put(message)
        elif len(request) >= member.quota.room:
            self._check_quota(cost.PUT_OVERHEAD_BYTES + len(request))
        if member.auth.enabled:
            self._guard.propose(call, internal_request.KIND_PUT, request)
        else:
            member.propose_for(call, internal_request.KIND_PUT, request)
        return None

    def delete_range(self, call: UnaryCall, request: bytes) -> bytes | None:
        """DeleteRangeRequest -> DeleteRangeResponse."""
        self._guard.admit(call)
        check_delete_range(parse(rpc_pb2.DeleteRangeRequest, request))
        self._guard.propose(call, internal_request.KIND_DELETE_RANGE, request)
        return None

    def txn(self, call: UnaryCall, request: bytes) -> bytes | None:
        """TxnRequest -> TxnResponse; one that only reads does not go through the log."""
        self._guard.admit(call)
        member = self._member
        message = parse(rpc_pb2.TxnRequest, request)
        self._check_quota(cost.txn_cost(message))
        check_txn(message, member.settings.txn_ops_max)
        if not is_read_only(message):
            self._guard.propose(call, internal_request.KIND_TXN, request)
            return None

        def read() -> bytes | None:
            auth = member.auth
            identity: Identity | None = None
            if auth.enabled:
                identity = self._guard.caller(call)
                auth.check_txn(identity, message)
                auth.confirm(identity)
            return self._sliced(call, self._store.read_txn_steps(message), identity)

        if is_serializable(message) or member.readable:
            return read()
        self._read_later(call, read)
        return None

    def compact(self, call: UnaryCall, request: bytes) -> bytes | None:
        """CompactionRequest -> CompactionResponse, a physical one once the rows are gone."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        message = parse(rpc_pb2.CompactionRequest, request)
        if not message.physical:
            self._guard.propose(call, internal_request.KIND_COMPACTION, request)
            return None

        compactor = self._member.compactor
        physical = _PhysicalCompaction(call, message.revision, compactor.when_done)
        identity = self._guard.identify(call)
        if identity is None:
            self._member.propose_for(physical, internal_request.KIND_COMPACTION, request)
        else:
            self._member.propose_for(
                physical,
                internal_request.KIND_COMPACTION,
                request,
                identity.username,
                identity.revision,
            )
        call.on_cancel = lambda _, code: self._member.give_up(physical, code)
        return None

    def _check_quota(self, cost: int) -> None:
        """Refuses what would exceed the quota, and raises the alarm for this member."""
        if cost and not self._member.quota.allows(cost):
            self._member.raise_no_space()
            raise errors.NoSpaceError

    # --- reads --------------------------------------------------------------------------------

    def range(self, call: UnaryCall, request: bytes) -> bytes | None:
        """RangeRequest -> RangeResponse."""
        member = self._member
        key = plain_range(request)
        if key is None:
            return self._any_range(call, request)
        serializable = request[-1] == 1 and len(request) == len(key) + 4
        auth = member.auth
        if auth.enabled and not (serializable or member.readable):
            return self._any_range(call, request)
        self._guard.admit(call, serializable)
        store = self._store
        if serializable or member.readable:
            if auth.enabled:
                identity = self._guard.caller(call)
                auth.check_range(identity, key, b"")
                auth.confirm(identity)
            return self._encode_header(store.revision, self._leadership.term) + store.get(key)
        found = key
        self._read_later(
            call,
            lambda: self._encode_header(store.revision, self._leadership.term) + store.get(found),
        )
        return None

    def _any_range(self, call: UnaryCall, request: bytes) -> bytes | None:
        member = self._member
        message = parse(rpc_pb2.RangeRequest, request)
        self._guard.admit(call, message.serializable)
        check_range(message)

        def read() -> bytes | None:
            auth = member.auth
            identity: Identity | None = None
            if auth.enabled:
                identity = self._guard.caller(call)
                auth.check_range(identity, message.key, message.range_end)
                auth.confirm(identity)
            if not message.range_end:
                return member.header(self._store.revision) + self._store.range(request)
            return self._sliced(call, self._store.range_steps(message), identity)

        if message.serializable or member.readable:
            return read()
        self._read_later(call, read)
        return None

    def _read_later(self, call: UnaryCall, read: Callable[[], bytes | None]) -> None:
        """Answers with `read()` when the member may; None from it means that it answers itself."""

        def ready(error: EtcdError | None) -> None:
            if call.cancelled:
                return
            if error is not None:
                call.fail(error.code, error.text)
                return
            try:
                answer = read()
            except (EtcdError, RawError) as refusal:
                call.fail(refusal.code, refusal.text)
                return
            if answer is not None:
                call.respond(answer)

        self._member.read_index(ready)

    def _sliced(
        self, call: UnaryCall, work: Generator[None, None, bytes], identity: Identity | None
    ) -> bytes | None:
        """A read of many keys: at once if it is small, else over turns.

        Who may see them is asked before, and at the end whether the users are still the same.
        """
        member = self._member
        header = member.header(self._store.revision)

        def finish(body: bytes) -> bytes:
            if identity is not None:
                member.auth.confirm(identity)
            return header + body

        return in_slices(member, call, work, finish)
