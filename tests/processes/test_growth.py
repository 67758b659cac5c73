"""Members that come, fall far behind, move and go, while clients write; and large clusters.

Every run states how many puts a second there were meanwhile and how long the slowest took.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path

import pytest

from keyraft.client import Client, errors
from keyraft.client.sync import Portal
from tests.support.cluster import LocalCluster
from tests.support.fleet import Fleet
from tests.support.ports import free_ports
from tests.support.server import OURS, Server, needs_oracle

pytestmark = [pytest.mark.real, pytest.mark.soak, needs_oracle()]

WRITERS = 8  # each with one put under way
VALUE = b"x" * 128
MISSED_ENTRIES = 50_000
PATIENCE_S = 60.0  # of a writer


class Writers:
    """Puts without a break at the given members, and how long each took."""

    def __init__(self, portal: Portal, *endpoints: str) -> None:
        self._portal = portal
        self._endpoints = endpoints
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False
        self.times_s: list[float] = []
        self.written: dict[bytes, bytes] = {}
        self.failures: list[str] = []
        self._mark = (0, 0.0)

    def start(self) -> Writers:
        self._portal.run(self._start())
        return self

    async def _start(self) -> None:
        self._tasks = [asyncio.ensure_future(self._write(number)) for number in range(WRITERS)]
        self.mark()

    async def _write(self, number: int) -> None:
        count = 0
        async with Client(*self._endpoints, timeout_s=PATIENCE_S) as client:
            while not self._ending:
                count += 1
                key, value = b"w%d/%d" % (number, count % 500), b"%d" % count
                began_s = time.perf_counter()
                try:
                    await client.put(key, value + VALUE)
                except (errors.EtcdError, errors.RawError) as error:
                    self.failures.append(str(error))  # as while a leader is replaced
                    self.written.pop(key, None)
                    continue
                self.times_s.append(time.perf_counter() - began_s)
                self.written[key] = value + VALUE

    def mark(self) -> None:
        """A phase begins."""
        self._mark = (len(self.times_s), time.perf_counter())

    def say(self, what: str) -> None:
        """What this phase was like; the next begins."""
        first, began_s = self._mark
        times_s = self.times_s[first:]
        rate = len(times_s) / (time.perf_counter() - began_s)
        worst_s = max(times_s, default=0.0)
        print(f"{what}: {rate:.0f} puts/s, worst {worst_s * 1000:.0f} ms", flush=True)
        self.mark()

    def stop(self) -> None:
        self._ending = True
        self._portal.run(self._wait())

    async def _wait(self) -> None:
        await asyncio.gather(*self._tasks)

    def check(self, endpoint: str) -> None:
        """A member has all that was acknowledged."""
        self._portal.run(self._check(endpoint))

    async def _check(self, endpoint: str) -> None:
        async with Client(endpoint, timeout_s=PATIENCE_S) as client:
            found = {kv.key: kv.value async for kv in client.scan("w", prefix=True)}
        for key, value in self.written.items():
            assert found.get(key) == value, key


async def miss(endpoint: str, entries: int) -> None:
    """So many entries more, a few hundred at a time."""
    async with Client(endpoint, timeout_s=PATIENCE_S) as client:
        for start in range(0, entries, 500):
            await asyncio.gather(
                *(client.put(f"missed/{n % 20_000}", VALUE) for n in range(start, start + 500))
            )


def newcomer(fleet: Fleet, name: str, folder: Path) -> Server:
    """A member that is to join, not behind the proxies."""
    client_port, peer_port = free_ports(2)
    server = Server(OURS, folder / name, name, (), client_port, peer_port)
    initial = ",".join(f"{other}={url}" for other, url in fleet.peer_urls.items())
    url = f"http://127.0.0.1:{peer_port}"
    fleet.peer_urls[name] = url
    server.flags = (f"--initial-cluster={initial},{name}={url}", "--initial-cluster-state=existing")
    fleet.servers[name] = server
    return server


def identity(fleet: Fleet, name: str) -> int:
    told = fleet.told(name)
    assert told is not None, name
    member_id: int = told.header.member_id
    return member_id


def test_a_follower_that_missed_fifty_thousand_entries(tmp_path: Path) -> None:
    with Fleet(tmp_path, 3) as fleet:
        leader = fleet.leader_among(fleet.names)
        behind, other = (name for name in fleet.names if name != leader)
        writers = Writers(fleet.portal, fleet.servers[leader].endpoint).start()
        wait_for_puts(writers, 2_000)
        writers.say("three members")
        fleet.servers[behind].kill()
        fleet.portal.run(miss(fleet.servers[leader].endpoint, MISSED_ENTRIES))
        writers.say(f"one away, {MISSED_ENTRIES} more entries")
        began_s = time.monotonic()
        fleet.servers[behind].start()

        def caught_up() -> bool:
            mine, theirs = fleet.told(behind), fleet.told(leader)
            return (
                mine is not None
                and theirs is not None
                and theirs.raftAppliedIndex - mine.raftAppliedIndex < 500
            )

        fleet.until("the follower has caught up", caught_up)
        writers.say(f"caught up in {time.monotonic() - began_s:.1f} s, meanwhile")
        assert "received and saved database snapshot" in fleet.servers[behind].log
        assert fleet.leader_among([leader, other]) == leader, "the leader has lost its office"
        writers.stop()
        assert not writers.failures, writers.failures[:3]
        fleet.whole()
        writers.check(fleet.servers[behind].endpoint)


def wait_for_puts(writers: Writers, count: int) -> None:
    """Until so many puts more have been answered."""
    wanted = len(writers.times_s) + count
    until_s = time.monotonic() + PATIENCE_S
    while len(writers.times_s) < wanted:
        assert time.monotonic() < until_s, "no more answers"
        writers._portal.run(asyncio.sleep(0.01))


def test_a_learner_is_added_and_promoted_and_a_member_replaced_under_load(tmp_path: Path) -> None:
    with Fleet(tmp_path, 3) as fleet:
        leader = fleet.leader_among(fleet.names)
        client = fleet.client(leader)
        fleet.portal.run(miss(fleet.servers[leader].endpoint, 10_000))
        writers = Writers(
            fleet.portal, *(fleet.servers[name].endpoint for name in fleet.names)
        ).start()
        wait_for_puts(writers, 2_000)
        writers.say("three members")

        learner = newcomer(fleet, "m4", tmp_path)
        url = fleet.peer_urls["m4"]
        added = fleet.portal.run(client.cluster.add([url], learner=True)).member.ID
        learner.start()

        def promoted() -> bool:
            try:
                fleet.portal.run(client.cluster.promote(added))
            except (errors.EtcdError, errors.RawError):
                return False  # not in sync yet, or not connected for long enough
            return True

        fleet.until("the learner is promoted", promoted)
        writers.say("a learner joined, caught up and was promoted, meanwhile")
        wait_for_puts(writers, 500)

        old = next(name for name in ("m1", "m2", "m3") if name != leader)
        fleet.until("m4 counts as healthy", lambda: healthy(fleet, leader, identity(fleet, old)))
        assert fleet.servers[old].wait() == 1, "a removed member stops itself"
        assert "permanently removed" in fleet.servers[old].log
        del fleet.servers[old], fleet.peer_urls[old]
        fifth = newcomer(fleet, "m5", tmp_path)

        def joined() -> bool:
            try:
                fleet.portal.run(client.cluster.add([fleet.peer_urls["m5"]]))
            except errors.UnhealthyError:
                return False
            return True

        fleet.until("m5 may join", joined)
        fifth.start()
        writers.say("a member was removed and another took its place, meanwhile")
        wait_for_puts(writers, 500)
        writers.stop()
        fleet.whole()
        for server in fleet.servers.values():
            writers.check(server.endpoint)
        listed = fleet.portal.run(client.cluster.members()).members
        assert sorted(member.name for member in listed) == sorted(fleet.names)


def healthy(fleet: Fleet, leader: str, removed: int) -> bool:
    """Removes a member, unless the others are not healthy enough for that yet."""
    try:
        fleet.portal.run(fleet.client(leader).cluster.remove(removed))
    except errors.UnhealthyError:
        return False
    return True


def test_a_member_moves_with_its_directory_under_load(tmp_path: Path) -> None:
    with Fleet(tmp_path, 3) as fleet:
        leader = fleet.leader_among(fleet.names)
        moving = next(name for name in fleet.names if name != leader)
        member_id = identity(fleet, moving)
        writers = Writers(fleet.portal, fleet.servers[leader].endpoint).start()
        wait_for_puts(writers, 1_000)
        writers.say("three members")
        old = fleet.servers[moving]
        old.stop()
        client_port, peer_port = free_ports(2)
        shutil.copytree(old.data_dir, tmp_path / "elsewhere")
        shutil.rmtree(old.data_dir)
        url = f"http://127.0.0.1:{peer_port}"
        fleet.portal.run(fleet.client(leader).cluster.update(member_id, [url]))
        # The flags name the old place still: a directory that has a member decides.
        new = Server(OURS, tmp_path / "elsewhere", moving, old.flags, client_port, peer_port)
        fleet.servers[moving] = new
        fleet.forget(moving)
        new.start()
        writers.say("one moved, meanwhile")
        assert identity(fleet, moving) == member_id
        writers.stop()
        assert not writers.failures, writers.failures[:3]
        fleet.whole()
        writers.check(new.endpoint)


@pytest.mark.parametrize("size", [7, 9])
def test_large_clusters_start_and_serve(tmp_path: Path, size: int) -> None:
    began_s = time.monotonic()
    many = LocalCluster(tmp_path, *([OURS] * size)).start()
    try:
        print(f"{size} members serve after {time.monotonic() - began_s:.1f} s", flush=True)
        leader = many.leader()
        for server in many.running():
            assert many.ask(server, "put", server.name, "here") == "OK\n"
        assert len(many.hashes()) == 1
        # As many as may die without harm, the leader among them.
        others = [server for server in many.running() if server is not leader]
        for server in [leader, *others[: size // 2 - 1]]:
            server.kill()
        survivor = many.leader()
        found = many.ask(survivor, "get", "m", "--prefix", "--keys-only").split()
        assert found == sorted(f"m{number}" for number in range(1, size + 1))
        members = json.loads(many.ask(survivor, "member", "list", "-w", "json"))["members"]
        assert len(members) == size
    finally:
        many.stop()
