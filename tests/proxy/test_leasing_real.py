"""Proxies that own keys under a leasing prefix: what they answer themselves is never old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import uvloop

from keyraft.base.log import NullLogger
from keyraft.client import Client, errors, missing, put, version
from keyraft.proxy.grpcproxy import GrpcProxy, leased_keys
from keyraft.proxy.grpcproxy.leasing import LeasingKeys
from tests.support.proxies import behind, options
from tests.support.server import ORACLE, Server, needs_oracle

pytestmark = pytest.mark.real

PREFIX = "leasing/"


@pytest.fixture(autouse=True)
def long_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer for a step than an answer is believed."""
    monkeypatch.setattr(leased_keys, "FRESH_S", 3_600.0)


@asynccontextmanager
async def proxied(member: Server, **changes: str) -> AsyncIterator[tuple[LeasingKeys, Client]]:
    """A proxy that has its lease, and a client of it."""
    fields = {"experimental_leasing_prefix": PREFIX, **changes}
    proxy = GrpcProxy(options(endpoints=(member.endpoint,), **fields), NullLogger(), 1_000)
    await proxy.start()
    try:
        assert proxy.leasing is not None
        while not proxy.leasing.ready:
            await asyncio.sleep(0.01)
        async with Client(proxy.server.addresses[0]) as client:
            yield proxy.leasing, client
        proxy.leasing.leased.check()
    finally:
        await proxy.stop()


def test_an_owner_answers_itself_and_gives_up_what_another_writes(member: Server) -> None:
    async def main() -> None:
        async with (
            proxied(member) as (first, a),
            proxied(member) as (second, b),
            Client(member.endpoint) as direct,
        ):
            await a.put("k", "1")
            read = await a.get("k")
            kv = (await direct.get(f"{PREFIX}k")).kvs[0]
            assert kv.lease and kv.value == b"" and len(first.leased) == 1
            again = await a.get("k")
            assert first.hits == 1 and again.kvs == read.kvs and again.count == 1
            assert again.header.revision >= read.header.revision
            assert not (await a.get("k", keys_only=True)).kvs[0].value
            assert (await a.get("k", count_only=True)).count == 1
            hits = first.hits

            # The owner's own writes keep the key, with what they have left.
            await a.put("k", "2")
            assert await a.value("k") == b"2" and first.hits == hits + 1
            answer = await a.txn().when(version("k") == 2).then(put("k", "3")).commit()
            assert answer.succeeded
            assert await a.value("k") == b"3" and first.hits == hits + 2
            await a.delete("k")
            assert await a.value("k") is None and first.hits == hits + 3

            # Another's write takes it away first.
            created = await b.put("k", "4")
            assert len(first.leased) == 0
            assert not (await direct.get(f"{PREFIX}k")).kvs
            assert await a.value("k") == await b.value("k") == b"4"
            assert created.header.revision > again.header.revision

            # What is in both, and in a range.
            await a.put("r/1", "x")
            await b.put("r/2", "y")
            assert (await a.value("r/1"), await b.value("r/2")) == (b"x", b"y")
            assert (len(first.leased), len(second.leased)) == (1, 2)
            gone = await b.delete("r/", prefix=True)
            assert gone.deleted == 2
            assert await a.value("r/1") is None and await b.value("r/2") is None

            # A key with a lease of its own is nobody's: it goes by itself.
            lease = await a.leases.grant(60)
            await a.put("with", "v", lease=lease.ID)
            assert await a.value("with") == b"v" and len(first.leased) <= 1
            await a.leases.revoke(lease.ID)
            assert await a.value("with") is None

            with pytest.raises(errors.EmptyKeyError):
                await a.put("", "x")
            answer = await a.txn().when(missing("k")).then(put("k", "5")).commit()
            assert not answer.succeeded
        async with Client(member.endpoint) as direct:
            assert (await direct.get(PREFIX, prefix=True)).count == 0  # gone with their lease

    uvloop.run(main())


def test_in_a_namespace_the_leasing_keys_are_in_it_too(member: Server) -> None:
    async def main() -> None:
        async with proxied(member, namespace="n/") as (leasing, client):
            await client.put("k", "1")
            await client.get("k")
            await client.get("k")
            assert leasing.hits == 1
            async with Client(member.endpoint) as direct:
                assert (await direct.get(f"n/{PREFIX}k")).count == 1
            assert (await client.delete("", from_key=True)).deleted >= 1
            assert await client.value("k") is None

    uvloop.run(main())


async def write_and_read(clients: list[Client], seed: int, rounds: int) -> None:
    """A read that begins when a write has been acknowledged sees it, or a later one."""
    keys = [f"shared/{n}" for n in range(3)]
    acknowledged = dict.fromkeys(keys, 0)

    async def worker(client: Client, random: Random) -> None:
        for _ in range(rounds):
            key = random.choice(keys)
            match random.randrange(6):
                case 0:
                    answer = await client.put(key, "x")
                    revision = answer.header.revision
                case 1:
                    pair = random.sample(keys, 2)
                    done = await client.txn().then(*(put(one, "y") for one in pair)).commit()
                    revision = done.header.revision
                    for one in pair:
                        acknowledged[one] = max(acknowledged[one], revision)
                    continue
                case _:
                    least = acknowledged[key]
                    found = await client.get(key)
                    seen = found.kvs[0].mod_revision if found.kvs else 0
                    assert seen >= least, (key, seen, least)
                    assert found.header.revision >= seen
                    revision = seen
            acknowledged[key] = max(acknowledged[key], revision)

    async with asyncio.TaskGroup() as group:
        for number, client in enumerate(clients):
            group.create_task(worker(client, Random(seed * 100 + number)))


def test_no_read_is_older_than_an_acknowledged_write(member: Server) -> None:
    async def main() -> None:
        async with proxied(member) as (first, a), proxied(member) as (second, b):
            await asyncio.wait_for(write_and_read([a, a, b, b], 1, 150), 60)
            first.leased.check()
            second.leased.check()

    uvloop.run(main())


@needs_oracle()
def test_the_originals_proxy_shares_a_prefix_with_ours(member: Server) -> None:
    theirs = behind(ORACLE, member, f"--experimental-leasing-prefix={PREFIX}")
    theirs.start()

    async def main() -> None:
        async with proxied(member) as (leasing, ours), Client(theirs.endpoint) as other:
            await other.put("k", "1")
            for client, writer, value in ((ours, other, b"2"), (other, ours, b"3")):
                assert await client.value("k") is not None
                await writer.put("k", value)
                assert await client.value("k") == await writer.value("k") == value
            await asyncio.wait_for(write_and_read([ours, ours, other, other], 2, 40), 60)
            leasing.leased.check()

    try:
        uvloop.run(main())
    finally:
        theirs.kill()
