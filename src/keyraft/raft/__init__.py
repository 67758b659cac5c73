"""The consensus core. Pure.

`types` are the values, `codec` their bytes; `RawNode` is one member's Raft over a `Storage`.
Handed in: a `Config` with a random generator and a logger. See `rawnode` for the contract.
"""

from keyraft.raft.config import Config, ReadOnlyOption
from keyraft.raft.errors import (
    CompactedError,
    ConfChangeError,
    ConfigError,
    FatalError,
    PeerMessageError,
    ProposalDroppedError,
    RaftError,
    SnapshotOutOfDateError,
    SnapshotTemporarilyUnavailableError,
    StepLocalMessageError,
    StepPeerNotFoundError,
    UnavailableError,
)
from keyraft.raft.membership import readable_change
from keyraft.raft.progress import Progress, ProgressState
from keyraft.raft.rawnode import Peer, RawNode, Ready, Status
from keyraft.raft.state import SoftState, StateType
from keyraft.raft.storage import MemoryStorage, Storage
from keyraft.raft.types import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    NO_LIMIT,
    NO_NODE,
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    ReadState,
    Snapshot,
    SnapshotMeta,
)

__all__ = [
    "LOCAL_APPEND_THREAD",
    "LOCAL_APPLY_THREAD",
    "NO_LIMIT",
    "NO_NODE",
    "CompactedError",
    "ConfChange",
    "ConfChangeError",
    "ConfChangeSingle",
    "ConfChangeTransition",
    "ConfChangeType",
    "ConfChangeV2",
    "ConfState",
    "Config",
    "ConfigError",
    "Entry",
    "EntryType",
    "FatalError",
    "HardState",
    "MemoryStorage",
    "Message",
    "MessageType",
    "Peer",
    "PeerMessageError",
    "Progress",
    "ProgressState",
    "ProposalDroppedError",
    "RaftError",
    "RawNode",
    "ReadOnlyOption",
    "ReadState",
    "Ready",
    "Snapshot",
    "SnapshotMeta",
    "SnapshotOutOfDateError",
    "SnapshotTemporarilyUnavailableError",
    "SoftState",
    "StateType",
    "Status",
    "StepLocalMessageError",
    "StepPeerNotFoundError",
    "Storage",
    "UnavailableError",
    "readable_change",
]
