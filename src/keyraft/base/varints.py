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
