"""Raft members without disks or time: messages pass when the test says so.

Whatever a member acknowledges to itself is delivered at once, as if its disk took no time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from keyraft.raft import (
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    ProposalDroppedError,
    RaftConfig,
    Snapshot,
    SnapshotMeta,
)
from keyraft.raft.core import Raft
from keyraft.raft.invariants import check_state


class ListLogger:
    """Keeps what was logged: (level, message)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def debug(self, message: str, **fields: object) -> None:
        self.lines.append(("debug", message))

    def info(self, message: str, **fields: object) -> None:
        self.lines.append(("info", message))

    def warn(self, message: str, **fields: object) -> None:
        self.lines.append(("warn", message))

    def error(self, message: str, **fields: object) -> None:
        self.lines.append(("error", message))


def storage_of(
    voters: Iterable[int],
    terms: Iterable[int] = (),
    learners: Iterable[int] = (),
    state: HardState | None = None,
) -> MemoryStorage:
    """A log whose entries 1, 2, ... have these terms, and a configuration."""
    storage = MemoryStorage()
    conf_state = ConfState(list(voters), list(learners))
    storage.apply_snapshot(Snapshot(meta=SnapshotMeta(conf_state)))
    storage.append([Entry(term, index) for index, term in enumerate(terms, 1)])
    if state is not None:
        storage.set_hard_state(state)
    return storage


def raft_of(node_id: int, voters: Iterable[int] = (1, 2, 3), seed: int = 0, **options: Any) -> Raft:
    """A member; `terms`, `learners`, `state` are the storage's, the rest is RaftConfig's."""
    storage = storage_of(
        voters,
        options.pop("terms", ()),
        options.pop("learners", ()),
        options.pop("state", None),
    )
    options = {"election_ticks": 10, "random": random.Random(seed + node_id), **options}
    return Raft(RaftConfig(id=node_id, **options), storage)


def settle(raft: Raft) -> list[Message]:
    """Delivers what the member tells itself; returns and forgets what it sends to others."""
    out: list[Message] = []
    while raft.messages or raft.messages_after_append:
        messages = raft.messages + raft.messages_after_append
        raft.messages = []
        raft.messages_after_append = []
        for message in messages:
            if message.to == raft.id:
                raft.step(message)
            else:
                out.append(message)
    check_state(raft)
    return out


def persist(raft: Raft) -> None:
    """Writes the unstable entries to the storage at once."""
    entries = raft.log.unstable.next_entries()
    storage = raft.log.storage
    assert isinstance(storage, MemoryStorage), storage
    if entries:
        storage.append(entries)
        raft.log.unstable.accept_in_progress()
        raft.log.unstable.stable_to(entries[-1].term, entries[-1].index)


def applied(raft: Raft) -> list[Entry]:
    """Hands out and applies what is committed."""
    entries, size = raft.log.next_committed(True)
    if entries:
        raft.log.accept_applying(entries, size, True, True)
        raft.log.release_to(entries[-1].index)
        raft.log.applied_to(entries[-1].index)
    return entries


class RaftNetwork:
    """Members that hear of each other what is not cut, dropped or filtered."""

    def __init__(self, *rafts: Raft) -> None:
        self.rafts = {raft.id: raft for raft in rafts}
        self.cut: set[tuple[int, int]] = set()
        self.lost: set[int] = set()  # message types that get lost
        self.filter: Callable[[Message], bool] | None = None  # False: lost

    def isolate(self, node_id: int) -> None:
        """Nobody hears it and it hears nobody."""
        for other in self.rafts:
            self.cut |= {(node_id, other), (other, node_id)}

    def heal(self) -> None:
        """Everything arrives again."""
        self.cut = set()
        self.lost = set()
        self.filter = None

    def _passes(self, message: Message) -> bool:
        return (
            message.to in self.rafts
            and (message.from_, message.to) not in self.cut
            and message.type not in self.lost
            and (self.filter is None or self.filter(message))
        )

    def send(self, *messages: Message) -> None:
        """Delivers messages, and all that follows from them, until it is quiet."""
        queue = list(messages)
        while queue:
            message = queue.pop(0)
            raft = self.rafts[message.to]
            try:
                raft.step(message)
            except ProposalDroppedError:
                pass
            persist(raft)
            queue += [answer for answer in settle(raft) if self._passes(answer)]

    def campaign(self, node_id: int) -> None:
        """This member's election timeout has passed."""
        self.send(Message(MessageType.HUP.value, from_=node_id, to=node_id))

    def propose(self, node_id: int, data: bytes = b"data") -> None:
        """One entry."""
        self.send(
            Message(MessageType.PROP.value, from_=node_id, to=node_id, entries=[Entry(data=data)])
        )

    def beat(self, node_id: int) -> None:
        """The leader's heartbeat timeout has passed."""
        self.send(Message(MessageType.BEAT.value, from_=node_id, to=node_id))

    def tick(self, node_id: int, count: int = 1) -> None:
        """Ticks of one member, with what follows from each."""
        for _ in range(count):
            raft = self.rafts[node_id]
            raft.tick()
            persist(raft)
            self.send(*[message for message in settle(raft) if self._passes(message)])
