"""What goes wrong in a run: crashes, kills, pauses, cuts, bad weather, bad disks; all from the seed.

Faults are numbered in their order. Each draws from a generator of its own, made of seed and
number, so one fault can be left out (`only`) while the others stay what they are: that is how a
failing run is cut down to what it needs (`sim.shrink`).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from sim.cluster import SimCluster
from sim.membership import Operator
from sim.node import Node

INTERVAL_S: Final = 1.5  # a new fault about so often


class Chaos:
    """Throws faults until stopped. A minority may be down at any time, or everybody."""

    down_s_max = 4.0  # a member that crashed is back within so long

    def __init__(
        self,
        cluster: SimCluster,
        interval_s: float = INTERVAL_S,
        only: frozenset[int] | None = None,
    ) -> None:
        """`only`: the numbers of the faults that happen; None: all."""
        self._cluster = cluster
        self._interval_s = interval_s
        self._only = only
        self._when = Random(cluster.seed)
        self._chance = Random(0)
        self._operator = Operator(cluster)
        self.count = 0
        self.happened: list[int] = []
        self.stopped = False
        self._later()

    def stop(self) -> None:
        """No more faults; those that are there stay (see `SimCluster.calm`)."""
        self.stopped = True

    def _later(self) -> None:
        self._cluster.loop.call_later(self._when.random() * 2 * self._interval_s, self._act)

    def _act(self) -> None:
        if self.stopped:
            return
        self._later()
        number, self.count = self.count, self.count + 1
        if self._only is not None and number not in self._only:
            return
        self.happened.append(number)
        self._chance = Random(self._cluster.seed * 1_000_003 + number)
        self._chance.choice(self._choices())()

    def _choices(self) -> list[Callable[[], None]]:
        return [
            self._crash,
            self._crash,
            self._crash_amid_write,
            self._crash_amid_write,
            self._kill,
            self._stop,
            self._pause,
            self._pause_leader,
            self._halves,
            self._one_way,
            self._alone,
            self._leader_alone,
            self._weather,
            self._heal,
            self._heal,
            self._blackout,
            self._move_leader,
            self._stall,
            self._full_disk,
            self._reconfigure,
            self._reconfigure,
            self._reconfigure,
        ]

    def _node(self) -> Node | None:
        live = [node for node in self._cluster.nodes.values() if node.running]
        return self._chance.choice(live) if live else None

    def _ids(self) -> list[int]:
        """All that are not known to have left."""
        return [node.id for node in self._cluster.nodes.values() if not node.removed]

    def _again(self, node: Node) -> None:
        def start() -> None:
            if node.member is None and not node.removed:
                node.mend()
                self._cluster.tell(f"{node.identity.name} starts")
                node.start()

        self._cluster.loop.call_later(self._chance.random() * self.down_s_max, start)

    # --- machines -----------------------------------------------------------------------------

    def _crash(self) -> None:
        node = self._node()
        if node is not None:
            self._cluster.tell(f"{node.identity.name} loses power")
            node.crash()
            self._again(node)

    def _crash_amid_write(self) -> None:
        """Sooner or later; of the few writes that change names every second is hit."""
        node = self._node()
        if node is None:
            return
        names_only = self._chance.random() < 0.5
        writes = self._chance.randrange(1, 3 if names_only else 30)
        name = node.identity.name
        self._cluster.tell(f"{name} will lose power amid {'a name' if names_only else 'a write'}")

        def lost() -> None:
            self._cluster.tell(f"{name} loses power amid a write")
            self._again(node)

        node.on_power_lost = lost
        node.disk.lose_power(writes, names_only)

    def _kill(self) -> None:
        node = self._node()
        if node is not None:
            self._cluster.tell(f"{node.identity.name} is killed")
            node.kill()
            self._again(node)

    def _stop(self) -> None:
        """In order; more often the leader, which has to hand over."""
        node = self._cluster.leader() if self._chance.random() < 0.7 else self._node()
        if node is None or not node.running:
            return
        name = node.identity.name
        self._cluster.tell(f"{name} is asked to stop")

        def stopped() -> None:
            self._cluster.tell(f"{name} has stopped")
            self._again(node)

        node.stop(stopped)

    def _pause(self) -> None:
        self._pause_node(self._node())

    def _pause_leader(self) -> None:
        """For longer than it takes to elect another."""
        self._pause_node(self._cluster.leader(), 1.5)

    def _pause_node(self, node: Node | None, seconds_min: float = 0.0) -> None:
        if node is not None:
            seconds = seconds_min + self._chance.random() * 4
            self._cluster.tell(f"{node.identity.name} is paused for {seconds:.1f} s")
            node.pause()
            self._cluster.loop.call_later(seconds, node.resume)

    def _blackout(self) -> None:
        self._cluster.tell("everybody loses power")
        for node in self._cluster.nodes.values():
            if node.member is not None:
                node.crash()
                self._again(node)

    def _stall(self) -> None:
        node = self._node()
        if node is not None:
            seconds = self._chance.random() * 5
            self._cluster.tell(f"{node.identity.name}'s disk answers nothing for {seconds:.1f} s")
            node.stall(seconds)

    def _full_disk(self) -> None:
        """One, or all; or worse."""
        kind = self._chance.random()
        if kind < 0.2:
            self._broken_disk()
            return
        if kind < 0.4:
            self._full_disks()
            return
        node = self._node()
        if node is not None:
            self._cluster.tell(f"{node.identity.name}'s disk is full")
            self._fill(node)

    def _full_disks(self) -> None:
        """Everybody's: nothing can be written, and nobody may end of it."""
        self._cluster.tell("every disk is full")
        for node in self._cluster.nodes.values():
            self._fill(node)

    def _fill(self, node: Node) -> None:
        """For some seconds; amid them it may be killed, and start on the full disk."""
        node.disk.full = True
        node.disk.in_place = self._chance.random() < 0.7
        seconds = self._chance.random() * 6

        def room() -> None:
            if node.disk.full:
                self._cluster.tell(f"{node.identity.name}'s disk has room")
                node.disk.full = False

        def kill() -> None:
            if node.member is not None and node.disk.full:
                self._cluster.tell(f"{node.identity.name} is killed and starts on its full disk")
                node.kill()
                node.start()

        self._cluster.loop.call_later(seconds, room)
        if self._chance.random() < 0.5:
            self._cluster.loop.call_later(seconds * self._chance.random(), kill)

    def _broken_disk(self) -> None:
        """Its member ends, as it must."""
        node = self._node()
        if node is not None:
            self._cluster.tell(f"{node.identity.name}'s disk is broken")
            node.disk.failing = True
            self._again(node)

    # --- network ------------------------------------------------------------------------------

    def _halves(self) -> None:
        ids = self._ids()
        self._chance.shuffle(ids)
        at = self._chance.randrange(1, len(ids)) if len(ids) > 1 else 1
        groups = [ids[:at], ids[at:]]
        names = " | ".join(" ".join(map(self._cluster.name, group)) for group in groups)
        self._cluster.tell(f"the network falls apart: {names}")
        self._cluster.network.heal()
        self._cluster.network.partition(groups)

    def _alone(self) -> None:
        ids = self._ids()
        self._cut_off(self._chance.choice(ids))

    def _leader_alone(self) -> None:
        leader = self._cluster.leader()
        if leader is not None:
            self._cut_off(leader.id)

    def _cut_off(self, one: int) -> None:
        self._cluster.tell(f"{self._cluster.name(one)} is alone")
        self._cluster.network.partition([[one], [other for other in self._ids() if other != one]])

    def _one_way(self) -> None:
        ids = self._ids()
        one, other = (self._chance.choice(ids) for _ in range(2))
        name = self._cluster.name
        self._cluster.tell(f"{name(one)} no longer reaches {name(other)}")
        self._cluster.network.cut(one, other)

    def _weather(self) -> None:
        weather = self._cluster.network.weather
        weather.drop = self._chance.choice([0.0, 0.02, 0.2])
        weather.duplicate = self._chance.choice([0.0, 0.1])
        weather.straggle = self._chance.choice([0.0, 0.05, 0.3])
        weather.astray = self._chance.choice([0.0, 0.0, 0.1])
        self._cluster.tell(
            f"weather: drop {weather.drop}, duplicate {weather.duplicate}, "
            f"straggle {weather.straggle}, astray {weather.astray}"
        )

    def _heal(self) -> None:
        self._cluster.tell("the network is whole again")
        self._cluster.network.heal()

    # --- the cluster itself -------------------------------------------------------------------

    def _move_leader(self) -> None:
        leader = self._cluster.leader()
        if leader is None or leader.member is None:
            return
        target = self._chance.choice(self._ids())
        present = leader.member.membership.cluster.member(target)
        if present is not None and not present.is_learner:
            self._cluster.tell(f"leadership is asked to move to {self._cluster.name(target)}")
            leader.member.leadership_transfer.move(target, lambda _: None)

    def _reconfigure(self) -> None:
        self._operator.act(self._chance)


class Sleep(Chaos):
    """Leaders are cut off and fall asleep; when they wake up, clients are already waiting."""

    def _choices(self) -> list[Callable[[], None]]:
        return [self._sleep, self._heal]

    def _sleep(self) -> None:
        self._leader_alone()
        self._pause_leader()


class Storm(Chaos):
    """Elections without end: members blink, and who asks for votes is cut off at the wrong time."""

    down_s_max = 0.3

    def _choices(self) -> list[Callable[[], None]]:
        return [
            self._crash,
            self._crash,
            self._crash_amid_write,
            self._crash_leader,
            self._alone,
            self._leader_alone,
            self._one_way,
            self._one_way,
            self._heal,
            self._heal,
        ]

    def _crash_leader(self) -> None:
        leader = self._cluster.leader()
        if leader is not None:
            self._cluster.tell(f"the leader {leader.identity.name} loses power")
            leader.crash()
            self._again(leader)
