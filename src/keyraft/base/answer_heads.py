"""The head of an encoded answer, read without parsing the rest, which may be a hundred megabytes.

Field 1 of each of etcd's answers is its ResponseHeader, whose fields are numbers (etcd `rpc.proto`).
All raise CodecError for what is no answer.
"""

from __future__ import annotations

from typing import Final

from keyraft.base.varints import read_varint

HEADER: Final = b"\x0a"  # how an answer with a header begins
_REVISION: Final = 0x18
_SECOND: Final = b"\x10"


def header_end(answer: bytes) -> int:
    """Where the second field begins; the answer's length if it has no header."""
    if answer[:1] != HEADER:
        return len(answer)
    size, at = read_varint(answer, 1, len(answer))
    return min(at + size, len(answer))


def header_revision(answer: bytes) -> int:
    """The store's revision; 0 if none is told."""
    if answer[:1] != HEADER:
        return 0
    size, at = read_varint(answer, 1, len(answer))
    end = min(at + size, len(answer))
    revision = 0
    while at < end:
        tag, at = read_varint(answer, at, end)
        value, at = read_varint(answer, at, end)
        if tag == _REVISION:
            revision = value
    return revision


def second_number(answer: bytes) -> int:
    """Field 2 where it follows the header as a number; 0 if it does not."""
    at = header_end(answer)
    return read_varint(answer, at + 1, len(answer))[0] if answer[at : at + 1] == _SECOND else 0
