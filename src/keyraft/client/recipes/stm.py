"""Software transactional memory: a coroutine that reads and writes keys as if it were alone.

    async def move(memory: Transaction) -> None:
        amount = int(await memory.get("a") or b"0")
        memory.put("a", str(amount - 1))
        memory.put("b", str(int(await memory.get("b") or b"0") + 1))

    await atomically(client, move)

Reads are remembered. The writes are carried out in one transaction, on the condition that nothing
that was read has changed meanwhile; otherwise the coroutine runs again. It must therefore have no
other effects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TypeVar

from keyraft.client.client import Space
from keyraft.client.requests import Bytes, to_bytes
from keyraft.client.txn import Comparison, delete, mod_revision, put

T = TypeVar("T")


class Isolation(Enum):
    """What may change under a transaction (names as in etcd's `concurrency` package)."""

    SERIALIZABLE_SNAPSHOT = "reads of one revision; no key read or written has changed since"
    SERIALIZABLE = "reads of one revision; no key read has changed since"
    REPEATABLE_READS = "each key reads the same within the transaction, and has not changed since"
    READ_COMMITTED = "reads are of committed data"


class Transaction:
    """The memory as one run of the coroutine sees it."""

    def __init__(self, space: Space, isolation: Isolation) -> None:
        self._space = space
        self._isolation = isolation
        self._reads: dict[bytes, tuple[int, bytes | None]] = {}  # mod revision, value
        self._writes: dict[bytes, tuple[bytes | None, int]] = {}  # value or deletion, lease
        self._revision = 0  # of the first read

    async def get(self, key: Bytes) -> bytes | None:
        """The value, None for a missing key; the run's own writes are seen."""
        key = to_bytes(key)
        if key in self._writes:
            return self._writes[key][0]
        known = self._reads.get(key)
        if known is None:
            snapshot = self._isolation in (Isolation.SERIALIZABLE_SNAPSHOT, Isolation.SERIALIZABLE)
            found = await self._space.get(key, revision=self._revision if snapshot else 0)
            self._revision = self._revision or found.header.revision
            first = found.kvs[0] if found.kvs else None
            known = (0, None) if first is None else (first.mod_revision, first.value)
            self._reads[key] = known
        return known[1]

    async def revision(self, key: Bytes) -> int:
        """The revision of the key's last change as of the read; 0 for a missing key."""
        key = to_bytes(key)
        if key not in self._reads:
            written = self._writes.pop(key, None)
            await self.get(key)
            if written is not None:
                self._writes[key] = written
        return self._reads[key][0]

    def put(self, key: Bytes, value: Bytes, *, lease: int = 0) -> None:
        """Writes when the transaction is carried out."""
        self._writes[to_bytes(key)] = (to_bytes(value), lease)

    def delete(self, key: Bytes) -> None:
        """Deletes when the transaction is carried out."""
        self._writes[to_bytes(key)] = (None, 0)

    def _conditions(self) -> list[Comparison]:
        if self._isolation is Isolation.READ_COMMITTED:
            return []
        conditions = [mod_revision(key) == read[0] for key, read in self._reads.items()]
        if self._isolation is Isolation.SERIALIZABLE_SNAPSHOT and self._revision:
            conditions += [mod_revision(key) < self._revision + 1 for key in self._writes]
        return conditions

    async def commit(self) -> bool:
        """Carries the writes out; False when something that was read had changed."""
        writes = [
            delete(key) if value is None else put(key, value, lease=lease)
            for key, (value, lease) in self._writes.items()
        ]
        answer = await self._space.txn().when(*self._conditions()).then(*writes).commit()
        return answer.succeeded


async def atomically(
    space: Space,
    work: Callable[[Transaction], Awaitable[T]],
    isolation: Isolation = Isolation.SERIALIZABLE_SNAPSHOT,
) -> T:
    """Runs `work` until one run of it was carried out as a whole; its result."""
    while True:
        memory = Transaction(space, isolation)
        result = await work(memory)
        if await memory.commit():
            return result
