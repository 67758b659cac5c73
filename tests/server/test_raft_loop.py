"""The order persist -> send -> apply -> acknowledge, with a disk that answers when it is told to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from keyraft.base.log import NullLogger
from keyraft.raft import (
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    RaftConfig,
    RawNode,
    ReadState,
    Snapshot,
    SnapshotMeta,
)
from keyraft.server.consensus.leadership import Leadership
from keyraft.server.consensus.raft_loop import RaftLoop
from keyraft.server.counters import Counters
from keyraft.server.ports import NoNetwork
from sim.loop import SimLoop


class SlowLog:
    """Appends wait until `answer`."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def append(
        self,
        entries: Sequence[Entry],
        hard_state: HardState | None,
        must_sync: bool,
        done: Callable[[], None],
        alone: bool = False,
    ) -> None:
        self.waiting.append(done)

    def save_snapshot(
        self,
        meta: SnapshotMeta,
        data: bytes,
        done: Callable[[], None],
        no_room: Callable[[], None] | None = None,
    ) -> None:
        raise AssertionError("nothing here makes snapshots")

    room_bytes = 1 << 30

    def short_of_room(self) -> str:
        return ""

    def install(
        self, snapshot: Snapshot, hard_state: HardState | None, done: Callable[[], None]
    ) -> None:
        raise AssertionError("nothing here sends snapshots")

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for done in waiting:
            done()


class Applied:
    """What the loop has told."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int]] = []

    def read_states(self, states: Sequence[ReadState]) -> None:
        """Nobody reads."""

    def committed(self, entries: list[Entry], applied: Callable[[], None] | None) -> None:
        self.entries += [(entry.term, entry.index) for entry in entries]

    def before_snapshot(self, ready: Callable[[], None]) -> None:
        """None comes."""

    def snapshot_installed(self, snapshot: Snapshot) -> None:
        """None comes."""

    def dropped(self, proposals: list[bytes]) -> None:
        """Nobody proposes."""


def test_entries_that_replace_others_are_applied_only_when_they_are_on_the_disk() -> None:
    loop, log, applied = SimLoop(), SlowLog(), Applied()
    storage = MemoryStorage()
    storage.apply_snapshot(Snapshot(b"", SnapshotMeta(ConfState([1, 2, 3]), 10, 1)))
    node = RawNode(RaftConfig(id=1, random=random.Random(1), applied=10), storage)
    leadership = Leadership(1, 1, loop, NullLogger(), Counters())
    raft = RaftLoop(loop, node, storage, log, NoNetwork(), applied, leadership, 10)

    def append(leader: int, term: int, entries: list[Entry], commit: int) -> None:
        raft.step(
            Message(
                type=MessageType.APP,
                to=1,
                from_=leader,
                term=term,
                index=10,
                log_term=1,
                entries=entries,
                commit=commit,
            )
        )
        loop.run_until(loop.time())

    append(2, 2, [Entry(2, 11, b"lost"), Entry(2, 12, b"lost")], 10)
    log.answer()
    append(3, 3, [Entry(3, 11, b"kept"), Entry(3, 12, b"kept")], 12)
    assert log.waiting and not applied.entries
    log.answer()
    loop.run_until(loop.time())
    assert applied.entries == [(3, 11), (3, 12)]
