"""A whole cluster in one process, its faults, and the account of what happened."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from keyraft.cluster import MemberRecord, cluster_id, new_member
from keyraft.server import Member
from sim.loop import SimLoop
from sim.network import SimNetwork
from sim.node import Node
from sim.witness import Witness
from sim.witnessed import Habits


class SimCluster:
    """Members m1 ... mN, all founders, and the world around them."""

    def __init__(
        self, size: int, seed: int, habits: Callable[[Random], Habits] | None = None
    ) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.loop = SimLoop()
        self.network = SimNetwork(self.loop, self.chance)
        self.nodes: dict[int, Node] = {}
        self.story: list[str] = []
        self.witness = Witness(self.loop.time)
        self._founders = [
            new_member(f"m{number}", [f"http://m{number}:2380"], "sim")
            for number in range(1, size + 1)
        ]
        self._named = size
        self.lease_slack_s = 0.0  # how much earlier than promised a lease may end
        self._habits = habits or (lambda chance: Habits())
        for identity in sorted(self._founders, key=lambda one: one.id):
            self._place(identity, self._founders, 0)
        self.cluster_id = cluster_id([one.id for one in self._founders])
        for node in self.nodes.values():
            node.start()

    def _place(self, identity: MemberRecord, others: list[MemberRecord], joins: int) -> Node:
        node = self.nodes[identity.id] = Node(
            self.loop,
            self.network,
            self.chance,
            identity,
            others,
            self._habits(self.chance),
            self.nodes,
            self.witness,
            cluster_id=joins,
        )
        node.tell = self.tell
        return node

    def newcomer(self, is_learner: bool) -> MemberRecord:
        """Who may be added next; its machine comes with `admit`."""
        self._named += 1
        name = f"m{self._named}"
        return new_member(name, [f"http://{name}:2380"], "sim", is_learner=is_learner)

    def admit(self, identity: MemberRecord) -> Node:
        """A machine for a member that has been added, not yet started."""
        present = [self.nodes[ident].identity for ident in self.witness.ids if ident in self.nodes]
        return self._place(identity, present, self.cluster_id)

    def name(self, member_id: int) -> str:
        """What the account calls a member."""
        node = self.nodes.get(member_id)
        return node.identity.name if node is not None else f"{member_id:x}"

    def tell(self, what: str) -> None:
        """A line of the account."""
        self.story.append(f"{self.loop.time():10.4f} {what}")

    def run(self, seconds: float) -> None:
        """Lets virtual time pass."""
        self.loop.run_until(self.loop.time() + seconds)

    def run_until(self, condition: Callable[[], bool], limit_s: float = 60.0) -> bool:
        """Lets time pass until something holds; False when it does not within `limit_s`."""
        return self.loop.run_until(self.loop.time() + limit_s, condition)

    @property
    def members(self) -> list[Member]:
        """Those that live and belong to the cluster."""
        ids = self.witness.ids
        return [
            node.member
            for node in self.nodes.values()
            if node.member is not None and node.id in ids
        ]

    def leader(self) -> Node | None:
        """The node that leads in the highest term; None while nobody does."""
        leading = [
            node
            for node in self.nodes.values()
            if node.running and node.member is not None and node.member.leadership.leading
        ]
        return max(
            leading,
            key=lambda node: node.member.leadership.term if node.member else 0,
            default=None,
        )

    def calm(self) -> None:
        """All faults end: everybody runs and hears everybody."""
        self.network.heal()
        self.network.weather.drop = self.network.weather.duplicate = 0.0
        self.network.weather.straggle = self.network.weather.astray = 0.0
        for node in self.nodes.values():
            node.resume()
            node.mend()
            if node.member is None and not node.removed:
                node.start()

    def agreed(self) -> bool:
        """Whether exactly the members live, and have applied everything that the leader has."""
        leader = self.leader()
        if leader is None or leader.member is None:
            return False
        index = leader.member.applied_index
        if index != leader.member.committed_index:
            return False
        ids = self.witness.ids
        if any(node.id not in ids and node.hears for node in self.nodes.values()):
            return False
        for ident in ids:
            node = self.nodes.get(ident)
            if node is None or node.member is None or node.member.applied_index != index:
                return False
        return True

    def whereabouts(self) -> str:
        """Who is where, for the account."""
        told = []
        for node in self.nodes.values():
            member = node.member
            state = "gone" if node.removed else "down"
            if member is not None:
                raft = member.raft.node.raft
                state = (
                    f"term {raft.term} lead {self.name(member.leadership.leader)} commit "
                    f"{member.committed_index} applied {member.applied_index}"
                )
            told.append(f"{node.identity.name} {state}")
        members = " ".join(map(self.name, self.witness.ids))
        return f"members {members}; " + "; ".join(told)

    def hashes(self) -> set[tuple[int, int]]:
        """(revision, hash of all keys) of every live member."""
        found = set()
        for member in self.members:
            job = member.store.hash_kv(0)
            while not job.step():
                continue
            assert job.result is not None
            found.add((member.store.revision, job.result.hash))
        return found
