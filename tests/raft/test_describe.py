"""Descriptions for people, in etcd's wording; the scripts cover the rest."""

from __future__ import annotations

import pytest

from keyraft.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    Entry,
    EntryType,
    HardState,
    Message,
    ReadState,
    Ready,
    SoftState,
    StateType,
    describe,
)


def test_a_ready_with_everything_small() -> None:
    ready = Ready()
    assert describe.describe_ready(ready) == "<empty Ready>"
    ready.soft_state = SoftState(1, StateType.LEADER)
    ready.hard_state = HardState(2, 0, 3)
    ready.read_states = [ReadState(5, b"ab"), ReadState(6, b"")]
    assert describe.describe_ready(ready) == (
        "Ready MustSync=false:\nLead:1 State:StateLeader\nHardState Term:2 Commit:3\n"
        "ReadStates [{5 [97 98]} {6 []}]\n"
    )


def test_entries_with_a_formatter_of_their_own() -> None:
    entry = Entry(1, 2, b"data")
    assert describe.describe_entry(entry, lambda data: data.decode().upper()) == (
        "1/2 EntryNormal DATA"
    )
    assert describe.describe_entry(Entry(1, 2), lambda data: "") == "1/2 EntryNormal"
    assert describe.describe_entry(Entry(1, 3, b"\xff", EntryType.CONF_CHANGE.value)).startswith(
        "1/3 EntryConfChange "
    )


def test_configuration_changes() -> None:
    changes = [ConfChangeSingle(kind.value, 3 + kind.value) for kind in ConfChangeType]
    text = describe.describe_conf_changes(changes)
    assert text == "v3 r4 u5 l6"
    assert describe.parse_conf_changes(text) == changes
    assert describe.describe_conf_change(ConfChangeV2(changes[:1], 2, b"why")) == (
        "transition:ConfChangeTransitionJointExplicit "
        'changes:{type:ConfChangeAddNode node_id:3} context:"why"'
    )
    assert describe.describe_conf_change(ConfChange(1, 7)) == (
        "transition:ConfChangeTransitionAuto changes:{type:ConfChangeRemoveNode node_id:7}"
    )
    for wrong in ("v", "x1", "v1x", "v99999999999999999999"):
        with pytest.raises(ValueError):
            describe.parse_conf_changes(wrong)


def test_a_type_without_a_name_is_a_number() -> None:
    assert describe.describe_message(Message(77, 1, 2, 3)) == "2->1 77 Term:3 Log:0/0"
