"""One member's Raft: its state, and how a message passes through it.

`step` handles what a message's term means, then hands the message to the module that is about it:
`election`, `replication`, `reads`, `membership`; `leader` and `follower` hold the tables of what
each role does. Messages that promise something that must be on disk wait in
`messages_after_append`.

Invariants (checked by `invariants` in tests): term and commit never fall; one vote a term;
applied <= committed <= last index; a leader is in its own configuration or takes no proposals.
Source: Raft thesis §3, §4, §6.4, §9.6, §10.2; etcd-io/raft's contract.
"""

from __future__ import annotations

from keyraft.raft import confchange, election, follower, leader, membership
from keyraft.raft.config import RaftConfig
from keyraft.raft.errors import FatalError
from keyraft.raft.log import RaftLog
from keyraft.raft.names import message_name
from keyraft.raft.progress import Progress
from keyraft.raft.read_only import ReadOnly
from keyraft.raft.state import CAMPAIGN_TRANSFER, SoftState, StateType
from keyraft.raft.storage import Storage
from keyraft.raft.tracker import ProgressTracker
from keyraft.raft.types import (
    NO_LIMIT,
    NO_NODE,
    Entry,
    HardState,
    Message,
    MessageType,
    ReadState,
    Snapshot,
)

_HUP = MessageType.HUP.value
_BEAT = MessageType.BEAT.value
_PROP = MessageType.PROP.value
_APP = MessageType.APP.value
_APP_RESP = MessageType.APP_RESP.value
_VOTE = MessageType.VOTE.value
_VOTE_RESP = MessageType.VOTE_RESP.value
_SNAP = MessageType.SNAP.value
_HEARTBEAT = MessageType.HEARTBEAT.value
_CHECK_QUORUM = MessageType.CHECK_QUORUM.value
_READ_INDEX = MessageType.READ_INDEX.value
_PRE_VOTE = MessageType.PRE_VOTE.value
_PRE_VOTE_RESP = MessageType.PRE_VOTE_RESP.value
_STORAGE_APPEND_RESP = MessageType.STORAGE_APPEND_RESP.value
_STORAGE_APPLY_RESP = MessageType.STORAGE_APPLY_RESP.value

_REQUESTS = frozenset({_VOTE, _PRE_VOTE})
_OF_LEADER = frozenset({_APP, _HEARTBEAT})
_VOTING = frozenset({_VOTE, _VOTE_RESP, _PRE_VOTE, _PRE_VOTE_RESP})
_AFTER_APPEND = frozenset({_APP_RESP, _VOTE_RESP, _PRE_VOTE_RESP})
_FROM_LEADER = frozenset({_APP, _HEARTBEAT, _SNAP})

_STEPS = {
    StateType.FOLLOWER: follower.step_follower,
    StateType.CANDIDATE: follower.step_candidate,
    StateType.PRE_CANDIDATE: follower.step_candidate,
    StateType.LEADER: leader.step,
}


class Raft:
    """The state of one member. Changed only by the modules of this folder."""

    __slots__ = (
        "append_size_max",
        "check_quorum",
        "conf_snapshot_index",
        "disable_conf_change_validation",
        "disable_proposal_forwarding",
        "election_elapsed",
        "election_timeout",
        "heartbeat_elapsed",
        "heartbeat_timeout",
        "id",
        "is_learner",
        "lead",
        "lead_transferee",
        "log",
        "logger",
        "messages",
        "messages_after_append",
        "pending_conf_index",
        "pending_reads",
        "pre_vote",
        "random",
        "randomized_election_timeout",
        "read_only_option",
        "read_states",
        "reads",
        "state",
        "step_down_on_removal",
        "term",
        "tracker",
        "uncommitted_size",
        "uncommitted_size_max",
        "vote",
    )

    def __init__(self, config: RaftConfig, storage: Storage) -> None:
        config.validate()
        self.id = config.id
        self.random = config.random
        self.logger = config.logger
        self.election_timeout = config.election_ticks
        self.heartbeat_timeout = config.heartbeat_ticks
        self.check_quorum = config.check_quorum
        self.pre_vote = config.pre_vote
        self.read_only_option = config.read_only
        self.append_size_max = config.append_size_max
        self.uncommitted_size_max = config.uncommitted_size_max or NO_LIMIT
        self.disable_proposal_forwarding = config.disable_proposal_forwarding
        self.disable_conf_change_validation = config.disable_conf_change_validation
        self.step_down_on_removal = config.step_down_on_removal

        self.term = 0
        self.vote = NO_NODE
        self.state = StateType.FOLLOWER
        self.lead = NO_NODE
        self.is_learner = False
        self.lead_transferee = NO_NODE
        # No configuration change that is not applied yet has a higher index than this.
        self.pending_conf_index = 0
        # Index of the snapshot from which the configuration was last restored.
        self.conf_snapshot_index = 0
        # Payload bytes proposed and not yet applied, kept by the leader; never too high.
        self.uncommitted_size = 0
        self.election_elapsed = 0  # ticks since a leader was heard of, or since the last check
        self.heartbeat_elapsed = 0  # ticks since the last heartbeat
        self.randomized_election_timeout = 0
        self.messages: list[Message] = []  # to other members, may be sent at once
        self.messages_after_append: list[Message] = []  # to anybody, when all before is durable
        self.read_states: list[ReadState] = []
        self.pending_reads: list[Message] = []  # until an entry of this term is committed
        self.reads = ReadOnly()
        self.tracker = ProgressTracker(config.inflight_messages_max, config.inflight_bytes_max)
        self.log = RaftLog(
            storage, self.logger, config.committed_size_max or config.append_size_max
        )
        self._start(config, storage)

    def _start(self, config: RaftConfig, storage: Storage) -> None:
        hard_state, conf_state = storage.initial_state()
        last_term, last_index = self.log.last_id()
        restored = confchange.restore(self.tracker, last_index, conf_state)
        membership.restore_from(self, conf_state, restored)
        if hard_state is not None and not hard_state.is_empty():
            self._load(hard_state)
        if config.applied:
            self.log.applied_to(config.applied)
        election.become_follower(self, self.term, NO_NODE)
        peers = ",".join(f"{voter:x}" for voter in sorted(self.tracker.config.voters.ids()))
        self.logger.info(
            f"newRaft {self.id:x} [peers: [{peers}], term: {self.term}, "
            f"commit: {self.log.committed}, applied: {self.log.applied}, "
            f"lastindex: {last_index}, lastterm: {last_term}]"
        )

    def _load(self, state: HardState) -> None:
        log = self.log
        last = log.last_index()
        if not log.committed <= state.commit <= last:
            raise FatalError(
                f"{self.id:x} state.commit {state.commit} is out of range [{log.committed}, {last}]"
            )
        log.committed = state.commit
        self.term = state.term
        self.vote = state.vote

    # --- what a member is ---------------------------------------------------------------------

    def hard_state(self) -> HardState:
        """What must be on disk before any answer leaves."""
        return HardState(self.term, self.vote, self.log.committed)

    def soft_state(self) -> SoftState:
        """Who leads, and what this member is."""
        return SoftState(self.lead, self.state)

    def is_promotable(self) -> bool:
        """Whether it may become leader: a voter, and not about to be replaced by a snapshot."""
        own = self.tracker.progress.get(self.id)
        return own is not None and not own.is_learner and self.log.unstable.snapshot is None

    def reset(self, term: int) -> None:
        """What every change of role starts with; a new term clears the vote."""
        if self.term != term:
            self.term = term
            self.vote = NO_NODE
        self.lead = NO_NODE
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        election.reset_election_timeout(self)
        self.lead_transferee = NO_NODE
        tracker = self.tracker
        tracker.reset_votes()
        last = self.log.last_index()
        for node_id, progress in tracker.progress.items():
            tracker.progress[node_id] = Progress(
                match=last if node_id == self.id else 0,
                next=last + 1,
                inflights=tracker.new_inflights(),
                is_learner=progress.is_learner,
            )
        self.pending_conf_index = 0
        self.uncommitted_size = 0
        self.reads = ReadOnly()

    # --- time -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick has passed."""
        if self.state == StateType.LEADER:
            self._tick_leader()
            return
        self.election_elapsed += 1
        if self.election_elapsed >= self.randomized_election_timeout and self.is_promotable():
            self.election_elapsed = 0
            self.step(Message(_HUP, from_=self.id))

    def _tick_leader(self) -> None:
        self.heartbeat_elapsed += 1
        self.election_elapsed += 1
        if self.election_elapsed >= self.election_timeout:
            self.election_elapsed = 0
            if self.check_quorum:
                self.step(Message(_CHECK_QUORUM, from_=self.id))
            if self.state == StateType.LEADER:
                # A transfer that takes longer than an election timeout is given up (§3.10).
                self.lead_transferee = NO_NODE
        if self.state == StateType.LEADER and self.heartbeat_elapsed >= self.heartbeat_timeout:
            self.heartbeat_elapsed = 0
            self.step(Message(_BEAT, from_=self.id))

    # --- messages out -----------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queues a message; one that promises something waits until that is durable (§3.8).

        Votes, acknowledgements and refusals wait until term, vote and entries are on disk.
        Proposals and read requests that are passed on carry no term, like local ones.
        """
        type_ = message.type
        if not message.from_:
            message.from_ = self.id
        if type_ in _VOTING:
            if not message.term:
                raise FatalError(f"term should be set when sending {message_name(type_)}")
        else:
            if message.term:
                raise FatalError(
                    f"term should not be set when sending {message_name(type_)} "
                    f"(was {message.term})"
                )
            if type_ != _PROP and type_ != _READ_INDEX:
                message.term = self.term
        if type_ in _AFTER_APPEND:
            self.messages_after_append.append(message)
            return
        if message.to == self.id:
            raise FatalError(
                f"message should not be self-addressed when sending {message_name(type_)}"
            )
        self.messages.append(message)

    # --- messages in ------------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """Takes one message; term 0 means a local one. Raises ProposalDroppedError."""
        term = message.term
        if term > self.term:
            if not self._enter_later_term(message):
                return
        elif term < self.term and term:
            self._on_earlier_term(message)
            return
        type_ = message.type
        if type_ == _STORAGE_APPEND_RESP:
            if message.index:
                self.log.unstable.stable_to(message.log_term, message.index)
            if message.snapshot is not None:
                self._on_snapshot_durable(message.snapshot)
        elif type_ == _STORAGE_APPLY_RESP:
            if message.entries:
                index = message.entries[-1].index
                self.uncommitted_size = max(0, self.uncommitted_size - self.log.release_to(index))
                membership.applied_to(self, index)
        elif type_ in _REQUESTS:
            election.on_vote_request(self, message)
        elif type_ == _HUP:
            election.hup(self)
        else:
            _STEPS[self.state](self, message)

    def _enter_later_term(self, message: Message) -> bool:
        """Follows a later term (§3.3); False when the message is to be ignored."""
        type_ = message.type
        if type_ in _REQUESTS:
            if message.context != CAMPAIGN_TRANSFER and election.is_in_lease(self):
                election.log_ignored_in_lease(self, message)
                return False
        if type_ == _PRE_VOTE or (type_ == _PRE_VOTE_RESP and not message.reject):
            # A pre-vote, and a granted answer to one, carry a term that nobody has entered yet.
            return True
        self.logger.info(
            f"{self.id:x} [term: {self.term}] received a {message_name(type_)} message "
            f"with higher term from {message.from_:x} [term: {message.term}]"
        )
        known = message.from_ if type_ in _FROM_LEADER else NO_NODE
        election.become_follower(self, message.term, known)
        return True

    def _on_earlier_term(self, message: Message) -> None:
        type_ = message.type
        if (self.check_quorum or self.pre_vote) and type_ in _OF_LEADER:
            # Other members may ignore votes of a higher term within a lease. So the leader of an
            # older term must learn of this term by another message; otherwise this member could
            # never come back.
            self.send(Message(_APP_RESP, to=message.from_))
        elif type_ == _PRE_VOTE:
            election.reject_old_pre_vote(self, message)
        elif type_ == _STORAGE_APPEND_RESP:
            if message.index:
                # Another leader may have overwritten these entries while they were written.
                self.logger.info(
                    f"{self.id:x} [term: {self.term}] ignored entry appends from a "
                    f"{message_name(type_)} message with lower term [term: {message.term}]"
                )
            if message.snapshot is not None:
                # What a snapshot holds was committed, whatever the term.
                self._on_snapshot_durable(message.snapshot)
        else:
            self.logger.info(
                f"{self.id:x} [term: {self.term}] ignored a {message_name(type_)} message "
                f"with lower term from {message.from_:x} [term: {message.term}]"
            )

    def _on_snapshot_durable(self, snapshot: Snapshot) -> None:
        index = snapshot.meta.index
        self.log.unstable.stable_snapshot_to(index)
        membership.applied_to(self, index)

    def propose_data(self, datas: list[bytes]) -> None:
        """Proposes normal entries of its own; raises ProposalDroppedError."""
        if self.state == StateType.LEADER:
            leader.propose_data(self, datas)
            return
        entries = [Entry(data=data) for data in datas]
        self.step(Message(_PROP, from_=self.id, entries=entries))
