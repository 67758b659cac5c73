"""What a peer may say: a message must keep these bounds before anything of it is used or stored.

A member stores the terms, indexes and configurations that others send, and calculates with them. So
it accepts only what it can write, read again and continue from:

    type        one that members send to each other, never one that a member tells itself
    sender      a valid member id; this member's own id only on messages that others pass on
    term        none on PROP and READ_INDEX; at most TERM_MAX, and, once this member has a term of
                its own, no more than TERM_LEAP_MAX above it: an election adds one
    indexes     at most INDEX_MAX; a commit index that comes without entries is in the log already
    entries     at most ENTRIES_MAX, and changes of the configuration decode
    snapshot    behind an entry, of a term no later than the message's, at most MEMBERS_MAX ids
    context     at most CONTEXT_BYTES_MAX; one for each request for a read index

A message that breaks a bound is refused as a whole: this member does not follow its term, takes
none of its entries and does not answer.

DEVIATION: etcd's library believes all of it and panics when a commit index is beyond its log, when
the next term overflows, or when what it has written is read again.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from keyraft.raft.errors import PeerMessageError
from keyraft.raft.limits import (
    CONTEXT_BYTES_MAX,
    ENTRIES_MAX,
    INDEX_BITS,
    MEMBERS_MAX,
    READS_WAITING_MAX,
    TERM_LEAP_MAX,
    TERM_MAX,
)
from keyraft.raft.membership import readable_change
from keyraft.raft.names import message_name
from keyraft.raft.types import LOCAL_APPLY_THREAD, ConfState, Message, MessageType

if TYPE_CHECKING:
    from keyraft.raft.core import Raft

_ENTRY_TYPE: Final = attrgetter("type")  # zero for a normal entry
_PROP: Final = MessageType.PROP.value
_APP: Final = MessageType.APP.value
_SNAP: Final = MessageType.SNAP.value
_HEARTBEAT: Final = MessageType.HEARTBEAT.value
_READ_INDEX: Final = MessageType.READ_INDEX.value
_READ_INDEX_RESP: Final = MessageType.READ_INDEX_RESP.value

_PASSED_ON: Final = frozenset({_PROP, _READ_INDEX, MessageType.TRANSFER_LEADER.value})
_BETWEEN_MEMBERS: Final = _PASSED_ON | {
    _APP,
    MessageType.APP_RESP.value,
    MessageType.VOTE.value,
    MessageType.VOTE_RESP.value,
    _SNAP,
    _HEARTBEAT,
    MessageType.HEARTBEAT_RESP.value,
    MessageType.TIMEOUT_NOW.value,
    _READ_INDEX_RESP,
    MessageType.PRE_VOTE.value,
    MessageType.PRE_VOTE_RESP.value,
}
_WITHOUT_TERM: Final = frozenset({_PROP, _READ_INDEX})
_READS: Final = frozenset({_READ_INDEX, _READ_INDEX_RESP})
_LOOKED_INTO: Final = _READS | {_APP, _HEARTBEAT, _SNAP}


def check(raft: Raft, message: Message) -> None:
    """Raises PeerMessageError for a message of a peer that breaks a bound."""
    type_ = message.type
    if type_ not in _BETWEEN_MEMBERS:
        raise _refusal(message, "no message between members")
    if not 0 < message.from_ < LOCAL_APPLY_THREAD or (
        message.from_ == raft.id and type_ not in _PASSED_ON
    ):
        raise _refusal(message, f"sender {message.from_:x}")
    term = message.term
    if term > raft.term:
        if term > TERM_MAX or (raft.term and term - raft.term > TERM_LEAP_MAX):
            raise _refusal(message, f"term {term} is too far ahead of {raft.term}")
        if type_ in _WITHOUT_TERM:
            raise _refusal(message, f"term {term} where none belongs")
    if (message.index | message.commit | message.log_term | message.reject_hint) >> INDEX_BITS:
        raise _refusal(message, "an index or term that no log reaches")
    if message.context and len(message.context) > CONTEXT_BYTES_MAX:
        raise _refusal(message, f"a context of {len(message.context)} bytes")
    if message.responses:
        raise _refusal(message, "responses to a member's own storage")
    entries = message.entries
    if entries and len(entries) > ENTRIES_MAX:
        raise _refusal(message, f"{len(entries)} entries")
    if type_ not in _LOOKED_INTO:
        return
    if type_ == _APP:
        if any(map(_ENTRY_TYPE, entries)):
            _check_changes(message)
    elif type_ == _HEARTBEAT:
        last = raft.log.last_index()
        if message.commit > last and term >= raft.term:
            raise _refusal(
                message,
                f"tocommit({message.commit}) is out of range [lastIndex({last})]. "
                "Was the raft log corrupted, truncated, or lost?",
            )
    elif type_ == _SNAP:
        _check_snapshot(message)
    elif type_ in _READS:
        if len(entries) != 1 or len(entries[0].data) > CONTEXT_BYTES_MAX:
            raise _refusal(message, "no single context")
        if len(raft.pending_reads) + len(raft.reads) >= READS_WAITING_MAX:
            raise _refusal(message, "too many requests for a read index are waiting")


def _check_changes(message: Message) -> None:
    for entry in message.entries:
        if entry.type and readable_change(entry) is None:
            raise _refusal(message, f"entry {entry.index} is no configuration change")


def _check_snapshot(message: Message) -> None:
    snapshot = message.snapshot
    if snapshot is None or not snapshot.meta.index or not snapshot.meta.term:
        raise _refusal(message, "no snapshot")
    meta = snapshot.meta
    if meta.index >> INDEX_BITS or meta.term > message.term:
        raise _refusal(message, f"a snapshot of index {meta.index}, term {meta.term}")
    if conf_state_size(meta.conf_state) > MEMBERS_MAX:
        raise _refusal(message, f"a configuration of {conf_state_size(meta.conf_state)} members")


def conf_state_size(state: ConfState) -> int:
    """How many ids a configuration lists, those named twice counted twice."""
    return (
        len(state.voters)
        + len(state.learners)
        + len(state.voters_outgoing)
        + len(state.learners_next)
    )


def _refusal(message: Message, why: str) -> PeerMessageError:
    return PeerMessageError(f"raft: {message_name(message.type)} from {message.from_:x}: {why}")
