"""Limits by prefix in a real cluster: set by a command, kept by every member, through restarts, over JSON."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from keyraft.client import Client, errors
from keyraft.net import Http1Client
from tests.support.server import OURS, Server, keyraft

pytestmark = pytest.mark.real
REACHED = 'etcdserver: limit of prefix "a/" is reached: 2 keys'


async def metrics(member: Server) -> str:
    http = Http1Client()
    answer = await http.request(
        "GET", f"http://{member.endpoint}", "/metrics", answer_bytes_max=1 << 22
    )
    http.close()
    return answer.body.decode()


async def wait_counted(member: Server) -> None:
    while 'keyraft_limit_counted{prefix="a/"} 1' not in await metrics(member):
        await asyncio.sleep(0.02)


async def refused(client: Client, key: str) -> str:
    with pytest.raises(errors.EtcdError) as failed:
        await client.put(key, "v")
    return failed.value.text


def test_a_limit_is_set_listed_kept_and_removed(tmp_path: Path) -> None:
    member = Server(OURS, tmp_path / "data", flags=("--bcrypt-cost=4",)).start()

    async def fill() -> None:
        await wait_counted(member)
        async with Client(member.endpoint) as client:
            await client.put("a/1", "v")
            await client.put("a/2", "v")
            assert await refused(client, "a/3") == REACHED
            await client.put("b/3", "v")
            await client.put("a/2", "w")
        http = Http1Client()
        for path, body in (
            ("/v3/kv/put", b'{"key":"YS8z","value":"dg=="}'),
            ("/v3/lock/lock", b'{"name":"YS9s"}'),
        ):
            answer = await http.request("POST", f"http://{member.endpoint}", path, body=body)
            assert answer.status == 429 and json.loads(answer.body)["message"] == REACHED
        http.close()
        told = await metrics(member)
        assert 'keyraft_limit_refused_total{prefix="a/"} 3' in told
        assert 'keyraft_limit_used_keys{prefix="a/"} 2' in told

    async def again() -> None:
        await wait_counted(member)
        async with Client(member.endpoint) as client:
            assert await refused(client, "a/3") == REACHED
            await client.delete("a/1")
            await client.put("a/3", "v")

    async def free() -> None:
        while "keyraft_limit_counted{" in await metrics(member):
            await asyncio.sleep(0.02)
        async with Client(member.endpoint) as client:
            await client.put("a/4", "v")

    async def lock_down() -> None:
        async with Client(member.endpoint) as client:
            for name in ("root", "alice"):
                await client.auth.user_add(name, "p")
            await client.auth.role_add("root")
            await client.auth.user_grant_role("root", "root")
            await client.auth.enable()

    try:
        assert keyraft(member, "limit", "set", "a/", "--keys=2", "--bytes=100000").returncode == 0
        listed = keyraft(member, "limit", "list", "--json")
        assert json.loads(listed.stdout) == [{"prefix": "a/", "bytes": 100_000, "keys": 2}]
        assert keyraft(member, "limit", "list").stdout == "a/  bytes=100000 keys=2\n"
        asyncio.run(fill())
        member.stop()
        member.start()
        asyncio.run(again())
        assert keyraft(member, "limit", "remove", "a/").returncode == 0
        assert keyraft(member, "limit", "remove", "a/").returncode == 1
        asyncio.run(free())
        asyncio.run(lock_down())
        denied = keyraft(member, "limit", "set", "a/", "--keys=1", "--user=alice:p")
        assert denied.returncode == 1 and "permission denied" in denied.stderr
        assert keyraft(member, "limit", "set", "a/", "--keys=1", "--user=root:p").returncode == 0
        assert keyraft(member, "limit", "set", "a/").returncode == 2
    finally:
        member.stop()
