"""Waiting in line: for keys that were created earlier to go away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from keyraft.client import errors
from keyraft.client.client import Space
from keyraft.client.recipes.session import Session
from keyraft.client.watch import DELETE

T = TypeVar("T")
RETRY_S: Final = 0.1


async def wait_deleted(space: Space, key: bytes, start_revision: int) -> None:
    """Returns when `key`, known to exist before `start_revision`, has been deleted."""
    async with space.watch(key, start_revision=start_revision) as watch:
        async for event in watch:
            if event.type == DELETE:
                return


async def wait_predecessors(space: Space, prefix: bytes, revision: int) -> int:
    """Returns when no key below `prefix` was created before `revision`; a revision when so.

    It watches only the youngest of them, so one release wakes one waiter (no herd).
    """
    while True:
        found = await again(
            lambda: space.get(
                prefix,
                prefix=True,
                sort_by="create",
                order="descend",
                limit=1,
                max_create_revision=revision - 1,
            )
        )
        if not found.kvs:
            return found.header.revision
        try:
            await wait_deleted(space, found.kvs[0].key, found.header.revision + 1)
        except errors.WatchCompactedError:
            continue  # the history is gone; the next read tells the present


async def again(call: Callable[[], Awaitable[T]]) -> T:
    """Repeats a call that does no harm when done twice, until a server answers."""
    while True:
        try:
            return await call()
        except (errors.DeadlineError, errors.UnavailableError):
            await asyncio.sleep(RETRY_S)


async def unless_lost(session: Session, work: Awaitable[T]) -> T:
    """The result of `work`; LeaseLostError as soon as the session is lost."""
    task = asyncio.ensure_future(work)
    lost = asyncio.ensure_future(session.lease.wait_lost())
    try:
        await asyncio.wait((task, lost), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise errors.LeaseLostError(session.lease.id)
        return task.result()
    finally:
        for one in (task, lost):
            one.cancel()
        await asyncio.gather(task, lost, return_exceptions=True)
