"""The fields of a small protobuf message from a file, without a generated class.

For records that are cold, or whose bytes may be anything: every malformation is a ValueError, and
nothing is allocated beyond the input's size.
"""

from __future__ import annotations


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a protobuf message in order; raises ValueError."""
    out: list[tuple[int, int | bytes]] = []
    at = 0
    end = len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if not number:
            raise ValueError("field number 0")
        if wire == 0:
            value, at = _varint(data, at)
            out.append((number, value))
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if size > end - at:
            raise ValueError("a field is longer than what holds it")
        if wire == 2:
            out.append((number, data[at : at + size]))
        at += size
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                break
            return value, at
    raise ValueError("a varint is cut short or longer than 64 bits")
