"""The client and etcdctl on a cluster of three: members die, the leadership moves, a majority is
lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyraft.client import Client, errors
from keyraft.client.recipes import Lock, Session
from tests.support.ports import free_ports
from tests.support.server import ORACLE, OURS, Server, environment, needs_oracle

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
    for member in made:
        member.spawn()
    try:
        for member in made:
            assert member.wait_ready(), member.log[-2000:]
        yield made
    finally:
        for member in made:
            member.kill()


async def leader_of(client: Client, members: list[Server]) -> Server:
    """The member that leads."""
    for member in members:
        status = await client.maintenance.status(member.endpoint)
        if status.leader == status.header.member_id:
            return member
    raise AssertionError("no member leads")


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
