"""Quorums against twins that count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keyraft.raft.quorum import (
    EVERYTHING,
    JointConfig,
    VoteResult,
    format_ids,
    majority_committed,
    majority_vote,
)

ids = st.sets(st.integers(1, 9), max_size=9)
indexes = st.dictionaries(st.integers(1, 9), st.integers(0, 12))
ballots = st.dictionaries(st.integers(1, 9), st.booleans())


def dumb_committed(voters: set[int], acked: dict[int, int]) -> int:
    """The largest index so that more than half have at least that."""
    if not voters:
        return EVERYTHING
    return max(
        index
        for index in range(13)
        if 2 * sum(1 for voter in voters if acked.get(voter, 0) >= index) > len(voters)
    )


def dumb_vote(voters: set[int], votes: dict[int, bool]) -> VoteResult:
    """By looking at every way the missing votes could go."""
    if not voters:
        return VoteResult.WON
    yes = sum(1 for voter in voters if votes.get(voter) is True)
    open_ = sum(1 for voter in voters if voter not in votes)
    outcomes = {2 * (yes + more) > len(voters) for more in range(open_ + 1)}
    if outcomes == {True}:
        return VoteResult.WON
    return VoteResult.LOST if outcomes == {False} else VoteResult.PENDING


@given(ids, indexes)
def test_committed_is_what_counting_finds(voters: set[int], acked: dict[int, int]) -> None:
    assert majority_committed(voters, acked.get) == dumb_committed(voters, acked)


@given(ids, ids, indexes)
def test_jointly_committed_is_committed_in_both(
    one: set[int], other: set[int], acked: dict[int, int]
) -> None:
    expected = min(dumb_committed(one, acked), dumb_committed(other, acked))
    assert JointConfig(one, other).committed(acked.get) == expected
    assert JointConfig(other, one).committed(acked.get) == expected


@given(ids, ballots)
def test_a_vote_is_decided_when_no_missing_vote_can_change_it(
    voters: set[int], votes: dict[int, bool]
) -> None:
    assert majority_vote(voters, votes) == dumb_vote(voters, votes)


@given(ids, ids, ballots)
def test_a_joint_vote_needs_both(one: set[int], other: set[int], votes: dict[int, bool]) -> None:
    results = {dumb_vote(one, votes), dumb_vote(other, votes)}
    if VoteResult.LOST in results:
        expected = VoteResult.LOST
    else:
        expected = VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON
    assert JointConfig(one, other).vote_result(votes) == expected


def test_ids_are_printed_in_hexadecimal_ascending() -> None:
    assert format_ids({16, 2}) == "(2 10)"
    assert str(JointConfig({1, 2}, {3})) == "(1 2)&&(3)"
    assert str(JointConfig()) == "()"
