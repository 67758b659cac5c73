"""A session: a lease that shows that a program is alive, and the keys attached to it.

async with Session(client, ttl_s=10) as session:
    ...                          # renewed meanwhile
                                 # revoked at the end: all its keys are gone at once
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar

from keyraft.client import errors
from keyraft.client.client import Space
from keyraft.client.lease import Lease, finish
from keyraft.client.recipes.claim import Claim

T = TypeVar("T")
TTL_S: Final = 60  # etcd `client/v3/concurrency`: the default of a session


class Session:
    """A kept lease in a `Space`; `ttl_s` is how long its keys outlive a program that dies."""

    def __init__(self, space: Space, ttl_s: int = TTL_S, *, lease_id: int = 0) -> None:
        self.space = space
        self._ttl_s = ttl_s
        self._wanted_id = lease_id
        self._lease: Lease | None = None
        self._closed = False
        self._claims: dict[bytes, Claim] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def lease(self) -> Lease:
        """The lease; only inside `async with`."""
        if self._lease is None:
            raise errors.ClosedError("the session is not open")
        return self._lease

    @property
    def lost(self) -> bool:
        """The lease is over: others may hold its locks by now."""
        return self._closed or (self._lease is not None and self._lease.lost)

    def check(self) -> None:
        """Raises LeaseLostError when the session is lost, ClosedError when it is not open."""
        if self.lease.lost:
            raise errors.LeaseLostError(self.lease.id)

    async def open(self) -> None:
        """Grants the lease."""
        self._lease = await self.space.leases.open(self._ttl_s, self._wanted_id)
        self._closed = False

    async def close(self) -> None:
        """Revokes the lease; when no server can be reached, it ends with its time."""
        lease, self._lease = self._lease, None
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        self._claims.clear()
        if lease is not None:
            try:
                async with asyncio.timeout(self._ttl_s):  # after this time it has expired anyway
                    await lease.revoke()
            except (errors.DeadlineError, errors.UnavailableError, TimeoutError):
                pass

    async def __aenter__(self) -> Session:
        opening = asyncio.ensure_future(self.open())
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.gather(opening, return_exceptions=True)
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await finish(self.close())

    # --- for the recipes -----------------------------------------------------------------

    def claim(self, key: bytes) -> Claim:
        """The session's key of that name, with one user more (see `Claim.leave`)."""
        self.check()
        claim = self._claims.get(key)
        if claim is None:
            claim = self._claims[key] = Claim(self, key)
        claim.users += 1
        return claim

    def forget(self, key: bytes) -> None:
        """Forgets a key that has no users any more."""
        self._claims.pop(key, None)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs `work` until its end or the session's."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # an error was raised in the waiter, if there was one

    async def unless_lost(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; LeaseLostError or ClosedError when the session ends before."""
        lease = self.lease
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        lost = asyncio.ensure_future(lease.wait_lost())
        try:
            await asyncio.wait((task, lost), return_when=asyncio.FIRST_COMPLETED)
            self.check()
            return task.result()
        finally:
            self._tasks.discard(task)
            for one in (task, lost):
                one.cancel()
            await asyncio.gather(task, lost, return_exceptions=True)
