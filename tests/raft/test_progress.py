"""What a leader knows of a member, and its in-flight window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.raft.progress import PROBE, REPLICATE, SNAPSHOT, Inflights, Progress, ProgressState


def progress_of(
    state: ProgressState, match: int, next_: int, pending: int = 0, window: int = 256
) -> Progress:
    progress = Progress(match, next_, Inflights(window))
    progress.state = state
    progress.pending_snapshot = pending
    return progress


def test_it_prints_what_matters() -> None:
    progress = progress_of(SNAPSHOT, 1, 2, 123, window=1)
    progress.is_learner = True
    progress.flow_paused = True
    progress.inflights.add(123, 1)
    assert str(progress) == (
        "StateSnapshot match=1 next=2 learner paused pendingSnap=123 inactive inflight=1[full]"
    )


@pytest.mark.parametrize(
    ("state", "flow_paused", "paused"),
    [
        (PROBE, False, False),
        (PROBE, True, True),
        (REPLICATE, False, False),
        (REPLICATE, True, True),
        (SNAPSHOT, False, True),
        (SNAPSHOT, True, True),
    ],
)
def test_when_nothing_may_be_sent(state: ProgressState, flow_paused: bool, paused: bool) -> None:
    progress = progress_of(state, 0, 1)
    progress.flow_paused = flow_paused
    assert progress.is_paused() is paused


@pytest.mark.parametrize(
    ("state", "pending", "next_"), [(REPLICATE, 0, 2), (SNAPSHOT, 10, 11), (SNAPSHOT, 0, 2)]
)
def test_probing_starts_behind_what_matches_or_a_pending_snapshot(
    state: ProgressState, pending: int, next_: int
) -> None:
    progress = progress_of(state, 1, 5, pending)
    progress.become_probe()
    assert (progress.state, progress.match, progress.next) == (PROBE, 1, next_)
    assert progress.pending_snapshot == 0


@pytest.mark.parametrize(
    ("index", "match", "next_", "is_news"),
    [(2, 3, 5, False), (3, 3, 5, False), (4, 4, 5, True), (5, 5, 6, True)],
)
def test_acknowledgements_only_move_forward(
    index: int, match: int, next_: int, is_news: bool
) -> None:
    progress = progress_of(PROBE, 3, 5)
    assert progress.maybe_update(index) is is_news
    assert (progress.match, progress.next) == (match, next_)


@pytest.mark.parametrize(
    ("state", "match", "next_", "rejected", "hint", "is_news", "after"),
    [
        (REPLICATE, 5, 10, 5, 5, False, 10),  # already acknowledged
        (REPLICATE, 5, 10, 4, 4, False, 10),
        (REPLICATE, 5, 10, 9, 9, True, 6),
        (PROBE, 0, 0, 0, 0, False, 0),  # not what was asked last
        (PROBE, 0, 10, 5, 5, False, 10),
        (PROBE, 0, 10, 9, 9, True, 9),
        (PROBE, 0, 2, 1, 1, True, 1),
        (PROBE, 0, 1, 0, 0, True, 1),
        (PROBE, 0, 10, 9, 2, True, 3),
        (PROBE, 0, 10, 9, 0, True, 1),
    ],
)
def test_a_rejection_moves_next_back_unless_it_is_stale(
    state: ProgressState,
    match: int,
    next_: int,
    rejected: int,
    hint: int,
    is_news: bool,
    after: int,
) -> None:
    progress = progress_of(state, match, next_)
    assert progress.maybe_decrease_to(rejected, hint) is is_news
    assert (progress.match, progress.next) == (match, after)


def test_a_full_window_pauses_until_something_is_heard() -> None:
    progress = progress_of(REPLICATE, 0, 1, window=2)
    progress.sent_entries(3, 30)
    assert (progress.next, progress.is_paused()) == (4, False)
    progress.sent_entries(1, 10)
    assert (progress.next, progress.is_paused()) == (5, True)
    progress.maybe_update(3)
    progress.inflights.free_to(3)
    assert not progress.is_paused()
    assert len(progress.inflights) == 1


def test_the_commit_index_is_sent_only_when_it_moves_the_member() -> None:
    progress = progress_of(REPLICATE, 5, 8)
    assert progress.can_bump_commit(6)
    progress.sent_commit = 6
    assert not progress.can_bump_commit(6)
    assert progress.can_bump_commit(9)
    progress.sent_commit = 7  # all that was sent to it
    assert not progress.can_bump_commit(9)


@given(
    st.integers(1, 5),
    st.integers(0, 50),
    st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=40),
)
def test_the_window_against_a_list(
    messages_max: int, bytes_max: int, steps: list[tuple[bool, int]]
) -> None:
    window = Inflights(messages_max, bytes_max)
    twin: list[tuple[int, int]] = []
    index = 0
    for is_send, number in steps:
        total = sum(size for _, size in twin)
        is_full = len(twin) >= messages_max or (bytes_max > 0 and total >= bytes_max)
        assert window.full() is is_full
        if is_send and not is_full:
            index += number
            window.add(index, number)
            twin.append((index, number))
        elif not is_send:
            window.free_to(index - number)
            twin = [item for item in twin if item[0] > index - number]
        assert len(window) == len(twin)
        assert window.bytes == sum(size for _, size in twin)
        copy = window.copy()
        copy.reset()
        assert len(copy) == 0
