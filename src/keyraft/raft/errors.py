"""What Raft refuses, and what must stop a member. One small closed family."""

from __future__ import annotations


class RaftError(Exception):
    """Any refusal of the core; the text is etcd's."""

    text = ""

    def __init__(self, text: str = "") -> None:
        super().__init__(text or self.text)


class ProposalDroppedError(RaftError):
    """The proposal was not taken and never will be; the proposer may try again."""

    text = "raft proposal dropped"


class StepLocalMessageError(RaftError):
    """A peer sent a message that only ever comes from the member itself."""

    text = "raft: cannot step raft local message"


class StepPeerNotFoundError(RaftError):
    """A response came from a sender that is not in the configuration."""

    text = "raft: cannot step as peer not found"


class PeerMessageError(RaftError):
    """A peer sent a message that no member sends (see `bounds`)."""


class RaftConfigError(RaftError):
    """The parameters a member was to be built from do not fit together."""


class ConfChangeError(RaftError):
    """A configuration change that does not fit the present configuration."""


class StorageError(RaftError):
    """A Storage does not have what it was asked for."""


class LogCompactedError(StorageError):
    """The index is before the first entry that is kept."""

    text = "requested index is unavailable due to compaction"


class EntryUnavailableError(StorageError):
    """The index is behind the last entry."""

    text = "requested entry at index is unavailable"


class SnapshotOutOfDateError(StorageError):
    """A newer snapshot is already there."""

    text = "requested index is older than the existing snapshot"


class SnapshotTemporarilyUnavailableError(StorageError):
    """A snapshot is being made; ask again later."""

    text = "snapshot is temporarily unavailable"


class FatalError(RaftError):
    """The log was lost or corrupted, or a contract was broken. Acknowledged data could be lost.

    The member must stop. This is what etcd's library panics with.
    """
