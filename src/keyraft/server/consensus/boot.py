"""The state of a member's disk at a start, and the Raft node that begins with it.

The database is usually ahead of the last snapshot. Raft starts with the database's consistent index
as applied and with the configuration stored beside it, so no entry is ever applied twice. The hard
state's commit may be lower than what was acknowledged, because a commit alone is not synced. The
entries are on the disk, and the next leader commits them again (Raft thesis §3.6.2). Entries in the
database were committed, whatever the hard state says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from keyraft.base.clock import Random
from keyraft.base.log import Logger
from keyraft.mvcc import Checkpoint
from keyraft.raft import (
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    RaftConfig,
    RawNode,
    Snapshot,
    SnapshotMeta,
)
from keyraft.server.settings import MemberSettings

APPEND_BYTES_MAX: Final = 1 << 20  # of one append message (etcd `maxSizePerMsg`)
INFLIGHT_MESSAGES_MAX: Final = 512  # etcd `maxInflightMsgs`
COMMITTED_BYTES_MAX: Final = 64 << 20  # handed out for apply at a time
UNCOMMITTED_BYTES_MAX: Final = 1 << 30  # a leader's uncommitted tail


class BootError(Exception):
    """The parts on the disk contradict each other; the member must not start."""


@dataclass(slots=True)
class Boot:
    """The log behind the last snapshot, and the database's index in it.

    `conf_state` is the configuration at `applied_index`.
    """

    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    snapshot: SnapshotMeta = field(default_factory=SnapshotMeta)
    consistent_index: int = 0
    conf_state: ConfState = field(default_factory=ConfState)
    checkpoint: Checkpoint | None = None  # of the key index, to start from

    @property
    def applied_index(self) -> int:
        """Where applying goes on from."""
        return max(self.snapshot.index, self.consistent_index)

    @property
    def last_index(self) -> int:
        """The last entry on disk."""
        return self.entries[-1].index if self.entries else self.snapshot.index


def build_node(
    settings: MemberSettings, boot: Boot, chance: Random, logger: Logger
) -> tuple[RawNode, MemoryStorage]:
    """The Raft node in the state of the member's last write. Raises BootError."""
    if boot.consistent_index > boot.last_index:
        raise BootError(
            f"the database holds entries up to {boot.consistent_index}, "
            f"but the write-ahead log ends at {boot.last_index}: is it damaged or lost?"
        )
    storage = MemoryStorage()
    start = SnapshotMeta(boot.conf_state, boot.snapshot.index, boot.snapshot.term)
    storage.apply_snapshot(Snapshot(b"", start))
    state = boot.hard_state
    if not state.is_empty():
        commit = max(state.commit, boot.applied_index)
        storage.set_hard_state(HardState(state.term, state.vote, commit))
    storage.append(boot.entries)
    config = RaftConfig(
        id=settings.member_id,
        random=chance,
        election_ticks=settings.election_ticks,
        heartbeat_ticks=1,
        applied=boot.applied_index,
        append_size_max=APPEND_BYTES_MAX,
        committed_size_max=COMMITTED_BYTES_MAX,
        uncommitted_size_max=UNCOMMITTED_BYTES_MAX,
        inflight_messages_max=INFLIGHT_MESSAGES_MAX,
        check_quorum=True,
        pre_vote=settings.pre_vote,
        logger=logger,
    )
    return RawNode(config, storage), storage
