"""What a simulated member has of the others: the way to them, and the hashes of their keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from keyraft.base.errors import EtcdError
from keyraft.base.version import VERSION
from keyraft.raft import Message, MessageType
from keyraft.server import PeerHash
from sim.loop import MemberLoop
from sim.network import MemberNetwork

if TYPE_CHECKING:
    from sim.node import Node


class NodeNetwork(MemberNetwork):
    """Snapshots take their database with them."""

    def __init__(self, node: Node, loop: MemberLoop) -> None:
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

    def __init__(self, node: Node, nodes: dict[int, Node], loop: MemberLoop) -> None:
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

    def _one(self, node: Node, revision: int) -> PeerHash:
        member, network = node.member, self._node.network
        there, back = (self._node.id, node.id), (node.id, self._node.id)
        nobody = PeerHash(node.id, node.identity.peer_urls)
        if member is None or not node.running:
            return nobody
        if not (network.reachable(*there) and network.reachable(*back)):
            return nobody
        try:
            found = member.store.hash_kv(revision).run()
        except EtcdError as error:
            return PeerHash(node.id, node.identity.peer_urls, error=error)
        return PeerHash(node.id, node.identity.peer_urls, member.store.revision, found)
