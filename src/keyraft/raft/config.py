"""What a member's Raft is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from keyraft.base.clock import Random
from keyraft.base.log import Logger, NullLogger
from keyraft.raft.errors import RaftConfigError
from keyraft.raft.types import NO_LIMIT, is_local_target


class ReadOnlyOption(IntEnum):
    """How a read is known to be linearizable (Raft thesis §6.4)."""

    SAFE = 0  # a quorum confirms the leader after the read came
    LEASE_BASED = 1  # the leader trusts its lease, and thereby the clocks; needs check_quorum


@dataclass(slots=True, frozen=True)
class RaftConfig:
    """The parameters of one member; `validate` raises RaftConfigError.

    Sizes are bytes of encoded entries, but for `uncommitted_size_max` and `inflight_bytes_max`,
    which count data alone.
    """

    id: int
    random: Random  # for the election timeout
    election_ticks: int = 10  # without a leader for one to two times this: campaign
    heartbeat_ticks: int = 1  # between two heartbeats of a leader
    applied: int = 0  # on restart: the last index the state machine holds
    async_storage_writes: bool = False  # Ready carries STORAGE_* messages instead of being advanced
    append_size_max: int = NO_LIMIT  # one append message; 0: one entry a message
    committed_size_max: int = 0  # handed out and not yet applied; 0: as append_size_max
    uncommitted_size_max: int = 0  # a leader's uncommitted tail; 0: no limit
    inflight_messages_max: int = 512  # appends sent to one member and not acknowledged
    inflight_bytes_max: int = 0  # the same in bytes; 0: no limit
    check_quorum: bool = False  # a leader that hears of no quorum for election_ticks steps down
    pre_vote: bool = False  # ask whether an election could be won before raising the term (§9.6)
    read_only: ReadOnlyOption = ReadOnlyOption.SAFE
    disable_proposal_forwarding: bool = False  # followers drop proposals
    disable_conf_change_validation: bool = False  # the proposer has checked the change itself
    step_down_on_removal: bool = False  # a leader that is removed or demoted becomes a follower
    logger: Logger = field(default_factory=NullLogger)

    def validate(self) -> None:
        """Raises RaftConfigError with etcd's text."""
        if self.id == 0:
            raise RaftConfigError("cannot use none as id")
        if is_local_target(self.id):
            raise RaftConfigError("cannot use local target as id")
        if self.heartbeat_ticks <= 0:
            raise RaftConfigError("heartbeat tick must be greater than 0")
        if self.election_ticks <= self.heartbeat_ticks:
            raise RaftConfigError("election tick must be greater than heartbeat tick")
        if self.inflight_messages_max <= 0:
            raise RaftConfigError("max inflight messages must be greater than 0")
        if self.inflight_bytes_max and self.inflight_bytes_max < self.append_size_max:
            raise RaftConfigError("max inflight bytes must be >= max message size")
        if self.read_only == ReadOnlyOption.LEASE_BASED and not self.check_quorum:
            raise RaftConfigError(
                "CheckQuorum must be enabled when ReadOnlyOption is ReadOnlyLeaseBased"
            )
