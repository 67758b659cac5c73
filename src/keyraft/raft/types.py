"""The values Raft speaks of: entries, hard state, configurations, snapshots, messages.

Plain slotted classes, because millions of them pass through the hot path. `codec` turns them into
etcd's protobuf bytes and back. Field meanings are those of etcd-io/raft's `raftpb`; sources: Raft
thesis §3, §4, §6.4, §9.6.
"""

from __future__ import annotations

from enum import IntEnum


class EntryType(IntEnum):
    NORMAL = 0
    CONF_CHANGE = 1
    CONF_CHANGE_V2 = 2


class MessageType(IntEnum):
    """Wire numbers; the local ones (HUP, BEAT, STORAGE_*, ...) never leave the member."""

    HUP = 0
    BEAT = 1
    PROP = 2
    APP = 3
    APP_RESP = 4
    VOTE = 5
    VOTE_RESP = 6
    SNAP = 7
    HEARTBEAT = 8
    HEARTBEAT_RESP = 9
    UNREACHABLE = 10
    SNAP_STATUS = 11
    CHECK_QUORUM = 12
    TRANSFER_LEADER = 13
    TIMEOUT_NOW = 14
    READ_INDEX = 15
    READ_INDEX_RESP = 16
    PRE_VOTE = 17
    PRE_VOTE_RESP = 18
    STORAGE_APPEND = 19
    STORAGE_APPEND_RESP = 20
    STORAGE_APPLY = 21
    STORAGE_APPLY_RESP = 22
    FORGET_LEADER = 23


class Entry:
    """One slot of the replicated log. Never changed once made."""

    __slots__ = ("data", "index", "term", "type")

    def __init__(self, term: int = 0, index: int = 0, data: bytes = b"", type: int = 0) -> None:
        self.term = term
        self.index = index
        self.data = data
        self.type = type

    def __repr__(self) -> str:
        return f"Entry({self.term}/{self.index} {self.type} {self.data!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and (
            (self.term, self.index, self.data, self.type)
            == (other.term, other.index, other.data, other.type)
        )

    __hash__ = None  # type: ignore[assignment]  # a mutable-looking value is no key
