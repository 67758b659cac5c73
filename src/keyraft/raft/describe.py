"""Short descriptions of Raft's values for people: logs, scripts, debugging. etcd's wording."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keyraft.base.gotext import format_bool, parse_uint, quote
from keyraft.base.ids import UINT64_MAX
from keyraft.raft import codec
from keyraft.raft.names import change_name, entry_name, message_name, transition_name
from keyraft.raft.quorum import AckedIndex, JointConfig
from keyraft.raft.types import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    NO_NODE,
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    ReadState,
    Snapshot,
)

if TYPE_CHECKING:
    from keyraft.raft.rawnode import Ready
    from keyraft.raft.state import SoftState

EntryFormatter = Callable[[bytes], str]

_CHANGE_LETTERS = {
    ConfChangeType.ADD_NODE.value: "v",
    ConfChangeType.ADD_LEARNER_NODE.value: "l",
    ConfChangeType.REMOVE_NODE.value: "r",
    ConfChangeType.UPDATE_NODE.value: "u",
}


def _ids(ids: list[int]) -> str:
    return f"[{' '.join(map(str, ids))}]"


def describe_hard_state(state: HardState) -> str:
    """`Term:1 Vote:2 Commit:3`; no vote is left out."""
    vote = f" Vote:{state.vote}" if state.vote else ""
    return f"Term:{state.term}{vote} Commit:{state.commit}"


def describe_soft_state(state: SoftState) -> str:
    """`Lead:1 State:StateFollower`."""
    return f"Lead:{state.lead} State:{state.state}"


def describe_conf_state(state: ConfState) -> str:
    """All lists, in the order they stand."""
    return (
        f"Voters:{_ids(state.voters)} VotersOutgoing:{_ids(state.voters_outgoing)} "
        f"Learners:{_ids(state.learners)} LearnersNext:{_ids(state.learners_next)} "
        f"AutoLeave:{format_bool(state.auto_leave)}"
    )


def describe_snapshot(snapshot: Snapshot) -> str:
    """Where it stands and its configuration."""
    meta = snapshot.meta
    return f"Index:{meta.index} Term:{meta.term} ConfState:{describe_conf_state(meta.conf_state)}"


def describe_read_states(states: list[ReadState]) -> str:
    """As Go's %v prints a list of structs: the context as a list of numbers."""
    return f"[{' '.join(f'{{{state.index} {_ids(list(state.context))}}}' for state in states)}]"


def describe_conf_changes(changes: list[ConfChangeSingle]) -> str:
    """`v1 l2 r3 u4`: voters, learners, removals, updates."""
    return " ".join(
        f"{_CHANGE_LETTERS.get(change.type, 'unknown')}{change.node_id}" for change in changes
    )


def parse_conf_changes(text: str) -> list[ConfChangeSingle]:
    """The inverse of describe_conf_changes; raises ValueError."""
    types = {letter: type_ for type_, letter in _CHANGE_LETTERS.items()}
    changes: list[ConfChangeSingle] = []
    for token in text.strip().split(" ") if text.strip() else []:
        if len(token) < 2:
            raise ValueError(f"unknown token {token}")
        if token[0] not in types:
            raise ValueError(f"unknown input: {token}")
        changes.append(ConfChangeSingle(types[token[0]], parse_uint(token[1:])))
    return changes


def describe_conf_change(change: ConfChange | ConfChangeV2) -> str:
    """Transition, changes and context."""
    general = change.as_v2()
    text = f"transition:{transition_name(general.transition)}"
    for single in general.changes:
        text += f" changes:{{type:{change_name(single.type)} node_id:{single.node_id}}}"
    if general.context:
        text += f" context:{quote(general.context)}"
    return text


def describe_entry(entry: Entry, formatter: EntryFormatter | None = None) -> str:
    """`1/2 EntryNormal "data"`: term, index, type, content."""
    try:
        if entry.type == EntryType.CONF_CHANGE:
            change = codec.decode_conf_change(entry.data).as_v2()
            content = describe_conf_changes(change.changes)
        elif entry.type == EntryType.CONF_CHANGE_V2:
            content = describe_conf_changes(codec.decode_conf_change_v2(entry.data).changes)
        else:
            content = (formatter or quote)(entry.data)
    except codec.CodecError as error:
        content = str(error)
    head = f"{entry.term}/{entry.index} {entry_name(entry.type)}"
    return f"{head} {content}" if content else head


def describe_entries(entries: list[Entry], formatter: EntryFormatter | None = None) -> str:
    """One line an entry, each ended by a newline."""
    return "".join(f"{describe_entry(entry, formatter)}\n" for entry in entries)


def _target(node_id: int) -> str:
    if node_id == NO_NODE:
        return "None"
    if node_id == LOCAL_APPEND_THREAD:
        return "AppendThread"
    if node_id == LOCAL_APPLY_THREAD:
        return "ApplyThread"
    return f"{node_id:x}"


def describe_message(
    message: Message, formatter: EntryFormatter | None = None, indent: str = ""
) -> str:
    """From, to, type and whatever is set; more than one entry, and responses, over several lines."""
    parts = [
        f"{indent}{_target(message.from_)}->{_target(message.to)} {message_name(message.type)} "
        f"Term:{message.term} Log:{message.log_term}/{message.index}"
    ]
    if message.reject:
        parts.append(f" Rejected (Hint: {message.reject_hint})")
    if message.commit:
        parts.append(f" Commit:{message.commit}")
    if message.vote:
        parts.append(f" Vote:{message.vote}")
    entries = message.entries
    if len(entries) == 1:
        parts.append(f" Entries:[{describe_entry(entries[0], formatter)}]")
    elif entries:
        parts.append(" Entries:[")
        parts += [f"\n{indent}  {describe_entry(entry, formatter)}" for entry in entries]
        parts.append(f"\n{indent}]")
    if message.snapshot is not None and not message.snapshot.is_empty():
        parts.append(f"\n{indent}  Snapshot: {describe_snapshot(message.snapshot)}")
    if message.responses:
        parts.append(" Responses:[")
        for response in message.responses:
            parts.append(f"\n{describe_message(response, formatter, indent + '  ')}")
        parts.append(f"\n{indent}]")
    return "".join(parts)


def describe_ready(ready: Ready, formatter: EntryFormatter | None = None) -> str:
    """Everything a Ready carries, one matter after the other."""
    parts: list[str] = []
    if ready.soft_state is not None:
        parts.append(f"{describe_soft_state(ready.soft_state)}\n")
    if ready.hard_state is not None and not ready.hard_state.is_empty():
        parts.append(f"HardState {describe_hard_state(ready.hard_state)}\n")
    if ready.read_states:
        parts.append(f"ReadStates {describe_read_states(ready.read_states)}\n")
    if ready.entries:
        parts.append(f"Entries:\n{describe_entries(ready.entries, formatter)}")
    if ready.snapshot is not None and not ready.snapshot.is_empty():
        parts.append(f"Snapshot {describe_snapshot(ready.snapshot)}\n")
    if ready.committed_entries:
        parts.append(f"CommittedEntries:\n{describe_entries(ready.committed_entries, formatter)}")
    if ready.messages:
        parts.append("Messages:\n")
        parts += [f"{describe_message(message, formatter)}\n" for message in ready.messages]
    if not parts:
        return "<empty Ready>"
    return f"Ready MustSync={format_bool(ready.must_sync)}:\n{''.join(parts)}"


def describe_index(index: int) -> str:
    """The number, or the sign of infinity for what an empty majority commits."""
    return "∞" if index == UINT64_MAX else str(index)


def describe_acked(voters: JointConfig, acked: AckedIndex) -> str:
    """A bar for each voter, the longer the further it is ahead of others."""
    ids = sorted(voters.ids())
    if not ids:
        return "<empty majority quorum>"
    count = len(ids)
    known = {node_id: acked(node_id) for node_id in ids}
    indexes = sorted(index or 0 for index in known.values())
    lines = [" " * count + "    idx\n"]
    for node_id in ids:
        index = known[node_id]
        # The bar is as long as there are voters behind.
        bar = indexes.index(index or 0)
        shape = "?" + " " * count if index is None else "x" * bar + ">" + " " * (count - bar)
        lines.append(f"{shape} {describe_index(index or 0):>5}    (id={node_id:x})\n")
    return "".join(lines)
