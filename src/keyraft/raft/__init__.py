"""The consensus core. Pure.

`types` are the values, `codec` their bytes; `RawNode` is one member's Raft over a `Storage`.
The caller hands in a `RaftConfig` with a random generator and a logger. See `rawnode` for the
contract.
"""

from keyraft.raft.config import RaftConfig, ReadOnlyOption
from keyraft.raft.errors import (
    ConfChangeError,
    EntryUnavailableError,
    FatalError,
    LogCompactedError,
    PeerMessageError,
    ProposalDroppedError,
    RaftConfigError,
    RaftError,
    SnapshotOutOfDateError,
    SnapshotTemporarilyUnavailableError,
    StepLocalMessageError,
    StepPeerNotFoundError,
)
from keyraft.raft.membership import readable_change
from keyraft.raft.progress import Progress, ProgressState
from keyraft.raft.rawnode import BootstrapPeer, RawNode, Ready, Status
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
    "BootstrapPeer",
    "ConfChange",
    "ConfChangeError",
    "ConfChangeSingle",
    "ConfChangeTransition",
    "ConfChangeType",
    "ConfChangeV2",
    "ConfState",
    "Entry",
    "EntryType",
    "EntryUnavailableError",
    "FatalError",
    "HardState",
    "LogCompactedError",
    "MemoryStorage",
    "Message",
    "MessageType",
    "PeerMessageError",
    "Progress",
    "ProgressState",
    "ProposalDroppedError",
    "RaftConfig",
    "RaftConfigError",
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
    "readable_change",
]
