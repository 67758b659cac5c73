"""A lock that the whole cluster sees.

Every contender creates `NAME/LEASE`; the one whose key was created first holds the lock. The rest
wait, each for the one just before it.

    async with Session(client) as session:
        async with Lock(session, "jobs") as lock:
            ...    # lock.held says whether it still is; guard writes with `lock.is_owner()`

Giving up, being cancelled or failing on the way deletes the contender's key: nobody waits for a
lock that nobody holds. (etcd's own mutex leaves the key behind when its wait is cut off at the
wrong moment.)
"""

from __future__ import annotations

from types import TracebackType

from keyraft.client import errors
from keyraft.client.lease import finish
from keyraft.client.recipes.session import Session
from keyraft.client.recipes.waiting import again, unless_lost, wait_predecessors
from keyraft.client.requests import Bytes, to_bytes
from keyraft.client.txn import Comparison, create_revision, get, put
from keyraft.proto.lazy import rpc_pb2


class LockedError(Exception):
    """`try_acquire` found the lock held by another."""


class Lock:
    """One contender for the lock `name`; used again and again by one task at a time."""

    def __init__(self, session: Session, name: Bytes) -> None:
        self._session = session
        self._prefix = to_bytes(name) + b"/"
        self.key = b""
        self.revision = 0  # of the key's creation; 0 while not contending
        self._held = False

    @property
    def held(self) -> bool:
        """The lock is held, as far as the session knows."""
        return self._held and not self._session.lost

    def is_owner(self) -> Comparison:
        """For a transaction: true as long as this contender holds the lock."""
        return create_revision(self.key) == self.revision

    async def acquire(self) -> None:
        """Waits for the lock; LeaseLostError when the session ends meanwhile."""
        try:
            await unless_lost(self._session, self._acquire(True))
        except BaseException:
            await self._clear()
            raise

    async def try_acquire(self) -> None:
        """Takes the lock if it is free; LockedError otherwise."""
        try:
            await unless_lost(self._session, self._acquire(False))
        except BaseException:
            await self._clear()
            raise

    async def release(self) -> None:
        """Gives the lock up; harmless when it is not held."""
        await self._clear()

    async def _acquire(self, wait: bool) -> None:
        if self._held:
            raise RuntimeError("the lock is already held by this contender")
        space = self._session.space
        self.key = self._prefix + b"%x" % self._session.lease.id
        contend = (
            space.txn()
            .when(create_revision(self.key) == 0)
            .then(put(self.key, lease=self._session.lease.id), self._first())
            .otherwise(get(self.key), self._first())
        )
        answer = await again(contend.commit)  # a second time finds the key of the first
        self.revision = answer.header.revision
        if not answer.succeeded:
            self.revision = answer.responses[0].response_range.kvs[0].create_revision
        first = answer.responses[1].response_range.kvs
        if first and first[0].create_revision != self.revision:
            if not wait:
                raise LockedError(self._prefix.decode("utf-8", "replace"))
            await wait_predecessors(space, self._prefix, self.revision)
            mine = await again(lambda: space.get(self.key))
            if not mine.kvs or mine.kvs[0].create_revision != self.revision:
                raise errors.LeaseLostError(self._session.lease.id)
        self._held = True

    def _first(self) -> rpc_pb2.RequestOp:
        return get(self._prefix, prefix=True, sort_by="create", order="ascend", limit=1)

    async def _clear(self) -> None:
        key, self.key = self.key, b""
        self.revision = 0
        self._held = False
        if key and not self._session.lost:
            await finish(self._session.delete(key))

    async def __aenter__(self) -> Lock:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.release()
