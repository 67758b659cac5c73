"""Facts that hold in every state of a member, across every change, and between members.

Checked after every step in tests and simulations, never in a live member's hot path. Each fact
names its place in the Raft thesis (figure 3.2: election safety, leader append-only, log matching,
leader completeness, state machine safety).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from keyraft.base.invariants import hold
from keyraft.raft.confchange import check_config
from keyraft.raft.core import Raft
from keyraft.raft.progress import SNAPSHOT
from keyraft.raft.state import StateType
from keyraft.raft.types import NO_LIMIT, NO_NODE, Entry, HardState

# --- one state ------------------------------------------------------------------------------------


def check_state(raft: Raft) -> None:
    """What one member's state must satisfy at any time."""
    log = raft.log
    unstable = log.unstable
    last = log.last_index()
    hold(log.applied <= log.applying, "applied <= applying", log.applied, log.applying)
    hold(log.applying <= log.committed, "applying <= committed", log.applying, log.committed)
    hold(log.committed <= last, "committed <= last", log.committed, last)
    hold(
        log.first_index() <= log.committed + 1,
        "compacted only what is committed",
        log.first_index(),
        log.committed,
    )
    hold(
        unstable.offset <= unstable.offset_in_progress <= unstable.offset + len(unstable.entries),
        "in progress within the unstable log",
        unstable.offset,
        unstable.offset_in_progress,
        len(unstable.entries),
    )
    hold(log.applying_size >= 0, "applying size >= 0", log.applying_size)
    for position, entry in enumerate(unstable.entries):
        hold(
            entry.index == unstable.offset + position,
            "unstable entries are consecutive",
            entry.index,
            unstable.offset + position,
        )
        hold(entry.term <= raft.term, "no entry of a later term", entry.term, raft.term)
    last_term, _ = log.last_id()
    # A member that starts from a snapshot alone is told of no term.
    hold(not raft.term or last_term <= raft.term, "log's last term <= term", last_term, raft.term)
    _check_role(raft)
    _check_progress(raft)


def _check_role(raft: Raft) -> None:
    state = raft.state
    if state == StateType.LEADER:
        hold(raft.lead == raft.id, "a leader follows itself", raft.lead, raft.id)
        hold(raft.vote == raft.id, "a leader voted for itself", raft.vote, raft.id)
    elif state == StateType.CANDIDATE:
        hold(raft.vote == raft.id, "a candidate voted for itself", raft.vote, raft.id)
        hold(raft.lead == NO_NODE, "a candidate knows no leader", raft.lead)
    elif state == StateType.PRE_CANDIDATE:
        hold(raft.lead == NO_NODE, "a pre-candidate knows no leader", raft.lead)
    if state != StateType.LEADER:
        hold(raft.lead != raft.id, "only a leader leads", raft.lead, state)
        hold(not raft.uncommitted_size, "only a leader counts", raft.uncommitted_size)
        hold(raft.lead_transferee == NO_NODE, "only a leader hands over", raft.lead_transferee)
    for message in raft.messages:
        hold(message.to != raft.id, "no message to itself", message)
    for message in raft.messages_after_append:
        hold(message.from_ == raft.id, "answers are its own", message)


def _check_progress(raft: Raft) -> None:
    tracker = raft.tracker
    check_config(tracker.config, tracker.progress)
    hold(tracker.order == sorted(tracker.progress), "order of progress", tracker.order)
    if raft.state != StateType.LEADER:
        return
    last = raft.log.last_index()
    for node_id, progress in tracker.progress.items():
        hold(0 <= progress.match < progress.next, "match < next", node_id, progress)
        hold(progress.match <= last, "match <= last", node_id, progress, last)
        inflights = progress.inflights
        hold(len(inflights) <= inflights.messages_max, "window", node_id, progress)
        if progress.state != SNAPSHOT:
            hold(not progress.pending_snapshot, "no pending snapshot", node_id, progress)
            hold(progress.next <= last + 1, "next <= last + 1", node_id, progress, last)


# --- a change of one member -----------------------------------------------------------------------


class ChangeWatch:
    """Compares each state of one member with the one before; survives restarts of the member.

    Term and commit never fall, over a restart not below what is durable; within a term a vote is given once (§3.4), a
    leader is never replaced by another (election safety) and a leader never removes entries
    (leader append-only, §3.6).
    """

    __slots__ = ("_commit", "_leader", "_leading_last", "_term", "_vote")

    def __init__(self) -> None:
        self._term = 0
        self._vote = NO_NODE
        self._commit = 0
        self._leader = NO_NODE
        self._leading_last = 0  # last index while it led in this term

    def restarted(self, durable: HardState) -> None:
        """The member was stopped: state that was not on disk is lost, and was never sent."""
        self._term = durable.term
        self._vote = durable.vote
        self._commit = durable.commit
        self._leader = NO_NODE
        self._leading_last = 0

    def check(self, raft: Raft) -> None:
        """The member has taken a step."""
        hold(raft.term >= self._term, "term never falls", raft.term, self._term)
        commit = raft.log.committed
        hold(commit >= self._commit, "commit never falls", commit, self._commit)
        if raft.term > self._term:
            self._leader = NO_NODE
            self._leading_last = 0
        elif self._vote != NO_NODE:
            hold(raft.vote == self._vote, "one vote a term", raft.term, raft.vote, self._vote)
        if raft.lead != NO_NODE:
            hold(
                self._leader in (NO_NODE, raft.lead),
                "one leader a term",
                raft.term,
                raft.lead,
                self._leader,
            )
            self._leader = raft.lead
        if raft.state == StateType.LEADER:
            last = raft.log.last_index()
            hold(last >= self._leading_last, "leader append-only", last, self._leading_last)
            self._leading_last = last
        self._term = raft.term
        self._vote = raft.vote
        self._commit = commit


# --- between members ------------------------------------------------------------------------------


def readable(raft: Raft) -> list[Entry]:
    """Every entry that a member still holds."""
    first = raft.log.first_index()
    return raft.log.slice(first, raft.log.last_index() + 1, NO_LIMIT)[0]


class GroupWatch:
    """What holds over all members of a group and all time: give it every member after each step.

    Election safety: one leader a term. Log matching: entries of equal index and term are equal and
    so is everything before them. State machine safety: no two members ever apply different entries
    at an index. Leader completeness: whoever leads holds everything committed in earlier terms.
    """

    __slots__ = ("_committed", "_leaders")

    def __init__(self) -> None:
        self._leaders: dict[int, int] = {}  # term: leader
        self._committed: dict[int, tuple[Entry, int]] = {}  # index: entry, term when seen first

    def check(self, rafts: Iterable[Raft]) -> None:
        """The present states of all running members."""
        members = list(rafts)
        logs = {raft.id: readable(raft) for raft in members}
        for raft in members:
            if raft.state == StateType.LEADER:
                leader = self._leaders.setdefault(raft.term, raft.id)
                hold(leader == raft.id, "one leader a term", raft.term, leader, raft.id)
            self._check_committed(raft, logs[raft.id])
        for raft in members:
            if raft.state == StateType.LEADER:
                self._check_complete(raft, logs[raft.id])
        _check_matching(list(logs.values()))

    def _check_committed(self, raft: Raft, log: Sequence[Entry]) -> None:
        for entry in log:
            if entry.index > raft.log.committed:
                break
            known = self._committed.setdefault(entry.index, (entry, raft.term))
            hold(known[0] == entry, "state machine safety", raft.id, known[0], entry)

    def _check_complete(self, raft: Raft, log: Sequence[Entry]) -> None:
        first = raft.log.first_index()
        for index, (entry, term) in self._committed.items():
            if term < raft.term and index >= first:
                position = index - first
                hold(
                    position < len(log) and log[position] == entry,
                    "leader completeness",
                    raft.id,
                    raft.term,
                    entry,
                )


def _check_matching(logs: list[list[Entry]]) -> None:
    for position, one in enumerate(logs):
        for other in logs[position + 1 :]:
            _check_pair(one, other)


def _check_pair(one: list[Entry], other: list[Entry]) -> None:
    if not one or not other:
        return
    first = max(one[0].index, other[0].index)
    last = min(one[-1].index, other[-1].index)
    has_differed = False
    for index in range(first, last + 1):
        mine = one[index - one[0].index]
        theirs = other[index - other[0].index]
        if mine.term != theirs.term:
            has_differed = True
            continue
        hold(mine == theirs, "log matching: equal terms, equal entries", mine, theirs)
        hold(not has_differed, "log matching: everything before is equal", mine, theirs)
