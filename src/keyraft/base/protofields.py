"""Protobuf's fields by hand: lengths, what is unknown, and a whole message without its class.

Readers take a buffer, where to begin and where what holds the value ends, and say where they
stopped. They raise `CodecError` for what is cut short or no protobuf, and nothing else.

This is the general form. What is on a hot path reads the common shape in place and comes here, or
to protobuf, with every other: `raft.codec` (entries), `mvcc.wire` and `mvcc.watch_messages` (stored
rows), `server.apply.internal_request` (our own requests), `storage.wal.decode` (our own records).
"""

from __future__ import annotations

from keyraft.base.varints import CodecError, read_varint


def read_length(buf: bytes, pos: int, end: int) -> tuple[int, int]:
    """Start and end of a length-delimited field's content."""
    length, pos = read_varint(buf, pos, end)
    stop = pos + length
    if stop > end:
        raise CodecError("a field is longer than what holds it")
    return pos, stop


def skip(buf: bytes, pos: int, end: int, key: int) -> int:
    """The position after an unknown field."""
    if key >> 3 == 0:
        raise CodecError("field number 0")
    wire_type = key & 7
    if wire_type == 0:
        return read_varint(buf, pos, end)[1]
    if wire_type == 2:
        return read_length(buf, pos, end)[1]
    if wire_type == 1:
        pos += 8
    elif wire_type == 5:
        pos += 4
    else:
        raise CodecError(f"wire type {wire_type}")
    if pos > end:
        raise CodecError("a field is cut short")
    return pos


def check_wire_type(key: int, known: frozenset[int]) -> None:
    """Refuses a known field that came in another form."""
    if key >> 3 in known:
        raise CodecError(f"field {key >> 3} has wire type {key & 7}")


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """Numbers and contents in order, fixed-size values left out; raises CodecError.

    For what is read seldom, or may be anything: nothing is allocated beyond the input's size.
    """
    out: list[tuple[int, int | bytes]] = []
    pos, end = 0, len(data)
    while pos < end:
        key, pos = read_varint(data, pos, end)
        if key >> 3 and key & 7 == 0:
            value, pos = read_varint(data, pos, end)
            out.append((key >> 3, value))
        elif key >> 3 and key & 7 == 2:
            pos, stop = read_length(data, pos, end)
            out.append((key >> 3, data[pos:stop]))
            pos = stop
        else:
            pos = skip(data, pos, end, key)
    return out
