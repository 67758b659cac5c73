"""The services over an engine that is no member, through the real router, by a real client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
import uvloop

from keyraft.client import Client, errors, exists, get, missing, prefix_end, put
from keyraft.grpc import Router
from keyraft.net import Channel, serve
from keyraft.proto import lock_pb2, rpc_pb2
from keyraft.service import (
    ElectionService,
    Guard,
    KVService,
    LeaseService,
    LockService,
    Means,
    WatchService,
)

from .other_engine import Data, Keys, Leases, Standing, Users, Watching

Body = Callable[[Data, Client, str], Awaitable[None]]


def run(body: Body) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        data, router = Data(loop), Router()
        keys, watching, leases = Keys(data), Watching(data), Leases(data)
        guard = Guard(Standing(), Users(), loop)
        KVService(keys, guard).register(router)
        WatchService(watching, guard, Random(1)).register(router)
        LeaseService(leases, guard).register(router)
        LockService(Means(keys, watching, leases, guard)).register(router)
        ElectionService(Means(keys, watching, leases, guard)).register(router)
        server = await serve(["http://127.0.0.1:0"], router)
        try:
            async with Client(server.addresses[0]) as client:
                await asyncio.wait_for(body(data, client, server.addresses[0]), 20)
        finally:
            await server.stop()

    uvloop.run(main())


def test_keys_of_another_engine() -> None:
    async def body(data: Data, client: Client, address: str) -> None:
        assert (await client.put("a", "1")).header.revision == 2
        await client.put("b", "2")
        assert await client.value("a") == b"1"
        found = await client.get("a", prefix_end(b"b"), order="descend")
        assert [kv.key for kv in found.kvs] == [b"b", b"a"] and found.header.cluster_id == 7
        assert (await client.get("a", serializable=True)).kvs[0].version == 1
        taken = await client.txn().when(missing("c")).then(put("c", "3"), get("a")).commit()
        assert taken.succeeded and taken.responses[1].response_range.kvs[0].value == b"1"
        assert not (await client.txn().when(missing("c")).then(put("c")).commit()).succeeded
        assert (await client.txn().when(exists("c")).then(get("c")).commit()).succeeded
        assert (await client.delete("a", prefix_end(b"b"))).deleted == 2
        assert [kv.key for kv in (await client.get("a", from_key=True)).kvs] == [b"c"]
        assert [kv.key for kv in (await client.get("a", from_key=True, revision=3)).kvs] == [
            b"a",
            b"b",
        ]
        request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0")
        parts = [part async for part in client.get_stream(request)]
        assert [kv.key for part in parts for kv in part.kvs] == [b"c"]
        await client.compact(3)

    run(body)


def test_refusals_of_the_service_and_of_the_engine() -> None:
    async def body(data: Data, client: Client, address: str) -> None:
        with pytest.raises(errors.EmptyKeyError):
            await client.put("")
        with pytest.raises(errors.FutureRevisionError):
            await client.get("a", revision=9)
        with pytest.raises(errors.LeaseNotFoundError):
            await client.put("a", lease=5)

    run(body)


def test_watches_of_another_engine() -> None:
    async def body(data: Data, client: Client, address: str) -> None:
        await client.put("w/1", "old")
        async with (
            client.watch("w/", prefix=True, start_revision=2) as past,
            client.watch("w/", prefix=True) as present,
        ):
            await client.put("other")
            await client.put("w/2", "new")
            await client.delete("w/1")
            told = [(e.type, e.kv.key) for e in [await anext(past) for _ in range(3)]]
            assert told == [(0, b"w/1"), (0, b"w/2"), (1, b"w/1")]
            assert [(await anext(present)).kv.key for _ in range(2)] == [b"w/2", b"w/1"]

    run(body)


def test_leases_of_another_engine() -> None:
    async def body(data: Data, client: Client, address: str) -> None:
        lease = await client.leases.grant(60)
        assert lease.ID
        await client.put("on", lease=lease.ID)
        assert (await client.leases.keep_alive_once(lease.ID)).TTL == 60
        left = await client.leases.time_to_live(lease.ID, keys=True)
        assert (left.TTL, list(left.keys)) == (60, [b"on"])
        assert [one.ID for one in (await client.leases.list()).leases] == [lease.ID]
        async with client.watch("on") as watch:
            await client.leases.revoke(lease.ID)
            assert (await anext(watch)).type == 1
        assert (await client.leases.time_to_live(lease.ID)).TTL == -1
        with pytest.raises(errors.LeaseNotFoundError):
            await client.leases.revoke(lease.ID)

    run(body)


def test_recipes_over_another_engine() -> None:
    async def body(data: Data, client: Client, address: str) -> None:
        async with Channel(f"http://{address}") as channel:
            lock = b"/v3lockpb.Lock/Lock"
            request = lock_pb2.LockRequest(name=b"l").SerializeToString()
            first = lock_pb2.LockResponse.FromString(await channel.unary(lock, request))
            lease = await client.leases.grant(60)
            request = lock_pb2.LockRequest(name=b"l", lease=lease.ID).SerializeToString()
            second = asyncio.create_task(channel.unary(lock, request))
            async with client.watch("l/", prefix=True, start_revision=1) as watch:
                for _ in range(2):
                    await anext(watch)  # both stand in line
            assert not second.done()
            unlock = lock_pb2.UnlockRequest(key=first.key).SerializeToString()
            await channel.unary(b"/v3lockpb.Lock/Unlock", unlock)
            assert lock_pb2.LockResponse.FromString(await second).key != first.key

    run(body)


def test_what_a_caller_is_passes_the_services_untouched() -> None:
    async def body(data: Data, client: Client, address: str) -> None:
        async with Client(address, token="mine") as other:
            await other.put("k")
            await other.delete("k")
        assert data.callers[-2:] == [b"mine", b"mine"]
        async with Client(address, token="bad") as bad:
            with pytest.raises(errors.InvalidAuthTokenError):
                await bad.put("k")
            with pytest.raises(errors.InvalidAuthTokenError):
                await bad.get("k")

    run(body)
