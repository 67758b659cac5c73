"""Elections beyond the paper: pre-vote, check-quorum and its lease, transfer, learners (thesis §3.10,
§4.2, §6.2, §6.4, §9.6)."""

from __future__ import annotations

import pytest

from keyraft.raft import HardState, Message, MessageType, StateType
from keyraft.raft.core import Raft
from sim.raft.direct import ListLogger, RaftNetwork, raft_of, settle

APP = MessageType.APP.value
APP_RESP = MessageType.APP_RESP.value
HEARTBEAT = MessageType.HEARTBEAT.value
HEARTBEAT_RESP = MessageType.HEARTBEAT_RESP.value
PRE_VOTE = MessageType.PRE_VOTE.value
PRE_VOTE_RESP = MessageType.PRE_VOTE_RESP.value
VOTE = MessageType.VOTE.value
VOTE_RESP = MessageType.VOTE_RESP.value
TIMEOUT_NOW = MessageType.TIMEOUT_NOW.value
TRANSFER = MessageType.TRANSFER_LEADER.value


def network_of(count: int = 3, **options: object) -> RaftNetwork:
    return RaftNetwork(*[raft_of(i, range(1, count + 1), **options) for i in range(1, count + 1)])


def roles(network: RaftNetwork) -> list[StateType]:
    return [raft.state for raft in network.rafts.values()]


# --- pre-vote -------------------------------------------------------------------------------------


def test_a_pre_vote_changes_neither_term_nor_vote() -> None:
    raft = raft_of(1, pre_vote=True, state=HardState(1, 3))
    raft.step(Message(PRE_VOTE, from_=2, to=1, term=2))
    assert (raft.term, raft.vote) == (1, 3)
    assert [(m.type, m.term, m.reject) for m in settle(raft)] == [(PRE_VOTE_RESP, 2, False)]


def test_a_campaign_asks_before_it_raises_the_term() -> None:
    raft = raft_of(1, pre_vote=True)
    raft.step(Message(MessageType.HUP.value, from_=1, to=1))
    assert [(m.type, m.term) for m in settle(raft)] == [(PRE_VOTE, 1), (PRE_VOTE, 1)]
    assert (raft.state, raft.term, raft.vote) == (StateType.PRE_CANDIDATE, 0, 0)
    raft.step(Message(PRE_VOTE_RESP, from_=2, to=1, term=1))
    assert [(m.type, m.term) for m in settle(raft)] == [(VOTE, 1), (VOTE, 1)]
    assert (raft.state, raft.term, raft.vote) == (StateType.CANDIDATE, 1, 1)
    raft.step(Message(PRE_VOTE_RESP, from_=3, to=1, term=1))  # late, and no vote
    assert raft.tracker.votes == {1: True}


def test_a_member_that_was_cut_off_does_not_disturb_when_it_returns() -> None:
    network = network_of(pre_vote=True, check_quorum=True)
    network.campaign(1)
    network.isolate(3)
    for _ in range(5):
        network.campaign(3)
    assert network.rafts[3].term == 1
    network.heal()
    network.campaign(3)
    assert roles(network)[0] == StateType.LEADER
    network.beat(1)
    assert roles(network) == [StateType.LEADER, StateType.FOLLOWER, StateType.FOLLOWER]


def test_a_rejected_pre_vote_of_a_later_term_makes_a_follower_of_that_term() -> None:
    raft = raft_of(1, pre_vote=True)
    raft.step(Message(MessageType.HUP.value, from_=1, to=1))
    raft.step(Message(PRE_VOTE_RESP, from_=2, to=1, term=5, reject=True))
    assert (raft.state, raft.term) == (StateType.FOLLOWER, 5)


def test_a_pre_candidate_of_an_older_term_learns_the_present_one() -> None:
    raft = raft_of(1, pre_vote=True, state=HardState(7))
    raft.step(Message(PRE_VOTE, from_=2, to=1, term=3, log_term=2, index=1))
    assert [(m.type, m.term, m.reject) for m in settle(raft)] == [(PRE_VOTE_RESP, 7, True)]


def test_a_single_voter_needs_nobody() -> None:
    raft = raft_of(1, [1], pre_vote=True)
    raft.step(Message(MessageType.HUP.value, from_=1, to=1))
    settle(raft)
    assert (raft.state, raft.term) == (StateType.LEADER, 1)


# --- check-quorum and the lease -------------------------------------------------------------------


def test_a_leader_without_a_quorum_steps_down() -> None:
    network = network_of(check_quorum=True)
    network.campaign(1)
    network.isolate(1)
    network.tick(1, 2 * network.rafts[1].election_timeout)
    assert network.rafts[1].state == StateType.FOLLOWER


def test_a_leader_that_hears_from_a_quorum_stays() -> None:
    network = network_of(check_quorum=True)
    network.campaign(1)
    network.cut = {(3, 1)}
    network.tick(1, 5 * network.rafts[1].election_timeout)
    assert network.rafts[1].state == StateType.LEADER


def test_nobody_votes_while_it_hears_from_a_leader() -> None:
    network = network_of(check_quorum=True)
    network.campaign(1)
    follower = network.rafts[2]
    follower.step(Message(VOTE, from_=3, to=2, term=5, log_term=9, index=9))
    assert (follower.term, settle(follower)) == (1, [])
    follower.election_elapsed = follower.election_timeout
    follower.step(Message(VOTE, from_=3, to=2, term=5, log_term=9, index=9))
    assert [m.reject for m in settle(follower)] == [False]


def test_a_member_stuck_at_a_higher_term_deposes_the_leader_to_get_back() -> None:
    network = network_of(check_quorum=True)
    network.campaign(1)
    network.isolate(3)
    network.campaign(3)
    network.heal()
    assert network.rafts[3].term == 2
    network.beat(1)  # answered with the higher term
    assert network.rafts[1].state == StateType.FOLLOWER
    assert network.rafts[1].term == 2


# --- transfer of leadership -----------------------------------------------------------------------


def test_leadership_is_handed_over_within_a_lease() -> None:
    network = network_of(check_quorum=True, pre_vote=True)
    network.campaign(1)
    network.send(Message(TRANSFER, from_=2, to=1))
    assert roles(network) == [StateType.FOLLOWER, StateType.LEADER, StateType.FOLLOWER]


def test_a_follower_forwards_a_request_to_hand_over() -> None:
    network = network_of()
    network.campaign(1)
    network.send(Message(TRANSFER, from_=3, to=2))
    assert roles(network) == [StateType.FOLLOWER, StateType.FOLLOWER, StateType.LEADER]


def test_a_transfer_that_takes_too_long_is_given_up() -> None:
    network = network_of()
    network.campaign(1)
    network.isolate(3)
    network.propose(1)
    network.send(Message(TRANSFER, from_=3, to=1))
    leader = network.rafts[1]
    assert leader.lead_transferee == 3
    network.propose(1, b"refused meanwhile")
    assert leader.log.last_index() == 2
    network.tick(1, leader.election_timeout)
    assert (leader.lead_transferee, leader.state) == (0, StateType.LEADER)


@pytest.mark.parametrize("to", [1, 9])
def test_leadership_is_not_handed_to_itself_or_a_stranger(to: int) -> None:
    network = network_of()
    network.campaign(1)
    network.send(Message(TRANSFER, from_=to, to=1))
    assert network.rafts[1].lead_transferee == 0
    assert network.rafts[1].state == StateType.LEADER


def test_leadership_is_not_handed_to_a_learner() -> None:
    rafts = [raft_of(1, [1, 2], learners=[3]), raft_of(2, [1, 2], learners=[3])]
    network = RaftNetwork(*rafts, raft_of(3, [1, 2], learners=[3]))
    network.campaign(1)
    network.send(Message(TRANSFER, from_=3, to=1))
    assert network.rafts[1].lead_transferee == 0


def test_a_member_that_was_removed_ignores_the_invitation() -> None:
    raft = raft_of(1, [2, 3])
    raft.step(Message(TIMEOUT_NOW, from_=2, to=1, term=1))
    assert settle(raft) == []
    assert raft.state == StateType.FOLLOWER


def test_a_transfer_ends_with_the_term() -> None:
    network = network_of()
    network.campaign(1)
    network.isolate(3)
    network.propose(1)
    network.send(Message(TRANSFER, from_=3, to=1))
    network.heal()
    network.campaign(2)
    assert network.rafts[1].lead_transferee == 0


# --- who may campaign -----------------------------------------------------------------------------


def test_learners_do_not_campaign_but_vote() -> None:
    logger = ListLogger()
    raft = raft_of(3, [1, 2], learners=[3], logger=logger)
    for _ in range(3 * raft.election_timeout):
        raft.tick()
    assert settle(raft) == []
    raft.step(Message(MessageType.HUP.value, from_=3, to=3))
    assert ("warn", "3 is unpromotable and can not campaign") in logger.lines
    raft.step(Message(VOTE, from_=1, to=3, term=1))
    assert [m.reject for m in settle(raft)] == [False]


def test_no_campaign_before_a_committed_change_is_applied() -> None:
    network = network_of()
    network.campaign(1)
    follower: Raft = network.rafts[2]
    follower.log.unstable.entries = []
    logger = ListLogger()
    follower.logger = logger
    from keyraft.raft import Entry
    from keyraft.raft.types import EntryType

    follower.step(
        Message(
            APP,
            from_=1,
            to=2,
            term=1,
            log_term=1,
            index=1,
            entries=[Entry(1, 2, b"", EntryType.CONF_CHANGE_V2.value)],
            commit=2,
        )
    )
    settle(follower)
    follower.step(Message(MessageType.HUP.value, from_=2, to=2))
    assert follower.state == StateType.FOLLOWER
    assert logger.lines[-1] == (
        "warn",
        "2 cannot campaign at term 1 since there are still pending configuration changes to apply",
    )


def test_a_forgotten_leader_can_be_replaced() -> None:
    network = network_of(pre_vote=True, check_quorum=True)
    network.campaign(1)
    for node_id in (2, 3):
        network.send(Message(MessageType.FORGET_LEADER.value, to=node_id))
        assert network.rafts[node_id].lead == 0
    network.campaign(2)
    assert roles(network)[1] == StateType.LEADER


def test_messages_of_an_older_leader_are_answered_only_with_check_quorum_or_pre_vote() -> None:
    for options, answers in (
        ({}, []),
        ({"check_quorum": True}, [APP_RESP]),
        ({"pre_vote": True}, [APP_RESP]),
    ):
        raft = raft_of(1, state=HardState(5), **options)
        raft.step(Message(HEARTBEAT, from_=2, to=1, term=3))
        assert [m.type for m in settle(raft)] == answers
