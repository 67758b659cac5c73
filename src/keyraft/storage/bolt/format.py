"""bbolt's file format, version 2: a copy-on-write B+tree of sorted buckets in fixed pages.

All integers little-endian, all structures as Go lays them out on amd64 and arm64.

    page header, 16 bytes
    offset  size  meaning
    0       8     id: this page's number; its offset in the file is id * page size
    8       2     flags: 1 branch, 2 leaf, 4 meta, 0x10 freelist
    10      2     count of elements
    12      4     overflow: how many further pages belong to this one

    meta, behind the header of pages 0 and 1, 64 bytes; of the sound ones the larger txid counts
    0       4     magic 0xED0CDAED
    4       4     version 2
    8       4     page size, bytes
    12      4     flags, unused
    16      8     root bucket: its root page
    24      8     root bucket: sequence
    32      8     freelist page; 0xFFFFFFFFFFFFFFFF: not stored
    40      8     high-water page: the number of pages in use, counted from 0
    48      8     txid; written to page txid % 2
    56      8     checksum: FNV-1a-64 of the 56 bytes before it

    branch element, 16 bytes            leaf element, 16 bytes
    0   4   pos: of the key, counted    0   4   flags: 1 the value is a bucket
            from this element           4   4   pos: of the key, counted from this element
    4   4   key size                    8   4   key size
    8   8   child page                  12  4   value size; the value follows the key

    bucket value: root page 8, sequence 8; root 0: an inline leaf page follows

    freelist page: count ids of 8 bytes, sorted; a count of 0xFFFF: the first of them is the count

A branch element's key is the first key below it. A leaf whose one element is longer than a page
goes on in overflow pages. Source: bbolt `internal/common`; bytes checked against etcd 3.5.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

MAGIC: Final = 0xED0CDAED
VERSION: Final = 2
NO_FREELIST: Final = 0xFFFFFFFFFFFFFFFF

BRANCH: Final = 1
LEAF: Final = 2
META: Final = 4
FREELIST: Final = 0x10
BUCKET_ELEMENT: Final = 1

PAGE_BYTES: Final = 4096  # of what we write; etcd takes the operating system's page size
PAGE_BYTES_MIN: Final = 1024
PAGE_BYTES_MAX: Final = 65_536
HEADER_BYTES: Final = 16
ELEMENT_BYTES: Final = 16
BUCKET_BYTES: Final = 16
META_BYTES: Final = 64
DEPTH_MAX: Final = 64  # of a tree and of nested buckets; a sound file has a handful

header: Final = Struct("<QHHI")
meta_struct: Final = Struct("<IIIIQQQQQ")
meta_checksum: Final = Struct("<Q")
bucket_header: Final = Struct("<QQ")


class BoltError(Exception):
    """The bytes are no sound bbolt database; the text says what is wrong with them."""


def fnv1a64(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


@dataclass(frozen=True, slots=True)
class Meta:
    """Where the database begins, as of one transaction."""

    page_bytes: int
    root: int  # root page of the root bucket
    sequence: int
    freelist: int  # NO_FREELIST: not stored
    pages: int  # high-water page
    txid: int

    def encode(self) -> bytes:
        """The 64 bytes with their checksum."""
        body = meta_struct.pack(
            MAGIC,
            VERSION,
            self.page_bytes,
            0,
            self.root,
            self.sequence,
            self.freelist,
            self.pages,
            self.txid,
        )
        return body + meta_checksum.pack(fnv1a64(body))


def decode_meta(data: bytes) -> Meta:
    """Raises BoltError with bbolt's own words."""
    if len(data) < META_BYTES:
        raise BoltError("invalid database")
    body = data[: meta_struct.size]
    magic, version, page_bytes, _, root, sequence, freelist, pages, txid = meta_struct.unpack(body)
    if magic != MAGIC:
        raise BoltError("invalid database")
    if version != VERSION:
        raise BoltError("version mismatch")
    if meta_checksum.unpack_from(data, meta_struct.size)[0] != fnv1a64(body):
        raise BoltError("checksum error")
    if page_bytes & (page_bytes - 1) or not PAGE_BYTES_MIN <= page_bytes <= PAGE_BYTES_MAX:
        raise BoltError(f"page size {page_bytes}")
    return Meta(page_bytes, root, sequence, freelist, pages, txid)
