"""What a simulated member has of the others: the way to them, and the hashes of their keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from keyraft.base.errors import EtcdError
from keyraft.base.version import VERSION
from keyraft.cluster import MemberRecord
from keyraft.raft import Message, MessageType
from keyraft.server import REBUILD_CONTEXT, Member, PeerHash
from sim.loop import MemberLoop
from sim.network import MemberNetwork, SimNetwork


class SnapshotSending(Protocol):
    """The sending end of `sim.transfers`."""

    def send(self, message: Message) -> None:
        """Sends it with the database that belongs to it."""


class Machine(Protocol):
    """A simulated machine, as the others see it."""

    network: SimNetwork
    identity: MemberRecord
    member: Member | None

    @property
    def running(self) -> bool:
        """Whether a member lives there and is not paused."""

    def report_unreachable(self, member_id: int) -> None:
        """A message had no way."""

    @property
    def transfers(self) -> SnapshotSending:
        """Who moves its databases."""


class NodeNetwork(MemberNetwork):
    """Snapshots take their database with them."""

    def __init__(self, node: Machine, loop: MemberLoop) -> None:
        super().__init__(node.network, loop, node.identity.id, node.report_unreachable, VERSION)
        self._node = node

    def send(self, messages: Sequence[Message]) -> None:
        """Sends each to its receiver."""
        plain = []
        for message in messages:
            if message.type == MessageType.SNAP:
                self._node.transfers.send(message)
            else:
                plain.append(message)
        super().send(plain)


class NodeHashes:
    """The hashes of all other members that can be reached; a `PeerHashes`."""

    def __init__(self, node: Machine, nodes: Mapping[int, Machine], loop: MemberLoop) -> None:
        self._node = node
        self._nodes = nodes
        self._loop = loop

    def ask(self, revision: int, done: Callable[[Sequence[PeerHash]], None]) -> None:
        """Asks all of them; the answers come back after a while."""

        def answer() -> None:
            found = [
                self._one(node, revision) for node in self._nodes.values() if node is not self._node
            ]
            self._loop.call_later(0.01, done, found)

        self._loop.call_later(0.01, answer)

    def ask_database(self, member_id: int, done: Callable[[str], None]) -> None:
        """Has another member send its database."""
        node = self._nodes.get(member_id)
        network, own = self._node.network, self._node.identity.id

        def answer() -> None:
            if (
                node is None
                or node.member is None
                or not node.running
                or not network.reachable(own, member_id)
                or not network.reachable(member_id, own)
            ):
                self._loop.call_later(0.01, done, "it cannot be reached")
                return
            term = node.member.leadership.term
            node.transfers.send(
                Message(MessageType.SNAP, own, member_id, term, context=REBUILD_CONTEXT)
            )
            self._loop.call_later(0.01, done, "")

        self._loop.call_later(0.01, answer)

    def _one(self, node: Machine, revision: int) -> PeerHash:
        member, network = node.member, self._node.network
        there = (self._node.identity.id, node.identity.id)
        back = (node.identity.id, self._node.identity.id)
        nobody = PeerHash(node.identity.id, node.identity.peer_urls)
        if member is None or not node.running:
            return nobody
        if not (network.reachable(*there) and network.reachable(*back)):
            return nobody
        try:
            found = member.store.hash_kv(revision).run()
        except EtcdError as error:
            return PeerHash(node.identity.id, node.identity.peer_urls, error=error)
        return PeerHash(node.identity.id, node.identity.peer_urls, member.store.revision, found)
