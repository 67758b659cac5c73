"""The keys: writes go through the log, reads are answered when the member may read.

A range of one key at the present revision is answered at once when the member may read now.
Permissions are checked when keys are read. After the last key it is checked that users have not
changed meanwhile (etcd `v3_server.go`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from keyraft.auth import NOBODY, Identity
from keyraft.base.errors import EtcdError
from keyraft.base.parsing import parse
from keyraft.base.waiters import Waiter
from keyraft.grpc import CallContext, UnaryCall
from keyraft.mvcc import LargeRange, is_serializable, large_range_steps
from keyraft.proto import rpc_pb2
from keyraft.server.apply import internal_request
from keyraft.server.engine.range_feeds import PieceWaiter, RangeFeed, RangeFeeds, RangeOutput
from keyraft.server.engine.slicing import in_slices, when_readable
from keyraft.server.request_times import SAMPLE

if TYPE_CHECKING:
    from keyraft.server.member import Member

Who = Callable[[], Identity | None]
"""Identifies the caller."""

CheckRead = Callable[[CallContext, bytes], None]
"""The caller of a call may read a key."""


class _PhysicalCompaction:
    """Answers when the rows are deleted."""

    ticket: bytes
    on_cancel: Callable[[Any, int], None] | None
    cancelled = False

    def __init__(
        self, waiter: Waiter, revision: int, when_done: Callable[[int, Callable[[], None]], None]
    ) -> None:
        self._waiter = waiter
        self.began_s = waiter.began_s
        self._revision = revision
        self._when_done = when_done

    def respond(self, message: bytes) -> None:
        """The revision is compacted for readers."""
        self._when_done(self._revision, lambda: self._waiter.respond(message))

    def fail(self, code: int, text: str) -> None:
        """Refused."""
        self._waiter.fail(code, text)


class RaftKeys:
    """`service.ports.Keys` of one member."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._store = member.store
        self._queue = member.queue
        self._auth = member.auth
        self._leadership = member.leadership
        self._encode_header = member.headers.encode
        self._feeds = RangeFeeds(member)
        self._times = member.counters.request_times
        self.space = member.quota
        self.txn_ops_max = member.settings.txn_ops_max
        propose = member.propose_for
        self.put = partial(propose, internal_request.KIND_PUT)
        self.delete_range = partial(propose, internal_request.KIND_DELETE_RANGE)
        self.txn = partial(propose, internal_request.KIND_TXN)
        self.withdraw = member.withdraw

    def compact(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        """See the port."""
        member = self._member
        message = parse(rpc_pb2.CompactionRequest, request)
        kind = internal_request.KIND_COMPACTION
        if not message.physical:
            member.propose_for(kind, waiter, request, caller)
            return
        physical = _PhysicalCompaction(waiter, message.revision, member.compactor.when_done)
        member.propose_for(kind, physical, request, caller)
        waiter.on_cancel = lambda _, code: member.give_up(physical, code)

    # --- reads --------------------------------------------------------------------------------

    def get(
        self, call: UnaryCall, key: bytes, serializable: bool, check: CheckRead | None = None
    ) -> bytes | None:
        """See the port."""
        member = self._member
        # `member.readable` without its call.
        if serializable or (
            self._leadership.alone and member.committed_index == self._queue.applied_index
        ):
            if check is not None:
                check(call, key)
            store = self._store
            if not store.ranges % SAMPLE:
                return self._timed_get(call, key)
            return self._encode_header(store.revision, self._leadership.term) + store.get(key)

        def read() -> bytes:
            if check is not None:
                check(call, key)
            began_s = member.loop.time()
            answer = member.header(self._store.revision) + self._store.get(key)
            self._times.read(call.began_s, began_s, member.loop.time())
            return answer

        when_readable(member, call, read)
        return None

    def _timed_get(self, waiter: Waiter, key: bytes) -> bytes:
        time = self._member.loop.time
        began_s = time()
        answer = self._member.header(self._store.revision) + self._store.get(key)
        self._times.read_at_once(waiter.began_s, began_s, time())
        return answer

    def range(
        self, waiter: Waiter, request: rpc_pb2.RangeRequest, who: Who | None = None
    ) -> bytes | None:
        """See the port."""
        member = self._member

        def read() -> bytes | None:
            identity = self._check(who, request.key, request.range_end)
            began_s = member.loop.time()

            def done() -> None:
                self._times.read(waiter.began_s, began_s, member.loop.time())

            if not hasattr(waiter, "begin_reply"):
                return self._sliced(waiter, self._store.range_steps(request), identity, done)
            header = member.header(self._store.revision)

            def finish(body: bytes | LargeRange) -> bytes | None:
                try:
                    if identity is not None:
                        self._auth.confirm(identity)
                except EtcdError:
                    if isinstance(body, LargeRange):
                        body.close()
                    raise
                done()
                if isinstance(body, bytes):
                    return header + body
                self._feeds.answer(cast("PieceWaiter", waiter), header, body)
                return None

            return in_slices(member, waiter, large_range_steps(self._store, request), finish)

        if request.serializable or member.readable:
            return read()
        when_readable(member, waiter, read)
        return None

    def read_txn(
        self, waiter: Waiter, request: rpc_pb2.TxnRequest, who: Who | None = None
    ) -> bytes | None:
        """See the port."""
        member = self._member

        def read() -> bytes | None:
            identity: Identity | None = None
            if self._auth.enabled:
                identity = _caller(who)
                self._auth.check_txn(identity, request)
                self._auth.confirm(identity)

            def done() -> None:
                self._times.carried_out("ReadonlyTxn", [waiter.began_s], member.loop.time())

            return self._sliced(waiter, self._store.read_txn_steps(request), identity, done)

        if is_serializable(request) or member.readable:
            return read()
        when_readable(member, waiter, read)
        return None

    def range_stream(
        self, sink: RangeOutput, request: rpc_pb2.RangeRequest, who: Who | None = None
    ) -> RangeFeed:
        """See the port."""
        return self._feeds.open(
            sink, request, lambda: self._check(who, request.key, request.range_end)
        )

    def _check(self, who: Who | None, key: bytes, range_end: bytes) -> Identity | None:
        """Identifies the reader of a range and checks its permissions.

        None if there are no users.
        """
        auth = self._auth
        if not auth.enabled:
            return None
        identity = _caller(who)
        auth.check_range(identity, key, range_end)
        auth.confirm(identity)
        return identity

    def _sliced(
        self,
        waiter: Waiter,
        work: Generator[None, None, bytes],
        identity: Identity | None,
        done: Callable[[], None],
    ) -> bytes | None:
        """A read of many keys: at once if it is small, else over several turns.

        Permissions are checked first; at the end, that users have not changed meanwhile.
        """
        member = self._member
        header = member.header(self._store.revision)

        def finish(body: bytes) -> bytes:
            if identity is not None:
                self._auth.confirm(identity)
            done()
            return header + body

        return in_slices(member, waiter, work, finish)


def _caller(who: Who | None) -> Identity:
    return (who() if who is not None else None) or NOBODY
