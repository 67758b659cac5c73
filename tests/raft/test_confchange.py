"""Configuration changes: simple and joint ways agree, a restored configuration is the same one."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keyraft.raft import ConfChangeError, ConfChangeSingle, ConfChangeType, ConfState
from keyraft.raft.confchange import Changer, check_config, restore
from keyraft.raft.tracker import ProgressTracker, format_progress

changes = st.lists(
    st.builds(
        ConfChangeSingle,
        st.sampled_from([kind.value for kind in ConfChangeType]),
        st.integers(1, 6),
    ),
    max_size=6,
)
LAST = 10


def tracker_of(voters: list[int], learners: list[int] | None = None) -> ProgressTracker:
    tracker = ProgressTracker(8)
    tracker.switch_to(*restore(tracker, LAST, ConfState(voters, learners or [])))
    return tracker


def as_text(tracker: ProgressTracker) -> str:
    return f"{tracker.config}\n{format_progress(tracker.progress)}"


@given(changes)
def test_one_by_one_and_jointly_lead_to_the_same_configuration(
    singles: list[ConfChangeSingle],
) -> None:
    one_by_one = tracker_of([1, 2, 3])
    jointly = tracker_of([1, 2, 3])
    try:
        for single in singles:
            one_by_one.switch_to(*Changer(one_by_one, LAST).simple([single]))
    except ConfChangeError:
        assume(False)
    jointly.switch_to(*Changer(jointly, LAST).enter_joint(True, singles))
    assert jointly.config.is_joint()
    jointly.switch_to(*Changer(jointly, LAST).leave_joint())
    # A member removed and added again keeps its progress when that is done jointly.
    assert str(jointly.config) == str(one_by_one.config)
    assert sorted(jointly.progress) == sorted(one_by_one.progress)


@given(changes, st.booleans())
def test_what_a_snapshot_says_of_a_joint_configuration_restores_it(
    singles: list[ConfChangeSingle], auto_leave: bool
) -> None:
    tracker = tracker_of([1, 2, 3], [4])
    try:
        tracker.switch_to(*Changer(tracker, LAST).enter_joint(auto_leave, singles))
    except ConfChangeError:
        assume(False)
    state = tracker.config.conf_state()
    again = ProgressTracker(8)
    again.switch_to(*restore(again, LAST, state))
    assert again.config.conf_state() == state
    assert sorted(again.progress) == sorted(tracker.progress)


@given(changes)
def test_a_change_leaves_the_present_configuration_alone(singles: list[ConfChangeSingle]) -> None:
    tracker = tracker_of([1, 2, 3], [4])
    before = as_text(tracker)
    for attempt in (
        Changer(tracker, LAST).simple,
        lambda c: Changer(tracker, LAST).enter_joint(False, c),
    ):
        try:
            config, progress = attempt(singles)
        except ConfChangeError:
            continue
        check_config(config, progress)
        assert config.voters.incoming
    assert as_text(tracker) == before


def single(kind: ConfChangeType, node_id: int) -> ConfChangeSingle:
    return ConfChangeSingle(kind.value, node_id)


@pytest.mark.parametrize(
    ("singles", "text"),
    [
        (
            [single(ConfChangeType.ADD_NODE, 4), single(ConfChangeType.ADD_NODE, 5)],
            "more than one voter changed without entering joint config",
        ),
        (
            [single(ConfChangeType.REMOVE_NODE, node_id) for node_id in (1, 2, 3)],
            "removed all voters",
        ),
        ([ConfChangeSingle(9, 1)], "unexpected conf type 9"),
    ],
)
def test_what_no_simple_change_can_do(singles: list[ConfChangeSingle], text: str) -> None:
    with pytest.raises(ConfChangeError, match=text):
        Changer(tracker_of([1, 2, 3]), LAST).simple(singles)


def test_a_change_that_was_struck_out_changes_nothing() -> None:
    config, _ = Changer(tracker_of([1, 2]), LAST).simple([single(ConfChangeType.REMOVE_NODE, 0)])
    assert config.conf_state() == ConfState([1, 2])


def test_joint_configurations_are_entered_and_left_in_turn() -> None:
    tracker = tracker_of([1])
    with pytest.raises(ConfChangeError, match="can't leave a non-joint config"):
        Changer(tracker, LAST).leave_joint()
    tracker.switch_to(
        *Changer(tracker, LAST).enter_joint(False, [single(ConfChangeType.ADD_NODE, 2)])
    )
    with pytest.raises(ConfChangeError, match="config is already joint"):
        Changer(tracker, LAST).enter_joint(False, [])
    with pytest.raises(ConfChangeError, match="can't apply simple config change in joint config"):
        Changer(tracker, LAST).simple([])
    with pytest.raises(ConfChangeError, match="can't make a zero-voter config joint"):
        Changer(ProgressTracker(8), LAST).enter_joint(False, [single(ConfChangeType.ADD_NODE, 1)])


def test_a_new_member_is_probed_from_the_end_and_counts_as_active() -> None:
    tracker = tracker_of([1])
    _, progress = Changer(tracker, 7).simple([single(ConfChangeType.ADD_LEARNER_NODE, 2)])
    assert str(progress[2]) == "StateProbe match=0 next=7 learner"
