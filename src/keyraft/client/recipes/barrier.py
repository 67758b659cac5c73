"""Barriers: many wait until one lets them go, or until all have come."""

from __future__ import annotations

from keyraft.client import errors
from keyraft.client.client import Space
from keyraft.client.lease import finish
from keyraft.client.recipes.session import Session
from keyraft.client.recipes.waiting import wait_deleted, wait_predecessors
from keyraft.client.requests import Bytes, to_bytes
from keyraft.client.txn import missing, put
from keyraft.client.watch import DELETE


class HeldError(Exception):
    """The barrier is already held."""


class Barrier:
    """Closed by `hold`, opened by `release`; `wait` returns when it is open."""

    def __init__(self, space: Space, name: Bytes) -> None:
        self._space = space
        self._key = to_bytes(name)

    async def hold(self) -> None:
        """Closes the barrier; HeldError when it is closed."""
        answer = await self._space.txn().when(missing(self._key)).then(put(self._key)).commit()
        if not answer.succeeded:
            raise HeldError(self._key.decode("utf-8", "replace"))

    async def release(self) -> None:
        """Opens the barrier for all who wait."""
        await self._space.delete(self._key)

    async def wait(self) -> None:
        """Returns when the barrier is open."""
        while True:
            found = await self._space.get(self._key)
            if not found.kvs:
                return
            try:
                await wait_deleted(self._space, self._key, found.header.revision + 1)
            except errors.WatchCompactedError:
                continue
            return


class DoubleBarrier:
    """`count` programs begin together and end together; each with a session of its own.

    Keys: `NAME/waiters/LEASE` for each that has entered, `NAME/ready` once all have.
    """

    def __init__(self, session: Session, name: Bytes, count: int) -> None:
        self._session = session
        self._prefix = to_bytes(name)
        self._count = count
        self._key = b""

    async def enter(self) -> None:
        """Returns when all have entered; cancelled, this one has not."""
        lease_id = self._session.lease.id
        self._key = self._prefix + b"/waiters/%x" % lease_id
        try:
            await self._enter(lease_id)
        except BaseException:
            await finish(self._session.delete(self._key))
            raise

    async def _enter(self, lease_id: int) -> None:
        space = self._session.space
        ready = self._prefix + b"/ready"
        written = await space.put(self._key, lease=lease_id)
        waiting = await space.get(self._prefix + b"/waiters/", prefix=True, count_only=True)
        if waiting.count >= self._count:
            await space.put(ready, lease=lease_id)
            return
        async with space.watch(ready, start_revision=written.header.revision + 1) as watch:
            async for event in watch:
                if event.type != DELETE:
                    return

    async def leave(self) -> None:
        """Returns when all have left."""
        space = self._session.space
        gone = await space.delete(self._key)
        await space.delete(self._prefix + b"/ready")
        await wait_predecessors(space, self._prefix + b"/waiters/", gone.header.revision)
