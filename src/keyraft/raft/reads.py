"""Linearizable reads: the commit index at which a read may be served (Raft thesis §6.4).

The leader answers when a quorum has confirmed, after the read came, that it still leads; with
leases it answers at once, and so does a single voter: nobody else could lead. Before it has
committed an entry of its own term a leader does not know what is committed, and reads wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.raft import replication
from keyraft.raft.config import ReadOnlyOption
from keyraft.raft.types import NO_NODE, Message, MessageType, ReadState

if TYPE_CHECKING:
    from keyraft.raft.core import Raft

_READ_INDEX_RESP = MessageType.READ_INDEX_RESP.value


def on_request(raft: Raft, message: Message) -> None:
    """A leader was asked for a read index, by its own application or by a follower."""
    if not message.entries:
        # DEVIATION: etcd's library panics on a peer's request that has no context.
        raft.logger.error(
            f"{raft.id:x} invalid format of MsgReadIndex from {message.from_:x}, entries count: 0"
        )
        return
    if not has_committed_in_term(raft):
        # DEVIATION: etcd's library answers at once where there is a single voter. Restarted with
        # a commit index from before its last writes, it would answer with that until the first
        # entry of its new term is durable, and reads would miss what was acknowledged before.
        raft.pending_reads.append(message)
    else:
        _confirm(raft, message)


def has_committed_in_term(raft: Raft) -> bool:
    """Whether an entry of this term is committed."""
    return raft.log.term(raft.log.committed) == raft.term


def release_pending(raft: Raft) -> None:
    """The first entry of this term is committed: reads that waited for it go on."""
    if not raft.pending_reads:
        return
    if not has_committed_in_term(raft):
        raft.logger.error(
            "pending MsgReadIndex should be released only after first commit in current term"
        )
        return
    pending = raft.pending_reads
    raft.pending_reads = []
    for message in pending:
        _confirm(raft, message)


def _confirm(raft: Raft, message: Message) -> None:
    # DEVIATION: etcd's library asks only whether there is a single voter. A removed leader whose
    # configuration has one voter left would go on answering, although that voter leads by now.
    is_alone = raft.tracker.is_only_voter(raft.id)
    if is_alone or raft.read_only_option == ReadOnlyOption.LEASE_BASED:
        answer(raft, message, raft.log.committed)
        return
    reads = raft.reads
    reads.add(message, raft.log.committed)
    reads.receive_ack(raft.id, reads.heartbeat_context())
    replication.broadcast_heartbeat(raft)


def on_heartbeat_ack(raft: Raft, message: Message) -> None:
    """A follower has answered a heartbeat that confirms reads."""
    raft.reads.receive_ack(message.from_, message.context)
    for request, index in raft.reads.advance(raft.tracker.config.voters):
        answer(raft, request, index)


def answer(raft: Raft, request: Message, index: int) -> None:
    """Answers a read request: of the own application by a ReadState, of a follower by a message."""
    if request.from_ in (NO_NODE, raft.id):
        raft.read_states.append(ReadState(index, request.entries[0].data))
        return
    raft.send(Message(_READ_INDEX_RESP, to=request.from_, index=index, entries=request.entries))
