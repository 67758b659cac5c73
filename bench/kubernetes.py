"""`python -m bench.kubernetes`: what an apiserver asks of its storage, by turns with the original.

Without Kubernetes: creates and updates are transactions that compare the modification revision,
lists go page by page (500) or whole at one revision, streamed too where the server knows RangeStream,
and watchers of one prefix ask for progress, as its watch caches do. Values have 1 KB, and 30 KB for
large objects. Rates are those of one client process of ours with several calls at once; with two
cores it takes part of the machine, so the server's processor time for a call or an event stands
beside each rate and says more.

    python -m bench.kubernetes [--turns 3] [--scale 1.0] [--data DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from bench.medians import Medians
from bench.servers import ORIGINAL, OURS, Server
from keyraft.client import Client, errors, mod_revision, put
from keyraft.proto import rpc_pb2

AT_ONCE: Final = 32
PAGE_KEYS: Final = 500
SMALL_BYTES: Final = 1_000
LARGE_BYTES: Final = 30_000
OBJECTS: Final = 5_000
LARGE_OBJECTS: Final = 500
GETS: Final = 5_000
LISTS: Final = 10
WATCHERS: Final = 200
UPDATES: Final = 2_000
WAIT_S: Final = 300.0
PODS: Final = "/registry/pods/"
PAST_PODS: Final = "/registry/pods0"
"""The end of their range."""
LARGE: Final = "/registry/configmaps/"
LEASES: Final = "/registry/leases/"
Rows = dict[str, float]


class Turn:
    """One server's measurements."""

    def __init__(self, server: Server, client: Client, scale: float) -> None:
        self._server = server
        self._client = client
        self._scale = scale
        self.rows: Rows = {}
        self._mods: dict[str, int] = {}

    def _count(self, count: int) -> int:
        return max(1, int(count * self._scale))

    async def _measure(self, name: str, calls: int, work: Callable[[], Awaitable[object]]) -> None:
        """A rate, and what a call takes of the server's processor time."""
        used_s, began_s = self._server.cpu_s(), time.perf_counter()
        await work()
        took_s = time.perf_counter() - began_s
        self.rows[f"{name} (1/s)"] = calls / took_s
        self.rows[f"{name}, server (µs)"] = (self._server.cpu_s() - used_s) / calls * 1e6

    async def _each(self, calls: int, call: Callable[[int], Awaitable[object]]) -> None:
        """All numbers below `calls`, AT_ONCE at a time."""
        numbers = iter(range(calls))

        async def work() -> None:
            for number in numbers:
                await call(number)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def run(self) -> None:
        """Everything, in this order."""
        pods, large = self._count(OBJECTS), self._count(LARGE_OBJECTS)
        await self._measure("create 1 KB", pods, lambda: self._write_all(PODS, pods, SMALL_BYTES))
        await self._measure("update 1 KB", pods, lambda: self._write_all(PODS, pods, SMALL_BYTES))
        await self._measure(
            "create 30 KB", large, lambda: self._write_all(LARGE, large, LARGE_BYTES)
        )
        gets = self._count(GETS)
        await self._measure("get", gets, lambda: self._each(gets, self._get))
        await self._measure("list by pages of 500", LISTS * pods, self._pages)
        await self._measure("list at a revision", LISTS * pods, self._whole)
        try:
            await self._measure("list streamed", LISTS * pods, self._streamed)
        except errors.UnimplementedError:
            pass  # the original before 3.7
        await self._watched()

    async def _write_all(self, prefix: str, count: int, size: int) -> None:
        async def write(number: int) -> None:
            key = f"{prefix}namespace-{number % 50}/object-{number:06}"
            expected = mod_revision(key) == self._mods.get(key, 0)
            done = await self._client.txn().when(expected).then(put(key, b"v" * size)).commit()
            assert done.succeeded, f"{key} has another revision"
            self._mods[key] = done.header.revision

        await self._each(count, write)

    async def _get(self, number: int) -> None:
        count = self._count(OBJECTS)
        number %= count
        found = await self._client.get(f"{PODS}namespace-{number % 50}/object-{number:06}")
        assert len(found.kvs) == 1

    async def _pages(self) -> None:
        for _ in range(LISTS):
            start: bytes | str = PODS
            revision, found = 0, 0
            while True:
                page = await self._client.get(
                    start, range_end=PAST_PODS, limit=PAGE_KEYS, revision=revision
                )
                revision = revision or page.header.revision
                found += len(page.kvs)
                if not page.more:
                    break
                start = page.kvs[-1].key + b"\0"
            assert found == self._count(OBJECTS), found

    async def _whole(self) -> None:
        revision = (await self._client.get(PODS, limit=1)).header.revision
        for _ in range(LISTS):
            found = await self._client.get(PODS, prefix=True, revision=revision)
            assert len(found.kvs) == self._count(OBJECTS)

    async def _streamed(self) -> None:
        key, end = PODS.encode(), PAST_PODS.encode()
        for _ in range(LISTS):
            found = 0
            request = rpc_pb2.RangeRequest(key=key, range_end=end)
            async for part in self._client.get_stream(request):
                found += len(part.kvs)
            assert found == self._count(OBJECTS), found

    async def _watched(self) -> None:
        """Updates of a prefix that many watch; an event counts each time that it is delivered."""
        updates = self._count(UPDATES)
        ready = asyncio.Semaphore(0)

        async def watch() -> None:
            seen = 0
            async with self._client.watch(LEASES, prefix=True, progress_notify=True) as events:
                ready.release()
                async for _ in events:
                    seen += 1
                    if seen == updates:
                        return

        watchers = [asyncio.create_task(watch()) for _ in range(WATCHERS)]
        for _ in watchers:
            await ready.acquire()

        async def work() -> None:
            await self._write_all(LEASES, updates, SMALL_BYTES)
            async with asyncio.timeout(WAIT_S):
                await asyncio.gather(*watchers)

        await self._measure(f"events of {WATCHERS} watchers", updates * WATCHERS, work)


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[Client]:
    """A client with time enough."""
    async with Client(server.endpoint, timeout_s=WAIT_S) as client:
        yield client


async def turn(server: Server, scale: float) -> Rows:
    """One server, fresh data."""
    async with client_of(server) as client:
        one = Turn(server, client, scale)
        await one.run()
        return one.rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.kubernetes")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of calls")
    parser.add_argument("--data", help="where the members keep their data")
    given = parser.parse_args()
    medians = Medians()
    for _ in range(given.turns):
        for label, command in (("etcd", ORIGINAL), ("keyraft", OURS)):
            with Server(label, command, given.data) as server:
                server.start()
                medians.add(label, asyncio.run(turn(server, given.scale)))
                server.stop()
    medians.show("Kubernetes' shape")


if __name__ == "__main__":
    main()
