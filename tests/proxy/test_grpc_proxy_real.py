"""The gRPC proxy in front of real members: what many clients cost them, and what clients notice."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import pytest

from keyraft.client import Client, errors, missing, put
from keyraft.client.recipes import Election, Lock, Session
from keyraft.client.transport import CallFailed
from keyraft.net import Http1Client
from keyraft.proto import rpc_pb2
from keyraft.proxy.grpcproxy import GrpcProxy
from tests.support.cluster import LocalCluster
from tests.support.proxies import through_proxy
from tests.support.server import OURS, Server, needs_oracle

pytestmark = pytest.mark.real

WATCHERS = 2_000
EVENTS = 40


async def fetch(address: str, path: str) -> str:
    client = Http1Client()
    try:
        answer = await client.request("GET", f"http://{address}", path, answer_bytes_max=1 << 24)
        return answer.body.decode()
    finally:
        client.close()


async def watchers(server: Server) -> int:
    found = re.search(
        r"^etcd_debugging_mvcc_watcher_total (\d+)", await fetch(server.endpoint, "/metrics"), re.M
    )
    assert found is not None
    return int(found[1])


def test_many_watchers_of_one_key_cost_the_member_one_watch(member: Server) -> None:
    async def body(proxy: GrpcProxy, client: Client) -> None:
        async with asyncio.TaskGroup() as group:
            seen: list[bytes] = []
            standing = asyncio.Semaphore(0)

            async def one(reader: Client) -> None:
                async with reader.watch("shared") as watch:
                    standing.release()
                    async for event in watch:
                        seen.append(event.kv.value)
                        return

            async with Client(proxy.server.addresses[0]) as other:
                tasks = [group.create_task(one((client, other)[n % 2])) for n in range(WATCHERS)]
                for _ in range(WATCHERS):
                    await standing.acquire()
                assert await watchers(member) == 1
                assert proxy.ranges.counts.coalesced_watchers == WATCHERS - 1
                page = await fetch(proxy.server.addresses[0], "/proxy/metrics")
                assert f"etcd_grpc_proxy_watchers_coalescing_total {WATCHERS - 1}\n" in page
                await client.put("shared", "1")
                await asyncio.gather(*tasks)
        assert seen == [b"1"] * WATCHERS
        assert proxy.ranges.counts.coalesced_events >= WATCHERS - 1

    through_proxy(body, member.endpoint)


def test_a_watch_tells_what_a_member_would(member: Server) -> None:
    """Filters, previous values, progress, ids of one's own, fragments, what is refused."""

    async def body(proxy: GrpcProxy, client: Client) -> None:
        first = (await client.put("w/a", "1")).header.revision
        await client.put("w/a", "2")
        await client.delete("w/a")
        async with (
            client.watch("w/", prefix=True, start_revision=first, prev_kv=True) as whole,
            client.watch("w/", prefix=True, start_revision=first, no_put=True) as gone,
            client.watch("w/", prefix=True, start_revision=first, no_delete=True) as written,
        ):
            told = [await anext(aiter(whole)) for _ in range(3)]
            assert [event.prev_kv.value for event in told] == [b"", b"1", b"2"]
            assert (await anext(aiter(gone))).kv.mod_revision == first + 2
            assert [(await anext(aiter(written))).kv.value for _ in range(2)] == [b"1", b"2"]
        await client.compact(first + 1)
        with pytest.raises(errors.WatchCompactedError) as refused:
            async with client.watch("w/a", start_revision=first) as late:
                await anext(aiter(late))
        assert refused.value.compact_revision == first + 1

    through_proxy(body, member.endpoint)


def test_a_client_that_does_not_read_holds_nobody_up_and_misses_nothing(member: Server) -> None:
    async def body(proxy: GrpcProxy, client: Client) -> None:
        connection = client.pool.pick()
        assert connection is not None or await client.value("x") is None
        connection = client.pool.pick()
        assert connection is not None
        stream = connection.stream(b"/etcdserverpb.Watch/Watch", client.headers)
        create = rpc_pb2.WatchRequest(create_request={"key": b"big"}).SerializeToString()
        await stream.send(create)
        created = await stream.receive()
        assert created is not None
        assert rpc_pb2.WatchResponse.FromString(created).created
        async with Client(proxy.server.addresses[0]) as other, other.watch("big") as watch:
            for number in range(EVENTS):
                await other.put("big", b"%d " % number + bytes(200_000))
                assert (await anext(aiter(watch))).kv.value.startswith(b"%d " % number)
        told: list[bytes] = []
        while len(told) < EVENTS:
            message = await stream.receive()
            assert message is not None
            answer = rpc_pb2.WatchResponse.FromString(message)
            told += [event.kv.value.partition(b" ")[0] for event in answer.events]
        assert told == [b"%d" % number for number in range(EVENTS)]
        stream.cancel()

    through_proxy(body, member.endpoint)


def test_streams_that_end_in_nonsense_leave_nothing_behind(member: Server) -> None:
    async def body(proxy: GrpcProxy, client: Client) -> None:
        await client.value("x")
        connection = client.pool.pick()
        assert connection is not None
        for method, first in (
            (
                b"/etcdserverpb.Watch/Watch",
                rpc_pb2.WatchRequest(create_request={"key": b"k"}).SerializeToString(),
            ),
            (
                b"/etcdserverpb.Lease/LeaseKeepAlive",
                rpc_pb2.LeaseKeepAliveRequest(ID=7).SerializeToString(),
            ),
        ):
            stream = connection.stream(method, client.headers)
            await stream.send(first)
            assert await stream.receive() is not None
            await stream.send(b"\xff\xff")
            with pytest.raises(CallFailed) as ended:
                await stream.receive()
            assert ended.value.code == errors.INTERNAL
        assert proxy.ranges.counts.watchers == proxy.ranges.counts.broadcasts == 0
        assert not proxy.renewals.lines
        while await watchers(member):
            await asyncio.sleep(0)

    through_proxy(body, member.endpoint)


def test_serializable_reads_are_kept_and_never_stale_to_their_writer(member: Server) -> None:
    async def body(proxy: GrpcProxy, client: Client) -> None:
        async with Client(member.endpoint) as direct:
            await client.put("c", "1")
            await client.put("d", "1")
            for _ in range(4):
                assert (await client.get("c", serializable=True)).kvs[0].value == b"1"
            while not proxy.cache.hits:
                await client.get("c", serializable=True)
            await client.put("c", "2")
            assert (await client.get("c", serializable=True)).kvs[0].value == b"2"
            await client.txn().when(missing("never")).then(put("c", "3")).commit()
            assert (await client.get("c", serializable=True)).kvs[0].value == b"3"
            await client.delete("a", "z")
            assert not (await client.get("c", serializable=True)).kvs
            # Somebody else's write comes by the watch.
            hits = proxy.cache.hits
            while proxy.cache.hits == hits:
                await client.get("c", serializable=True)
            await direct.put("c", "4")
            while not (await client.get("c", serializable=True)).kvs:
                await asyncio.sleep(0)
            assert (await client.get("c", serializable=True)).kvs[0].value == b"4"
            proxy.cache.check()
            for number in range(1_000):  # ever new ranges leave nothing
                await client.get(f"n/{number}", serializable=True)
            assert len(proxy.cache) <= 2
            assert await watchers(member) <= 2

    through_proxy(body, member.endpoint)


def test_leases_locks_and_elections_pass_through(member: Server) -> None:
    async def body(proxy: GrpcProxy, client: Client) -> None:
        async with Session(client, ttl_s=10) as session:
            async with Lock(session, "jobs"):
                assert (await client.get("jobs", prefix=True)).kvs
            election = Election(session, "leader")
            await election.campaign("me")
            await election.resign()
        lease = await client.leases.open(60)
        for _ in range(3):
            answers = await asyncio.gather(
                *(client.leases.keep_alive_once(lease.id) for _ in range(20))
            )
            assert {answer.TTL for answer in answers} == {60}
        await lease.revoke()
        with pytest.raises(errors.LeaseNotFoundError):
            await client.leases.keep_alive_once(lease.id)

    through_proxy(body, member.endpoint)


def test_a_namespace_and_the_registration_of_proxies(member: Server) -> None:
    async def body(proxy: GrpcProxy, client: Client) -> None:
        async with Client(member.endpoint) as direct:
            first = (await client.put("k", "v")).header.revision
            assert await direct.value("space/k") == b"v"
            assert await client.value("k") == b"v"
            assert (await client.get("", prefix=True)).kvs[0].key == b"k"
            for _ in range(3):
                found = await client.get("k", serializable=True)
                assert found.kvs[0].key == b"k"
            async with client.watch("", prefix=True, start_revision=first, prev_kv=True) as watch:
                assert (await anext(aiter(watch))).kv.key == b"k"
            lease = await client.leases.grant(60)
            await direct.put("elsewhere", "v", lease=lease.ID)
            await client.put("here", "v", lease=lease.ID)
            told = await client.leases.time_to_live(lease.ID, keys=True)
            assert list(told.keys) == [b"here"]
            done = await client.txn().when(missing("x")).then(put("x", "1")).commit()
            assert done.succeeded and await direct.value("space/x") == b"1"
            names: set[str] = set()
            while names != {"proxy.example:1", "other.example:2"}:
                await direct.put(
                    "space/proxies/other.example:2",
                    '{"Op":0,"Addr":"other.example:2","Metadata":"{\\"name\\":\\"other\\"}"}',
                )
                members = (await client.cluster.members()).members
                names = {url for one in members for url in one.clientURLs}
            value = await direct.value("space/proxies/proxy.example:1")
            assert value is not None and value.startswith(b'{"Op":0,"Addr":"proxy.example:1",')
            await direct.delete("space/proxies/other.example:2")

    through_proxy(
        body,
        member.endpoint,
        namespace="space/",
        resolver_prefix="proxies",
        resolver_ttl=60,
        advertise_client_url="proxy.example:1",
    )


def test_health_says_whether_the_cluster_answers(member: Server) -> None:
    async def body(proxy: GrpcProxy, client: Client) -> None:
        address = proxy.server.addresses[0]
        assert await fetch(address, "/health") == '{"health":"true","reason":""}'
        assert await fetch(address, "/proxy/health") == '{"health":"true","reason":""}'
        assert "etcd_server_has_leader 1" in await fetch(address, "/metrics")
        assert await fetch(address, "/version") == "404 page not found\n"

    through_proxy(body, member.endpoint)

    async def alone(proxy: GrpcProxy, client: Client) -> None:
        address = proxy.server.addresses[0]
        told = await fetch(address, "/health")
        assert told == '{"health":"false","reason":"GET ERROR:context deadline exceeded"}\n'
        assert await fetch(address, "/metrics") == "Internal server error\n"

    through_proxy(alone, "127.0.0.1:1")


@needs_oracle()
def test_the_death_of_the_leader_ends_no_watch_and_no_event_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    cluster = LocalCluster(tmp_path_factory.mktemp("three"), OURS, OURS, OURS)
    endpoints = [server.endpoint for server in cluster.servers.values()]

    async def body(proxy: GrpcProxy, client: Client) -> None:
        written: list[bytes] = []
        told: dict[str, list[bytes]] = {}
        enough = asyncio.Event()

        async def read(name: str, require_leader: bool) -> None:
            told[name] = []
            async with client.watch(
                "n/", prefix=True, start_revision=1, require_leader=require_leader
            ) as watch:
                async for event in watch:
                    told[name].append(event.kv.key)
                    if event.kv.key == b"n/last":
                        return

        async def write() -> None:
            for number in range(100_000):
                key = b"n/%d" % number
                try:
                    await client.put(key, "")
                    written.append(key)
                except errors.EtcdError:
                    pass  # it may have been done or not
                if enough.is_set() and len(written) > 300:
                    break
            while True:
                with suppress(errors.EtcdError):
                    await client.put("n/last", "")
                    return

        await client.put("n/first", "")
        lease = await client.leases.open(10)
        async with asyncio.TaskGroup() as group:
            for name in ("a", "b", "c"):
                group.create_task(read(name, name == "c"))
            group.create_task(write())
            while len(written) < 100:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(lambda: cluster.leader().kill())
            while True:
                before = len(written)
                await asyncio.sleep(0.05)
                if len(written) > before + 2:
                    break
            enough.set()
        assert told["a"] == told["b"] == told["c"]
        keys = told["a"]
        assert len(set(keys)) == len(keys)
        assert set(written) <= set(keys)
        assert not lease.lost

    cluster.start()
    try:
        through_proxy(body, *endpoints, limit_s=120.0)
    finally:
        cluster.stop()
