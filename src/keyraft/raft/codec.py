"""Raft's values as etcd's protobuf bytes, by hand, because every entry passes here twice (entries
themselves: `entry_codec`).

Two dialects are on disks and wires. etcd up to 3.6 writes every scalar even when it is zero and
puts an almost empty snapshot into every message; 3.7 leaves out what is unset. Both are read: a
field that is missing has its zero value, an empty snapshot counts as none. What is written is 3.7's
form: HardState, ConfState, snapshot metadata and configuration changes in full, entries and
messages without their zeros (a message always has its type).

    Message           type 1, to 2, from 3, term 4, logTerm 5, index 6, entries 7, commit 8,
                      snapshot 9, reject 10, rejectHint 11, context 12, vote 13, responses 14
    Snapshot          data 1, metadata 2 {conf_state 1, index 2, term 3}
    ConfState         voters 1, learners 2, voters_outgoing 3, learners_next 4, auto_leave 5
    HardState         term 1, vote 2, commit 3
    ConfChange        id 1, type 2, node_id 3, context 4
    ConfChangeV2      transition 1, changes 2 {type 1, node_id 2}, context 3

Everything decoded may come from a damaged disk or a hostile peer: whatever is not one of these
messages raises `CodecError` and nothing else. Decoding allocates no more than the input's length
times a small constant. Unknown fields are skipped, as a newer member may send them.
"""

from __future__ import annotations

from typing import Final

from keyraft.base.protofields import read_length, skip
from keyraft.base.varints import CodecError as CodecError
from keyraft.base.varints import encode_varint as encode_varint
from keyraft.base.varints import read_id, read_varint
from keyraft.base.varints import varint_size as varint_size
from keyraft.raft.entry_codec import decode_entry as decode_entry
from keyraft.raft.entry_codec import decode_entry_at
from keyraft.raft.entry_codec import encode_entry as encode_entry
from keyraft.raft.entry_codec import entry_size as entry_size
from keyraft.raft.limits import ENTRIES_MAX, MEMBERS_MAX
from keyraft.raft.types import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeV2,
    ConfState,
    HardState,
    Message,
    Snapshot,
    SnapshotMeta,
)

RESPONSES_DEPTH_MAX: Final = 4  # nesting of responses; two levels are ever made


# --- hard state, configuration, snapshot ----------------------------------------------------------


def encode_hard_state(state: HardState) -> bytes:
    """All three fields, zeros too, as every etcd writes them."""
    return b"".join(
        (
            b"\x08",
            encode_varint(state.term),
            b"\x10",
            encode_varint(state.vote),
            b"\x18",
            encode_varint(state.commit),
        )
    )


def decode_hard_state(buf: bytes) -> HardState:
    """Raises CodecError."""
    numbers, _ = _decode_flat(buf, 0, len(buf), 3, 0)
    return HardState(numbers[1], numbers[2], numbers[3])


def encode_conf_state(state: ConfState) -> bytes:
    """The lists unpacked, then auto_leave whatever its value."""
    parts: list[bytes] = []
    for tag, ids in (
        (b"\x08", state.voters),
        (b"\x10", state.learners),
        (b"\x18", state.voters_outgoing),
        (b"\x20", state.learners_next),
    ):
        for node_id in ids:
            parts.append(tag)
            parts.append(encode_varint(node_id))
    parts.append(b"\x28\x01" if state.auto_leave else b"\x28\x00")
    return b"".join(parts)


def decode_conf_state(buf: bytes) -> ConfState:
    """Raises CodecError; reads packed lists as well."""
    return _decode_conf_state(buf, 0, len(buf))


def _decode_conf_state(buf: bytes, pos: int, end: int) -> ConfState:
    state = ConfState()
    lists = (state.voters, state.learners, state.voters_outgoing, state.learners_next)
    while pos < end:
        key, pos = read_varint(buf, pos, end)
        number = key >> 3
        wire_type = key & 7
        if 1 <= number <= 4 and wire_type == 0:
            value, pos = read_varint(buf, pos, end)
            lists[number - 1].append(value)
            _check_members(len(lists[number - 1]))
        elif 1 <= number <= 4 and wire_type == 2:
            pos, stop = read_length(buf, pos, end)
            while pos < stop:
                value, pos = read_varint(buf, pos, stop)
                lists[number - 1].append(value)
                _check_members(len(lists[number - 1]))
        elif key == 0x28:
            value, pos = read_varint(buf, pos, end)
            state.auto_leave = value != 0
        elif 1 <= number <= 5:
            raise CodecError(f"field {number} has wire type {wire_type}")
        else:
            pos = skip(buf, pos, end, key)
    return state


def _check_members(count: int) -> None:
    if count > MEMBERS_MAX:
        raise CodecError(f"a configuration of more than {MEMBERS_MAX} members")


def encode_snapshot_meta(meta: SnapshotMeta) -> bytes:
    """Everything, zeros too."""
    conf_state = encode_conf_state(meta.conf_state)
    return b"".join(
        (
            b"\x0a",
            encode_varint(len(conf_state)),
            conf_state,
            b"\x10",
            encode_varint(meta.index),
            b"\x18",
            encode_varint(meta.term),
        )
    )


def decode_snapshot_meta(buf: bytes) -> SnapshotMeta:
    """Raises CodecError."""
    return _decode_snapshot_meta(buf, 0, len(buf))


def _decode_snapshot_meta(buf: bytes, pos: int, end: int) -> SnapshotMeta:
    meta = SnapshotMeta()
    while pos < end:
        key, pos = read_varint(buf, pos, end)
        if key == 0x0A:
            pos, stop = read_length(buf, pos, end)
            meta.conf_state = _decode_conf_state(buf, pos, stop)
            pos = stop
        elif key == 0x10:
            meta.index, pos = read_varint(buf, pos, end)
        elif key == 0x18:
            meta.term, pos = read_varint(buf, pos, end)
        elif 1 <= key >> 3 <= 3:
            raise CodecError(f"field {key >> 3} has wire type {key & 7}")
        else:
            pos = skip(buf, pos, end, key)
    return meta


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Data when there is any, and the metadata."""
    meta = encode_snapshot_meta(snapshot.meta)
    tail = b"\x12" + encode_varint(len(meta)) + meta
    if snapshot.data:
        return b"".join((b"\x0a", encode_varint(len(snapshot.data)), snapshot.data, tail))
    return tail


def decode_snapshot(buf: bytes) -> Snapshot:
    """Raises CodecError."""
    return _decode_snapshot(buf, 0, len(buf))


def _decode_snapshot(buf: bytes, pos: int, end: int) -> Snapshot:
    snapshot = Snapshot()
    while pos < end:
        key, pos = read_varint(buf, pos, end)
        if key == 0x0A:
            pos, stop = read_length(buf, pos, end)
            snapshot.data = buf[pos:stop]
            pos = stop
        elif key == 0x12:
            pos, stop = read_length(buf, pos, end)
            snapshot.meta = _decode_snapshot_meta(buf, pos, stop)
            pos = stop
        elif 1 <= key >> 3 <= 2:
            raise CodecError(f"field {key >> 3} has wire type {key & 7}")
        else:
            pos = skip(buf, pos, end, key)
    return snapshot


# --- messages -------------------------------------------------------------------------------------


def encode_message(message: Message) -> bytes:
    """The type always, the rest where it is not zero; an empty snapshot counts as none."""
    parts = [b"\x08", encode_varint(message.type)]
    if message.to:
        parts += b"\x10", encode_varint(message.to)
    if message.from_:
        parts += b"\x18", encode_varint(message.from_)
    if message.term:
        parts += b"\x20", encode_varint(message.term)
    if message.log_term:
        parts += b"\x28", encode_varint(message.log_term)
    if message.index:
        parts += b"\x30", encode_varint(message.index)
    for entry in message.entries:
        encoded = encode_entry(entry)
        parts.append(b"\x3a")
        parts.append(encode_varint(len(encoded)))
        parts.append(encoded)
    if message.commit:
        parts.append(b"\x40")
        parts.append(encode_varint(message.commit))
    snapshot = message.snapshot
    if snapshot is not None and (snapshot.meta.index or snapshot.data):
        _append_bytes(parts, b"\x4a", encode_snapshot(snapshot))
    if message.reject:
        parts.append(b"\x50\x01")
    if message.reject_hint:
        parts.append(b"\x58")
        parts.append(encode_varint(message.reject_hint))
    if message.context:
        _append_bytes(parts, b"\x62", message.context)
    if message.vote:
        parts.append(b"\x68")
        parts.append(encode_varint(message.vote))
    for response in message.responses:
        _append_bytes(parts, b"\x72", encode_message(response))
    return b"".join(parts)


def _append_bytes(parts: list[bytes], tag: bytes, content: bytes) -> None:
    parts.append(tag)
    parts.append(encode_varint(len(content)))
    parts.append(content)


def decode_message(buf: bytes) -> Message:
    """Raises CodecError. A type this version does not know is kept as its number."""
    return _decode_message(buf, 0, len(buf), RESPONSES_DEPTH_MAX)


_MESSAGE_SCALARS: Final = {
    0x08: "type",
    0x20: "term",
    0x28: "log_term",
    0x30: "index",
    0x40: "commit",
    0x58: "reject_hint",
    0x68: "vote",
}


def _decode_message(buf: bytes, pos: int, end: int, depth: int) -> Message:
    message = Message()
    entries = message.entries
    while pos < end:
        key = buf[pos]
        pos += 1
        if key > 127:
            key, pos = read_varint(buf, pos - 1, end)
        if key == 0x3A:
            pos, stop = read_length(buf, pos, end)
            if len(entries) == ENTRIES_MAX:
                raise CodecError(f"more than {ENTRIES_MAX} entries")
            entries.append(decode_entry_at(buf, pos, stop))
            pos = stop
        elif key == 0x10:
            message.to, pos = read_id(buf, pos, end)
        elif key == 0x18:
            message.from_, pos = read_id(buf, pos, end)
        elif key in _MESSAGE_SCALARS:
            value, pos = read_varint(buf, pos, end)
            setattr(message, _MESSAGE_SCALARS[key], value)
        elif key == 0x50:
            value, pos = read_varint(buf, pos, end)
            message.reject = value != 0
        elif key == 0x62:
            pos, stop = read_length(buf, pos, end)
            message.context = buf[pos:stop]
            pos = stop
        elif key == 0x4A:
            pos, stop = read_length(buf, pos, end)
            snapshot = _decode_snapshot(buf, pos, stop)
            if snapshot.meta.index or snapshot.data:
                message.snapshot = snapshot
            pos = stop
        elif key == 0x72:
            if not depth:
                raise CodecError("responses are nested too deep")
            pos, stop = read_length(buf, pos, end)
            if len(message.responses) == ENTRIES_MAX:
                raise CodecError(f"more than {ENTRIES_MAX} responses")
            message.responses.append(_decode_message(buf, pos, stop, depth - 1))
            pos = stop
        elif 1 <= key >> 3 <= 14:
            raise CodecError(f"field {key >> 3} has wire type {key & 7}")
        else:
            pos = skip(buf, pos, end, key)
    return message


# --- configuration changes ------------------------------------------------------------------------


def encode_conf_change(change: ConfChange) -> bytes:
    """The form etcd proposes, zeros too."""
    parts = [
        b"\x08",
        encode_varint(change.id),
        b"\x10",
        encode_varint(change.type),
        b"\x18",
        encode_varint(change.node_id),
    ]
    if change.context:
        _append_bytes(parts, b"\x22", change.context)
    return b"".join(parts)


def decode_conf_change(buf: bytes) -> ConfChange:
    """Raises CodecError."""
    numbers, context = _decode_flat(buf, 0, len(buf), 3, 4)
    return ConfChange(numbers[2], numbers[3], context, numbers[1])


def encode_conf_change_v2(change: ConfChangeV2) -> bytes:
    """Transition and changes, zeros too."""
    parts = [b"\x08", encode_varint(change.transition)]
    for single in change.changes:
        content = b"".join(
            (b"\x08", encode_varint(single.type), b"\x10", encode_varint(single.node_id))
        )
        _append_bytes(parts, b"\x12", content)
    if change.context:
        _append_bytes(parts, b"\x1a", change.context)
    return b"".join(parts)


def decode_conf_change_v2(buf: bytes) -> ConfChangeV2:
    """Raises CodecError; no bytes at all are the change that leaves a joint configuration."""
    change = ConfChangeV2()
    pos = 0
    end = len(buf)
    while pos < end:
        key, pos = read_varint(buf, pos, end)
        if key == 0x08:
            change.transition, pos = read_varint(buf, pos, end)
        elif key == 0x12:
            pos, stop = read_length(buf, pos, end)
            numbers, _ = _decode_flat(buf, pos, stop, 2, 0)
            _check_members(len(change.changes))
            change.changes.append(ConfChangeSingle(numbers[1], numbers[2]))
            pos = stop
        elif key == 0x1A:
            pos, stop = read_length(buf, pos, end)
            change.context = buf[pos:stop]
            pos = stop
        elif 1 <= key >> 3 <= 3:
            raise CodecError(f"field {key >> 3} has wire type {key & 7}")
        else:
            pos = skip(buf, pos, end, key)
    return change


def _decode_flat(
    buf: bytes, pos: int, end: int, numbers_max: int, bytes_field: int
) -> tuple[list[int], bytes]:
    """A message of the number fields 1..numbers_max and perhaps one bytes field.

    Returns the numbers (index 0 unused) and the bytes.
    """
    numbers = [0] * (numbers_max + 1)
    content = b""
    while pos < end:
        key, pos = read_varint(buf, pos, end)
        number = key >> 3
        if 1 <= number <= numbers_max and not key & 7:
            numbers[number], pos = read_varint(buf, pos, end)
        elif number == bytes_field and key & 7 == 2:
            pos, stop = read_length(buf, pos, end)
            content = buf[pos:stop]
            pos = stop
        elif 1 <= number <= numbers_max or (number and number == bytes_field):
            raise CodecError(f"field {number} has wire type {key & 7}")
        else:
            pos = skip(buf, pos, end, key)
    return numbers, content
