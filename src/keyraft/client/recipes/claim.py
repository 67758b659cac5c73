"""A session's place in a queue: the key `PREFIX/LEASE`, created once and deleted once.

The key's name tells the session. But the same session may leave and come again under the same name.
So what is checked and deleted is always the key of one create revision.

    no key  --stand-->  standing  --the last user's leave-->  leaving  --a server's answer-->  no key

Invariants:
- At most one call that makes or takes away the key is under way in its session (`_busy`), and the
  key is created again only after a server has answered that the old one is gone. A deletion that is
  carried out late finds another create revision and does nothing.
- Several users of one session share the key (etcd's recipes are reentrant for a session); the
  last one that leaves takes it away.

Source of the layout: etcd `client/v3/concurrency/mutex.go`, which deletes by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from keyraft.client import errors
from keyraft.client.client import Space
from keyraft.client.lease import Lease, finish
from keyraft.client.txn import Operation, create_revision, delete, get, put, version
from keyraft.proto.lazy import mvcc_pb2, rpc_pb2

T = TypeVar("T")
RETRY_S: Final = 0.1


async def again(call: Callable[[], Awaitable[T]]) -> T:
    """Repeats an idempotent call until a server answers."""
    while True:
        try:
            return await call()
        except (errors.DeadlineError, errors.UnavailableError):
            await asyncio.sleep(RETRY_S)


class ClaimHolder(Protocol):
    """A session, as its claims see it."""

    space: Space

    @property
    def lease(self) -> Lease:
        """The lease that the claims' keys are attached to."""

    @property
    def lost(self) -> bool:
        """The lease is over, and its keys with it."""

    def forget(self, key: bytes) -> None:
        """A claim has no users any more."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs `work` until its end or the session's."""


class Claim:
    """One key of a session; made by `Session.claim`, which counts its users."""

    def __init__(self, session: ClaimHolder, key: bytes) -> None:
        self._session = session
        self.key = key
        self.users = 0
        self._revision = 0  # of the key's creation; 0: none, or see `_unheard`
        self._unheard = False  # a creation was sent, and no answer came
        self._busy = asyncio.Lock()

    async def stand(self, value: bytes, *more: Operation) -> ClaimAnswer:
        """Makes the key unless it is there, and carries out `more` in the same transaction."""
        space, lease_id = self._session.space, self._session.lease.id
        async with self._busy:
            transaction = (
                space.txn()
                .when(create_revision(self.key) == 0)
                .then(put(self.key, value, lease=lease_id), *more)
                .otherwise(get(self.key), *more)
            )
            self._unheard = True
            answer = await again(transaction.commit)  # repeated, it finds the key that exists
            standing = ClaimAnswer(answer)
            self._revision, self._unheard = standing.revision, False
            return standing

    async def check(self, revision: int) -> None:
        """Asks a server whether the key of that create revision still exists; LeaseLostError if
        not.

        After a wait the lease may have expired meanwhile.
        """
        found = await again(lambda: self._session.space.get(self.key))
        if not found.kvs or found.kvs[0].create_revision != revision:
            raise errors.LeaseLostError(self._session.lease.id)

    async def leave(self) -> None:
        """Removes one user; after the last one the key is deleted for certain.

        While no server answers, the session goes on trying until the key or the lease is gone.
        Otherwise the renewals would keep alive a key without users.
        """
        self.users -= 1
        if not self.users and not self._session.lost:
            await finish(self._begin_removal())

    async def _begin_removal(self) -> None:
        tried = asyncio.Event()
        task = self._session.spawn(self._remove(tried))
        waiting = asyncio.ensure_future(tried.wait())
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done() and not task.cancelled():
            task.result()  # raises what a server refused

    async def _remove(self, tried: asyncio.Event) -> None:
        async with self._busy:
            if self.users:
                return  # another user came first and uses the same key
            while not self._session.lost:
                try:
                    await self._remove_once()
                    break
                except (errors.DeadlineError, errors.UnavailableError):
                    tried.set()
                    await asyncio.sleep(RETRY_S)
        if not self.users:
            self._session.forget(self.key)

    async def _remove_once(self) -> None:
        space = self._session.space
        if self._unheard:
            # The condition never holds. But with a deletion in it the transaction is a write, so it
            # is carried out after the creation that was sent before. A read could overtake that
            # creation.
            look = space.txn().when(version(self.key) < 0).then(delete(self.key))
            answer = await look.otherwise(get(self.key)).commit()
            found = answer.responses[0].response_range.kvs
            self._revision, self._unheard = found[0].create_revision if found else 0, False
        if self._revision:
            fenced = space.txn().when(create_revision(self.key) == self._revision)
            await fenced.then(delete(self.key)).commit()
            self._revision = 0


class ClaimAnswer:
    """What `Claim.stand` found."""

    def __init__(self, answer: rpc_pb2.TxnResponse) -> None:
        self._answer = answer
        own = answer.responses[0].response_range.kvs
        self.found: mvcc_pb2.KeyValue | None = None if answer.succeeded else own[0]
        self.as_of = answer.header.revision
        self.revision = self.found.create_revision if self.found else self.as_of

    def kvs(self, number: int) -> list[mvcc_pb2.KeyValue]:
        """The pairs that the read `number` of `more` found."""
        return list(self._answer.responses[number + 1].response_range.kvs)

    def count(self, number: int) -> int:
        """How many pairs the read `number` of `more` counted."""
        return self._answer.responses[number + 1].response_range.count
