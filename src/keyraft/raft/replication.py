"""Sending the log to the members, and moving the commit index by what they acknowledge.

Raft thesis §3.5, §10.2.1 (pipelining), §5 (snapshots).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.raft.errors import FatalError, LogCompactedError, SnapshotTemporarilyUnavailableError
from keyraft.raft.progress import REPLICATE, Progress
from keyraft.raft.sizes import payload_size
from keyraft.raft.types import NO_LIMIT, Entry, Message, MessageType

if TYPE_CHECKING:
    from keyraft.raft.core import Raft

_APP = MessageType.APP.value
_APP_RESP = MessageType.APP_RESP.value
_SNAP = MessageType.SNAP.value
_HEARTBEAT = MessageType.HEARTBEAT.value


def append_data(raft: Raft, datas: list[bytes]) -> bool:
    """The leader appends normal entries; False when the uncommitted tail is full."""
    if raft.uncommitted_size_max < NO_LIMIT and not reserve(raft, sum(map(len, datas))):
        return False
    term = raft.term
    first = raft.log.last_index() + 1
    append_numbered(raft, [Entry(term, index, data) for index, data in enumerate(datas, first)])
    return True


def append_entries(raft: Raft, entries: list[Entry]) -> bool:
    """The same for entries of any type; they are numbered anew, the given ones left alone."""
    if raft.uncommitted_size_max < NO_LIMIT and not reserve(raft, payload_size(entries)):
        return False
    term = raft.term
    first = raft.log.last_index() + 1
    append_numbered(
        raft,
        [Entry(term, index, entry.data, entry.type) for index, entry in enumerate(entries, first)],
    )
    return True


def append_numbered(raft: Raft, entries: list[Entry]) -> None:
    """Takes entries of this term into the leader's own log and acknowledges them to itself.

    The acknowledgement is a message that waits for the disk like a follower's would: the leader
    counts itself only when its own copy is durable.
    """
    last = raft.log.append(entries)
    raft.send(Message(_APP_RESP, to=raft.id, index=last))


def reserve(raft: Raft, size: int) -> bool:
    """Counts `size` payload bytes to the uncommitted tail; False when they do not fit.

    An empty tail takes any proposal, and empty entries always fit: a new leader's first one and
    the one that leaves a joint configuration must never be refused.
    """
    if raft.uncommitted_size and size and raft.uncommitted_size + size > raft.uncommitted_size_max:
        raft.logger.warn(
            f"{raft.id:x} appending new entries to log would exceed uncommitted entry size limit; "
            "dropping proposal"
        )
        return False
    raft.uncommitted_size += size
    return True


def send_append(
    raft: Raft,
    to: int,
    progress: Progress,
    even_if_empty: bool = True,
    shared: dict[int, list[Entry]] | None = None,
) -> bool:
    """Sends the next entries, or the commit index alone; False when nothing was sent.

    A member whose next entry is compacted away gets a snapshot instead. `shared` holds what other
    members were just sent, by first index: members at the same place get the same list, which the
    transport then encodes only once.
    """
    if progress.is_paused():
        return False
    log = raft.log
    previous = progress.next - 1
    previous_term = log.term(previous)
    if previous_term is None:
        return _send_snapshot(raft, to, progress)
    entries: list[Entry] = []
    # With a full window only an empty append goes out. If everything in flight was lost, the
    # rejection of this append starts replication again.
    if progress.state != REPLICATE or not progress.inflights.full():
        known = None if shared is None else shared.get(progress.next)
        try:
            entries = log.entries(progress.next, raft.append_size_max) if known is None else known
        except LogCompactedError:
            if not even_if_empty:
                return False
            return _send_snapshot(raft, to, progress)
        if shared is not None:
            shared[progress.next] = entries
    if not entries and not even_if_empty:
        return False
    committed = log.committed
    raft.send(
        Message(
            _APP,
            to=to,
            log_term=previous_term,
            index=previous,
            entries=entries,
            commit=committed,
        )
    )
    size = payload_size(entries) if progress.inflights.bytes_max else 0
    progress.sent_entries(len(entries), size)
    progress.sent_commit = committed
    return True


def _send_snapshot(raft: Raft, to: int, progress: Progress) -> bool:
    logger = raft.logger
    if not progress.recent_active:
        logger.debug(f"ignore sending snapshot to {to:x} since it is not recently active")
        return False
    try:
        snapshot = raft.log.snapshot()
    except SnapshotTemporarilyUnavailableError:
        logger.debug(
            f"{raft.id:x} failed to send snapshot to {to:x} "
            "because snapshot is temporarily unavailable"
        )
        return False
    if snapshot.is_empty():
        raise FatalError("need non-empty snapshot")
    meta = snapshot.meta
    logger.debug(
        f"{raft.id:x} [firstindex: {raft.log.first_index()}, commit: {raft.log.committed}] "
        f"sent snapshot[index: {meta.index}, term: {meta.term}] to {to:x} [{progress}]"
    )
    progress.become_snapshot(meta.index)
    logger.debug(f"{raft.id:x} paused sending replication messages to {to:x} [{progress}]")
    raft.send(Message(_SNAP, to=to, snapshot=snapshot))
    return True


def broadcast_append(raft: Raft) -> None:
    """Sends to everybody who may be sent to."""
    shared: dict[int, list[Entry]] = {}
    for node_id, progress in raft.tracker.others(raft.id):
        send_append(raft, node_id, progress, shared=shared)


def broadcast_heartbeat(raft: Raft) -> None:
    """Tells everybody that the leader lives, and confirms waiting reads by the answers."""
    context = raft.reads.heartbeat_context()
    for node_id, progress in raft.tracker.others(raft.id):
        # A follower may lack some committed entries, so it is told no commit index above what is
        # known to match.
        commit = min(progress.match, raft.log.committed)
        raft.send(Message(_HEARTBEAT, to=node_id, commit=commit, context=context))
        progress.sent_commit = commit


def maybe_commit(raft: Raft) -> bool:
    """Commits what a quorum holds, if it is of this term (§3.6.2); whether that was news."""
    return raft.log.maybe_commit(raft.term, raft.tracker.committed())
