"""Names of numbers, as etcd's log lines and descriptions spell them."""

from __future__ import annotations

from keyraft.raft.types import ConfChangeTransition, ConfChangeType, EntryType, MessageType


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


_MESSAGE_NAMES = {kind.value: f"Msg{_camel(kind.name)}" for kind in MessageType}
_ENTRY_NAMES = {
    EntryType.NORMAL.value: "EntryNormal",
    EntryType.CONF_CHANGE.value: "EntryConfChange",
    EntryType.CONF_CHANGE_V2.value: "EntryConfChangeV2",
}
_CHANGE_NAMES = {kind.value: f"ConfChange{_camel(kind.name)}" for kind in ConfChangeType}
_TRANSITION_NAMES = {
    kind.value: f"ConfChangeTransition{_camel(kind.name)}" for kind in ConfChangeTransition
}


def message_name(type: int) -> str:
    """`MsgApp` and the like; a number without a name is its digits."""
    return _MESSAGE_NAMES.get(type) or str(type)


def entry_name(type: int) -> str:
    """`EntryNormal` and the like."""
    return _ENTRY_NAMES.get(type) or str(type)


def change_name(type: int) -> str:
    """`ConfChangeAddNode` and the like."""
    return _CHANGE_NAMES.get(type) or str(type)


def transition_name(transition: int) -> str:
    """`ConfChangeTransitionAuto` and the like."""
    return _TRANSITION_NAMES.get(transition) or str(transition)
