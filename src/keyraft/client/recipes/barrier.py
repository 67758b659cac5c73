"""Barriers: clients wait until one of them opens the barrier, or until all have come."""

from __future__ import annotations

from keyraft.client import errors
from keyraft.client.client import Space
from keyraft.client.recipes.claim import Claim
from keyraft.client.recipes.session import Session
from keyraft.client.recipes.waiting import wait_deleted, wait_predecessors
from keyraft.client.requests import Bytes, to_bytes
from keyraft.client.txn import create_revision, delete, get, missing, put
from keyraft.client.watch import DELETE
from keyraft.proto.lazy import mvcc_pb2


class HeldError(errors.ClientError):
    """The barrier is already held."""


class Barrier:
    """Closed by `hold`, opened by `release`; `wait` returns when it is open."""

    def __init__(self, space: Space, name: Bytes) -> None:
        self._space = space
        self._key = to_bytes(name)
        self._revision = 0  # of the key that `hold` made; 0 for none

    async def hold(self) -> None:
        """Closes the barrier; HeldError when it is closed."""
        answer = await self._space.txn().when(missing(self._key)).then(put(self._key)).commit()
        if not answer.succeeded:
            raise HeldError(self._key.decode("utf-8", "replace"))
        self._revision = answer.header.revision

    async def release(self) -> None:
        """Opens the barrier for all who wait.

        After a `hold` of its own it ends that one and no later one; otherwise it ends anyone's.
        """
        if not self._revision:
            await self._space.delete(self._key)
            return
        mine = create_revision(self._key) == self._revision
        await self._space.txn().when(mine).then(delete(self._key)).commit()
        self._revision = 0

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
        self._waiters = to_bytes(name) + b"/waiters/"
        self._ready = to_bytes(name) + b"/ready"
        self._count = count
        self._claim: Claim | None = None
        self._opened: mvcc_pb2.KeyValue | None = None  # the `ready` key that let this one enter

    async def enter(self) -> None:
        """Returns when all have entered; if cancelled, this one has not entered.

        LeaseLostError when the session ends meanwhile.
        """
        if self._claim is None:
            self._claim = self._session.claim(self._waiters + b"%x" % self._session.lease.id)
        try:
            self._opened = await self._session.unless_lost(self._enter(self._claim))
        except BaseException:
            await self._withdraw()
            raise

    async def _enter(self, claim: Claim) -> mvcc_pb2.KeyValue:
        """The key `ready`, made by the last one to enter."""
        space = self._session.space
        standing = await claim.stand(b"", get(self._waiters, prefix=True, count_only=True))
        if standing.count(0) >= self._count:
            write = put(self._ready, lease=self._session.lease.id)
            answer = await space.txn().then(write, get(self._ready)).commit()
            return answer.responses[1].response_range.kvs[0]
        async with space.watch(self._ready, start_revision=standing.as_of + 1) as watch:
            async for event in watch:
                if event.type != DELETE:
                    await claim.check(standing.revision)  # else all were there without this one
                    return event.kv
        raise errors.ClosedError("the watch was ended")

    async def leave(self) -> None:
        """Returns when all have left."""
        await self._withdraw()
        opened, self._opened = self._opened, None
        if opened is None:
            return
        space = self._session.space
        same = create_revision(self._ready) == opened.create_revision
        await space.txn().when(same).then(delete(self._ready)).commit()
        # Those that this `ready` let enter have older keys; newer keys belong to the next round.
        await wait_predecessors(space, self._waiters, opened.mod_revision)

    async def _withdraw(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            await claim.leave()
