"""Protobuf's numbers, lengths and unknown fields, for `codec`.

Each reader takes a buffer, a start and the end of the enclosing value; it returns the position
behind what it read. It raises `CodecError` for what is cut short or no protobuf, and nothing else.
"""

from __future__ import annotations

from typing import Final

from keyraft.base.varints import LOW, TABLE_SIZE, VARINTS, plain_varint


class CodecError(ValueError):
    """Bytes that are not the message they are said to be."""


# Members' ids are 64 random bits, and the same few stand in every message: they are remembered.
_ID_MIN: Final = 1 << 42
_IDS_KEPT_MAX: Final = 256
_id_bytes: Final[dict[int, bytes]] = {}
_ids: Final[dict[bytes, tuple[int, int]]] = {}  # ten bytes from an id's first: value, bytes taken


def encode_varint(value: int) -> bytes:
    """An unsigned 64-bit integer as protobuf writes it, 1 to 10 bytes."""
    if value < TABLE_SIZE:
        return VARINTS[value]
    high = value >> 14
    if high < TABLE_SIZE:
        return LOW[value & 0x3FFF] + VARINTS[high]
    if value < _ID_MIN:
        return LOW[value & 0x3FFF] + encode_varint(high)
    known = _id_bytes.get(value)
    if known is None:
        if len(_id_bytes) >= _IDS_KEPT_MAX:
            _id_bytes.clear()
        known = _id_bytes[value] = plain_varint(value)
    return known


def varint_size(value: int) -> int:
    """The bytes `encode_varint` makes of it."""
    return (value.bit_length() + 6) // 7 or 1


def read_varint(buf: bytes, pos: int, end: int) -> tuple[int, int]:
    """The value at `pos` and the position after it; the last of ten bytes may hold one bit only."""
    result = 0
    shift = 0
    while pos < end:
        byte = buf[pos]
        pos += 1
        if byte < 128:
            if shift == 63 and byte > 1:
                break
            return result | byte << shift, pos
        result |= (byte & 127) << shift
        shift += 7
        if shift > 63:
            break
    raise CodecError("a varint is cut short or longer than 64 bits")


def read_id(buf: bytes, pos: int, end: int) -> tuple[int, int]:
    """`read_varint` for ids, which come again and again: it remembers the latest."""
    chunk = buf[pos : pos + 10]
    known = _ids.get(chunk)
    if known is not None and pos + known[1] <= end:
        return known[0], pos + known[1]
    value, stop = read_varint(buf, pos, end)
    if len(_ids) >= _IDS_KEPT_MAX:
        _ids.clear()
    _ids[chunk] = (value, stop - pos)
    return value, stop


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
