"""Linearizable reads of single keys from the proxy (`--experimental-leasing-prefix`).

The protocol is the original's, so its proxies and its Go clients (`client/v3/leasing`) may share a
prefix with ours. All who write the keys must follow it: what is written past it is not seen by an
owner.

    take     if PREFIX+K is not there and K has no lease: read K, put PREFIX+K with our lease
    write    if PREFIX+K is not there, or is our own: write
    wanted   else put the value REVOKE into PREFIX+K, keep its lease, and wait until it is deleted
    give up  who sees REVOKE in a leasing key of its own deletes it

Keys are taken and remembered for reads without credentials only. A deletion of a range gives up what
is owned in it first.

Source: etcd `client/v3/leasing/{kv,txn,cache}.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from time import monotonic
from typing import Any, Final

from keyraft.base.log import Logger
from keyraft.base.parsing import parse
from keyraft.client import PUT, Event, Lease, Namespace, Space, errors
from keyraft.grpc import Router, UnaryCall, status
from keyraft.proto import rpc_pb2
from keyraft.proxy.grpcproxy.keys import KeysProxy, written_by
from keyraft.proxy.grpcproxy.leased_keys import LeasedKeys, Owned, Range
from keyraft.proxy.grpcproxy.upstream import credentials_of

TTL_S: Final = 60  # etcd `concurrency.defaultSessionTTL`
RETRY_S: Final = 1.0
GONE_S: Final = 0.5  # between two looks at a leasing key that another should give up
REVOKE: Final = b"REVOKE"
CALLS_MAX: Final = 10_000  # under way
TOO_MANY: Final = "etcdserver: too many requests"
_LESS: Final = rpc_pb2.Compare.LESS
_EQUAL: Final = rpc_pb2.Compare.EQUAL
_CREATE: Final = rpc_pb2.Compare.CREATE


class _RefusedError(Exception):
    """A refusal of the cluster."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class _Inner:
    """A call of the proxy's own, for a client's (`upstream.ClientsCall`)."""

    def __init__(self, metadata: Mapping[bytes, bytes], deadline_s: float | None) -> None:
        self.metadata = metadata
        self.deadline_s = deadline_s
        self.on_cancel: Callable[[Any, int], None] | None = None
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def respond(self, message: bytes) -> None:
        """The answer."""
        if not self.answer.done():
            self.answer.set_result(message)

    def fail(self, code: int, text: str) -> None:
        """The refusal."""
        if not self.answer.done():
            self.answer.set_exception(_RefusedError(code, text))

    async def wait(self) -> bytes:
        """The answer; raises _RefusedError. Cancelled, it cancels the call."""
        try:
            return await self.answer
        except asyncio.CancelledError:
            if self.on_cancel is not None:
                self.on_cancel(self, status.CANCELLED)
            raise


class LeasingKeys:
    """Registered over a `KeysProxy`, which makes the calls."""

    def __init__(self, keys: KeysProxy, space: Space, prefix: bytes, log: Logger) -> None:
        """`space` sees keys as the proxy's clients do."""
        self._keys = keys
        self._space = space
        self._prefix = prefix
        self._names = Namespace(prefix)
        self._log = log
        self._lease: Lease | None = None
        self._gone: dict[bytes, list[asyncio.Future[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()  # a key is no longer being taken
        self.leased = LeasedKeys(monotonic)
        self.hits = 0

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.unary("/etcdserverpb.KV/Range", self.range)
        router.unary("/etcdserverpb.KV/Put", self.put)
        router.unary("/etcdserverpb.KV/DeleteRange", self.delete_range)
        router.unary("/etcdserverpb.KV/Txn", self.txn)
        router.unary("/etcdserverpb.KV/Compact", self._keys.compact)

    def start(self) -> None:
        """Gets a lease and keeps it."""
        self._spawn(self._keep_lease())

    async def stop(self) -> None:
        """Gives up everything."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the lease ------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the lease surely lives."""
        lease = self._lease
        return lease is not None and lease.keep_alive.ttl_s > 0 and not lease.lost

    async def _keep_lease(self) -> None:
        while True:
            try:
                async with await self._space.leases.open(TTL_S) as lease:
                    try:
                        await self._hold(lease)
                    finally:
                        self._lease = None
                        self.leased.clear()
            except errors.EtcdError as error:
                self._log.warn("leasing session was lost", error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _hold(self, lease: Lease) -> None:
        """Takes keys under this lease, until it is lost or nobody tells us who wants them."""
        async with self._space.watch(self._prefix, prefix=True) as watch:
            self._lease = lease
            lost = asyncio.ensure_future(lease.wait_lost())
            heard = asyncio.ensure_future(self._listen(watch.__aiter__(), lease))
            try:
                await asyncio.wait((lost, heard), return_when=asyncio.FIRST_COMPLETED)
                if heard.done():
                    await heard
            finally:
                lost.cancel()
                heard.cancel()
                await asyncio.gather(lost, heard, return_exceptions=True)

    async def _listen(self, watch: Any, lease: Lease) -> None:
        async for event in watch:
            self._hear(event, lease)

    def _hear(self, event: Event, lease: Lease) -> None:
        key, kv = event.kv.key[len(self._prefix) :], event.kv
        if event.type != PUT:
            self.leased.wanted(key, kv.mod_revision)
            for waiter in self._gone.pop(key, ()):
                if not waiter.done():
                    waiter.set_result(None)
        elif kv.value == REVOKE and kv.lease == lease.id:
            self.leased.wanted(key, kv.mod_revision)
            self._spawn(self._give_up(key, kv.mod_revision))

    async def _give_up(self, key: bytes, revision: int) -> None:
        request = rpc_pb2.TxnRequest()
        request.compare.append(self._older(key, b"", revision))
        request.success.add().request_delete_range.key = self._prefix + key
        while True:
            try:
                await self._commit({}, None, request)
            except _RefusedError as refusal:
                self._log.warn("failed to give up a leasing key", error=refusal.text)
                await asyncio.sleep(RETRY_S)
            else:
                return

    # --- calls of clients -----------------------------------------------------------------------

    def range(self, call: UnaryCall, request: bytes) -> bytes | None:
        """RangeRequest -> RangeResponse."""
        message = parse(rpc_pb2.RangeRequest, request)
        key, leased = message.key, self.leased
        if (
            not key
            or message.range_end
            or message.revision
            or message.serializable
            or not self.ready
            or credentials_of(call.metadata)
        ):
            return self._keys.range(call, request)
        if leased.fresh:
            found = leased.get(message)
            if found is not None:
                self.hits += 1
                return found.SerializeToString()
        if len(self._tasks) >= CALLS_MAX:
            return self._keys.range(call, request)
        self._run(call, self._read(call, request, message))
        return None

    async def _read(self, call: UnaryCall, request: bytes, message: rpc_pb2.RangeRequest) -> bytes:
        if self.leased.may_take(message.key):
            try:
                await self._take(call, message.key)
            except _RefusedError:
                pass  # the read itself says what is wrong
            else:
                found = self.leased.get(message) if self.ready else None
                if found is not None:
                    return found.SerializeToString()
        inner = _Inner(call.metadata, call.deadline_s)
        self._keys.range(inner, request)  # type: ignore[arg-type]  # all that is asked of a call
        reply = await inner.wait()
        self.leased.answered(rpc_pb2.RangeResponse.FromString(reply).header, anonymous=True)
        return reply

    async def _take(self, call: UnaryCall, key: bytes) -> None:
        lease = self._lease
        assert lease is not None, "taken without a lease"
        name = self._prefix + key
        request = rpc_pb2.TxnRequest()
        request.compare.add(key=name, target=_CREATE, result=_EQUAL, create_revision=0)
        request.compare.add(key=key, target=rpc_pb2.Compare.LEASE, result=_EQUAL, lease=0)
        request.success.add().request_range.key = key
        request.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=name, lease=lease.id))
        request.failure.add().request_range.key = key
        request.failure.add().request_range.key = name
        entry: Owned | None = None
        self.leased.ask(key)
        try:
            answer = await self._commit(call.metadata, call.deadline_s, request)
            value, revision = answer.responses[0].response_range, answer.header.revision
            if answer.succeeded:
                entry = Owned(revision, value, revision)
            else:
                found = answer.responses[1].response_range.kvs
                own = found and found[0].lease == lease.id and not found[0].value
                if own and not (value.kvs and value.kvs[0].lease):
                    entry = Owned(found[0].create_revision, value, revision)
            if lease is not self._lease:
                entry = None
        finally:
            self.leased.taken(key, entry)
            self._settled.set()

    def put(self, call: UnaryCall, request: bytes) -> None:
        """PutRequest -> PutResponse."""
        message = parse(rpc_pb2.PutRequest, request)
        operation = rpc_pb2.RequestOp(request_put=message)
        self._run(call, self._write_one(call, operation, [(message.key, b"")]))

    def delete_range(self, call: UnaryCall, request: bytes) -> None:
        """DeleteRangeRequest -> DeleteRangeResponse."""
        message = parse(rpc_pb2.DeleteRangeRequest, request)
        operation = rpc_pb2.RequestOp(request_delete_range=message)
        self._run(call, self._write_one(call, operation, [(message.key, message.range_end)]))

    async def _write_one(
        self, call: UnaryCall, operation: rpc_pb2.RequestOp, ranges: list[Range]
    ) -> bytes:
        first, header = await self._write(call, operation, ranges)
        answer = getattr(first, str(first.WhichOneof("response")))
        answer.header.CopyFrom(header)
        return bytes(answer.SerializeToString())

    def txn(self, call: UnaryCall, request: bytes) -> None:
        """TxnRequest -> TxnResponse."""
        message = parse(rpc_pb2.TxnRequest, request)
        ranges = list(dict.fromkeys(written_by(message)))
        if not ranges:
            self._keys.txn(call, request)
            return
        operation = rpc_pb2.RequestOp(request_txn=message)
        self._run(call, self._write_one(call, operation, ranges))

    def _run(self, call: UnaryCall, work: Coroutine[Any, Any, bytes]) -> None:
        if len(self._tasks) >= CALLS_MAX:
            work.close()
            call.fail(status.RESOURCE_EXHAUSTED, TOO_MANY)
            return

        async def answer() -> None:
            try:
                reply = await work
            except _RefusedError as refusal:
                call.on_cancel = None
                call.fail(refusal.code, refusal.text)
            else:
                call.on_cancel = None
                call.respond(reply)

        task = self._spawn(answer())

        def cancel(_call: Any, _code: int) -> None:
            task.cancel()

        call.on_cancel = cancel

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- writing --------------------------------------------------------------------------------

    async def _write(
        self, call: UnaryCall, operation: rpc_pb2.RequestOp, ranges: list[Range]
    ) -> tuple[rpc_pb2.ResponseOp, rpc_pb2.ResponseHeader]:
        leased = self.leased
        leased.begin(ranges)
        sent: list[bytes] = []
        try:
            while leased.asking(ranges):
                self._settled.clear()
                await self._settled.wait()
            while True:
                for key in leased.within(ranges):
                    leased.drop(key)
                request, sent = self._guarded(operation, ranges)
                answer = await self._commit(call.metadata, call.deadline_s, request)
                if answer.succeeded:
                    self._keep(sent, answer)
                    return answer.responses[0], answer.header
                for response in answer.responses:
                    for kv in response.response_range.kvs:
                        await self._clear(call, kv.key[len(self._prefix) :], kv)
        except BaseException:
            # Nobody knows what was written.
            for key in sent:
                leased.drop(key)
            raise
        finally:
            leased.end(ranges)

    def _guarded(
        self, operation: rpc_pb2.RequestOp, ranges: list[Range]
    ) -> tuple[rpc_pb2.TxnRequest, list[bytes]]:
        """The write, if nobody else owns what it changes; and the owned keys among that."""
        request = rpc_pb2.TxnRequest(success=[operation])
        owned: list[bytes] = []
        for key, end in ranges:
            created = 0 if end else self.leased.created(key)
            request.compare.append(self._older(key, end, created + 1))
            leasing = request.failure.add().request_range
            leasing.key, leasing.range_end = self._prefix + key, self._names.range_end(end)
            if created:
                owned.append(key)
                request.success.add().request_range.key = key
        return request, owned

    def _older(self, key: bytes, end: bytes, revision: int) -> rpc_pb2.Compare:
        """Leasing keys of `revision` or later are not there."""
        return rpc_pb2.Compare(
            key=self._prefix + key,
            range_end=self._names.range_end(end),
            target=_CREATE,
            result=_LESS,
            create_revision=revision,
        )

    def _keep(self, owned: list[bytes], answer: rpc_pb2.TxnResponse) -> None:
        revision = answer.header.revision
        for key, response in zip(owned, answer.responses[1:], strict=True):
            if not self.leased.update(key, response.response_range, revision):
                self.leased.drop(key)
                self._spawn(self._give_up(key, revision + 1))

    async def _clear(self, call: UnaryCall, key: bytes, kv: Any) -> None:
        """Waits until the leasing key that was found is gone."""
        if self._lease is not None and kv.lease == self._lease.id:
            if self.leased.created(key) != kv.create_revision:
                await self._give_up(key, kv.create_revision + 1)
            return
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone.setdefault(key, []).append(gone)
        try:
            request = rpc_pb2.TxnRequest()
            request.compare.add(
                key=kv.key, target=_CREATE, result=_EQUAL, create_revision=kv.create_revision
            )
            revoke = rpc_pb2.PutRequest(key=kv.key, value=REVOKE, ignore_lease=True)
            request.success.add().request_put.CopyFrom(revoke)
            looked = rpc_pb2.TxnRequest(compare=request.compare)
            answer = await self._commit(call.metadata, call.deadline_s, request)
            while answer.succeeded:
                await asyncio.wait((gone,), timeout=GONE_S)
                answer = await self._commit(call.metadata, call.deadline_s, looked)
        finally:
            waiting = self._gone.get(key, [])
            if gone in waiting:
                waiting.remove(gone)
                if not waiting:
                    del self._gone[key]

    async def _commit(
        self, metadata: Mapping[bytes, bytes], deadline_s: float | None, request: rpc_pb2.TxnRequest
    ) -> rpc_pb2.TxnResponse:
        inner = _Inner(metadata, deadline_s)
        self._keys.txn(inner, request.SerializeToString())  # type: ignore[arg-type]  # as above
        answer = rpc_pb2.TxnResponse.FromString(await inner.wait())
        self.leased.answered(answer.header, anonymous=not credentials_of(metadata))
        return answer
