"""The values Raft speaks of: entries, hard state, configurations, snapshots, messages.

Plain slotted classes, because millions of them pass through the hot path. `codec` turns them into
etcd's protobuf bytes and back. Field meanings are those of etcd-io/raft's `raftpb`; sources: Raft
thesis §3, §4, §6.4, §9.6. Terms, indexes and member ids are unsigned 64-bit integers; zero means
"none". A value handed to or from the core is never changed afterwards by either side.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from keyraft.base.ids import UINT64_MAX

NO_LIMIT: Final = UINT64_MAX  # a size limit that never binds
NO_NODE: Final = 0  # "no leader", "no vote", "no transfer under way"
LOCAL_APPEND_THREAD: Final = UINT64_MAX  # target of STORAGE_APPEND: whoever writes the log
LOCAL_APPLY_THREAD: Final = UINT64_MAX - 1  # target of STORAGE_APPLY: whoever applies entries


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


class ConfChangeType(IntEnum):
    ADD_NODE = 0
    REMOVE_NODE = 1
    UPDATE_NODE = 2
    ADD_LEARNER_NODE = 3


class ConfChangeTransition(IntEnum):
    """How a change of more than one voter passes through joint consensus (Raft thesis §4.3)."""

    AUTO = 0  # simple when one change suffices, else joint and left on its own
    JOINT_IMPLICIT = 1  # joint, left on its own
    JOINT_EXPLICIT = 2  # joint until an empty change asks to leave


_LOCAL: Final = frozenset(
    {
        MessageType.HUP,
        MessageType.BEAT,
        MessageType.UNREACHABLE,
        MessageType.SNAP_STATUS,
        MessageType.CHECK_QUORUM,
        MessageType.STORAGE_APPEND,
        MessageType.STORAGE_APPEND_RESP,
        MessageType.STORAGE_APPLY,
        MessageType.STORAGE_APPLY_RESP,
    }
)
_RESPONSE: Final = frozenset(
    {
        MessageType.APP_RESP,
        MessageType.VOTE_RESP,
        MessageType.HEARTBEAT_RESP,
        MessageType.UNREACHABLE,
        MessageType.READ_INDEX_RESP,
        MessageType.PRE_VOTE_RESP,
        MessageType.STORAGE_APPEND_RESP,
        MessageType.STORAGE_APPLY_RESP,
    }
)


def is_local_message(type: int) -> bool:
    """Whether messages of this type are only ever made by the member itself."""
    return type in _LOCAL


def is_response_message(type: int) -> bool:
    """Whether messages of this type answer one of the receiver's own."""
    return type in _RESPONSE


def is_local_target(node_id: int) -> bool:
    """Whether the id stands for one of the member's own storage threads."""
    return node_id >= LOCAL_APPLY_THREAD


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


class HardState:
    """What a member must have on disk before it answers (Raft thesis §3.8)."""

    __slots__ = ("commit", "term", "vote")

    def __init__(self, term: int = 0, vote: int = 0, commit: int = 0) -> None:
        self.term = term
        self.vote = vote
        self.commit = commit

    def is_empty(self) -> bool:
        """Whether nothing was ever voted, committed or heard of."""
        return not (self.term or self.vote or self.commit)

    def __repr__(self) -> str:
        return f"HardState(term={self.term}, vote={self.vote:x}, commit={self.commit})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HardState) and (
            (self.term, self.vote, self.commit) == (other.term, other.vote, other.commit)
        )

    __hash__ = None  # type: ignore[assignment]


class ConfState:
    """Who votes and who only listens, as snapshots carry it. Not joint: `voters_outgoing` empty."""

    __slots__ = ("auto_leave", "learners", "learners_next", "voters", "voters_outgoing")

    def __init__(
        self,
        voters: list[int] | None = None,
        learners: list[int] | None = None,
        voters_outgoing: list[int] | None = None,
        learners_next: list[int] | None = None,
        auto_leave: bool = False,
    ) -> None:
        self.voters = voters if voters is not None else []
        self.learners = learners if learners is not None else []
        self.voters_outgoing = voters_outgoing if voters_outgoing is not None else []
        self.learners_next = learners_next if learners_next is not None else []
        self.auto_leave = auto_leave

    def is_equivalent(self, other: ConfState) -> bool:
        """Whether both describe the same configuration, whatever the order of ids."""
        return (
            sorted(self.voters) == sorted(other.voters)
            and sorted(self.learners) == sorted(other.learners)
            and sorted(self.voters_outgoing) == sorted(other.voters_outgoing)
            and sorted(self.learners_next) == sorted(other.learners_next)
            and self.auto_leave == other.auto_leave
        )

    def __repr__(self) -> str:
        return (
            f"ConfState(voters={self.voters}, learners={self.learners}, "
            f"voters_outgoing={self.voters_outgoing}, learners_next={self.learners_next}, "
            f"auto_leave={self.auto_leave})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfState) and (
            self.voters == other.voters
            and self.learners == other.learners
            and self.voters_outgoing == other.voters_outgoing
            and self.learners_next == other.learners_next
            and self.auto_leave == other.auto_leave
        )

    __hash__ = None  # type: ignore[assignment]


class SnapshotMeta:
    """Where in the log a snapshot stands, and the configuration there."""

    __slots__ = ("conf_state", "index", "term")

    def __init__(self, conf_state: ConfState | None = None, index: int = 0, term: int = 0) -> None:
        self.conf_state = conf_state if conf_state is not None else ConfState()
        self.index = index
        self.term = term

    def __repr__(self) -> str:
        return f"SnapshotMeta({self.term}/{self.index} {self.conf_state!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SnapshotMeta) and (
            self.index == other.index
            and self.term == other.term
            and self.conf_state == other.conf_state
        )

    __hash__ = None  # type: ignore[assignment]


class Snapshot:
    """The state machine up to `meta.index`; index 0 means there is none."""

    __slots__ = ("data", "meta")

    def __init__(self, data: bytes = b"", meta: SnapshotMeta | None = None) -> None:
        self.data = data
        self.meta = meta if meta is not None else SnapshotMeta()

    def is_empty(self) -> bool:
        """Whether this stands for "no snapshot"."""
        return self.meta.index == 0

    def __repr__(self) -> str:
        return f"Snapshot({self.meta!r}, {len(self.data)} bytes)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and self.data == other.data and self.meta == other.meta

    __hash__ = None  # type: ignore[assignment]


_MESSAGE_FIELDS: Final = (
    "commit",
    "context",
    "entries",
    "from_",
    "index",
    "log_term",
    "reject",
    "reject_hint",
    "responses",
    "snapshot",
    "term",
    "to",
    "type",
    "vote",
)


class Message:
    """What members say to each other, and to themselves.

    Which fields mean something depends on `type` (etcd-io/raft `doc.go`). `log_term` and `index`
    name the entry before `entries` (APP), the last entry (VOTE) or the acknowledged one (APP_RESP).
    `snapshot` is None when absent. `responses` only ever accompanies STORAGE_* messages.
    """

    __slots__ = _MESSAGE_FIELDS

    def __init__(
        self,
        type: int = 0,
        to: int = 0,
        from_: int = 0,
        term: int = 0,
        log_term: int = 0,
        index: int = 0,
        entries: list[Entry] | None = None,
        commit: int = 0,
        snapshot: Snapshot | None = None,
        reject: bool = False,
        reject_hint: int = 0,
        context: bytes = b"",
        vote: int = 0,
        responses: list[Message] | None = None,
    ) -> None:
        self.type = type
        self.to = to
        self.from_ = from_
        self.term = term
        self.log_term = log_term
        self.index = index
        self.entries = entries if entries is not None else []
        self.commit = commit
        self.snapshot = snapshot
        self.reject = reject
        self.reject_hint = reject_hint
        self.context = context
        self.vote = vote
        self.responses = responses if responses is not None else []

    def __repr__(self) -> str:
        fields = (f"{name}={getattr(self, name)!r}" for name in _MESSAGE_FIELDS)
        return f"Message({', '.join(fields)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and all(
            getattr(self, name) == getattr(other, name) for name in _MESSAGE_FIELDS
        )

    __hash__ = None  # type: ignore[assignment]


class ConfChangeSingle:
    """One member added, promoted, demoted, updated or removed."""

    __slots__ = ("node_id", "type")

    def __init__(self, type: int = 0, node_id: int = 0) -> None:
        self.type = type
        self.node_id = node_id

    def __repr__(self) -> str:
        return f"ConfChangeSingle(type={self.type}, node_id={self.node_id:x})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfChangeSingle) and (
            (self.type, self.node_id) == (other.type, other.node_id)
        )

    __hash__ = None  # type: ignore[assignment]


class ConfChange:
    """A change of one member, the form etcd proposes; `context` is the application's own."""

    __slots__ = ("context", "id", "node_id", "type")

    def __init__(self, type: int = 0, node_id: int = 0, context: bytes = b"", id: int = 0) -> None:
        self.id = id
        self.type = type
        self.node_id = node_id
        self.context = context

    def as_v2(self) -> ConfChangeV2:
        """The same change in the general form."""
        return ConfChangeV2([ConfChangeSingle(self.type, self.node_id)], context=self.context)

    def __repr__(self) -> str:
        return f"ConfChange(id={self.id}, type={self.type}, node_id={self.node_id:x})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfChange) and (
            (self.id, self.type, self.node_id, self.context)
            == (other.id, other.type, other.node_id, other.context)
        )

    __hash__ = None  # type: ignore[assignment]


class ConfChangeV2:
    """Any number of changes at once, through joint consensus where needed; none: leave it."""

    __slots__ = ("changes", "context", "transition")

    def __init__(
        self,
        changes: list[ConfChangeSingle] | None = None,
        transition: int = 0,
        context: bytes = b"",
    ) -> None:
        self.changes = changes if changes is not None else []
        self.transition = transition
        self.context = context

    def as_v2(self) -> ConfChangeV2:
        """Itself."""
        return self

    def enters_joint(self) -> bool:
        """Whether joint consensus is used: asked for, or more than one change."""
        return self.transition != ConfChangeTransition.AUTO or len(self.changes) > 1

    def auto_leave(self) -> bool:
        """Whether the joint configuration it enters is left without being asked to."""
        return self.transition != ConfChangeTransition.JOINT_EXPLICIT

    def leaves_joint(self) -> bool:
        """Whether this asks to leave a joint configuration."""
        return self.transition == ConfChangeTransition.AUTO and not self.changes

    def __repr__(self) -> str:
        return f"ConfChangeV2({self.changes!r}, transition={self.transition})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfChangeV2) and (
            (self.changes, self.transition, self.context)
            == (other.changes, other.transition, other.context)
        )

    __hash__ = None  # type: ignore[assignment]


class ReadState:
    """The answer to a read request: serve it once applied has reached `index`."""

    __slots__ = ("context", "index")

    def __init__(self, index: int, context: bytes) -> None:
        self.index = index
        self.context = context

    def __repr__(self) -> str:
        return f"ReadState({self.index}, {self.context!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReadState) and (
            (self.index, self.context) == (other.index, other.context)
        )

    __hash__ = None  # type: ignore[assignment]
