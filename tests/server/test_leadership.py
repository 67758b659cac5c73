"""Who leads is told by one value, and Raft is driven through the verbs of its loop alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import keyraft
from keyraft.base.invariants import InvariantError
from keyraft.base.log import NullLogger
from keyraft.raft import ConfChange, ProposalDroppedError, SoftState, StateType
from keyraft.server.consensus.leadership import Leadership
from keyraft.server.consensus.raft_loop import RaftLoop
from keyraft.server.counters import Counters
from sim.loop import SimLoop
from tests.server.harness import OneMember

SOURCE = Path(keyraft.__file__).parent
OWN, OTHER, THIRD = 1, 2, 3


class Told:
    """A Leadership and what it has told, each time with what it said of itself then."""

    def __init__(self) -> None:
        self.loop = SimLoop()
        self.counters = Counters()
        self.value = Leadership(OWN, 4, self.loop, NullLogger(), self.counters)
        self.value.standing(sole_voter=False, serves=True)
        self.log: list[tuple[str, int, int, bool]] = []
        self.value.on_leader = (lambda before: self.note(f"leader behind {before}"),)
        self.value.on_deposed = (lambda: self.note("deposed"),)
        self.value.on_confirmed = (lambda: self.note("confirmed"),)

    def note(self, what: str) -> None:
        value = self.value
        value.check(value.term)
        self.log.append((what, value.leader, value.term, value.leading))

    def follow(self, leader: int, term: int) -> None:
        role = StateType.LEADER if leader == OWN else StateType.FOLLOWER
        self.value.follow(SoftState(leader, role), term)
        self.value.check(term)


def test_everything_has_changed_before_anybody_is_told() -> None:
    told = Told()
    told.follow(OTHER, 5)
    told.follow(0, 6)
    told.follow(OWN, 6)
    told.follow(THIRD, 7)
    assert told.log == [
        ("leader behind 0", OTHER, 5, False),
        ("leader behind 0", OWN, 6, True),
        (f"leader behind {OWN}", THIRD, 7, False),
        ("deposed", THIRD, 7, False),
    ]
    assert told.counters.leader_changes_seen == 3


def test_since_when_is_kept_while_nobody_leads() -> None:
    told = Told()
    told.loop.run_until(3.0)
    told.follow(OTHER, 5)
    told.loop.run_until(8.0)
    told.follow(0, 5)
    assert (told.value.leader, told.value.since_s) == (0, 3.0)
    told.follow(OTHER, 6)
    assert told.value.since_s == 8.0


def test_a_leader_is_confirmed_by_its_first_entry_and_no_longer_than_it_leads() -> None:
    told = Told()
    told.value.standing(sole_voter=True, serves=True)
    told.follow(OWN, 5)
    assert not told.value.confirmed and not told.value.alone
    told.value.first_applied(4, leads=False)  # of a leader before
    assert not told.value.confirmed
    told.value.first_applied(5, leads=True)
    assert told.value.confirmed and told.value.alone
    told.value.first_applied(6, leads=True)  # deposed and elected again without a word
    assert told.value.term == 6
    told.follow(0, 7)
    assert not told.value.confirmed and not told.value.alone
    assert [what for what, *_ in told.log] == [
        "leader behind 0",
        "confirmed",
        "confirmed",
        "deposed",
    ]


def test_who_is_left_alone_reads_at_once_only_from_its_next_term_on() -> None:
    told = Told()
    told.value.standing(sole_voter=True, serves=True)
    told.follow(OWN, 5)
    told.value.first_applied(5, leads=True)
    told.value.standing(sole_voter=False, serves=True)
    assert not told.value.alone
    told.value.standing(sole_voter=True, serves=True)
    assert not told.value.alone
    told.value.first_applied(6, leads=True)
    assert told.value.alone


def test_in_service_with_a_leader_and_as_the_membership_allows() -> None:
    told = Told()
    value = told.value
    assert not value.in_service
    told.follow(OTHER, 5)
    assert value.in_service
    value.standing(sole_voter=False, serves=False)
    assert not value.in_service
    value.standing(sole_voter=False, serves=True)
    assert value.in_service
    told.follow(0, 5)
    assert not value.in_service


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("leading", True),
        ("confirmed", True),
        ("alone", True),
        ("in_service", False),
        ("term", 9),
    ],
)
def test_a_value_that_contradicts_itself_is_told(field: str, wrong: object) -> None:
    told = Told()
    told.follow(OTHER, 5)
    setattr(told.value, field, wrong)
    with pytest.raises(InvariantError):
        told.value.check(5)


def test_what_a_verb_asks_of_raft_is_carried_out_without_another_word() -> None:
    one = OneMember()
    one.member.raft.campaign()
    one.run(0.05)
    assert one.member.leadership.leading and one.member.leadership.alone
    states: list[bytes] = []
    one.member.read_states = lambda found: states.extend(s.context for s in found)  # type: ignore[assignment, method-assign]
    one.member.raft.read_index(b"context")
    one.run(0.0)
    assert states == [b"context"]
    with pytest.raises(ProposalDroppedError):
        OneMember().member.raft.propose_conf_change(ConfChange(0, 7))  # nobody leads


def test_nobody_reaches_past_the_verbs() -> None:
    found = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in SOURCE.rglob("*.py")
        if not path.is_relative_to(SOURCE / "server" / "consensus")
        for line in path.read_text().splitlines()
        if re.search(r"raft(_loop)?\.node\b(?!:)", line)
    ]
    assert not found, found
    assert not hasattr(RaftLoop, "wake")


def test_nobody_else_writes_who_leads() -> None:
    names = "|".join(name for name in Leadership.__slots__ if not name.startswith(("_", "on_")))
    found = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in SOURCE.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(rf"leadership\.({names})\b[^=!<>]* = ", line)
    ]
    assert not found, found
