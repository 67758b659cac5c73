"""Random conversations with every invariant on, and proof that the invariants find planted bugs."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from keyraft.base.invariants import InvariantError
from keyraft.raft import (
    Entry,
    Message,
    MessageType,
    RaftError,
    membership,
    reads,
)
from keyraft.raft.core import Raft
from keyraft.raft.log import RaftLog
from keyraft.raft.types import HardState, Snapshot
from sim.raft.conversation import GroupMember, Options, converse

ACTIONS = 1500


def options_of(seed: int) -> Options:
    """A kind of group for each seed."""
    chance = random.Random(seed)
    return Options(
        members=chance.choice([1, 3, 3, 5]),
        spares=chance.choice([0, 1, 2]),
        async_storage=chance.random() < 0.5,
        pre_vote=chance.random() < 0.5,
        check_quorum=chance.random() < 0.5,
        is_restless=chance.random() < 0.3,
        step_down_on_removal=chance.random() < 0.5,
        conf_changes=chance.random() < 0.5,
        small_limits=chance.random() < 0.4,
        loss=chance.choice([0.0, 0.05, 0.2]),
        crashes=chance.random() < 0.8,
    )


@pytest.mark.parametrize("seed", range(16))
def test_a_random_conversation_keeps_the_invariants(seed: int) -> None:
    converse(seed, options_of(seed), ACTIONS)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(0, 2_000, 100))
def test_many_random_conversations_keep_the_invariants(first: int) -> None:
    for seed in range(first, first + 100):
        converse(seed, options_of(seed), 2 * ACTIONS)


def test_a_seed_repeats_its_conversation() -> None:
    one = converse(3, options_of(3), ACTIONS)
    two = converse(3, options_of(3), ACTIONS)
    assert one.history == two.history
    assert one.proposals == two.proposals


# --- planted bugs ---------------------------------------------------------------------------------


def _vote_before_it_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Votes are sent at once, and the write of the vote is not synced."""
    send = Raft.send

    def send_at_once(self: Raft, message: Message) -> None:
        send(self, message)
        if message.type == MessageType.VOTE_RESP and message.to != self.id:
            self.messages_after_append.remove(message)
            self.messages.append(message)

    write = GroupMember.write

    def write_unsynced(
        self: GroupMember,
        state: HardState | None,
        entries: list[Entry],
        snapshot: Snapshot | None,
        sync: bool,
    ) -> None:
        write(self, state, entries, snapshot, bool(entries))

    monkeypatch.setattr(Raft, "send", send_at_once)
    monkeypatch.setattr(GroupMember, "write", write_unsynced)


def _commit_by_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier term's entry is committed when a quorum holds it (against §5.4.2)."""

    def maybe_commit(self: RaftLog, term: int, index: int) -> bool:
        if index > self.committed:
            self.commit_to(index)
            return True
        return False

    monkeypatch.setattr(RaftLog, "maybe_commit", maybe_commit)


def _read_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader answers reads from what it believes to be committed."""
    monkeypatch.setattr(
        reads, "_confirm", lambda raft, message: reads.answer(raft, message, raft.log.committed)
    )


def _read_before_the_first_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader answers reads before it knows what is committed."""
    monkeypatch.setattr(reads, "has_committed_in_term", lambda raft: True)


def _acknowledge_before_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are acknowledged, and lost in a crash."""
    crash = GroupMember.crash

    def crash_and_lose(self: GroupMember) -> None:
        last = self.storage.last_index()
        crash(self)
        keep = max(self.storage.first_index(), last - 2)
        del self.storage._entries[keep - self.storage.first_index() :]
        state, _ = self.storage.initial_state()
        if state is not None:
            commit = min(state.commit, self.storage.last_index())
            self.storage.set_hard_state(HardState(state.term, state.vote, commit))
            self.watch.restarted(HardState(state.term, state.vote, commit))

    monkeypatch.setattr(GroupMember, "crash", crash_and_lose)


def _two_changes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration changes are proposed while another one is on its way."""
    monkeypatch.setattr(membership, "_problem", lambda raft, change: "")


_CALM = Options(members=3, loss=0.02)
_RESTLESS = Options(members=5, small_limits=True, is_restless=True, loss=0.02)
_CHANGING = Options(members=3, spares=1, conf_changes=True, loss=0.02)

# Each with the kind of group and the seed from which on it is looked for. The seed only saves time:
# a core that speaks otherwise finds the bug at another one.
BUGS = [
    (_vote_before_it_is_durable, _CALM, 66),
    (_commit_by_counting, _RESTLESS, 37),
    (_read_without_asking, _CALM, 7),
    (_read_before_the_first_commit, _RESTLESS, 0),
    (_acknowledge_before_the_disk, _CALM, 0),
    (_two_changes_at_once, _CHANGING, 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "options", "seed"), BUGS, ids=[plant.__name__.strip("_") for plant, _, _ in BUGS]
)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None],
    options: Options,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    for tried in range(seed, seed + 300):
        try:
            converse(tried, options, 2 * ACTIONS)
        except (InvariantError, RaftError, AssertionError):
            return
    pytest.fail("no conversation found it")
