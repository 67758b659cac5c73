"""Real members whose network is cut, whose processes die and stand still, under load.

After every fault the cluster must be whole again: one leader, equal hashes, and an order of all
that the clients saw. Between, each side of a cut must behave as the handbook says: the side with a
quorum goes on, the other has no leader, refuses or times out what needs one, and still answers
serializable reads. The short runs belong to every run of the tests, the long ones to `make soak`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from keyraft.client import Client, errors
from tests.support.cutting import both
from tests.support.fleet import Fleet
from tests.support.history import PATIENCE_S, WAIT_S, Load
from tests.support.server import ORACLE, OURS, needs_oracle

pytestmark = pytest.mark.real


PROGRESS = 40  # acknowledged writes that show that a side goes on
LITTLE = 10  # the same in the short runs
GIVEN_UP_S = 0.4  # by a client that does not wait for the member's own limit
ROUNDS = 12  # of random faults in a long run


def quorum_lost(fleet: Fleet, names: Sequence[str]) -> None:
    """What the handbook says of members without a quorum."""
    fleet.without_leader(names)
    fleet.portal.run(stand_still([fleet.servers[name].endpoint for name in names]))


async def stand_still(endpoints: Sequence[str]) -> None:
    """Asks all of them at the same time."""
    await asyncio.gather(*map(stands_still, endpoints))


async def stands_still(endpoint: str) -> None:
    """No write, no linearizable read, no leader; what was written before is served as it is."""

    async def late(call: Awaitable[object]) -> None:
        # It waits for a leader to come back, and then says that it has waited.
        with pytest.raises((errors.RawError, errors.RequestTimeoutError)) as late:
            await call
        # The original's answer has the same words under another code, now and then.
        assert "deadline exceeded" in str(late.value) or "timed out" in str(late.value)

    async def refused(demanding: Client) -> None:
        with pytest.raises(errors.NoLeaderError):
            await demanding.put("refused", "at once")

    async with (
        Client(endpoint, timeout_s=WAIT_S) as client,
        Client(endpoint, timeout_s=WAIT_S, require_leader=True) as demanding,
    ):
        told = await client.maintenance.status()
        assert told.leader == 0 and errors.NoLeaderError.text in told.errors, told
        await client.get("a", serializable=True)
        await asyncio.gather(
            late(client.put("refused", "later", timeout_s=PATIENCE_S)),
            late(client.get("a", timeout_s=PATIENCE_S)),
            refused(demanding),
        )


def judge(fleet: Fleet, load: Load) -> None:
    """Nothing is cut any more: the end of a scenario."""
    load.wait_acknowledged(PROGRESS, *fleet.names)
    load.stop()
    fleet.whole()
    load.check()
    print(f"{load}: linearizable", flush=True)


# --- the short runs ---------------------------------------------------------------------------


def test_a_leader_cut_off_and_its_successor_killed(tmp_path: Path) -> None:
    with Fleet(tmp_path, 3) as fleet:
        load = fleet.load()
        first = fleet.leader_among(fleet.names)
        others = [name for name in fleet.names if name != first]
        load.wait_acknowledged(LITTLE, first)
        fleet.cuts.cut(*both([first], others))
        second = fleet.leader_among(others)
        load.wait_acknowledged(LITTLE, *others)
        quorum_lost(fleet, [first])
        fleet.cuts.heal()
        fleet.leader_among(fleet.names)
        fleet.servers[second].kill()
        rest = [name for name in fleet.names if name != second]
        fleet.leader_among(rest)
        load.wait_acknowledged(LITTLE, *rest)
        fleet.servers[second].start()
        judge(fleet, load)


def test_halves_of_four_members_both_stand_still(tmp_path: Path) -> None:
    with Fleet(tmp_path, 4) as fleet:
        load = fleet.load()
        leader = fleet.leader_among(fleet.names)
        load.wait_acknowledged(LITTLE, *fleet.names)
        others = [name for name in fleet.names if name != leader]
        fleet.cuts.cut(*both([leader, others[0]], others[1:]))
        quorum_lost(fleet, fleet.names)
        before = load.acknowledged.total()
        fleet.without_leader(fleet.names)
        assert load.acknowledged.total() == before, "half of the members took a write"
        fleet.cuts.heal()
        judge(fleet, load)


def test_what_a_member_without_a_leader_was_asked_in_vain_is_not_done_later(tmp_path: Path) -> None:
    with Fleet(tmp_path, 3) as fleet:
        leader = fleet.leader_among(fleet.names)
        lonely, other = (name for name in fleet.names if name != leader)
        client = fleet.client(lonely)
        fleet.portal.run(client.put("kept", "v", timeout_s=WAIT_S))
        fleet.cuts.cut(*both([lonely], [leader, other]))
        fleet.without_leader([lonely])

        async def in_vain(number: int) -> None:
            write: Coroutine[Any, Any, object]
            if number % 3 == 0:
                write = client.delete("kept", timeout_s=GIVEN_UP_S)
            else:
                write = client.put(f"vain/{number}", "v", timeout_s=GIVEN_UP_S)
            if number % 2:
                with pytest.raises((errors.DeadlineError, errors.RawError)):
                    await write
            else:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(write, GIVEN_UP_S / 2)  # it is cancelled

        async def all_in_vain() -> None:
            await asyncio.gather(*map(in_vain, range(20)))

        fleet.portal.run(all_in_vain())
        fleet.cuts.heal()
        fleet.whole()
        found = fleet.portal.run(client.get("", prefix=True, timeout_s=WAIT_S))
        assert [kv.key for kv in found.kvs] == [b"kept"]


# --- the long runs ----------------------------------------------------------------------------


class Scenes:
    """What may happen to a cluster of five; every scene begins and ends with it whole."""

    def __init__(self, fleet: Fleet, load: Load) -> None:
        self.fleet = fleet
        self.load = load

    def sides(self, with_leader: int) -> tuple[list[str], list[str]]:
        """Two sides, the first of `with_leader` members and holding the leader."""
        leader = self.fleet.leader_among(self.fleet.names)
        others = [name for name in self.fleet.names if name != leader]
        return [leader, *others[: with_leader - 1]], others[with_leader - 1 :]

    def heal(self) -> None:
        self.fleet.cuts.heal()
        self.fleet.leader_among(self.fleet.names)
        self.load.wait_acknowledged(PROGRESS, *self.fleet.names)

    def goes_on(self, names: Sequence[str]) -> None:
        self.fleet.leader_among(names)
        self.load.wait_acknowledged(PROGRESS, *names)

    def leader_in_the_majority(self) -> None:
        majority, minority = self.sides(3)
        self.fleet.cuts.cut(*both(majority, minority))
        self.goes_on(majority)
        quorum_lost(self.fleet, minority)

    def leader_in_the_minority(self) -> None:
        minority, majority = self.sides(2)
        self.fleet.cuts.cut(*both(minority, majority))
        self.goes_on(majority)
        quorum_lost(self.fleet, minority)

    def leader_alone_and_told_so(self) -> None:
        alone, others = self.sides(1)
        self.fleet.cuts.refuse(*both(alone, others))
        self.goes_on(others)
        quorum_lost(self.fleet, alone)

    def nobody_hears_anybody(self) -> None:
        names = self.fleet.names
        self.fleet.cuts.cut(*((one, other) for one in names for other in names if one != other))
        quorum_lost(self.fleet, names)

    def nobody_hears_the_leader(self) -> None:
        leader, others = self.sides(1)
        self.fleet.cuts.cut(*((leader[0], other) for other in others))
        self.goes_on(others)

    def the_leader_hears_nobody(self) -> None:
        leader, others = self.sides(1)
        self.fleet.cuts.cut(*((other, leader[0]) for other in others))
        self.goes_on(others)
        self.fleet.without_leader(leader)

    def a_follower_hears_nobody(self) -> None:
        """It stands for election again and again, and pre-vote keeps it from disturbing."""
        leader, others = self.sides(1)
        deaf = others[0]
        term = self.term(leader[0])
        self.fleet.cuts.cut(*((other, deaf) for other in [*leader, *others[1:]]))
        self.fleet.without_leader([deaf])
        self.goes_on([*leader, *others[1:]])
        assert self.term(leader[0]) == term, "a deaf follower has disturbed the others"

    def a_follower_is_not_heard(self) -> None:
        leader, others = self.sides(1)
        mute = others[0]
        self.fleet.cuts.cut(*((mute, other) for other in [*leader, *others[1:]]))
        self.goes_on([*leader, *others[1:]])

    def two_sides_and_a_bridge(self) -> None:
        names = self.fleet.names
        self.fleet.cuts.cut(*both(names[:2], names[3:]))
        self.load.wait_acknowledged(PROGRESS, *names)

    def the_leader_is_killed(self) -> None:
        leader, others = self.sides(1)
        self.fleet.servers[leader[0]].kill()
        self.goes_on(others)
        self.fleet.servers[leader[0]].start()

    def all_are_killed(self) -> None:
        for server in self.fleet.servers.values():
            server.kill()
        self.fleet.start()

    def the_leader_stands_still(self) -> None:
        leader, others = self.sides(1)
        self.fleet.pause(*leader)
        self.goes_on(others)
        self.fleet.resume(*leader)

    def two_followers_stand_still(self) -> None:
        going, still = self.sides(3)
        self.fleet.pause(*still)
        self.goes_on(going)
        self.fleet.resume(*still)

    def everybody_restarts_in_turn(self) -> None:
        for server in self.fleet.servers.values():
            server.stop()
            self.goes_on([name for name in self.fleet.names if name != server.name])
            server.start()
            self.load.wait_acknowledged(PROGRESS, server.name)

    def term(self, name: str) -> int:
        told = self.fleet.told(name)
        assert told is not None, name
        return told.raftTerm


SCENES = (
    Scenes.leader_in_the_majority,
    Scenes.leader_in_the_minority,
    Scenes.leader_alone_and_told_so,
    Scenes.nobody_hears_anybody,
    Scenes.nobody_hears_the_leader,
    Scenes.the_leader_hears_nobody,
    Scenes.a_follower_hears_nobody,
    Scenes.a_follower_is_not_heard,
    Scenes.two_sides_and_a_bridge,
    Scenes.the_leader_is_killed,
    Scenes.all_are_killed,
    Scenes.the_leader_stands_still,
    Scenes.two_followers_stand_still,
    Scenes.everybody_restarts_in_turn,
)


THREE_CANNOT = (
    Scenes.leader_in_the_majority,
    Scenes.leader_in_the_minority,
    Scenes.two_sides_and_a_bridge,
    Scenes.two_followers_stand_still,
)
SHORT_LOGS = ("--snapshot-count=200", "--snapshot-catchup-entries=50")


@pytest.mark.soak
@needs_oracle()
@pytest.mark.parametrize("other", ["ours", "original"])
@pytest.mark.parametrize("size", [3, 5])
def test_every_scene(tmp_path: Path, size: int, other: str) -> None:
    """Also with every second member an original one, which takes part like ours."""
    mixed = [OURS if other == "ours" or number % 2 == 0 else ORACLE for number in range(size)]
    flags = SHORT_LOGS if other == "ours" else SHORT_LOGS[:1]
    with Fleet(tmp_path, size, flags=flags, commands=mixed) as fleet:
        load = fleet.load()
        scenes = Scenes(fleet, load)
        for scene in SCENES:
            if size == 3 and scene in THREE_CANNOT:
                continue
            began_s = time.monotonic()
            scene(scenes)
            acted_s = time.monotonic()
            scenes.heal()
            whole_s = time.monotonic() - acted_s
            print(
                f"{size} members, {scene.__name__}: {acted_s - began_s:.1f} s, "
                f"whole again {whole_s:.1f} s later",
                flush=True,
            )
        judge(fleet, load)


class Chaos:
    """Faults on top of each other, by chance."""

    def __init__(self, fleet: Fleet, chance: Random) -> None:
        self.fleet = fleet
        self.chance = chance
        self.killed: list[str] = []

    def strike(self) -> str:
        """One fault more; what it is."""
        kind = self.chance.choice(("cut", "cut", "refuse", "halves", "kill", "pause"))
        names = self.fleet.names
        one, other = self.chance.sample(names, 2)
        if kind == "cut":
            self.fleet.cuts.cut((one, other))
        elif kind == "refuse":
            self.fleet.cuts.refuse((one, other))
        elif kind == "halves":
            mixed = self.chance.sample(names, len(names))
            at = self.chance.randrange(1, len(names))
            self.fleet.cuts.cut(*both(mixed[:at], mixed[at:]))
        elif kind == "pause":
            self.fleet.pause(one)
        elif one not in self.killed:
            self.fleet.servers[one].kill()
            self.killed.append(one)
        return f"{kind} {one} {other}"

    def end(self) -> None:
        """Peace."""
        self.fleet.cuts.heal()
        self.fleet.resume(*self.fleet.names)
        for name in self.killed:
            self.fleet.servers[name].spawn()
        for name in self.killed:
            assert self.fleet.servers[name].wait_ready(), self.fleet.last_words()
        self.killed.clear()


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_random_faults(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    with Fleet(tmp_path, 3 + 2 * (seed % 2), flags=SHORT_LOGS) as fleet:
        load = fleet.load(seed)
        chaos = Chaos(fleet, chance)
        for number in range(ROUNDS):
            struck = [chaos.strike() for _ in range(chance.randrange(1, 4))]
            load.wait_ended(chance.randrange(20, 150))
            print(f"seed {seed}, round {number}: {', '.join(struck)}", flush=True)
            chaos.end()
            fleet.leader_among(fleet.names)
            load.wait_acknowledged(PROGRESS, *fleet.names)
        judge(fleet, load)
