"""Electing one of many candidates, and observing who is the leader.

Candidates create `NAME/LEASE` with their proposal as value; the oldest key is the leader's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from keyraft.client import errors
from keyraft.client.client import Space
from keyraft.client.recipes.claim import Claim, again
from keyraft.client.recipes.session import Session
from keyraft.client.recipes.waiting import wait_predecessors
from keyraft.client.requests import Bytes, to_bytes
from keyraft.client.txn import create_revision, put
from keyraft.client.watch import DELETE
from keyraft.proto.lazy import mvcc_pb2


class NotLeaderError(errors.ClientError):
    """The candidate is not, or no longer, the leader."""


class Election:
    """One candidate of the election `name`."""

    def __init__(self, session: Session, name: Bytes) -> None:
        self._session = session
        self._prefix = to_bytes(name) + b"/"
        self.key = b""
        self.revision = 0  # of the key's creation; 0 while not a candidate
        self._claim: Claim | None = None

    async def campaign(self, value: Bytes) -> None:
        """Waits until this candidate is the leader; if cancelled, it is no candidate any more.

        LeaseLostError when the session ends meanwhile.
        """
        if self._claim is None:
            name = self._prefix + b"%x" % self._session.lease.id
            self._claim = self._session.claim(name)
        try:
            await self._session.unless_lost(self._campaign(self._claim, to_bytes(value)))
        except BaseException:
            await self.resign()
            raise

    async def _campaign(self, claim: Claim, value: bytes) -> None:
        standing = await claim.stand(value)
        self.key, self.revision = claim.key, standing.revision
        if standing.found is not None and standing.found.value != value:
            await self.proclaim(value)
        await wait_predecessors(self._session.space, self._prefix, self.revision)
        await claim.check(self.revision)

    async def proclaim(self, value: Bytes) -> None:
        """Changes the leader's value; NotLeaderError when this candidate is not the leader."""
        if not self.revision:
            raise NotLeaderError("not a candidate")
        answer = await (
            self._session.space.txn()
            .when(create_revision(self.key) == self.revision)
            .then(put(self.key, value, lease=self._session.lease.id))
            .commit()
        )
        if not answer.succeeded:
            await self.resign()
            raise NotLeaderError("the leadership was lost")

    async def resign(self) -> None:
        """Gives the leadership or the candidacy up; harmless without one."""
        claim, self._claim = self._claim, None
        self.key, self.revision = b"", 0
        if claim is not None:
            await claim.leave()


async def leader(space: Space, name: Bytes) -> mvcc_pb2.KeyValue | None:
    """The leader's key and value, None when there is no leader."""
    found = await space.get(
        to_bytes(name) + b"/", prefix=True, sort_by="create", order="ascend", limit=1
    )
    return found.kvs[0] if found.kvs else None


async def observe(space: Space, name: Bytes) -> AsyncIterator[mvcc_pb2.KeyValue]:
    """Each leader and each value that it proclaims, from the present one on, for ever."""
    prefix = to_bytes(name) + b"/"
    while True:
        found = await again(
            lambda: space.get(prefix, prefix=True, sort_by="create", order="ascend", limit=1)
        )
        try:
            if found.kvs:
                current = found.kvs[0]
                yield current
                async with space.watch(
                    current.key, start_revision=found.header.revision + 1
                ) as watch:
                    async for event in watch:
                        if event.type == DELETE:
                            break
                        yield event.kv
            else:
                async with space.watch(
                    prefix, prefix=True, start_revision=found.header.revision + 1, no_delete=True
                ) as watch:
                    async for _ in watch:
                        break  # the oldest key is read anew: this one may be gone already
        except errors.WatchCompactedError:
            continue
