"""Stream encodings between members: whole, byte by byte, and hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.peer.frames import (
    AppendDecoder,
    AppendEncoder,
    FrameError,
    MessageDecoder,
    MessageEncoder,
)
from keyraft.raft.types import Entry, Message, MessageType

LOCAL, REMOTE = 0x11, 0x22


def append(index: int, term: int, log_term: int, entries: list[Entry], commit: int = 0) -> Message:
    return Message(
        type=MessageType.APP,
        to=LOCAL,
        from_=REMOTE,
        term=term,
        log_term=log_term,
        index=index,
        entries=entries,
        commit=commit,
    )


def run_of(term: int, first: int, count: int) -> list[Entry]:
    return [Entry(term, first + i, b"x" * (i % 5)) for i in range(count)]


CONVERSATION = [
    append(0, 2, 0, run_of(2, 1, 3)),  # nothing remembered: whole
    append(3, 2, 2, run_of(2, 4, 2), 3),  # continues: entries alone
    append(5, 2, 2, [], 5),  # only the commit index moves
    append(3, 2, 2, run_of(2, 4, 1), 5),  # probes back: whole
    append(4, 3, 2, run_of(3, 5, 1), 5),  # a new term: whole
    append(5, 3, 3, run_of(3, 6, 1), 6),  # and continues
]


def test_msgapp_stream_uses_the_short_frame_only_where_the_conversation_continues() -> None:
    encoder = AppendEncoder()
    frames = [encoder.encode(message) for message in CONVERSATION]
    assert [frame[0] for frame in frames] == [2, 1, 1, 2, 2, 1]


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
def test_msgapp_stream_arrives_whole_however_it_is_cut(step: int) -> None:
    encoder, decoder = AppendEncoder(), AppendDecoder(LOCAL, REMOTE)
    data = encoder.heartbeat().join(encoder.encode(message) for message in CONVERSATION)
    got: list[Message] = []
    for start in range(0, len(data), step):
        got += decoder.feed(data[start : start + step])
    assert got == CONVERSATION


def test_short_frame_has_etcds_bytes() -> None:
    encoder = AppendEncoder()
    encoder.encode(append(0, 2, 0, run_of(2, 1, 1)))
    frame = encoder.encode(append(1, 2, 2, [Entry(2, 2, b"ab")], 1))
    entry = frame[17:-8]
    assert frame[:9] == bytes.fromhex("01 0000000000000001")
    assert int.from_bytes(frame[9:17], "big") == len(entry)
    assert entry.endswith(b"\x22\x02ab")
    assert frame[-8:] == bytes.fromhex("0000000000000001")


messages = st.builds(
    Message,
    type=st.sampled_from([MessageType.VOTE, MessageType.HEARTBEAT, MessageType.APP_RESP]),
    to=st.integers(1, 2**64 - 1),
    from_=st.integers(1, 2**64 - 1),
    term=st.integers(0, 2**64 - 1),
    index=st.integers(0, 2**64 - 1),
    reject=st.booleans(),
    context=st.binary(max_size=20),
)


@given(st.lists(messages, max_size=5), st.integers(1, 40))
def test_message_stream_round_trip(sent: list[Message], step: int) -> None:
    encoder, decoder = MessageEncoder(), MessageDecoder()
    data = encoder.heartbeat() + b"".join(encoder.encode(message) for message in sent)
    got: list[Message] = []
    for start in range(0, len(data), step):
        got += decoder.feed(data[start : start + step])
    assert got == sent


@given(st.binary(max_size=200))
def test_hostile_bytes_raise_the_one_error_or_wait_for_more(data: bytes) -> None:
    for decoder in (AppendDecoder(LOCAL, REMOTE), MessageDecoder()):
        try:
            decoder.feed(data)
        except FrameError:
            continue


def test_a_length_above_the_limit_is_refused_before_anything_is_buffered() -> None:
    with pytest.raises(FrameError):
        MessageDecoder().feed((1 << 40).to_bytes(8, "big"))
    with pytest.raises(FrameError):
        AppendDecoder(LOCAL, REMOTE).feed(b"\x01" + (1 << 40).to_bytes(8, "big"))
    with pytest.raises(FrameError):
        AppendDecoder(LOCAL, REMOTE).feed(b"\x07")
