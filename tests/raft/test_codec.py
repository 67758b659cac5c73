"""Raft's bytes: golden forms of both dialects, agreement with the generated messages, hostility."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.proto import raft_pb2 as pb
from keyraft.raft import codec
from keyraft.raft.types import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeV2,
    ConfState,
    Entry,
    HardState,
    Message,
    Snapshot,
    SnapshotMeta,
)
from tests.support.examples import examples

u64 = st.one_of(
    st.integers(0, 300), st.integers(0, 1 << 28), st.integers(0, 2**64 - 1), st.just(2**64 - 1)
)
ids = st.lists(u64, max_size=4)
blobs = st.one_of(st.binary(max_size=8), st.binary(min_size=120, max_size=300))

entries = st.builds(Entry, u64, u64, blobs, st.integers(0, 2))
hard_states = st.builds(HardState, u64, u64, u64)
conf_states = st.builds(ConfState, ids, ids, ids, ids, st.booleans())
metas = st.builds(SnapshotMeta, conf_states, u64, u64)
snapshots = st.builds(Snapshot, blobs, metas)
conf_changes = st.builds(ConfChange, st.integers(0, 3), u64, blobs, u64)
conf_changes_v2 = st.builds(
    ConfChangeV2,
    st.lists(st.builds(ConfChangeSingle, st.integers(0, 3), u64), max_size=4),
    st.integers(0, 2),
    blobs,
)


def messages(depth: int) -> st.SearchStrategy[Message]:
    nested = st.lists(messages(depth - 1), max_size=2) if depth else st.just([])
    return st.builds(
        Message,
        type=st.integers(0, 23),
        to=u64,
        from_=u64,
        term=u64,
        log_term=u64,
        index=u64,
        entries=st.lists(entries, max_size=3),
        commit=u64,
        snapshot=st.none() | snapshots.filter(lambda s: s.data or s.meta.index),
        reject=st.booleans(),
        reject_hint=u64,
        context=blobs,
        vote=u64,
        responses=nested,
    )


# --- the same values as generated messages, written by another encoder ---------------------------


def pb_entry(e: Entry) -> pb.Entry:
    return pb.Entry(Type=e.type, Term=e.term, Index=e.index, Data=e.data)


def pb_conf_state(c: ConfState) -> pb.ConfState:
    return pb.ConfState(
        voters=c.voters,
        learners=c.learners,
        voters_outgoing=c.voters_outgoing,
        learners_next=c.learners_next,
        auto_leave=c.auto_leave,
    )


def pb_snapshot(s: Snapshot) -> pb.Snapshot:
    meta = pb.SnapshotMetadata(
        conf_state=pb_conf_state(s.meta.conf_state), index=s.meta.index, term=s.meta.term
    )
    return pb.Snapshot(data=s.data, metadata=meta)


def pb_message(m: Message) -> pb.Message:
    """Every field set, as etcd up to 3.6 does it."""
    out = pb.Message(
        type=m.type,
        to=m.to,
        term=m.term,
        logTerm=m.log_term,
        index=m.index,
        entries=[pb_entry(e) for e in m.entries],
        commit=m.commit,
        snapshot=pb_snapshot(m.snapshot if m.snapshot is not None else Snapshot()),
        reject=m.reject,
        rejectHint=m.reject_hint,
        context=m.context,
        vote=m.vote,
        responses=[pb_message(r) for r in m.responses],
    )
    setattr(out, "from", m.from_)
    return out


def set_fields(message: Any) -> dict[str, Any]:
    """The fields that are not zero, to compare messages whatever presence they were written with."""
    out: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and not isinstance(value, pb.Snapshot):
            plain: Any = (
                ([set_fields(v) for v in value] if field.name != "metadata" else set_fields(value))
                if field.name != "conf_state"
                else set_fields(value)
            )
        elif isinstance(value, pb.Snapshot):
            plain = set_fields(value)
        elif isinstance(value, (int, bytes, bool)):
            plain = value
        else:
            plain = list(value)
        if plain:
            out[field.name] = plain
    return out


# --- golden ---------------------------------------------------------------------------------------


def test_entry_of_both_dialects_is_read_and_the_short_one_written() -> None:
    entry = Entry(2, 7, b"foo")
    assert codec.encode_entry(entry).hex() == "100218072203666f6f"
    assert codec.decode_entry(bytes.fromhex("100218072203666f6f")) == entry
    assert codec.decode_entry(bytes.fromhex("0800100218072203666f6f")) == entry


def test_empty_entry_of_a_new_leader() -> None:
    assert codec.encode_entry(Entry(2, 4)).hex() == "10021804"
    assert codec.decode_entry(bytes.fromhex("08001002180422" + "00")) == Entry(2, 4)


def test_entry_with_long_numbers() -> None:
    entry = Entry(300, 1 << 40, b"x" * 200, 1)
    assert codec.encode_entry(entry).hex() == "080110ac02188080808080202" + "2c801" + "78" * 200


def test_hard_state_is_written_whole() -> None:
    assert codec.encode_hard_state(HardState(1, 0, 0)).hex() == "080110001800"
    assert codec.decode_hard_state(bytes.fromhex("0801")) == HardState(1)


def test_conf_state_lists_are_written_unpacked_and_read_packed_too() -> None:
    state = ConfState([1, 300], [2], auto_leave=True)
    assert codec.encode_conf_state(state).hex() == "080108ac0210022801"
    assert codec.decode_conf_state(bytes.fromhex("0a0301ac0210022801")) == state


def test_the_almost_empty_snapshot_of_older_members_counts_as_none() -> None:
    wire = bytes.fromhex("08081003180120054a0a12080a02280010001800")
    assert codec.decode_message(wire) == Message(8, 3, 1, 5)
    assert codec.encode_message(Message(8, 3, 1, 5)).hex() == "0808100318012005"


def test_configuration_change_in_full() -> None:
    change = ConfChange(0, 5, b"{}")
    assert codec.encode_conf_change(change).hex() == "0800100018052202" + b"{}".hex()


def test_no_bytes_are_the_change_that_leaves_a_joint_configuration() -> None:
    assert codec.decode_conf_change_v2(b"").leaves_joint()


# --- agreement with the generated messages --------------------------------------------------------


@given(entries)
def test_entries_agree_with_the_generated_code(entry: Entry) -> None:
    wire = codec.encode_entry(entry)
    assert set_fields(pb.Entry.FromString(wire)) == set_fields(pb_entry(entry))
    assert codec.decode_entry(wire) == entry
    assert codec.decode_entry(pb_entry(entry).SerializeToString()) == entry
    assert codec.entry_size(entry) == len(wire)


@given(hard_states)
def test_hard_states_are_the_generated_codes_bytes(state: HardState) -> None:
    wire = codec.encode_hard_state(state)
    expected = pb.HardState(term=state.term, vote=state.vote, commit=state.commit)
    assert wire == expected.SerializeToString()
    assert codec.decode_hard_state(wire) == state


@given(conf_states)
def test_conf_states_are_the_generated_codes_bytes(state: ConfState) -> None:
    wire = codec.encode_conf_state(state)
    assert wire == pb_conf_state(state).SerializeToString()
    assert codec.decode_conf_state(wire) == state


@given(snapshots)
def test_snapshots_agree_with_the_generated_code(snapshot: Snapshot) -> None:
    wire = codec.encode_snapshot(snapshot)
    assert set_fields(pb.Snapshot.FromString(wire)) == set_fields(pb_snapshot(snapshot))
    assert codec.decode_snapshot(wire) == snapshot
    assert codec.decode_snapshot(pb_snapshot(snapshot).SerializeToString()) == snapshot


@examples(40)
@given(messages(2))
def test_messages_agree_with_the_generated_code(message: Message) -> None:
    wire = codec.encode_message(message)
    assert codec.decode_message(wire) == message
    assert codec.decode_message(pb_message(message).SerializeToString()) == message
    assert codec.decode_message(pb.Message.FromString(wire).SerializeToString()) == message


@given(conf_changes)
def test_conf_changes_agree_with_the_generated_code(change: ConfChange) -> None:
    wire = codec.encode_conf_change(change)
    assert codec.decode_conf_change(wire) == change
    theirs = pb.ConfChange.FromString(wire)
    assert (theirs.id, theirs.type, theirs.node_id, theirs.context) == (
        change.id,
        change.type,
        change.node_id,
        change.context,
    )
    assert codec.decode_conf_change(theirs.SerializeToString()) == change


@given(conf_changes_v2)
def test_conf_changes_v2_agree_with_the_generated_code(change: ConfChangeV2) -> None:
    wire = codec.encode_conf_change_v2(change)
    assert codec.decode_conf_change_v2(wire) == change
    assert codec.decode_conf_change_v2(pb.ConfChangeV2.FromString(wire).SerializeToString()) == (
        change
    )


# --- hostility ------------------------------------------------------------------------------------

DECODERS = (
    codec.decode_entry,
    codec.decode_hard_state,
    codec.decode_conf_state,
    codec.decode_snapshot,
    codec.decode_snapshot_meta,
    codec.decode_message,
    codec.decode_conf_change,
    codec.decode_conf_change_v2,
)


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_raise_the_one_error(wire: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(wire)
        except codec.CodecError:
            continue


@examples(60)
@given(messages(1), st.data())
def test_a_damaged_message_decodes_or_raises_the_one_error(
    message: Message, data: st.DataObject
) -> None:
    wire = bytearray(codec.encode_message(message))
    position = data.draw(st.integers(0, len(wire) - 1))
    wire[position] ^= data.draw(st.integers(1, 255))
    try:
        codec.decode_message(bytes(wire[: data.draw(st.integers(0, len(wire)))]))
    except codec.CodecError as error:
        assert str(error)


@pytest.mark.parametrize(
    "wire",
    [
        "10",  # no value
        "10ffffffffffffffffffff01",  # longer than 64 bits
        "10ffffffffffffffffff02",  # the tenth byte holds more than one bit
        "2205" + "61",  # data longer than the entry
        "12" + "0161",  # Term as bytes
        "0803",  # no such entry type
        "00",  # field number 0
        "2b",  # a group
        "2d0000",  # an unknown fixed32, cut short
    ],
)
def test_what_is_no_entry_is_refused(wire: str) -> None:
    with pytest.raises(codec.CodecError):
        codec.decode_entry(bytes.fromhex(wire))


def test_unknown_fields_are_skipped() -> None:
    extra = "2801" + "3203616263" + "39" + "00" * 8 + "45" + "00" * 4 + "a20600"
    assert codec.decode_entry(bytes.fromhex("10021807" + extra)) == Entry(2, 7)


def test_the_largest_number_is_read() -> None:
    assert codec.decode_entry(bytes.fromhex("10ffffffffffffffffff01")).term == 2**64 - 1


def test_deeply_nested_responses_are_refused() -> None:
    wire = b""
    for _ in range(codec.RESPONSES_DEPTH_MAX + 1):
        wire = b"\x72" + codec.encode_varint(len(wire)) + wire
    with pytest.raises(codec.CodecError):
        codec.decode_message(wire)
