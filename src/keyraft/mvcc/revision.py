"""Revisions as the keys of bucket `key`.

A revision is (main, sub): main counts transactions that changed something, sub the changes within
one. The first transaction of an empty store gets main 2.

    offset  size  meaning
    0       8     main, unsigned, big endian
    8       1     '_' (0x5f)
    9       8     sub, unsigned, big endian
    17      1     't' (0x74), only on a tombstone

Byte order is revision order, a tombstone directly behind the place of a put of that revision.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

_ROW: Final = Struct(">QcQ")
_TOMBSTONE: Final = Struct(">QcQc")
_MAIN: Final = Struct(">Q")

REVISION_MAX: Final = (1 << 63) - 1
ROW_BYTES: Final = 17
TOMBSTONE_BYTES: Final = 18


class MalformedRevisionError(ValueError):
    """Bytes that are no revision: the database is damaged."""


def row_key(main: int, sub: int) -> bytes:
    """The 17 bytes of a put."""
    return _ROW.pack(main, b"_", sub)


def tombstone_key(main: int, sub: int) -> bytes:
    """The 18 bytes of a delete."""
    return _TOMBSTONE.pack(main, b"_", sub, b"t")


def first_key(main: int) -> bytes:
    """A bound below every row of revision `main` and above every row before it."""
    return _MAIN.pack(main)


def parse(key: bytes) -> tuple[int, int, bool]:
    """(main, sub, is a tombstone) of a row's key; raises `MalformedRevisionError`."""
    size = len(key)
    if size == ROW_BYTES:
        main, mark, sub = _ROW.unpack(key)
        tombstone = False
    elif size == TOMBSTONE_BYTES and key[17] == 0x74:
        main, mark, sub, _ = _TOMBSTONE.unpack(key)
        tombstone = True
    else:
        raise MalformedRevisionError(key.hex())
    if mark != b"_" or main > REVISION_MAX or sub > REVISION_MAX:
        raise MalformedRevisionError(key.hex())
    return main, sub, tombstone
