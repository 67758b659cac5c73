"""Databases made to be large when they are read: a page's elements and pages' extents overlap."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest

from keyraft.storage.bolt import BoltError, BoltFile, check
from keyraft.storage.bolt.format import BRANCH, LEAF, header
from keyraft.storage.bolt.reader import Bucket, Page

from .test_bolt import written

ELEMENTS = 2_000
TAIL_BYTES = 20_000


def overlapping(flags: int) -> bytes:
    """A page whose elements all lie on the same bytes; together they are 40 MB."""
    end = 16 + 16 * ELEMENTS
    out = header.pack(3, flags, ELEMENTS, 0)
    for number in range(ELEMENTS):
        offset = end - (16 + 16 * number)
        if flags == LEAF:
            out += struct.pack("<IIII", 0, offset, TAIL_BYTES // 2, TAIL_BYTES // 2)
        else:
            out += struct.pack("<IIQ", offset, TAIL_BYTES, 3)
    return out + bytes(TAIL_BYTES)


@pytest.mark.parametrize("flags", [LEAF, BRANCH])
def test_elements_that_share_bytes_are_refused_before_they_are_copied(flags: int) -> None:
    data = overlapping(flags)
    page = Page(3, flags, ELEMENTS, 0, memoryview(data))
    tracemalloc.start()
    try:
        with pytest.raises(BoltError, match="overlap"):
            page.leaf() if flags == LEAF else page.branch_elements()
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_pages_whose_extents_overlap_are_not_read_again_and_again(tmp_path: Path) -> None:
    """Each leaf says that it goes on to the end of the file."""
    model = {b"key": {b"%05d" % number: b"x" * 100 for number in range(4_000)}}
    path = written(tmp_path / "db", model, 1024)
    content = bytearray(path.read_bytes())
    with BoltFile(path) as db:
        bucket = db.bucket(b"key")
        assert bucket is not None
        root, pages = bucket.root, db.meta.pages
    for number in range(2, pages):
        if number != root and content[number * 1024 + 8 : number * 1024 + 10] == b"\x02\0":
            content[number * 1024 + 12 : number * 1024 + 16] = struct.pack("<I", pages - number - 1)
    path.write_bytes(content)
    with BoltFile(path) as db:
        read = 0
        with pytest.raises(BoltError, match="does not end"):
            for page in Bucket(db, root, 0, None)._walk(db.page(root), b"", 0, [pages + 1]):
                read += len(page.data)
        assert read <= 2 * len(content)
        assert check(db)
