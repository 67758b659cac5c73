"""Who leads: the roles, the changes between them, campaigns and votes.

    follower --timeout--> pre-candidate --quorum would vote--> candidate --quorum votes--> leader
        ^                      |                                   |                         |
        +----- a higher term, a leader of this term, a lost vote, no quorum (check) ---------+

Without pre-vote a follower becomes a candidate at once; a transfer of leadership never asks first.
Invariants: one vote a term, on disk before it is sent; a term never falls; a pre-vote changes
neither term nor vote. Raft thesis §3.4, §3.6, §3.10, §9.6, §6.4 (lease).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.raft import replication
from keyraft.raft.errors import FatalError, StorageError
from keyraft.raft.limits import TERM_MAX
from keyraft.raft.names import message_name
from keyraft.raft.quorum import VoteResult
from keyraft.raft.state import (
    CAMPAIGN_TRANSFER,
    StateType,
)
from keyraft.raft.types import NO_NODE, Entry, Message, MessageType

if TYPE_CHECKING:
    from keyraft.raft.core import Raft

_VOTE = MessageType.VOTE.value
_VOTE_RESP = MessageType.VOTE_RESP.value
_PRE_VOTE = MessageType.PRE_VOTE.value
_PRE_VOTE_RESP = MessageType.PRE_VOTE_RESP.value


# --- roles ----------------------------------------------------------------------------------------


def become_follower(raft: Raft, term: int, leader: int) -> None:
    """Follows `leader` (or nobody yet) in `term`."""
    raft.reset(term)
    raft.lead = leader
    raft.state = StateType.FOLLOWER
    raft.logger.info(f"{raft.id:x} became follower at term {raft.term}")


def become_candidate(raft: Raft) -> None:
    """A new term, with the vote for itself."""
    if raft.state == StateType.LEADER:
        raise FatalError("invalid transition [leader -> candidate]")
    raft.reset(raft.term + 1)
    raft.vote = raft.id
    raft.state = StateType.CANDIDATE
    raft.logger.info(f"{raft.id:x} became candidate at term {raft.term}")


def become_pre_candidate(raft: Raft) -> None:
    """Asks around; term and vote stay as they are."""
    if raft.state == StateType.LEADER:
        raise FatalError("invalid transition [leader -> pre-candidate]")
    raft.tracker.reset_votes()
    raft.lead = NO_NODE
    raft.state = StateType.PRE_CANDIDATE
    raft.logger.info(f"{raft.id:x} became pre-candidate at term {raft.term}")


def become_leader(raft: Raft) -> None:
    """Leads, and appends an empty entry: earlier terms' entries commit by one of this term."""
    if raft.state == StateType.FOLLOWER:
        raise FatalError("invalid transition [follower -> leader]")
    raft.reset(raft.term)
    raft.lead = raft.id
    raft.state = StateType.LEADER
    progress = raft.tracker.progress[raft.id]
    progress.become_replicate()
    progress.recent_active = True
    # Any entry up to here may be a configuration change that is not applied yet. Instead of
    # searching for one, the leader accepts no new change until all these entries are applied.
    raft.pending_conf_index = raft.log.last_index()
    if not replication.append_entries(raft, [Entry()]):
        raise FatalError("empty entry was dropped")
    raft.logger.info(f"{raft.id:x} became leader at term {raft.term}")


# --- campaigning ----------------------------------------------------------------------------------


def hup(raft: Raft, transfer: bool = False) -> None:
    """Campaigns if that is allowed; pre-vote first where it is on, but not for a transfer."""
    if raft.state == StateType.LEADER:
        raft.logger.debug(f"{raft.id:x} ignoring MsgHup because already leader")
        return
    if not raft.is_promotable():
        raft.logger.warn(f"{raft.id:x} is unpromotable and can not campaign")
        return
    if _has_unapplied_conf_changes(raft):
        raft.logger.warn(
            f"{raft.id:x} cannot campaign at term {raft.term} "
            "since there are still pending configuration changes to apply"
        )
        return
    if raft.term >= TERM_MAX:
        raft.logger.error(f"{raft.id:x} cannot campaign: there is no term behind {raft.term}")
        return
    raft.logger.info(f"{raft.id:x} is starting a new election at term {raft.term}")
    campaign(raft, pre_vote=raft.pre_vote and not transfer, transfer=transfer)


def _has_unapplied_conf_changes(raft: Raft) -> bool:
    """Whether a committed configuration change waits to be applied; read page by page."""
    log = raft.log
    low, high = log.applied + 1, log.committed + 1
    while low < high:
        try:
            entries, _ = log.slice(low, high, log.applying_size_max)
        except StorageError as error:
            raise FatalError(
                f"error scanning unapplied entries [{low}, {high}): {error}"
            ) from error
        if any(entry.type for entry in entries):
            return True
        low += len(entries)
    return False


def campaign(raft: Raft, pre_vote: bool, transfer: bool = False) -> None:
    """Asks every voter, itself included, for a vote or a pre-vote."""
    if pre_vote:
        become_pre_candidate(raft)
        request, response = _PRE_VOTE, _PRE_VOTE_RESP
        term = raft.term + 1
    else:
        become_candidate(raft)
        request, response = _VOTE, _VOTE_RESP
        term = raft.term
    last_term, last_index = raft.log.last_id()
    for node_id in sorted(raft.tracker.config.voters.ids()):
        if node_id == raft.id:
            # Its own vote counts like any other: when it is on disk.
            raft.send(Message(response, to=node_id, term=term))
            continue
        raft.logger.info(
            f"{raft.id:x} [logterm: {last_term}, index: {last_index}] "
            f"sent {message_name(request)} request to {node_id:x} at term {raft.term}"
        )
        raft.send(
            Message(
                request,
                to=node_id,
                term=term,
                log_term=last_term,
                index=last_index,
                context=CAMPAIGN_TRANSFER if transfer else b"",
            )
        )


def poll(raft: Raft, node_id: int, type: int, granted: bool) -> VoteResult:
    """Counts an answer of a voter; returns how the election stands."""
    name = message_name(type)
    what = name if granted else f"{name} rejection"
    raft.logger.info(f"{raft.id:x} received {what} from {node_id:x} at term {raft.term}")
    raft.tracker.record_vote(node_id, granted)
    votes, refusals, result = raft.tracker.tally_votes()
    raft.logger.info(
        f"{raft.id:x} has received {votes} {name} votes and {refusals} vote rejections"
    )
    return result


# --- voting ---------------------------------------------------------------------------------------


def is_in_lease(raft: Raft) -> bool:
    """Whether a leader was heard of so lately that no other may be elected (§6.4)."""
    return (
        raft.check_quorum and raft.lead != NO_NODE and raft.election_elapsed < raft.election_timeout
    )


def on_vote_request(raft: Raft, message: Message) -> None:
    """Answers VOTE and PRE_VOTE of this term or, for a pre-vote, of a later one.

    Learners vote too: a member that was promoted may be asked before it has heard of it.
    """
    from_, type_ = message.from_, message.type
    can_vote = (
        raft.vote == from_
        or (raft.vote == NO_NODE and raft.lead == NO_NODE)
        or (type_ == _PRE_VOTE and message.term > raft.term)
    )
    last_term, last_index = raft.log.last_id()
    granted = can_vote and (message.log_term, message.index) >= (last_term, last_index)
    raft.logger.info(
        f"{raft.id:x} [logterm: {last_term}, index: {last_index}, vote: {raft.vote:x}] "
        f"{'cast' if granted else 'rejected'} {message_name(type_)} "
        f"{'for' if granted else 'from'} {from_:x} "
        f"[logterm: {message.log_term}, index: {message.index}] at term {raft.term}"
    )
    response = _VOTE_RESP if type_ == _VOTE else _PRE_VOTE_RESP
    if not granted:
        if not raft.term:
            # DEVIATION: etcd's library panics. A member that knows no term yet does not answer.
            return
        raft.send(Message(response, to=from_, term=raft.term, reject=True))
        return
    # The answer carries the request's term: a pre-candidate would ignore the voter's older term.
    raft.send(Message(response, to=from_, term=message.term))
    if type_ == _VOTE:
        raft.election_elapsed = 0
        raft.vote = from_


def log_ignored_in_lease(raft: Raft, message: Message) -> None:
    """Says that a request for a vote was ignored because a leader is known."""
    last_term, last_index = raft.log.last_id()
    raft.logger.info(
        f"{raft.id:x} [logterm: {last_term}, index: {last_index}, vote: {raft.vote:x}] "
        f"ignored {message_name(message.type)} from {message.from_:x} "
        f"[logterm: {message.log_term}, index: {message.index}] at term {raft.term}: "
        f"lease is not expired (remaining ticks: {raft.election_timeout - raft.election_elapsed})"
    )


def reject_old_pre_vote(raft: Raft, message: Message) -> None:
    """Answers a pre-vote of an older term, so that a member with a short log learns of this one."""
    last_term, last_index = raft.log.last_id()
    raft.logger.info(
        f"{raft.id:x} [logterm: {last_term}, index: {last_index}, vote: {raft.vote:x}] "
        f"rejected {message_name(message.type)} from {message.from_:x} "
        f"[logterm: {message.log_term}, index: {message.index}] at term {raft.term}"
    )
    raft.send(Message(_PRE_VOTE_RESP, to=message.from_, term=raft.term, reject=True))


# --- time -----------------------------------------------------------------------------------------


def reset_election_timeout(raft: Raft) -> None:
    """Draws a timeout in [election_timeout, 2 * election_timeout) ticks (§3.4)."""
    timeout = raft.election_timeout
    raft.randomized_election_timeout = timeout + raft.random.randrange(0, timeout)
