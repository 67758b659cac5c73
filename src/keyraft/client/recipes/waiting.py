"""Waiting until keys that were created earlier are deleted."""

from __future__ import annotations

from keyraft.client import errors
from keyraft.client.client import Space
from keyraft.client.recipes.claim import again
from keyraft.client.watch import DELETE


async def wait_deleted(space: Space, key: bytes, start_revision: int) -> None:
    """Returns when `key`, known to exist before `start_revision`, has been deleted."""
    async with space.watch(key, start_revision=start_revision) as watch:
        async for event in watch:
            if event.type == DELETE:
                return
    raise errors.ClosedError("the watch was ended")


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
            continue  # the history is compacted; the next read shows the present
