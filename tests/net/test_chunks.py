"""Chunked bodies, cut anywhere, and what is none."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.net.http1.chunks import (
    CHUNK_LINE_BYTES_MAX,
    TRAILER_BYTES_MAX,
    ChunkDecoder,
    ChunkError,
)


def chunked(pieces: list[bytes], extension: bytes = b"") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece)


@given(
    pieces=st.lists(st.binary(max_size=40), max_size=8),
    cuts=st.lists(st.integers(0, 500), max_size=10),
    extension=st.sampled_from([b"", b";a=b", b" "]),
    ends=st.booleans(),
    trailer=st.sampled_from([b"", b"a: b\r\n", b"a: b\r\nc: d\r\n"]),
    rest=st.binary(max_size=20),
)
def test_chunks_come_out_whole_however_they_are_cut(
    pieces: list[bytes], cuts: list[int], extension: bytes, ends: bool, trailer: bytes, rest: bytes
) -> None:
    data = chunked(pieces, extension) + (b"0\r\n" + trailer + b"\r\n" + rest if ends else b"")
    decoder = ChunkDecoder()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    got = after = b""
    for start, stop in itertools.pairwise(places):
        if decoder.ended:
            after += data[start:stop]
        else:
            got += decoder.feed(data[start:stop])
            after = decoder.rest
    assert got == b"".join(pieces)
    assert decoder.ended == ends
    assert after == (rest if ends else b"")


def test_a_chunk_comes_out_byte_by_byte_as_it_arrives() -> None:
    decoder = ChunkDecoder()
    got = [decoder.feed(bytes((byte,))) for byte in chunked([b"abc"])]
    assert [piece for piece in got if piece] == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n",
        b"\r\n\r\n",
        b"-1\r\n",
        b"1_0\r\nx",
        b"+3\r\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n\n",
        b"f" * 17 + b"\r\n",
        b"1" * CHUNK_LINE_BYTES_MAX,
        b"0\r\n" + b"a: b\r\n" * (TRAILER_BYTES_MAX // 6 + 1),
        b"0\r\n" + b"a" * (TRAILER_BYTES_MAX + 1),
    ],
)
def test_what_is_no_chunk_ends_the_connection(data: bytes) -> None:
    with pytest.raises(ChunkError):
        ChunkDecoder().feed(data)
