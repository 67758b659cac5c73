"""Leases, and keeping them alive.

One stream carries the renewals of all leases of a client. A lease is renewed when a third of its
TTL has passed. It counts as lost when the server says so (a TTL of 0), or when its whole TTL has
passed since this client sent the last request that was answered. When the stream breaks another is
opened at once and every lease is renewed on it.

Invariant: `KeepAlive.deadline` is the time of that request on the loop's clock plus the granted
TTL. Before the deadline the server has the lease, unless somebody revoked it (if both clocks run at
the same speed). The time of the answer would not do: the answer may wait in a buffer while this
program is stopped. (etcd `client/v3/lease.go` counts from the answer.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Final

from keyraft.client import errors
from keyraft.client.calls import Calls
from keyraft.client.namespace import Namespace
from keyraft.client.transport import CallFailed, EndpointStream
from keyraft.proto.lazy import rpc_pb2

GRANT: Final = b"/etcdserverpb.Lease/LeaseGrant"
REVOKE: Final = b"/etcdserverpb.Lease/LeaseRevoke"
KEEP_ALIVE: Final = b"/etcdserverpb.Lease/LeaseKeepAlive"
TIME_TO_LIVE: Final = b"/etcdserverpb.Lease/LeaseTimeToLive"
LEASES: Final = b"/etcdserverpb.Lease/LeaseLeases"

FIRST_ANSWER_S: Final = 5.0  # how long to wait for the first answer about a lease of unknown TTL
REOPEN_S: Final = 0.05
ANSWERS_KEPT_MAX: Final = 16  # renewals kept for a reader of `KeepAlive.responses`
KEEPER_TICK_S_MAX: Final = 0.5


class KeepAlive:
    """One lease that is kept alive; `async with` stops renewing at its end (no revocation).

    `ttl_s` is the time the server granted, 0 before its first answer.
    """

    def __init__(self, keeper: Keeper, lease_id: int, now: float) -> None:
        self._keeper = keeper
        self.lease_id = lease_id
        self.ttl_s = 0
        self.deadline = now + FIRST_ANSWER_S
        self.next_send = now
        self._lost = asyncio.Event()
        self._stopped = False
        self._answers: asyncio.Queue[rpc_pb2.LeaseKeepAliveResponse | None] = asyncio.Queue(
            ANSWERS_KEPT_MAX
        )

    @property
    def lost(self) -> bool:
        """The lease expired or was revoked."""
        return self._lost.is_set() or self._keeper.now() >= self.deadline

    async def wait_lost(self) -> None:
        """Returns when the lease is lost."""
        await self._lost.wait()

    async def responses(self) -> AsyncIterator[rpc_pb2.LeaseKeepAliveResponse]:
        """The server's answers; ends when the lease is lost or renewing was stopped.

        A reader that is slower than the renewals misses the oldest ones.
        """
        while (answer := await self._answers.get()) is not None:
            yield answer

    def stop(self) -> None:
        """Stops renewing; the lease expires by itself."""
        if not self._stopped:
            self._stopped = True
            self._keeper.remove(self)
            self._push(None)

    def on_answer(self, answer: rpc_pb2.LeaseKeepAliveResponse, asked: float, now: float) -> None:
        """Takes the answer to a request sent at `asked`; `now` may be past the deadline already."""
        self.ttl_s = answer.TTL
        self.deadline = asked + answer.TTL
        if now >= self.deadline:
            self.on_lost()
            return
        self.next_send = max(now, asked + answer.TTL / 3)
        self._push(answer)

    def on_lost(self) -> None:
        """The lease is gone."""
        self._lost.set()
        self.stop()

    def _push(self, answer: rpc_pb2.LeaseKeepAliveResponse | None) -> None:
        if self._answers.full():
            self._answers.get_nowait()
        self._answers.put_nowait(answer)

    async def __aenter__(self) -> KeepAlive:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Keeper:
    """The stream of renewals of one client."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._kept: dict[int, list[KeepAlive]] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: dict[int, deque[float]] = {}  # on this stream, when; not yet answered

    def now(self) -> float:
        """The time of the loop that renews; 0 before there is any."""
        return 0.0 if self._loop is None else self._loop.time()

    def add(self, lease_id: int) -> KeepAlive:
        """Begins to renew a lease, at once."""
        self._loop = asyncio.get_running_loop()
        kept = KeepAlive(self, lease_id, self._loop.time())
        self._kept.setdefault(lease_id, []).append(kept)
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())
            self._task.add_done_callback(self._ended)
        return kept

    def _ended(self, task: asyncio.Task[None]) -> None:
        """An invalid answer ended the renewals: all leases count as lost."""
        if not task.cancelled() and task.exception() is not None:
            for group in list(self._kept.values()):
                for kept in list(group):
                    kept.on_lost()

    def remove(self, kept: KeepAlive) -> None:
        """Ends renewing."""
        group = self._kept.get(kept.lease_id, [])
        if kept in group:
            group.remove(kept)
        if not group:
            self._kept.pop(kept.lease_id, None)
        if not self._kept and self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        """Ends renewing of all leases; their holders see the end of `responses`."""
        task, self._task = self._task, None
        for group in list(self._kept.values()):
            for kept in list(group):
                kept.stop()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        watchdog = asyncio.ensure_future(self._expire())
        try:
            while self._kept:
                try:
                    stream = await self._calls.stream(KEEP_ALIVE)
                except errors.ClosedError:
                    raise
                except errors.EtcdError:
                    await asyncio.sleep(REOPEN_S)
                    continue
                try:
                    await self._serve(stream)
                except CallFailed:
                    pass  # whatever the error, the deadlines of the leases decide when to give up
                finally:
                    stream.cancel()
                await asyncio.sleep(REOPEN_S)
        finally:
            watchdog.cancel()

    async def _serve(self, stream: EndpointStream) -> None:
        """Renews on one stream until it ends."""
        now = asyncio.get_running_loop().time()
        self._asked = {}
        for group in self._kept.values():
            for kept in group:
                kept.next_send = min(kept.next_send, now)
        sender = asyncio.ensure_future(self._send(stream))
        try:
            while (message := await stream.receive()) is not None:
                answer = rpc_pb2.LeaseKeepAliveResponse.FromString(message)
                unanswered = self._asked.get(answer.ID)
                asked = unanswered.popleft() if unanswered else None
                now = asyncio.get_running_loop().time()
                for kept in list(self._kept.get(answer.ID, ())):
                    if answer.TTL <= 0:
                        kept.on_lost()
                    elif asked is not None:  # else it answers no request
                        kept.on_answer(answer, asked, now)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, stream: EndpointStream) -> None:
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            self._changed.clear()
            due = now + KEEPER_TICK_S_MAX
            for lease_id, group in list(self._kept.items()):
                soonest = min(kept.next_send for kept in group)
                if soonest <= now:
                    request = rpc_pb2.LeaseKeepAliveRequest(ID=lease_id)
                    self._asked.setdefault(lease_id, deque()).append(now)
                    try:
                        await stream.send(request.SerializeToString())
                    except CallFailed:
                        return
                    for kept in group:  # if no answer comes, it is sent again before the deadline
                        kept.next_send = now + max(KEEPER_TICK_S_MAX, kept.ttl_s / 3)
                    soonest = now + KEEPER_TICK_S_MAX
                due = min(due, soonest)
            try:
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _expire(self) -> None:
        """Tells the holders whose time has passed without an answer."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            for group in list(self._kept.values()):
                for kept in list(group):
                    if kept.deadline <= now:
                        kept.on_lost()
            await asyncio.sleep(KEEPER_TICK_S_MAX)


class Lease:
    """A granted lease that is kept alive; at the end of `async with` it is revoked."""

    def __init__(self, leases: Leases, grant: rpc_pb2.LeaseGrantResponse, keep: KeepAlive) -> None:
        self._leases = leases
        self.id = grant.ID
        self.ttl_s = grant.TTL
        self.keep_alive = keep

    @property
    def lost(self) -> bool:
        """The lease expired or was revoked by somebody."""
        return self.keep_alive.lost

    async def wait_lost(self) -> None:
        """Returns when the lease is lost."""
        await self.keep_alive.wait_lost()

    async def revoke(self) -> None:
        """Ends the lease and deletes its keys; harmless when it is gone."""
        self.keep_alive.stop()
        try:
            await self._leases.revoke(self.id)
        except errors.LeaseNotFoundError:
            pass

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await finish(self.revoke())


async def finish(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` to its end even if the surrounding task is cancelled meanwhile.

    For work that would leave something behind on the server if it were cut short.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


class Leases:
    """The lease calls of a client."""

    def __init__(self, calls: Calls, keeper: Keeper, space: Namespace | None = None) -> None:
        self._calls = calls
        self._keeper = keeper
        self._space = space

    async def grant(
        self, ttl_s: int, lease_id: int = 0, *, timeout_s: float | None = None
    ) -> rpc_pb2.LeaseGrantResponse:
        """Makes a lease of at least `ttl_s` seconds; `lease_id` 0 lets the server choose."""
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl_s, ID=lease_id)
        return rpc_pb2.LeaseGrantResponse.FromString(
            await self._calls.write(GRANT, request.SerializeToString(), timeout_s)
        )

    async def open(self, ttl_s: int, lease_id: int = 0) -> Lease:
        """Makes a lease and keeps it alive until it is revoked or the client closes."""
        asked = asyncio.get_running_loop().time()
        granted = await self.grant(ttl_s, lease_id)
        keep = self._keeper.add(granted.ID)
        keep.ttl_s, keep.deadline = granted.TTL, asked + granted.TTL
        return Lease(self, granted, keep)

    async def revoke(
        self, lease_id: int, *, timeout_s: float | None = None
    ) -> rpc_pb2.LeaseRevokeResponse:
        """Ends a lease; its keys are deleted."""
        request = rpc_pb2.LeaseRevokeRequest(ID=lease_id)
        return rpc_pb2.LeaseRevokeResponse.FromString(
            await self._calls.read(REVOKE, request.SerializeToString(), timeout_s)
        )

    async def time_to_live(
        self, lease_id: int, *, keys: bool = False, timeout_s: float | None = None
    ) -> rpc_pb2.LeaseTimeToLiveResponse:
        """The seconds left (-1 for none such), what was granted and, if asked, the keys."""
        request = rpc_pb2.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        response = rpc_pb2.LeaseTimeToLiveResponse.FromString(
            await self._calls.read(TIME_TO_LIVE, request.SerializeToString(), timeout_s)
        )
        if self._space is not None:
            prefix = self._space.prefix
            kept = [key[len(prefix) :] for key in response.keys if key.startswith(prefix)]
            del response.keys[:]
            response.keys.extend(kept)
        return response

    async def list(self, *, timeout_s: float | None = None) -> rpc_pb2.LeaseLeasesResponse:
        """All leases of the cluster."""
        return rpc_pb2.LeaseLeasesResponse.FromString(
            await self._calls.read(LEASES, b"", timeout_s)
        )

    def keep_alive(self, lease_id: int) -> KeepAlive:
        """Renews a lease from now on, until it is lost or `stop` is called."""
        return self._keeper.add(lease_id)

    async def keep_alive_once(
        self, lease_id: int, *, timeout_s: float | None = None
    ) -> rpc_pb2.LeaseKeepAliveResponse:
        """Renews a lease one time; LeaseNotFoundError when it is gone."""
        limit_s = self._calls.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s if limit_s > 0 else None):
                answer = await self._renew_once(lease_id)
        except TimeoutError:
            raise errors.DeadlineError() from None
        if answer.TTL <= 0:
            raise errors.LeaseNotFoundError
        return answer

    async def _renew_once(self, lease_id: int) -> rpc_pb2.LeaseKeepAliveResponse:
        request = rpc_pb2.LeaseKeepAliveRequest(ID=lease_id).SerializeToString()
        while True:  # a second renewal does no harm
            stream = await self._calls.stream(KEEP_ALIVE, fresh_token=False)
            try:
                await stream.send(request)
                message = await stream.receive()
                if message is None:
                    raise CallFailed(errors.UNAVAILABLE, "the stream ended without an answer")
                return rpc_pb2.LeaseKeepAliveResponse.FromString(message)
            except CallFailed as failure:
                if failure.sent and failure.code != errors.UNAVAILABLE:
                    raise errors.from_status(failure.code, failure.text) from None
            finally:
                stream.cancel()
            await asyncio.sleep(REOPEN_S)
