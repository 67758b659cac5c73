"""Queues that many programs fill and empty.

An element is one key. A client takes it by deleting it in a transaction that fails if it has
changed, so no element is taken twice. An element stays until it is taken, even if its producer
dies.
"""

from __future__ import annotations

import secrets
import time
from typing import Final

from keyraft.client import errors
from keyraft.client.client import Space
from keyraft.client.requests import Bytes, SortBy, to_bytes
from keyraft.client.txn import delete, missing, mod_revision, put
from keyraft.proto.lazy import mvcc_pb2

PRIORITY_MAX: Final = 65_535


class Queue:
    """First in, first out, in the order in which the cluster took the elements."""

    _sort: SortBy = "create"

    def __init__(self, space: Space, name: Bytes) -> None:
        self._space = space
        self._prefix = to_bytes(name) + b"/"

    async def put(self, value: Bytes) -> None:
        """Adds an element."""
        await self._add(self._prefix, value)

    async def _add(self, prefix: bytes, value: Bytes) -> None:
        while True:
            key = prefix + b"%016x%s" % (time.time_ns(), secrets.token_hex(4).encode())
            answer = await self._space.txn().when(missing(key)).then(put(key, value)).commit()
            if answer.succeeded:
                return

    async def get(self) -> bytes:
        """Takes the next element; waits for one when there is none."""
        while True:
            found = await self._space.get(
                self._prefix, prefix=True, sort_by=self._sort, order="ascend", limit=1
            )
            if found.kvs:
                if await self._take(found.kvs[0]):
                    return found.kvs[0].value
                continue
            await self._wait(found.header.revision + 1)

    async def get_nowait(self) -> bytes | None:
        """Takes the next element, None when there is none."""
        while True:
            found = await self._space.get(
                self._prefix, prefix=True, sort_by=self._sort, order="ascend", limit=1
            )
            if not found.kvs:
                return None
            if await self._take(found.kvs[0]):
                return found.kvs[0].value

    async def _take(self, kv: mvcc_pb2.KeyValue) -> bool:
        unchanged = mod_revision(kv.key) == kv.mod_revision
        answer = await self._space.txn().when(unchanged).then(delete(kv.key)).commit()
        return answer.succeeded

    async def _wait(self, start_revision: int) -> None:
        try:
            async with self._space.watch(
                self._prefix, prefix=True, start_revision=start_revision, no_delete=True
            ) as watch:
                async for _ in watch:
                    return
        except errors.WatchCompactedError:
            return  # the next read shows the present


class PriorityQueue(Queue):
    """The element with the lowest number first, older ones of a number before younger ones."""

    _sort: SortBy = "key"

    async def put(self, value: Bytes, priority: int = 0) -> None:
        """Adds an element; `priority` is 0 (first) to 65,535 (last)."""
        if not 0 <= priority <= PRIORITY_MAX:
            raise ValueError(f"priority {priority} is not within 0 and {PRIORITY_MAX}")
        await self._add(self._prefix + b"%05d/" % priority, value)
