"""Users through the gRPC proxy: what is asked with one token is never answered to another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from keyraft.client import Client, errors
from keyraft.proxy.grpcproxy import GrpcProxy
from tests.support.proxies import through_proxy
from tests.support.server import OURS, Server

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(OURS, tmp_path_factory.mktemp("users") / "member", flags=("--bcrypt-cost=4",))
    server.start()
    yield server
    server.kill()


async def make_users(client: Client) -> None:
    auth = client.auth
    await auth.user_add("root", "r")
    await auth.role_add("root")
    await auth.user_grant_role("root", "root")
    await auth.user_add("reader", "p")
    await auth.role_add("reads")
    await auth.role_grant("reads", "read", "open/", prefix=True)
    await auth.user_grant_role("reader", "reads")
    await auth.enable()


def test_users_and_tokens_pass_through(member: Server) -> None:
    async def body(proxy: GrpcProxy, client: Client) -> None:
        address = proxy.server.addresses[0]
        await client.put("open/a", "1")
        await client.put("secret", "1")
        while not proxy.cache.hits:  # somebody without a token has it in the cache
            await client.get("secret", serializable=True)
        await make_users(client)
        assert len(proxy.cache) == 0
        with pytest.raises(errors.UserEmptyError):
            await client.get("secret", serializable=True)
        async with (
            Client(address, user="root", password="r") as root,
            Client(address, user="reader", password="p") as reader,
        ):
            for _ in range(3):
                assert (await root.get("secret", serializable=True)).kvs
            with pytest.raises(errors.PermissionDeniedError):
                await reader.get("secret", serializable=True)
            with pytest.raises(errors.PermissionDeniedError):
                async with reader.watch("secret"):
                    pass
            with pytest.raises(errors.EtcdError):
                async with client.watch("open/a"):
                    pass
            async with (
                root.watch("open/", prefix=True) as first,
                reader.watch("open/", prefix=True) as second,
            ):
                assert proxy.ranges.counts.broadcasts == 1
                await root.put("open/a", "2")
                for watch in (first, second):
                    assert (await anext(aiter(watch))).kv.value == b"2"
            lease = await root.leases.grant(60)
            assert (await root.leases.keep_alive_once(lease.ID)).TTL == 60
            await root.auth.disable()
        while True:
            try:
                await client.get("secret", serializable=True)
                break
            except errors.EtcdError:
                await asyncio.sleep(0)

    through_proxy(body, member.endpoint)
