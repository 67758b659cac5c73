"""Raft as the member drives it: messages, proposals and ticks in, Ready out.

    while has_ready():
        ready = ready()
        write ready.entries, ready.hard_state and ready.snapshot   (sync when must_sync)
        send ready.messages, apply ready.snapshot and ready.committed_entries
        advance()

Messages of a Ready may only be sent when what it carries is durable. With asynchronous storage
writes there is no advance: messages may be sent at once, STORAGE_APPEND and STORAGE_APPLY are
carried out in order by the threads that write and apply. When that is done their `responses` are
delivered, to this member through `step`. Not thread-safe. The lists of a Ready belong to the
caller; nobody may change the entries in them.
"""

from __future__ import annotations

from dataclasses import dataclass

from keyraft.raft import bounds, codec, election, membership
from keyraft.raft.config import RaftConfig
from keyraft.raft.core import Raft
from keyraft.raft.errors import (
    FatalError,
    RaftError,
    StepLocalMessageError,
    StepPeerNotFoundError,
)
from keyraft.raft.invariants import check_state
from keyraft.raft.progress import Progress
from keyraft.raft.state import SoftState, StateType
from keyraft.raft.storage import Storage
from keyraft.raft.tracker import TrackerConfig
from keyraft.raft.types import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    NO_LIMIT,
    NO_NODE,
    ConfChange,
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
    is_local_message,
    is_local_target,
    is_response_message,
)

_RESPONSES = frozenset(each.value for each in MessageType if is_response_message(each.value))

# Messages that always carry a term, and those of them that a member also sends to itself.
_WITH_TERM = frozenset(
    {
        MessageType.APP.value,
        MessageType.APP_RESP.value,
        MessageType.VOTE.value,
        MessageType.VOTE_RESP.value,
        MessageType.SNAP.value,
        MessageType.HEARTBEAT.value,
        MessageType.HEARTBEAT_RESP.value,
        MessageType.TIMEOUT_NOW.value,
        MessageType.READ_INDEX_RESP.value,
        MessageType.PRE_VOTE.value,
        MessageType.PRE_VOTE_RESP.value,
    }
)
_TO_ITSELF = frozenset(
    {MessageType.APP_RESP.value, MessageType.VOTE_RESP.value, MessageType.PRE_VOTE_RESP.value}
)
_PROP = MessageType.PROP.value
_STORAGE_APPEND = MessageType.STORAGE_APPEND.value
_STORAGE_APPEND_RESP = MessageType.STORAGE_APPEND_RESP.value
_STORAGE_APPLY = MessageType.STORAGE_APPLY.value
_STORAGE_APPLY_RESP = MessageType.STORAGE_APPLY_RESP.value


class Ready:
    """Work for the member; every field may be empty.

    `soft_state` and `hard_state` are None when they have not changed. `must_sync`: entries, term
    or vote are new, so the write must be durable; a commit index alone need not be.
    """

    __slots__ = (
        "committed_entries",
        "entries",
        "hard_state",
        "messages",
        "must_sync",
        "read_states",
        "snapshot",
        "soft_state",
    )

    def __init__(self) -> None:
        self.soft_state: SoftState | None = None
        self.hard_state: HardState | None = None
        self.read_states: list[ReadState] = []
        self.entries: list[Entry] = []
        self.snapshot: Snapshot | None = None
        self.committed_entries: list[Entry] = []
        self.messages: list[Message] = []
        self.must_sync = False


@dataclass(slots=True, frozen=True)
class Status:
    """A member's view of itself and, on a leader, of the others; a copy."""

    id: int
    hard_state: HardState
    soft_state: SoftState
    applied: int
    lead_transferee: int
    config: TrackerConfig
    progress: dict[int, Progress]


@dataclass(slots=True, frozen=True)
class BootstrapPeer:
    """A first member; `context` goes into the configuration change that adds it."""

    id: int
    context: bytes = b""


class RawNode:
    """One member's Raft behind the contract above."""

    __slots__ = ("_async", "_hard_state", "_soft_state", "_steps", "raft")

    def __init__(self, config: RaftConfig, storage: Storage) -> None:
        self.raft = Raft(config, storage)
        self._async = config.async_storage_writes
        self._soft_state = self.raft.soft_state()  # as handed out last
        self._hard_state = self.raft.hard_state()
        self._steps: list[Message] = []  # what advance() takes in

    def bootstrap(self, peers: list[BootstrapPeer]) -> None:
        """Starts an empty log with the configuration changes that add `peers`, all committed.

        They are applied here as well, so that the member may campaign before it has applied them.
        """
        raft = self.raft
        if not peers:
            raise RaftError("must provide at least one peer to Bootstrap")
        if raft.log.storage.last_index():
            raise RaftError("can't bootstrap a nonempty Storage")
        self._hard_state = HardState()
        election.become_follower(raft, 1, NO_NODE)
        changes = [ConfChange(ConfChangeType.ADD_NODE.value, p.id, p.context) for p in peers]
        raft.log.append(
            [
                Entry(1, index, codec.encode_conf_change(change), EntryType.CONF_CHANGE.value)
                for index, change in enumerate(changes, 1)
            ]
        )
        raft.log.committed = len(changes)
        for change in changes:
            membership.apply(raft, change.as_v2())

    # --- in -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick has passed."""
        self.raft.tick()

    def step_from_peer(self, message: Message) -> None:
        """Checks and steps a message of a peer; raises PeerMessageError and what `step` raises."""
        bounds.check(self.raft, message)
        self._check_sender(message)
        self.raft.step(message)

    def check_from_peer(self, message: Message) -> None:
        """Only checks a message of a peer; raises PeerMessageError."""
        bounds.check(self.raft, message)

    def step(self, message: Message) -> None:
        """Takes a message from another member, or a storage response from the member itself.

        Raises ProposalDroppedError, StepLocalMessageError, StepPeerNotFoundError.
        """
        if not is_local_target(message.from_):
            if is_local_message(message.type):
                raise StepLocalMessageError
            self._check_sender(message)
        self.raft.step(message)

    def _check_sender(self, message: Message) -> None:
        """Whether its sender may say it. Raises StepLocalMessageError, StepPeerNotFoundError."""
        type_ = message.type
        if type_ in _RESPONSES and message.from_ not in self.raft.tracker.progress:
            raise StepPeerNotFoundError
        if type_ in _WITH_TERM and (
            not message.term
            or (message.from_ == self.raft.id and (message.reject or type_ not in _TO_ITSELF))
        ):
            # DEVIATION: etcd's library panics on a vote without a term, and on an answer that
            # names this member as its sender. It takes a leader's message without a term for
            # one of the present leader. It would follow itself.
            raise StepLocalMessageError

    def campaign(self) -> None:
        """Starts an election now."""
        self.raft.step(Message(MessageType.HUP.value))

    def propose(self, datas: list[bytes]) -> None:
        """Proposes normal entries, all or none; raises ProposalDroppedError.

        At a follower they are forwarded in one message; they may be lost without notice.
        """
        assert datas, "nothing to propose"
        self.raft.propose_data(datas)

    def propose_conf_change(self, change: ConfChange | ConfChangeV2) -> None:
        """Proposes a change; raises ProposalDroppedError.

        A leader that cannot make it now appends an empty entry in its place.
        """
        if isinstance(change, ConfChange):
            entry = Entry(data=codec.encode_conf_change(change), type=EntryType.CONF_CHANGE.value)
        else:
            entry = Entry(
                data=codec.encode_conf_change_v2(change), type=EntryType.CONF_CHANGE_V2.value
            )
        self.raft.step(Message(_PROP, entries=[entry]))

    def apply_conf_change(self, change: ConfChange | ConfChangeV2, index: int = 0) -> ConfState:
        """Makes a committed change; the caller may have cleared its node ids to cancel it.

        A caller that applies entries later than their Ready gives the entry's `index`. A snapshot
        may have come meanwhile, with a configuration that has this change and later ones. Raft may
        ask the storage for a snapshot during this call. Raises ConfChangeError; then nothing has
        changed.
        """
        return membership.apply(self.raft, change.as_v2(), index)

    def read_index(self, context: bytes) -> None:
        """Asks for a ReadState with this context; it may never come, so ask again."""
        self.raft.step(Message(MessageType.READ_INDEX.value, entries=[Entry(data=context)]))

    def transfer_leader(self, to: int) -> None:
        """Asks the leader to hand over to `to`."""
        self.raft.step(Message(MessageType.TRANSFER_LEADER.value, from_=to))

    def forget_leader(self) -> None:
        """A follower forgets who leads, so that it grants votes again."""
        self.raft.step(Message(MessageType.FORGET_LEADER.value))

    def report_unreachable(self, node_id: int) -> None:
        """The last message to a member was probably lost."""
        self.raft.step(Message(MessageType.UNREACHABLE.value, from_=node_id))

    def report_snapshot(self, node_id: int, ok: bool) -> None:
        """The snapshot sent to a member has arrived, or has not."""
        self.raft.step(Message(MessageType.SNAP_STATUS.value, from_=node_id, reject=not ok))

    # --- out ------------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether `ready` would carry anything."""
        raft = self.raft
        log = raft.log
        if raft.messages or raft.messages_after_append or raft.read_states:
            return True
        if log.unstable.has_next_entries() or log.has_next_committed(not self._async):
            return True
        if raft.lead != self._soft_state.lead or raft.state != self._soft_state.state:
            return True
        if self._is_hard_state_new():
            return True
        return log.unstable.next_snapshot() is not None

    def _is_hard_state_new(self) -> bool:
        raft, old = self.raft, self._hard_state
        return (
            raft.log.committed != old.commit or raft.term != old.term or raft.vote != old.vote
        ) and bool(raft.log.committed or raft.term or raft.vote)

    def ready(self) -> Ready:
        """The work that has come up; must be carried out, and then advanced."""
        raft = self.raft
        log = raft.log
        if self._steps:
            raise FatalError("two accepted Ready structs without call to Advance")
        out = Ready()
        out.entries = log.unstable.next_entries()
        out.committed_entries, size = log.next_committed(not self._async)
        out.messages = raft.messages
        if raft.lead != self._soft_state.lead or raft.state != self._soft_state.state:
            out.soft_state = self._soft_state = raft.soft_state()
        old = self._hard_state
        out.must_sync = bool(out.entries) or raft.term != old.term or raft.vote != old.vote
        if self._is_hard_state_new():
            out.hard_state = self._hard_state = raft.hard_state()
        out.snapshot = log.unstable.next_snapshot()
        if raft.read_states:
            out.read_states = raft.read_states
            raft.read_states = []
        if self._async:
            self._add_storage_messages(out)
        else:
            self._add_steps(out)
        raft.messages = []
        raft.messages_after_append = []
        log.unstable.accept_in_progress()
        if out.committed_entries:
            log.accept_applying(
                out.committed_entries,
                size,
                allow_unstable=not self._async,
                count_payload=raft.uncommitted_size_max < NO_LIMIT,
            )
        return out

    def advance(self) -> None:
        """The last Ready has been carried out."""
        if self._async:
            raise FatalError("Advance must not be called when using AsyncStorageWrites")
        steps = self._steps
        self._steps = []
        for message in steps:
            self.raft.step(message)

    def _add_steps(self, ready: Ready) -> None:
        own = self.raft.id
        for message in self.raft.messages_after_append:
            (self._steps if message.to == own else ready.messages).append(message)
        response = self._append_response(ready)
        if response is not None:
            self._steps.append(response)
        if ready.committed_entries:
            self._steps.append(self._apply_response(ready.committed_entries))

    def _add_storage_messages(self, ready: Ready) -> None:
        raft = self.raft
        state, snapshot = ready.hard_state, ready.snapshot
        if ready.entries or state is not None or snapshot or raft.messages_after_append:
            append = Message(
                _STORAGE_APPEND,
                to=LOCAL_APPEND_THREAD,
                from_=raft.id,
                entries=ready.entries,
                snapshot=snapshot,
                responses=raft.messages_after_append,
            )
            if state is not None:
                append.term = state.term
                append.vote = state.vote
                append.commit = state.commit
            # This response comes behind the member's own acknowledgement. The acknowledgement reads
            # terms of entries that this response takes out of the unstable log.
            response = self._append_response(ready)
            if response is not None:
                append.responses.append(response)
            ready.messages.append(append)
        if ready.committed_entries:
            ready.messages.append(
                Message(
                    _STORAGE_APPLY,
                    to=LOCAL_APPLY_THREAD,
                    from_=raft.id,
                    entries=ready.committed_entries,
                    responses=[self._apply_response(ready.committed_entries)],
                )
            )

    def _append_response(self, ready: Ready) -> Message | None:
        """The message that tells Raft that everything handed out so far is durable.

        It names the end of the log and the present term. It counts only while that term lasts: in a
        later term, entries still on their way to the disk could overwrite what this response
        declares durable (etcd-io/raft calls it the ABA race). As long as anything is not durable,
        each Ready has such a response, so a response of the later term replaces one that was
        ignored.
        """
        raft = self.raft
        log = raft.log
        if not log.unstable.entries and ready.snapshot is None:
            return None
        response = Message(
            _STORAGE_APPEND_RESP, to=raft.id, from_=LOCAL_APPEND_THREAD, term=raft.term
        )
        if log.unstable.entries:
            response.log_term, response.index = log.last_id()
        response.snapshot = ready.snapshot
        return response

    def _apply_response(self, entries: list[Entry]) -> Message:
        return Message(
            _STORAGE_APPLY_RESP, to=self.raft.id, from_=LOCAL_APPLY_THREAD, entries=entries
        )

    # --- questions ------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises InvariantError when the member's state contradicts itself; walks the whole of
        what is not durable yet, so for tests and verifying runs."""
        check_state(self.raft)

    def status(self) -> Status:
        """A copy of the member's state, with everybody's progress on a leader."""
        raft = self.raft
        progress: dict[int, Progress] = {}
        if raft.state == StateType.LEADER:
            for node_id in raft.tracker.order:
                copy = raft.tracker.progress[node_id].copy()
                copy.inflights = copy.inflights.copy()
                progress[node_id] = copy
        return Status(
            id=raft.id,
            hard_state=raft.hard_state(),
            soft_state=raft.soft_state(),
            applied=raft.log.applied,
            lead_transferee=raft.lead_transferee,
            config=raft.tracker.config.copy(),
            progress=progress,
        )
