"""An engine without Raft: `service.ports` over dictionaries, for services that know no member.

It keeps all history, so any revision can be read and watched. Writes are answered in the next turn
of the loop, as an engine's that has to ask somebody. Callers hold tokens as a proxy's would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from keyraft.auth import Identity
from keyraft.base import errors
from keyraft.base.clock import Loop, Timer
from keyraft.base.waiters import Waiter
from keyraft.grpc import CallContext, ServerStream, UnaryCall
from keyraft.mvcc import BulkSink, Sink
from keyraft.proto import mvcc_pb2, rpc_pb2
from keyraft.service.ports import CheckRead, RangeSink, Renewed, Who

_SORTED_BY = ("key", "version", "create_revision", "mod_revision", "value")
_COMPARED = ("version", "create_revision", "mod_revision", "value", "lease")


class Always:
    """Always in service, with room for everything; users are asked who they are."""

    in_service = capable = enabled = True
    is_learner = False
    leader = 1
    election_s = 1.0
    room = 1 << 62

    def check(self, cost: int) -> None:
        """There is room."""


class TokenHolder(Identity):
    """A caller as this engine knows it: services only pass it on."""

    def __init__(self, token: bytes) -> None:
        super().__init__(b"", 0)
        self.token = token


class Data:
    """Keys, history and leases, and who is told of changes."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.revision = 1
        self.now: dict[bytes, mvcc_pb2.KeyValue] = {}
        self.history: list[mvcc_pb2.Event] = []
        self.listeners: list[Callable[[list[mvcc_pb2.Event]], None]] = []
        self.leases: dict[int, int] = {}  # and their TTL; they never run out
        self.callers: list[bytes] = []  # the token of each write

    def header(self) -> rpc_pb2.ResponseHeader:
        return rpc_pb2.ResponseHeader(cluster_id=7, member_id=1, revision=self.revision)

    def at(self, revision: int) -> dict[bytes, mvcc_pb2.KeyValue]:
        """The keys as they were then."""
        found = {}
        for event in self.history:
            if event.kv.mod_revision <= revision:
                found[event.kv.key] = event.kv
                if event.type == mvcc_pb2.Event.DELETE:
                    del found[event.kv.key]
        return found

    def change(self, changes: Sequence[mvcc_pb2.Event]) -> None:
        """One transaction; nothing happens without changes."""
        if changes:
            self.revision += 1
            self.history += changes
            self.now = self.at(self.revision)
            for listener in list(self.listeners):
                listener(list(changes))

    def answer(self, waiter: Waiter, work: Callable[[], Any], caller: Identity | None) -> None:
        """Carries a write out in the next turn."""
        self.callers.append(caller.token if isinstance(caller, TokenHolder) else b"")

        def carry_out() -> None:
            try:
                found = work()
            except errors.EtcdError as refusal:
                waiter.fail(refusal.code, refusal.text)
            else:
                found.header.CopyFrom(self.header())
                waiter.respond(found.SerializeToString())

        self.loop.call_soon(carry_out)


def within(key: bytes, start: bytes, end: bytes) -> bool:
    return key == start if not end else key >= start and (end == b"\0" or key < end)


class Keys:
    """`ports.Keys`."""

    txn_ops_max = 128

    def __init__(self, data: Data) -> None:
        self._data = data
        self.space = Always()

    def withdraw(self, waiter: Waiter) -> bool:
        return False

    # reads

    def get(
        self, call: UnaryCall, key: bytes, serializable: bool, check: CheckRead | None = None
    ) -> bytes | None:
        if check is not None:
            check(call, key)
        return self.range(call, rpc_pb2.RangeRequest(key=key))

    def range(
        self, waiter: Waiter, request: rpc_pb2.RangeRequest, who: Who | None = None
    ) -> bytes | None:
        if who is not None:
            who()
        answer = self.found(request)
        answer.header.CopyFrom(self._data.header())
        return answer.SerializeToString()

    def found(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        if request.revision > self._data.revision:
            raise errors.FutureRevisionError
        now = self._data.at(request.revision) if request.revision else self._data.now
        kvs = [kv for key, kv in now.items() if within(key, request.key, request.range_end)]
        count = len(kvs)
        newest = request.max_create_revision or self._data.revision
        kvs = [kv for kv in kvs if kv.create_revision <= newest]
        kvs.sort(
            key=attrgetter(_SORTED_BY[request.sort_target]),
            reverse=request.sort_order == rpc_pb2.RangeRequest.DESCEND,
        )
        limit = request.limit or len(kvs)
        return rpc_pb2.RangeResponse(kvs=kvs[:limit], count=count, more=len(kvs) > limit)

    def range_stream(
        self, sink: RangeSink, request: rpc_pb2.RangeRequest, who: Who | None = None
    ) -> OneChunk:
        answer = self.found(request)
        answer.header.CopyFrom(self._data.header())
        return OneChunk(sink, rpc_pb2.RangeStreamResponse(range_response=answer))

    def read_txn(
        self, waiter: Waiter, request: rpc_pb2.TxnRequest, who: Who | None = None
    ) -> bytes | None:
        answer = self._txn(request, [])
        answer.header.CopyFrom(self._data.header())
        return answer.SerializeToString()

    # writes

    def put(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        message = rpc_pb2.PutRequest.FromString(request)
        self._write(waiter, lambda changes: self._put(message, changes), caller)

    def delete_range(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        message = rpc_pb2.DeleteRangeRequest.FromString(request)
        self._write(waiter, lambda changes: self._delete(message, changes), caller)

    def txn(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        message = rpc_pb2.TxnRequest.FromString(request)
        self._write(waiter, lambda changes: self._txn(message, changes), caller)

    def compact(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        self._write(waiter, lambda changes: rpc_pb2.CompactionResponse(), caller)

    def _write(
        self,
        waiter: Waiter,
        work: Callable[[list[mvcc_pb2.Event]], Any],
        caller: Identity | None,
    ) -> None:
        def carry_out() -> Any:
            changes: list[mvcc_pb2.Event] = []
            answer = work(changes)
            self._data.change(changes)
            return answer

        self._data.answer(waiter, carry_out, caller)

    def _put(
        self, request: rpc_pb2.PutRequest, changes: list[mvcc_pb2.Event]
    ) -> rpc_pb2.PutResponse:
        data = self._data
        if request.lease and request.lease not in data.leases:
            raise errors.LeaseNotFoundError
        before, revision = data.now.get(request.key), data.revision + 1
        kv = mvcc_pb2.KeyValue(
            key=request.key,
            value=request.value,
            lease=request.lease,
            create_revision=revision if before is None else before.create_revision,
            mod_revision=revision,
            version=1 if before is None else before.version + 1,
        )
        changes.append(mvcc_pb2.Event(kv=kv))
        return rpc_pb2.PutResponse()

    def _delete(
        self, request: rpc_pb2.DeleteRangeRequest, changes: list[mvcc_pb2.Event]
    ) -> rpc_pb2.DeleteRangeResponse:
        data = self._data
        gone = [key for key in data.now if within(key, request.key, request.range_end)]
        changes += deletions(data, gone)
        return rpc_pb2.DeleteRangeResponse(deleted=len(gone))

    def _txn(
        self, request: rpc_pb2.TxnRequest, changes: list[mvcc_pb2.Event]
    ) -> rpc_pb2.TxnResponse:
        answer = rpc_pb2.TxnResponse(succeeded=all(map(self._holds, request.compare)))
        for operation in request.success if answer.succeeded else request.failure:
            told = answer.responses.add()
            which = operation.WhichOneof("request")
            if which == "request_put":
                told.response_put.CopyFrom(self._put(operation.request_put, changes))
            elif which == "request_delete_range":
                gone = self._delete(operation.request_delete_range, changes)
                told.response_delete_range.CopyFrom(gone)
            else:
                told.response_range.CopyFrom(self.found(operation.request_range))
        return answer

    def _holds(self, compare: rpc_pb2.Compare) -> bool:
        kv = self._data.now.get(compare.key, mvcc_pb2.KeyValue())
        name = _COMPARED[compare.target]
        found, wanted = getattr(kv, name), getattr(compare, name)
        return bool(
            (found == wanted, found > wanted, found < wanted, found != wanted)[compare.result]
        )


class OneChunk:
    """A `ports.Feed` of everything at once."""

    def __init__(self, sink: RangeSink, message: rpc_pb2.RangeStreamResponse) -> None:
        sink.send(message.SerializeToString())
        sink.finish()

    def resume(self) -> None: ...

    def close(self) -> None: ...


def deletions(data: Data, keys: Sequence[bytes]) -> list[mvcc_pb2.Event]:
    return [
        mvcc_pb2.Event(
            type=mvcc_pb2.Event.DELETE,
            kv=mvcc_pb2.KeyValue(key=key, mod_revision=data.revision + 1),
        )
        for key in keys
    ]


class Watching:
    """`ports.Watching`."""

    notify_s = 600.0

    def __init__(self, data: Data) -> None:
        self._data = data

    def open(self, sink: Sink, bulk: BulkSink | None = None, who: Who | None = None) -> Watches:
        return Watches(self._data, sink)

    def check(self, key: bytes, range_end: bytes, caller: Identity | None) -> None: ...


class Watches:
    """`ports.Watches`."""

    notifying = False

    def __init__(self, data: Data, sink: Sink) -> None:
        self._data = data
        self._sink = sink
        self._open: dict[int, rpc_pb2.WatchCreateRequest] = {}
        data.listeners.append(self._tell)

    def create(self, request: rpc_pb2.WatchCreateRequest, caller: Identity | None = None) -> None:
        watch_id = request.watch_id or len(self._open)
        self._send(watch_id=watch_id, created=True)
        self._open[watch_id] = request
        if request.start_revision:
            self._tell(
                [e for e in self._data.history if e.kv.mod_revision >= request.start_revision]
            )

    def _tell(self, events: list[mvcc_pb2.Event]) -> None:
        for watch_id, request in self._open.items():
            wanted = [e for e in events if within(e.kv.key, request.key, request.range_end)]
            if wanted:
                self._send(watch_id=watch_id, events=wanted)

    def _send(self, **fields: Any) -> None:
        answer = rpc_pb2.WatchResponse(header=self._data.header(), **fields)
        self._sink.send(answer.SerializeToString())

    def refuse(self, reason: str) -> None:
        self._send(watch_id=-1, created=True, canceled=True, cancel_reason=reason)

    def cancel(self, watch_id: int) -> None:
        if self._open.pop(watch_id, None) is not None:
            self._send(watch_id=watch_id, canceled=True)

    def progress(self) -> None:
        self._send(watch_id=-1)

    def tick(self) -> None: ...

    def on_writable(self) -> None: ...

    def close(self) -> None:
        self._data.listeners.remove(self._tell)


class Leases:
    """`ports.Leases`."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self.space = Always()

    def withdraw(self, waiter: Waiter) -> bool:
        return False

    def grant(
        self, waiter: Waiter, request: rpc_pb2.LeaseGrantRequest, caller: Identity | None = None
    ) -> None:
        lease_id = request.ID or 1_000 + len(self._data.leases)

        def granted() -> rpc_pb2.LeaseGrantResponse:
            self._data.leases[lease_id] = request.TTL
            return rpc_pb2.LeaseGrantResponse(ID=lease_id, TTL=request.TTL)

        self._data.answer(waiter, granted, caller)

    def _end(self, lease_id: int) -> None:
        data = self._data
        del data.leases[lease_id]
        data.change(deletions(data, [key for key, kv in data.now.items() if kv.lease == lease_id]))

    def revoke(self, waiter: Waiter, request: bytes, caller: Identity | None = None) -> None:
        lease_id = rpc_pb2.LeaseRevokeRequest.FromString(request).ID

        def revoked() -> rpc_pb2.LeaseRevokeResponse:
            if lease_id not in self._data.leases:
                raise errors.LeaseNotFoundError
            self._end(lease_id)
            return rpc_pb2.LeaseRevokeResponse()

        self._data.answer(waiter, revoked, caller)

    def time_to_live(
        self, waiter: Waiter, request: rpc_pb2.LeaseTimeToLiveRequest, who: Who | None = None
    ) -> bytes | None:
        ttl_s = self._data.leases.get(request.ID, -1)
        keys = [key for key, kv in self._data.now.items() if kv.lease == request.ID]
        return rpc_pb2.LeaseTimeToLiveResponse(
            header=self._data.header(), ID=request.ID, TTL=ttl_s, grantedTTL=ttl_s, keys=keys
        ).SerializeToString()

    def list(self, waiter: Waiter, who: Who | None = None) -> bytes | None:
        leases = [rpc_pb2.LeaseStatus(ID=lease_id) for lease_id in self._data.leases]
        return rpc_pb2.LeaseLeasesResponse(
            header=self._data.header(), leases=leases
        ).SerializeToString()

    def renew_at_once(
        self, stream: ServerStream, requests: Sequence[bytes], who: Who | None = None
    ) -> int:
        return 0

    def renew(
        self, request: bytes, done: Renewed, who: Who | None = None
    ) -> Callable[[], None] | None:
        lease_id = rpc_pb2.LeaseKeepAliveRequest.FromString(request).ID
        ttl_s = self._data.leases.get(lease_id, 0)
        answer = rpc_pb2.LeaseKeepAliveResponse(header=self._data.header(), ID=lease_id, TTL=ttl_s)
        answered: Timer = self._data.loop.call_soon(done, answer.SerializeToString())
        return answered.cancel


class Users:
    """`ports.Users`: everybody is who their token says, and only "bad" is none."""

    rules = Always()

    def identify(self, call: CallContext) -> Identity | None:
        token = call.metadata.get(b"token", b"")
        if token == b"bad":
            raise errors.InvalidAuthTokenError
        return TokenHolder(token)

    def check_read(self, call: CallContext, key: bytes) -> None:
        self.identify(call)

    def check_admin(self, caller: Identity | None) -> None: ...

    def ask(self, method: str, waiter: Waiter, request: bytes, who: Who | None = None) -> None:
        waiter.fail(errors.AuthNotEnabledError.code, errors.AuthNotEnabledError.text)


class Standing(Always):
    """`ports.Standing`."""

    leadership = Always()
