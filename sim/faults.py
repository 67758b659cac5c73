"""What goes wrong in a run: crashes, kills, pauses, cuts, bad weather; all from the seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from sim.cluster import SimCluster
from sim.node import Node

INTERVAL_S: Final = 1.5  # a new fault about so often


class Chaos:
    """Throws faults until stopped. A minority may be down at any time, or everybody."""

    down_s_max = 4.0  # a member that crashed is back within so long

    def __init__(self, cluster: SimCluster, interval_s: float = INTERVAL_S) -> None:
        self._cluster = cluster
        self._interval_s = interval_s
        self._chance = Random(cluster.chance.randrange(0, 1 << 30))
        self.stopped = False
        self._later()

    def stop(self) -> None:
        """No more faults; those that are there stay (see `SimCluster.calm`)."""
        self.stopped = True

    def _later(self) -> None:
        self._cluster.loop.call_later(self._chance.random() * 2 * self._interval_s, self._act)

    def _act(self) -> None:
        if self.stopped:
            return
        self._later()
        self._chance.choice(self._choices())()

    def _choices(self) -> list[Callable[[], None]]:
        return [
            self._crash,
            self._crash,
            self._kill,
            self._pause,
            self._halves,
            self._one_way,
            self._alone,
            self._leader_alone,
            self._weather,
            self._heal,
            self._blackout,
            self._move_leader,
        ]

    def _node(self) -> Node | None:
        live = [node for node in self._cluster.nodes.values() if node.running]
        return self._chance.choice(live) if live else None

    def _again(self, node: Node) -> None:
        def start() -> None:
            if node.member is None and not node.removed:
                self._cluster.tell(f"{node.identity.name} starts")
                node.start()

        self._cluster.loop.call_later(self._chance.random() * self.down_s_max, start)

    def _crash(self) -> None:
        node = self._node()
        if node is not None:
            self._cluster.tell(f"{node.identity.name} loses power")
            node.crash()
            self._again(node)

    def _kill(self) -> None:
        node = self._node()
        if node is not None:
            self._cluster.tell(f"{node.identity.name} is killed")
            node.kill()
            self._again(node)

    def _pause(self) -> None:
        node = self._node()
        if node is not None:
            self._cluster.tell(f"{node.identity.name} is paused")
            node.pause()
            self._cluster.loop.call_later(self._chance.random() * 5, node.resume)

    def _blackout(self) -> None:
        self._cluster.tell("everybody loses power")
        for node in self._cluster.nodes.values():
            if node.member is not None:
                node.crash()
                self._again(node)

    def _groups(self) -> list[list[int]]:
        ids = list(self._cluster.nodes)
        self._chance.shuffle(ids)
        at = self._chance.randrange(1, len(ids)) if len(ids) > 1 else 1
        return [ids[:at], ids[at:]]

    def _halves(self) -> None:
        groups = self._groups()
        self._cluster.tell(f"the network falls apart: {groups}")
        self._cluster.network.heal()
        self._cluster.network.partition(groups)

    def _alone(self) -> None:
        ids = list(self._cluster.nodes)
        one = self._chance.choice(ids)
        self._cluster.tell(f"{one:x} is alone")
        self._cluster.network.partition([[one], [other for other in ids if other != one]])

    def _leader_alone(self) -> None:
        leader = self._cluster.leader()
        if leader is not None:
            self._cluster.tell(f"the leader {leader.identity.name} is alone")
            others = [other for other in self._cluster.nodes if other != leader.id]
            self._cluster.network.partition([[leader.id], others])

    def _one_way(self) -> None:
        one, other = (self._chance.choice(list(self._cluster.nodes)) for _ in range(2))
        self._cluster.tell(f"{one:x} no longer reaches {other:x}")
        self._cluster.network.cut(one, other)

    def _weather(self) -> None:
        weather = self._cluster.network.weather
        weather.drop = self._chance.choice([0.0, 0.02, 0.2])
        weather.duplicate = self._chance.choice([0.0, 0.1])
        weather.straggle = self._chance.choice([0.0, 0.05, 0.3])
        self._cluster.tell(f"weather: {weather}")

    def _heal(self) -> None:
        self._cluster.tell("the network is whole again")
        self._cluster.network.heal()

    def _move_leader(self) -> None:
        leader = self._cluster.leader()
        if leader is None or leader.member is None:
            return
        target = self._chance.choice(list(self._cluster.nodes))
        if leader.member.configuration.cluster.member(target) is not None:
            self._cluster.tell(f"leadership is asked to move to {target:x}")
            leader.member.handover.move(target, lambda _: None)


class Storm(Chaos):
    """Elections without end: members blink, and who asks for votes is cut off at the wrong time."""

    down_s_max = 0.3

    def _choices(self) -> list[Callable[[], None]]:
        return [
            self._crash,
            self._crash,
            self._crash,
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
