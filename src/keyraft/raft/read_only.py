"""Reads that wait for the leader to be confirmed, all in the order they came.

Each read has a number: how many reads were confirmed before it, plus its place in the queue. A
heartbeat carries the number of the last one waiting, eight bytes little-endian, and whoever
answers it confirms every read up to that number. A quorum's answers therefore confirm reads the
way a quorum's acknowledgements commit entries (Raft thesis §6.4).
"""

from __future__ import annotations

from keyraft.raft.quorum import JointConfig
from keyraft.raft.types import Message

_CONTEXT_BYTES = 8


class ReadOnly:
    """The queue of one leadership; a new one starts with every term."""

    __slots__ = ("_acks", "_confirmed", "_waiting")

    def __init__(self) -> None:
        self._acks: dict[int, int] = {}
        self._waiting: list[tuple[Message, int]] = []
        self._confirmed = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: Message, commit: int) -> None:
        """A read came when `commit` was the commit index."""
        self._waiting.append((request, commit))

    def heartbeat_context(self) -> bytes:
        """What heartbeats carry to confirm every read that waits; empty when none does."""
        if not self._waiting:
            return b""
        return (self._confirmed + len(self._waiting)).to_bytes(_CONTEXT_BYTES, "little")

    def receive_ack(self, node_id: int, context: bytes) -> None:
        """A member answered a heartbeat that carried `context`.

        What this leader never sent is ignored: a number that is not there yet, or a context of
        another length.
        """
        if len(context) != _CONTEXT_BYTES:
            return
        number = int.from_bytes(context, "little")
        if number <= self._confirmed + len(self._waiting):
            self._acks[node_id] = max(self._acks.get(node_id, 0), number)

    def advance(self, voters: JointConfig) -> list[tuple[Message, int]]:
        """The reads that a quorum has confirmed by now, oldest first, with their commit indexes."""
        count = voters.committed(self._acks.get) - self._confirmed
        if count <= 0:
            return []
        confirmed = self._waiting[:count]
        del self._waiting[:count]
        self._confirmed += len(confirmed)
        return confirmed
