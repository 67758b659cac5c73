"""Protobuf's varints as tables, for Raft's messages, the log and the store.

A number is written 14 bits at a time: two leading bytes from `LOW` for each step, then one or two
from `VARINTS`. The tables are made once. Each is sliced from one byte string, because every start
of every command pays for them.
"""

from __future__ import annotations

import struct
from typing import Final

LOW_BITS: Final = 14
TABLE_SIZE: Final = 1 << LOW_BITS
LOW_MASK: Final = TABLE_SIZE - 1
_GROUP: Final = 128  # values of seven bits


def plain_varint(value: int) -> bytes:
    """A number from 0 on, bit by bit."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _pairs(high_bit: int) -> tuple[bytes, ...]:
    """For each number of 14 bits its two groups, the second with `high_bit` (0 or 128)."""
    data = bytearray(2 * TABLE_SIZE)
    data[::2] = bytes(range(128, 256)) * _GROUP
    data[1::2] = b"".join(bytes((group | high_bit,)) * _GROUP for group in range(_GROUP))
    return struct.unpack("2s" * TABLE_SIZE, data)


VARINTS: Final = (*(bytes((n,)) for n in range(_GROUP)), *_pairs(0)[_GROUP:])
"""Varints of one and two bytes."""

LOW: Final = _pairs(128)
"""The low 14 bits of a longer varint."""


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
