"""The Raft paper's rules, one test a sentence (Ongaro, Ousterhout: In Search of an Understandable
Consensus Algorithm, extended version; sections in the names of the groups)."""

from __future__ import annotations

import pytest

from keyraft.raft import Entry, HardState, Message, MessageType, StateType, election, replication
from keyraft.raft.core import Raft
from sim.raft.direct import RaftNetwork, applied, persist, raft_of, settle

APP = MessageType.APP.value
APP_RESP = MessageType.APP_RESP.value
VOTE = MessageType.VOTE.value
VOTE_RESP = MessageType.VOTE_RESP.value
HEARTBEAT = MessageType.HEARTBEAT.value
PROP = MessageType.PROP.value
BEAT = MessageType.BEAT.value
HUP = MessageType.HUP.value


def in_role(role: StateType, term: int, voters: int = 3) -> Raft:
    raft = raft_of(1, range(1, voters + 1), election_ticks=10)
    raft.term = term - (role != StateType.FOLLOWER)
    if role == StateType.FOLLOWER:
        election.become_follower(raft, term, 2)
    else:
        election.become_candidate(raft)
        if role == StateType.LEADER:
            election.become_leader(raft)
    persist(raft)
    settle(raft)
    return raft


def leader(term: int = 1, voters: int = 3, **options: object) -> Raft:
    raft = raft_of(1, range(1, voters + 1), **options)
    raft.term = term - 1
    election.become_candidate(raft)
    election.become_leader(raft)
    persist(raft)
    settle(raft)
    return raft


def accept(message: Message) -> Message:
    """A follower's answer to an append that fits."""
    assert message.type == APP
    index = message.index + len(message.entries)
    return Message(APP_RESP, from_=message.to, to=message.from_, term=message.term, index=index)


def commit_own_entry(raft: Raft) -> None:
    """The empty entry of a new leader's term reaches everybody."""
    replication.broadcast_append(raft)
    for message in settle(raft):
        raft.step(accept(message))
    settle(raft)
    applied(raft)


# --- §5.1 Raft basics: terms ----------------------------------------------------------------------


@pytest.mark.parametrize("role", [StateType.FOLLOWER, StateType.CANDIDATE, StateType.LEADER])
def test_5_1_a_larger_term_is_taken_over_and_makes_a_follower(role: StateType) -> None:
    raft = in_role(role, term=2)
    raft.step(Message(APP, from_=2, to=1, term=3))
    assert (raft.term, raft.state) == (3, StateType.FOLLOWER)


@pytest.mark.parametrize("role", [StateType.FOLLOWER, StateType.CANDIDATE, StateType.LEADER])
def test_5_1_a_request_with_a_stale_term_is_rejected(role: StateType) -> None:
    raft = in_role(role, term=3)
    last = raft.log.last_id()
    raft.step(Message(APP, from_=2, to=1, term=2, entries=[Entry(2, 1)]))
    assert (raft.term, raft.state, raft.log.last_id()) == (3, role, last)
    assert settle(raft) == []


# --- §5.2 Leader election -------------------------------------------------------------------------


def test_5_2_servers_start_as_followers() -> None:
    assert raft_of(1).state == StateType.FOLLOWER


def test_5_2_a_leader_sends_heartbeats_at_every_interval() -> None:
    raft = leader(heartbeat_ticks=3)
    for _ in range(2):
        raft.tick()
    assert settle(raft) == []
    raft.tick()
    assert [(m.type, m.to, m.term) for m in settle(raft)] == [(HEARTBEAT, 2, 1), (HEARTBEAT, 3, 1)]


@pytest.mark.parametrize("role", [StateType.FOLLOWER, StateType.CANDIDATE])
def test_5_2_an_election_timeout_starts_an_election_in_a_new_term(role: StateType) -> None:
    raft = in_role(role, term=2)
    for _ in range(2 * raft.election_timeout):
        if raft.term > 2:
            break
        raft.tick()
    assert (raft.term, raft.state, raft.vote) == (3, StateType.CANDIDATE, 1)
    requests = settle(raft)
    assert [(m.type, m.to, m.term) for m in requests] == [(VOTE, 2, 3), (VOTE, 3, 3)]
    assert raft.tracker.votes == {1: True}


@pytest.mark.parametrize(
    ("voters", "votes", "role"),
    [
        (1, {}, StateType.LEADER),
        (3, {2: True, 3: True}, StateType.LEADER),
        (3, {2: True}, StateType.LEADER),
        (5, {2: True, 3: True, 4: True, 5: True}, StateType.LEADER),
        (5, {2: True, 3: True, 4: True}, StateType.LEADER),
        (5, {2: True, 3: True}, StateType.LEADER),
        (3, {2: False, 3: False}, StateType.FOLLOWER),
        (5, {2: False, 3: False, 4: False, 5: False}, StateType.FOLLOWER),
        (5, {2: True, 3: False, 4: False, 5: False}, StateType.FOLLOWER),
        (3, {}, StateType.CANDIDATE),
        (5, {2: True}, StateType.CANDIDATE),
        (5, {2: False, 3: False}, StateType.CANDIDATE),
    ],
)
def test_5_2_a_majority_of_votes_wins(voters: int, votes: dict[int, bool], role: StateType) -> None:
    raft = raft_of(1, range(1, voters + 1))
    raft.step(Message(HUP, from_=1, to=1))
    settle(raft)
    for node_id, granted in votes.items():
        raft.step(Message(VOTE_RESP, from_=node_id, to=1, term=1, reject=not granted))
    settle(raft)
    assert (raft.term, raft.state) == (1, role)


@pytest.mark.parametrize(
    ("voted_for", "asker", "is_rejected"),
    [(0, 2, False), (0, 3, False), (2, 2, False), (3, 3, False), (2, 3, True), (3, 2, True)],
)
def test_5_2_one_vote_a_term_first_come_first_served(
    voted_for: int, asker: int, is_rejected: bool
) -> None:
    raft = raft_of(1, state=HardState(1, voted_for))
    raft.step(Message(VOTE, from_=asker, to=1, term=1))
    assert [(m.type, m.to, m.term, m.reject) for m in settle(raft)] == [
        (VOTE_RESP, asker, 1, is_rejected)
    ]


@pytest.mark.parametrize("term", [1, 2])
def test_5_2_a_candidate_returns_to_follower_when_a_leader_speaks(term: int) -> None:
    raft = raft_of(1)
    raft.step(Message(HUP, from_=1, to=1))
    raft.step(Message(APP, from_=2, to=1, term=term))
    assert (raft.state, raft.term, raft.lead) == (StateType.FOLLOWER, term, 2)


def test_5_2_a_vote_waits_for_the_disk() -> None:
    raft = raft_of(1)
    raft.step(Message(VOTE, from_=2, to=1, term=1))
    assert raft.messages == []
    assert [m.type for m in raft.messages_after_append] == [VOTE_RESP]


@pytest.mark.parametrize("role", [StateType.FOLLOWER, StateType.CANDIDATE])
def test_5_2_election_timeouts_are_random_in_an_interval(role: StateType) -> None:
    raft = raft_of(1, election_ticks=10)
    seen: set[int] = set()
    for _ in range(1000):
        if role == StateType.FOLLOWER:
            election.become_follower(raft, raft.term + 1, 2)
        else:
            election.become_candidate(raft)
        ticks = 0
        while not raft.messages and not raft.messages_after_append:
            raft.tick()
            ticks += 1
        settle(raft)
        seen.add(ticks)
    assert seen == set(range(10, 20))


@pytest.mark.slow
def test_5_2_random_timeouts_make_split_votes_rare() -> None:
    conflicts = 0
    for seed in range(300):
        rafts = [raft_of(i, range(1, 6), seed=seed * 7, election_ticks=10) for i in range(1, 6)]
        timed_out = 0
        while not timed_out:
            for raft in rafts:
                raft.tick()
            timed_out = sum(1 for raft in rafts if settle(raft))
        conflicts += timed_out > 1
    assert conflicts / 300 < 0.5


# --- §5.3 Log replication -------------------------------------------------------------------------


def test_5_3_a_leader_appends_and_sends_to_all_in_parallel() -> None:
    raft = leader()
    commit_own_entry(raft)
    last = raft.log.last_index()
    raft.step(Message(PROP, from_=1, to=1, entries=[Entry(data=b"some data")]))
    assert (raft.log.last_index(), raft.log.committed) == (last + 1, last)
    entry = Entry(1, last + 1, b"some data")
    sent = settle(raft)
    assert [(m.to, m.index, m.log_term, m.commit, m.entries) for m in sent] == [
        (2, last, 1, last, [entry]),
        (3, last, 1, last, [entry]),
    ]
    assert raft.log.unstable.next_entries() == [entry]


def test_5_3_an_entry_that_a_majority_holds_is_committed_and_applied() -> None:
    raft = leader()
    commit_own_entry(raft)
    raft.step(Message(PROP, from_=1, to=1, entries=[Entry(data=b"some data")]))
    for message in settle(raft):
        raft.step(accept(message))
    assert raft.log.committed == 2
    assert applied(raft) == [Entry(1, 2, b"some data")]
    assert [m.commit for m in settle(raft) if m.type == APP] == [2, 2]


@pytest.mark.parametrize(
    ("voters", "acceptors", "is_committed"),
    [
        (1, [], True),
        (3, [], False),
        (3, [2], True),
        (3, [2, 3], True),
        (5, [2], False),
        (5, [2, 3], True),
        (5, [2, 3, 4, 5], True),
    ],
)
def test_5_3_commitment_takes_a_majority(
    voters: int, acceptors: list[int], is_committed: bool
) -> None:
    raft = leader(voters=voters)
    commit_own_entry(raft)
    raft.step(Message(PROP, from_=1, to=1, entries=[Entry(data=b"some data")]))
    for message in settle(raft):
        if message.to in acceptors:
            raft.step(accept(message))
    assert (raft.log.committed == 2) is is_committed


@pytest.mark.parametrize("terms", [[], [2], [1, 2], [1]])
def test_5_3_committing_an_entry_commits_all_before_it(terms: list[int]) -> None:
    raft = raft_of(1, terms=terms, state=HardState(2))
    raft.step(Message(HUP, from_=1, to=1))
    settle(raft)
    raft.step(Message(VOTE_RESP, from_=2, to=1, term=3))
    raft.step(Message(PROP, from_=1, to=1, entries=[Entry(data=b"some data")]))
    for _ in range(2):  # members are probed with one append first
        for message in settle(raft):
            raft.step(accept(message))
    count = len(terms)
    assert [(e.term, e.index, e.data) for e in applied(raft)] == [
        *[(term, index, b"") for index, term in enumerate(terms, 1)],
        (3, count + 1, b""),
        (3, count + 2, b"some data"),
    ]


@pytest.mark.parametrize("commit", [0, 1, 2])
def test_5_3_a_follower_applies_what_the_leader_has_committed(commit: int) -> None:
    raft = raft_of(1)
    entries = [Entry(1, 1, b"some data"), Entry(1, 2, b"some data2")]
    raft.step(Message(APP, from_=2, to=1, term=1, entries=entries, commit=commit))
    assert applied(raft) == entries[:commit]


@pytest.mark.parametrize(
    ("term", "index", "answer_index", "is_rejected", "hint", "hint_term"),
    [
        (0, 0, 1, False, 0, 0),  # already committed: told so
        (1, 1, 1, False, 0, 0),
        (2, 2, 2, False, 0, 0),
        (1, 2, 2, True, 1, 1),  # another term stands there
        (3, 3, 3, True, 2, 2),  # nothing stands there
    ],
)
def test_5_3_the_consistency_check(
    term: int, index: int, answer_index: int, is_rejected: bool, hint: int, hint_term: int
) -> None:
    raft = raft_of(1, terms=[1, 2], state=HardState(2, 0, 1))
    raft.step(Message(APP, from_=2, to=1, term=3, log_term=term, index=index))
    assert [(m.type, m.index, m.reject, m.reject_hint, m.log_term) for m in settle(raft)] == [
        (APP_RESP, answer_index, is_rejected, hint, hint_term)
    ]


@pytest.mark.parametrize(
    ("term", "index", "sent", "log", "unstable"),
    [
        (2, 2, [3], [1, 2, 3], [3]),
        (1, 1, [3, 4], [1, 3, 4], [3, 4]),
        (0, 0, [1], [1, 2], []),
        (0, 0, [3], [3], [3]),
    ],
)
def test_5_3_conflicting_entries_and_all_that_follow_are_deleted(
    term: int, index: int, sent: list[int], log: list[int], unstable: list[int]
) -> None:
    raft = raft_of(1, terms=[1, 2], state=HardState(2))
    entries = [Entry(t, i) for i, t in enumerate(sent, index + 1)]
    raft.step(Message(APP, from_=2, to=1, term=4, log_term=term, index=index, entries=entries))
    assert [raft.log.term(i) for i in range(1, raft.log.last_index() + 1)] == log
    assert [entry.term for entry in raft.log.unstable.next_entries()] == unstable


@pytest.mark.parametrize(
    "terms",
    [
        [1, 1, 1, 4, 4, 5, 5, 6, 6],
        [1, 1, 1, 4],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        [1, 1, 1, 4, 4, 4, 4],
        [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ],
)
def test_5_3_a_leader_brings_any_log_of_figure_7_in_line(terms: list[int]) -> None:
    own = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    lead = raft_of(1, terms=own, state=HardState(8, 0, len(own)))
    follower = raft_of(2, terms=terms, state=HardState(7))
    silent = raft_of(3)
    network = RaftNetwork(lead, follower, silent)
    network.isolate(3)
    network.campaign(1)
    # In figure 7 it is elected by others; here by one who knows no more than its term.
    network.send(Message(VOTE_RESP, from_=3, to=1, term=9))
    network.propose(1)
    assert [follower.log.term(i) for i in range(1, follower.log.last_index() + 1)] == [
        lead.log.term(i) for i in range(1, lead.log.last_index() + 1)
    ]
    assert follower.log.last_index() == len(own) + 2


# --- §5.4 Safety ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "candidate", "is_rejected"),
    [
        ([1], (1, 1), False),
        ([1], (1, 2), False),
        ([1, 1], (1, 1), True),
        ([1], (2, 1), False),
        ([1], (2, 2), False),
        ([1, 1], (2, 1), False),
        ([2], (1, 1), True),
        ([2], (1, 2), True),
        ([2, 1], (1, 1), True),
    ],
)
def test_5_4_1_a_voter_refuses_a_log_less_up_to_date_than_its_own(
    own: list[int], candidate: tuple[int, int], is_rejected: bool
) -> None:
    raft = raft_of(1, terms=own, state=HardState(2))
    raft.step(Message(VOTE, from_=2, to=1, term=3, log_term=candidate[0], index=candidate[1]))
    assert [m.reject for m in settle(raft)] == [is_rejected]


@pytest.mark.parametrize("terms", [[], [1], [1, 2]])
def test_5_4_1_a_request_for_a_vote_tells_of_the_candidates_log(terms: list[int]) -> None:
    raft = raft_of(1, terms=terms, state=HardState(2))
    raft.step(Message(HUP, from_=1, to=1))
    last_term = terms[-1] if terms else 0
    assert [(m.type, m.term, m.log_term, m.index) for m in settle(raft)] == [
        (VOTE, 3, last_term, len(terms))
    ] * 2


@pytest.mark.parametrize(("acknowledged", "committed"), [(1, 0), (2, 0), (3, 3)])
def test_5_4_2_only_entries_of_the_own_term_are_committed_by_counting(
    acknowledged: int, committed: int
) -> None:
    raft = raft_of(1, terms=[1, 2], state=HardState(2))
    election.become_candidate(raft)
    election.become_leader(raft)
    settle(raft)
    raft.step(Message(APP_RESP, from_=2, to=1, term=raft.term, index=acknowledged))
    assert raft.log.committed == committed


def test_5_4_2_figure_8_an_old_entry_on_a_majority_may_still_be_replaced() -> None:
    rafts = {i: raft_of(i, range(1, 6)) for i in range(1, 6)}
    network = RaftNetwork(*rafts.values())
    network.campaign(1)  # term 1: the empty entry 1 everywhere
    network.filter = lambda m: m.type != APP or m.to == 2
    network.propose(1, b"old")  # (b) index 2 of term 1 at members 1 and 2 only
    network.heal()
    network.isolate(1)
    network.isolate(2)
    network.campaign(5)
    network.cut |= {(5, 3), (5, 4)}
    network.propose(5, b"newer")  # (b') member 5 has another entry, of a later term
    assert rafts[1].log.term(2) == 1
    assert rafts[5].log.term(3) == rafts[5].term
    network.heal()
    network.isolate(5)
    network.filter = lambda m: m.type != APP or m.index < 2  # entries after index 2 get lost
    network.campaign(1)
    network.campaign(1)  # a higher term than member 5's
    leads = [r.id for r in rafts.values() if r.state == StateType.LEADER and r.id != 5]
    assert leads in ([], [1])
    assert all(raft.log.committed <= 2 for raft in rafts.values())
    network.heal()
    network.campaign(5)
    network.campaign(5)
    logs = {tuple((e.term, e.data) for e in committed(raft)) for raft in rafts.values()}
    assert len({log[: min(map(len, logs))] for log in logs}) == 1


def committed(raft: Raft) -> list[Entry]:
    return raft.log.slice(1, raft.log.committed + 1, 1 << 60)[0]
