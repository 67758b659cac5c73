"""Protobuf's varints as tables: what Raft's messages, the log and the store write all the time.

A number is written 14 bits at a time: two leading bytes from `LOW` for each step, then one or two
from `VARINTS`. The tables are made once, for all who use them.
"""

from __future__ import annotations

from typing import Final

LOW_BITS: Final = 14
TABLE_SIZE: Final = 1 << LOW_BITS
LOW_MASK: Final = TABLE_SIZE - 1


def plain_varint(value: int) -> bytes:
    """A number from 0 on, bit by bit."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


VARINTS: Final = tuple(plain_varint(n) for n in range(TABLE_SIZE))
"""Varints of one and two bytes."""

LOW: Final = tuple(bytes((n & 127 | 128, n >> 7 | 128)) for n in range(TABLE_SIZE))
"""The low 14 bits of a longer varint."""
