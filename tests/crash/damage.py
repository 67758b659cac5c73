"""What a crash of the machine does to the end of a log: torn writes, flipped bits.

Segments have etcd's format (8-byte little-endian length with padding in the top byte, record,
padding), so the same damage is done to the original's and to ours.
"""

from __future__ import annotations

import struct
from pathlib import Path

LENGTH_MASK = (1 << 56) - 1


def last_segment(data_dir: Path) -> Path:
    """The segment that is written to."""
    return max((data_dir / "member" / "wal").glob("*.wal"))


def frames(segment: Path) -> list[tuple[int, int]]:
    """(offset, end) of every record's frame, up to the zeros that follow the last."""
    data = segment.read_bytes()
    found = []
    at = 0
    while at + 8 <= len(data):
        (word,) = struct.unpack_from("<Q", data, at)
        if word == 0:
            break
        length = word & LENGTH_MASK
        padding = (word >> 56) & 7
        end = at + 8 + length + padding
        assert end <= len(data), (at, length)
        found.append((at, end))
        at = end
    return found


def tear(segment: Path, keep_bytes: int) -> None:
    """A write of one more record of which only the first `keep_bytes` reached the disk.

    The record is a copy of the last one, padded to more than two sectors, and zeros follow where
    its rest would be: a preallocated file after a power cut.
    """
    start, _ = frames(segment)[-1]
    _, end = frames(segment)[-1]
    data = segment.read_bytes()
    record = data[start + 8 : end] + b"\x77" * 2048
    record += b"\0" * (-len(record) % 8)
    frame = struct.pack("<Q", len(record)) + record
    with segment.open("r+b") as file:
        file.seek(end)
        file.write(frame[:keep_bytes])


def flip(segment: Path, offset: int, mask: int = 0x01) -> None:
    """One bit of a byte that was on the disk."""
    with segment.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))
