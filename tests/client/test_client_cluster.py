"""The client and etcdctl on a cluster of three: members die, the leadership moves, a majority is
lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from keyraft.client import Client, errors
from keyraft.client.recipes import Lock, Session
from tests.client.proxy import Proxy
from tests.support.ports import free_ports
from tests.support.server import ORACLE, OURS, Server, environment, needs_oracle, serving

pytestmark = [pytest.mark.real, needs_oracle()]

LIMIT_S = 120.0


@pytest.fixture(params=["original", "ours"])
def members(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Server]]:
    """Three members that serve."""
    ports = free_ports(6)
    peers = ",".join(f"m{i}=http://127.0.0.1:{ports[i]}" for i in range(3))
    made = [
        Server(
            ORACLE if request.param == "original" else OURS,
            tmp_path / f"m{i}",
            name=f"m{i}",
            flags=[f"--initial-cluster={peers}"],
            client_port=ports[3 + i],
            peer_port=ports[i],
        )
        for i in range(3)
    ]
    with serving(*made):
        yield made


async def leader_of(client: Client, members: list[Server]) -> Server:
    """The member that leads; waits while none does."""
    while True:
        for member in members:
            status = await client.maintenance.status(member.endpoint)
            if status.leader == status.header.member_id:
                return member


def test_nothing_is_lost_while_members_die_and_come_back(members: list[Server]) -> None:
    async def work() -> None:
        endpoints = [member.endpoint for member in members]
        async with (
            Client(*endpoints, timeout_s=20) as client,
            client.watch("k") as watch,
            Session(client, 30) as session,
            Lock(session, "l") as lock,
        ):
            victim = await leader_of(client, members)
            for number in range(40):
                if number == 10:
                    await asyncio.to_thread(victim.kill)
                if number == 25:
                    await asyncio.to_thread(victim.start)
                while True:
                    try:
                        await client.put("k", str(number))
                        break
                    except (errors.UnavailableError, errors.EtcdError):
                        continue  # it may or may not have been done
            seen: list[int] = []
            revisions: list[int] = []
            while not seen or seen[-1] < 39:
                event = await anext(watch)
                seen.append(int(event.kv.value))
                revisions.append(event.kv.mod_revision)
            assert revisions == sorted(set(revisions)), "repeated or out of order"
            assert list(dict.fromkeys(seen)) == list(range(40)), "lost"
            assert lock.held

    asyncio.run(asyncio.wait_for(work(), LIMIT_S))


def test_nothing_is_lost_while_the_network_is_cut_and_the_leadership_moves(
    members: list[Server],
) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            proxies = [
                await stack.enter_async_context(Proxy(member.client_port)) for member in members
            ]
            client = Client(
                *(proxy.endpoint for proxy in proxies),
                timeout_s=30,
                keepalive_s=0.5,
                keepalive_timeout_s=2,
            )
            await stack.enter_async_context(client)
            direct = Client(*(member.endpoint for member in members), timeout_s=30)
            await stack.enter_async_context(direct)
            watch = await stack.enter_async_context(client.watch("k"))
            session = await stack.enter_async_context(Session(client, 60))
            lock = await stack.enter_async_context(Lock(session, "l"))
            revisions = []
            for number in range(40):
                if number % 8 == 3:
                    for proxy in proxies:
                        proxy.cut()
                if number == 10:
                    proxies[0].hold()
                if number in (14, 28):
                    await move_leader(direct, members)
                if number == 20:
                    proxies[0].flow()
                    proxies[1].hold()
                # A put that fails may have been done: only good ones are counted on.
                while True:
                    try:
                        answer = await direct.put("k", str(number))
                        break
                    except (errors.UnavailableError, errors.EtcdError):
                        continue
                revisions.append(answer.header.revision)
            seen: list[int] = []
            while not seen or seen[-1] < revisions[-1]:
                seen.append((await anext(watch)).kv.mod_revision)
            assert seen == sorted(set(seen)), "repeated or out of order"
            assert set(revisions) <= set(seen), "lost"
            assert lock.held and not session.lost
            assert (await direct.leases.time_to_live(session.lease.id)).TTL > 0
            other = Client(proxies[2].endpoint, timeout_s=30)
            await stack.enter_async_context(other)
            rival = await stack.enter_async_context(Session(other, 60))
            waiting = asyncio.ensure_future(Lock(rival, "l").acquire())
            while (await direct.get("l/", prefix=True, count_only=True)).count < 2:
                assert not waiting.done(), "two hold the lock"
            await lock.release()
            await waiting
            for proxy in proxies:
                proxy.flow()

    asyncio.run(asyncio.wait_for(work(), LIMIT_S))


async def move_leader(client: Client, members: list[Server]) -> None:
    """Hands the leadership to another member."""
    found = (await client.cluster.members()).members
    while True:
        leader = await leader_of(client, members)
        heir = next(member for member in found if member.name != leader.name)
        try:
            await client.maintenance.move_leader(heir.ID, leader.endpoint)
            return
        except errors.EtcdError:
            continue  # it led no longer, or the heir was not ready


def test_watches_that_need_a_leader_are_told_when_there_is_none(members: list[Server]) -> None:
    async def work() -> None:
        async with Client(members[0].endpoint) as client:
            async with client.watch("k", require_leader=True) as watch:
                for member in members[1:]:
                    await asyncio.to_thread(member.kill)
                with pytest.raises(errors.NoLeaderError):
                    await anext(watch)
            async with Client(members[0].endpoint, require_leader=True, timeout_s=2) as strict:
                with pytest.raises((errors.NoLeaderError, errors.DeadlineError)):
                    await strict.put("k", "v")

    asyncio.run(asyncio.wait_for(work(), LIMIT_S))


def test_the_leadership_is_handed_over_by_etcdctl(members: list[Server]) -> None:
    async def find() -> tuple[str, str]:
        endpoints = [member.endpoint for member in members]
        async with Client(*endpoints, timeout_s=20) as client:
            leader = await leader_of(client, members)
            found = (await client.cluster.members()).members
            own = {member.name: f"{member.ID:x}" for member in found}
            heir = next(member for member in members if member is not leader)
            return own[leader.name], own[heir.name]

    old, new = asyncio.run(find())
    words = [f"--endpoints={','.join(member.endpoint for member in members)}", "move-leader", new]
    done = subprocess.run(
        [sys.executable, "-m", "keyraft.cli.etcdctl", *words],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.stdout == f"Leadership transferred from {old} to {new}\n", done.stderr
    assert asyncio.run(find())[0] == new
