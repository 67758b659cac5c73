"""A session: a lease that says "this program is alive", and what hangs on it.

async with Session(client, ttl_s=10) as session:
    ...                          # renewed meanwhile
                                 # revoked at the end: all its keys are gone at once
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from keyraft.client import errors
from keyraft.client.client import Space
from keyraft.client.lease import Lease, finish

TTL_S: Final = 60  # etcd `client/v3/concurrency`: the default of a session
RETRY_S: Final = 0.2


class Session:
    """A kept lease in a `Space`; `ttl_s` is how long its keys outlive a program that dies."""

    def __init__(self, space: Space, ttl_s: int = TTL_S, *, lease_id: int = 0) -> None:
        self.space = space
        self._ttl_s = ttl_s
        self._wanted_id = lease_id
        self._lease: Lease | None = None
        self._garbage: set[asyncio.Task[None]] = set()

    @property
    def lease(self) -> Lease:
        """The lease; only inside `async with`."""
        if self._lease is None:
            raise errors.ClosedError("the session is not open")
        return self._lease

    @property
    def lost(self) -> bool:
        """The lease expired: whatever hung on it may be somebody else's by now."""
        return self._lease is not None and self._lease.lost

    def check(self) -> None:
        """Raises LeaseLostError when the session is lost."""
        if self.lost:
            raise errors.LeaseLostError(self.lease.id)

    async def open(self) -> None:
        """Grants the lease."""
        self._lease = await self.space.leases.open(self._ttl_s, self._wanted_id)

    async def close(self) -> None:
        """Revokes the lease; when no server can be reached, it ends with its time."""
        lease, self._lease = self._lease, None
        for task in list(self._garbage):
            task.cancel()
        if lease is not None:
            try:
                async with asyncio.timeout(self._ttl_s):  # then it is gone without us
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

    async def delete(self, key: bytes) -> None:
        """Deletes a key of this session for certain.

        When no server can be reached now, the session goes on trying until the key or the lease
        is gone, so that the renewals do not keep alive what nobody wants any more.
        """
        try:
            await self.space.delete(key)
        except (errors.DeadlineError, errors.UnavailableError):
            task = asyncio.ensure_future(self._delete_later(key))
            self._garbage.add(task)
            task.add_done_callback(self._garbage.discard)

    async def _delete_later(self, key: bytes) -> None:
        while not self.lost:
            await asyncio.sleep(RETRY_S)
            try:
                await self.space.delete(key)
            except (errors.DeadlineError, errors.UnavailableError):
                continue
            return
