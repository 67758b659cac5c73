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
from keyraft.client.recipes.claim import Claim
from keyraft.client.recipes.session import Session
from keyraft.client.recipes.waiting import wait_predecessors
from keyraft.client.requests import Bytes, to_bytes
from keyraft.client.txn import Comparison, create_revision, get


class LockedError(errors.ClientError):
    """`try_acquire` found the lock held by another."""


class Lock:
    """One contender for the lock `name`; used again and again by one task at a time."""

    def __init__(self, session: Session, name: Bytes) -> None:
        self._session = session
        self._prefix = to_bytes(name) + b"/"
        self.key = b""
        self.revision = 0  # of the key's creation; 0 while not contending
        self._claim: Claim | None = None
        self._held = False

    @property
    def held(self) -> bool:
        """The lock is held, as far as the session knows."""
        return self._held and not self._session.lost

    def is_owner(self) -> Comparison:
        """For a transaction: holds as long as this contender's key exists; never without a key."""
        return create_revision(self.key or b"\0") == (self.revision or -1)

    async def acquire(self) -> None:
        """Waits for the lock; LeaseLostError when the session ends meanwhile."""
        await self._contend(True)

    async def try_acquire(self) -> None:
        """Takes the lock if it is free; LockedError otherwise."""
        await self._contend(False)

    async def release(self) -> None:
        """Gives the lock up; harmless when it is not held."""
        claim, self._claim = self._claim, None
        self.key, self.revision = b"", 0
        self._held = False
        if claim is not None:
            await claim.leave()

    async def _contend(self, wait: bool) -> None:
        if self._claim is not None:
            if not self._session.lost:
                raise RuntimeError("the lock is already held by this contender")
            await self.release()
        self._claim = claim = self._session.claim(self._prefix + b"%x" % self._session.lease.id)
        try:
            await self._session.unless_lost(self._acquire(claim, wait))
        except BaseException:
            await self.release()
            raise
        self._held = True

    async def _acquire(self, claim: Claim, wait: bool) -> None:
        standing = await claim.stand(
            b"", get(self._prefix, prefix=True, sort_by="create", order="ascend", limit=1)
        )
        self.key, self.revision = claim.key, standing.revision
        first = standing.kvs(0)
        if first and first[0].create_revision != self.revision:
            if not wait:
                raise LockedError(self._prefix.decode("utf-8", "replace"))
            await wait_predecessors(self._session.space, self._prefix, self.revision)
            await claim.check(self.revision)

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
