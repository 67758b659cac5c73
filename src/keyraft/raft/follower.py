"""What followers and candidates do with each message. They ignore a type that has no key here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keyraft.raft import confchange, election, membership, replication
from keyraft.raft.config import ReadOnlyOption
from keyraft.raft.errors import ConfChangeError, ProposalDroppedError
from keyraft.raft.names import message_name
from keyraft.raft.quorum import VoteResult
from keyraft.raft.state import StateType
from keyraft.raft.tracker import ProgressTracker
from keyraft.raft.types import NO_NODE, Message, MessageType, ReadState, Snapshot

if TYPE_CHECKING:
    from keyraft.raft.core import Raft

_APP_RESP = MessageType.APP_RESP.value
_HEARTBEAT_RESP = MessageType.HEARTBEAT_RESP.value
_VOTE_RESP = MessageType.VOTE_RESP.value
_PRE_VOTE_RESP = MessageType.PRE_VOTE_RESP.value


# --- what both do with a leader's messages --------------------------------------------------------


def _handle_append(raft: Raft, message: Message) -> None:
    """Appends what fits on the log, or says where it might fit (Raft thesis §3.5)."""
    log = raft.log
    if message.index < log.committed:
        raft.send(Message(_APP_RESP, to=message.from_, index=log.committed))
        return
    if not _is_consecutive(message):
        # DEVIATION: etcd's library believes the peer, and panics or does worse later.
        raft.logger.error(
            f"{raft.id:x} invalid entries in {message_name(message.type)} from {message.from_:x}"
        )
        return
    last_new = log.maybe_append(message.log_term, message.index, message.entries, message.commit)
    if last_new is not None:
        raft.send(Message(_APP_RESP, to=message.from_, index=last_new))
        return
    raft.logger.debug(
        f"{raft.id:x} [logterm: {log.term(message.index) or 0}, index: {message.index}] rejected "
        f"MsgApp [logterm: {message.log_term}, index: {message.index}] from {message.from_:x}"
    )
    # The logs can only meet at an entry whose term is no later than the one the leader named.
    hint_index, hint_term = log.find_conflict_by_term(
        min(message.index, log.last_index()), message.log_term
    )
    raft.send(
        Message(
            _APP_RESP,
            to=message.from_,
            index=message.index,
            reject=True,
            reject_hint=hint_index,
            log_term=hint_term,
        )
    )


def _is_consecutive(message: Message) -> bool:
    """Whether indexes go up by one from the previous entry's and terms never fall."""
    entries = message.entries
    if not entries:
        return True
    first = message.index + 1
    if [entry.index for entry in entries] != list(range(first, first + len(entries))):
        return False
    terms = [message.log_term, *[entry.term for entry in entries], message.term]
    return terms == sorted(terms)


def _handle_heartbeat(raft: Raft, message: Message) -> None:
    raft.log.commit_to(message.commit)
    raft.send(Message(_HEARTBEAT_RESP, to=message.from_, context=message.context))


def _handle_snapshot(raft: Raft, message: Message) -> None:
    snapshot = message.snapshot if message.snapshot is not None else Snapshot()
    restored = restore(raft, snapshot)
    raft.logger.info(
        f"{raft.id:x} [commit: {raft.log.committed}] {'restored' if restored else 'ignored'} "
        f"snapshot [index: {snapshot.meta.index}, term: {snapshot.meta.term}]"
    )
    index = raft.log.last_index() if restored else raft.log.committed
    raft.send(Message(_APP_RESP, to=message.from_, index=index))


def restore(raft: Raft, snapshot: Snapshot) -> bool:
    """Replaces log and configuration by the snapshot's; False when it is of no use.

    It is of no use when it is older than what is committed, when the log already reaches it (the
    commit index then moves there), or when this member is not in its configuration.
    """
    meta = snapshot.meta
    log = raft.log
    if meta.index <= log.committed:
        return False
    if raft.state != StateType.FOLLOWER:
        raft.logger.warn(
            f"{raft.id:x} attempted to restore snapshot as leader; should never happen"
        )
        election.become_follower(raft, raft.term + 1, NO_NODE)
        return False
    state = meta.conf_state
    # Whoever is in learners_next is in voters_outgoing too.
    if raft.id not in {*state.voters, *state.learners, *state.voters_outgoing}:
        raft.logger.warn(
            f"{raft.id:x} attempted to restore snapshot but it is not in the ConfState {state}; "
            "should never happen"
        )
        return False
    if raft.term < meta.term and raft.term:
        # DEVIATION: no leader has a snapshot of a later term than its own; etcd's library takes it.
        raft.logger.error(
            f"{raft.id:x} [term: {raft.term}] refused a snapshot of a later term "
            f"[index: {meta.index}, term: {meta.term}]"
        )
        return False
    if log.term(meta.index) == meta.term:
        last_term, last_index = log.last_id()
        raft.logger.info(
            f"{raft.id:x} [commit: {log.committed}, lastindex: {last_index}, "
            f"lastterm: {last_term}] fast-forwarded commit to snapshot "
            f"[index: {meta.index}, term: {meta.term}]"
        )
        log.commit_to(meta.index)
        return False
    tracker = raft.tracker
    fresh = ProgressTracker(tracker.inflight_messages_max, tracker.inflight_bytes_max)
    try:
        config, progress = confchange.restore(fresh, meta.index, state)
    except ConfChangeError as error:
        problem = str(error)
    else:
        problem = "" if state.is_equivalent(config.conf_state()) else "it says things twice"
    if problem:
        # DEVIATION: etcd's library panics; nothing has been changed yet, so refusing is enough.
        raft.logger.error(f"{raft.id:x} unable to restore config {state}: {problem}")
        return False
    log.restore(snapshot)
    raft.tracker = fresh
    raft.conf_snapshot_index = meta.index
    membership.switch_to(raft, config, progress)
    last_term, last_index = log.last_id()
    raft.logger.info(
        f"{raft.id:x} [commit: {log.committed}, lastindex: {last_index}, "
        f"lastterm: {last_term}] restored snapshot [index: {meta.index}, term: {meta.term}]"
    )
    return True


# --- follower -------------------------------------------------------------------------------------


def _forward(raft: Raft, message: Message) -> None:
    raft.send(
        Message(
            message.type,
            to=raft.lead,
            from_=message.from_,
            entries=message.entries,
            context=message.context,
        )
    )


def _follower_propose(raft: Raft, message: Message) -> None:
    if not raft.lead:
        raft.logger.info(f"{raft.id:x} no leader at term {raft.term}; dropping proposal")
        raise ProposalDroppedError
    if raft.disable_proposal_forwarding:
        raft.logger.info(
            f"{raft.id:x} not forwarding to leader {raft.lead:x} at term {raft.term}; "
            "dropping proposal"
        )
        raise ProposalDroppedError
    _forward(raft, message)


def _follow(raft: Raft, message: Message) -> None:
    raft.election_elapsed = 0
    raft.lead = message.from_


def _follower_append(raft: Raft, message: Message) -> None:
    _follow(raft, message)
    _handle_append(raft, message)


def _follower_heartbeat(raft: Raft, message: Message) -> None:
    _follow(raft, message)
    _handle_heartbeat(raft, message)


def _follower_snapshot(raft: Raft, message: Message) -> None:
    _follow(raft, message)
    _handle_snapshot(raft, message)


def _follower_transfer_leader(raft: Raft, message: Message) -> None:
    if not raft.lead:
        raft.logger.info(f"{raft.id:x} no leader at term {raft.term}; dropping leader transfer msg")
        return
    _forward(raft, message)


def _follower_forget_leader(raft: Raft, message: Message) -> None:
    if raft.read_only_option == ReadOnlyOption.LEASE_BASED:
        # Within the lease this member must not help to elect another leader.
        raft.logger.error("ignoring MsgForgetLeader due to ReadOnlyLeaseBased")
        return
    if raft.lead:
        raft.logger.info(f"{raft.id:x} forgetting leader {raft.lead:x} at term {raft.term}")
        raft.lead = NO_NODE


def _follower_timeout_now(raft: Raft, message: Message) -> None:
    raft.logger.info(
        f"{raft.id:x} [term {raft.term}] received MsgTimeoutNow from {message.from_:x} "
        "and starts an election to get leadership."
    )
    election.hup(raft, transfer=True)


def _follower_read_index(raft: Raft, message: Message) -> None:
    if not raft.lead:
        raft.logger.info(f"{raft.id:x} no leader at term {raft.term}; dropping index reading msg")
        return
    _forward(raft, message)


def _follower_read_index_response(raft: Raft, message: Message) -> None:
    if len(message.entries) != 1:
        raft.logger.error(
            f"{raft.id:x} invalid format of MsgReadIndexResp from {message.from_:x}, "
            f"entries count: {len(message.entries)}"
        )
        return
    raft.read_states.append(ReadState(message.index, message.entries[0].data))


_FOLLOWER: dict[int, Callable[[Raft, Message], None]] = {
    MessageType.PROP.value: _follower_propose,
    MessageType.APP.value: _follower_append,
    MessageType.HEARTBEAT.value: _follower_heartbeat,
    MessageType.SNAP.value: _follower_snapshot,
    MessageType.TRANSFER_LEADER.value: _follower_transfer_leader,
    MessageType.FORGET_LEADER.value: _follower_forget_leader,
    MessageType.TIMEOUT_NOW.value: _follower_timeout_now,
    MessageType.READ_INDEX.value: _follower_read_index,
    MessageType.READ_INDEX_RESP.value: _follower_read_index_response,
}


def step_follower(raft: Raft, message: Message) -> None:
    """One message of this term, or a local one; raises ProposalDroppedError."""
    handler = _FOLLOWER.get(message.type)
    if handler is not None:
        handler(raft, message)


# --- candidate and pre-candidate ------------------------------------------------------------------


def _candidate_propose(raft: Raft, message: Message) -> None:
    raft.logger.info(f"{raft.id:x} no leader at term {raft.term}; dropping proposal")
    raise ProposalDroppedError


def _candidate_append(raft: Raft, message: Message) -> None:
    election.become_follower(raft, raft.term, message.from_)
    _handle_append(raft, message)


def _candidate_heartbeat(raft: Raft, message: Message) -> None:
    election.become_follower(raft, raft.term, message.from_)
    _handle_heartbeat(raft, message)


def _candidate_snapshot(raft: Raft, message: Message) -> None:
    election.become_follower(raft, raft.term, message.from_)
    _handle_snapshot(raft, message)


def _candidate_vote_response(raft: Raft, message: Message) -> None:
    is_pre_candidate = raft.state == StateType.PRE_CANDIDATE
    if message.type != (_PRE_VOTE_RESP if is_pre_candidate else _VOTE_RESP):
        # A late answer to the pre-vote of the same candidacy.
        return
    result = election.poll(raft, message.from_, message.type, not message.reject)
    if result == VoteResult.WON:
        if is_pre_candidate:
            election.campaign(raft, pre_vote=False)
        else:
            election.become_leader(raft)
            replication.broadcast_append(raft)
    elif result == VoteResult.LOST:
        # A granted pre-vote carries a future term; this one stays.
        election.become_follower(raft, raft.term, NO_NODE)


def _candidate_timeout_now(raft: Raft, message: Message) -> None:
    raft.logger.debug(
        f"{raft.id:x} [term {raft.term} state {raft.state}] ignored MsgTimeoutNow "
        f"from {message.from_:x}"
    )


_CANDIDATE: dict[int, Callable[[Raft, Message], None]] = {
    MessageType.PROP.value: _candidate_propose,
    MessageType.APP.value: _candidate_append,
    MessageType.HEARTBEAT.value: _candidate_heartbeat,
    MessageType.SNAP.value: _candidate_snapshot,
    MessageType.VOTE_RESP.value: _candidate_vote_response,
    MessageType.PRE_VOTE_RESP.value: _candidate_vote_response,
    MessageType.TIMEOUT_NOW.value: _candidate_timeout_now,
}


def step_candidate(raft: Raft, message: Message) -> None:
    """One message of this term, or a local one; raises ProposalDroppedError."""
    handler = _CANDIDATE.get(message.type)
    if handler is not None:
        handler(raft, message)
