"""Writing a bbolt database from sorted input, bottom-up, in one page of memory a level.

Pages come out in the order of their numbers: a leaf as soon as it is full, a branch as soon as
its last child is known, the root bucket last. So the file is a stream, except for the two meta
pages at its front, which name the root. Two ways round that:

- `write_file` leaves room for them and fills it at the end: one pass, needs a seekable file;
- `measure` first runs over the input counting only lengths; `write_stream` can then begin with the
  true meta pages, and its length is known. The layout depends on nothing but the lengths, so both passes
  agree; the stream checks that they did.

Layout: 0 and 1 meta, 2 an empty freelist, then buckets in byte order of their names, then the
root bucket. Buckets whose page would fill a quarter of a page at most are kept inline, as bbolt
does. Pages are filled to FILL_PERCENT, as etcd's defragmentation does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import pack
from typing import BinaryIO, Final

from keyraft.storage.bolt.format import (
    BRANCH,
    BUCKET_ELEMENT,
    ELEMENT_BYTES,
    FREELIST,
    HEADER_BYTES,
    LEAF,
    META,
    PAGE_BYTES,
    BoltError,
    Meta,
    bucket_header,
    header,
)

FILL_PERCENT: Final = 90
VALUE_BYTES_MAX: Final = (1 << 31) - 2  # bbolt's MaxValueSize
KEY_BYTES_MAX: Final = 32_768  # bbolt's MaxKeySize
FIRST_PAGE: Final = 3
WRITE_BYTES: Final = 1 << 20  # what is handed to the file at once

Buckets = Iterable[tuple[bytes, Iterable[tuple[bytes, bytes]]]]
"""Name and sorted items of each bucket, names sorted."""


class _Level:
    """The open page of one level of a tree: keys of its elements, and values or children."""

    __slots__ = ("flags", "keys", "kind", "size", "values")

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.keys: list[bytes] = []
        self.values: list[bytes] = []  # leaf: values
        self.flags: list[int] = []  # leaf: element flags; branch: child pages
        self.size = HEADER_BYTES

    def clear(self) -> None:
        self.keys.clear()
        self.values.clear()
        self.flags.clear()
        self.size = HEADER_BYTES


class PageWriter:
    """Hands out pages in order; `emit` gets each page's bytes, padded."""

    __slots__ = ("_emit", "_fill_bytes", "_page_bytes", "_with_bytes", "pages")

    def __init__(
        self,
        emit: Callable[[bytes], object],
        page_bytes: int = PAGE_BYTES,
        with_bytes: bool = True,
    ) -> None:
        self._emit = emit
        self._page_bytes = page_bytes
        self._fill_bytes = page_bytes * FILL_PERCENT // 100
        self._with_bytes = with_bytes  # false: only count
        self.pages = FIRST_PAGE  # the next page's number

    def tree(self, items: Iterable[tuple[bytes, bytes]], element_flags: int = 0) -> int:
        """Writes sorted items as a tree of their own; its root page. Raises BoltError."""
        levels = [_Level(LEAF)]
        self._fill(levels, items, element_flags)
        return self._finish(levels)

    def bucket(self, items: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Writes sorted items as a bucket; the value of its element in the root bucket."""
        levels = [_Level(LEAF)]
        self._fill(levels, items, 0)
        leaf = levels[0]
        if len(levels) == 1 and leaf.size <= self._page_bytes // 4:
            inline = bytes(leaf.size)
            if self._with_bytes:
                inline = leaf_bytes(0, 0, leaf.flags, leaf.keys, leaf.values)
            return bucket_header.pack(0, 0) + inline
        return bucket_header.pack(self._finish(levels), 0)

    def _fill(
        self, levels: list[_Level], items: Iterable[tuple[bytes, bytes]], element_flags: int
    ) -> None:
        leaf = levels[0]
        keys, values, flags = leaf.keys, leaf.values, leaf.flags
        fill = self._fill_bytes
        size = HEADER_BYTES
        before: bytes | None = None
        for key, value in items:
            if before is not None and key <= before:
                raise BoltError(f"key {key.hex()} follows {before.hex()}")
            before = key
            more = ELEMENT_BYTES + len(key) + len(value)
            if size + more > fill and keys:
                leaf.size = size
                self._close(levels, 0)
                size = HEADER_BYTES
            keys.append(key)
            values.append(value)
            flags.append(element_flags)
            size += more
        leaf.size = size

    def _close(self, levels: list[_Level], number: int) -> int:
        """Writes a level's open page and tells the level above; the page's number."""
        level = levels[number]
        page = self.pages
        extent = -(-level.size // self._page_bytes)
        self.pages += extent
        if self._with_bytes:
            if level.kind == LEAF:
                data = leaf_bytes(page, extent - 1, level.flags, level.keys, level.values)
            else:
                data = branch_bytes(page, extent - 1, level.keys, level.flags)
            self._emit(data.ljust(extent * self._page_bytes, b"\0"))
        if number + 1 == len(levels):
            levels.append(_Level(BRANCH))
        above = levels[number + 1]
        key = level.keys[0] if level.keys else b""
        level.clear()
        more = ELEMENT_BYTES + len(key)
        # A branch takes at least two children, however long their keys.
        if above.size + more > self._fill_bytes and len(above.keys) >= 2:
            self._close(levels, number + 1)
        above.keys.append(key)
        above.flags.append(page)
        above.size += more
        return page

    def _finish(self, levels: list[_Level]) -> int:
        """Closes the open pages upwards; the number of the root."""
        number = 0
        page = 0
        while True:
            top = number + 1 == len(levels)
            level = levels[number]
            if level.kind == BRANCH and top and len(level.flags) == 1:
                return level.flags[0]
            page = self._close(levels, number)
            if top:
                return page
            number += 1

    def place(self, make: Callable[[int, int], bytes]) -> int:
        """Writes one page made by `make(number, overflow)`; its number."""
        page = self.pages
        extent = -(-len(make(page, 0)) // self._page_bytes)
        self.pages += extent
        self._emit(make(page, extent - 1).ljust(extent * self._page_bytes, b"\0"))
        return page


def leaf_bytes(
    page: int, overflow: int, flags: list[int], keys: list[bytes], values: list[bytes]
) -> bytes:
    """A leaf page, not padded."""
    count = len(keys)
    numbers: list[int] = []
    extend = numbers.extend
    pos = count * ELEMENT_BYTES
    for flag, key, value in zip(flags, keys, values):
        extend((flag, pos, len(key), len(value)))
        pos += len(key) + len(value) - ELEMENT_BYTES
    parts = [header.pack(page, LEAF, count, overflow), pack(f"<{4 * count}I", *numbers)]
    for pair in zip(keys, values):
        parts.extend(pair)
    return b"".join(parts)


def branch_bytes(page: int, overflow: int, keys: list[bytes], children: list[int]) -> bytes:
    """A branch page, not padded."""
    count = len(keys)
    numbers: list[int] = []
    pos = count * ELEMENT_BYTES
    for child, key in zip(children, keys):
        numbers.extend((pos, len(key), child))
        pos += len(key) - ELEMENT_BYTES
    head = header.pack(page, BRANCH, count, overflow)
    return head + pack("<" + "IIQ" * count, *numbers) + b"".join(keys)


def _write(writer: PageWriter, buckets: Buckets, page_bytes: int) -> Meta:
    """All buckets and the root bucket; the meta of the database."""
    elements: list[tuple[bytes, bytes]] = []
    for name, items in buckets:
        elements.append((name, writer.bucket(items)))
    root = writer.tree(elements, BUCKET_ELEMENT)
    return Meta(page_bytes, root, 0, 2, writer.pages, 2)


def front_pages(meta: Meta) -> bytes:
    """Pages 0 to 2: both meta pages and the empty freelist."""
    older = Meta(meta.page_bytes, meta.root, 0, meta.freelist, meta.pages, meta.txid - 1)
    assert meta.txid % 2 == 0, meta.txid
    pages = (
        header.pack(0, META, 0, 0) + meta.encode(),
        header.pack(1, META, 0, 0) + older.encode(),
        header.pack(2, FREELIST, 0, 0),
    )
    return b"".join(page.ljust(meta.page_bytes, b"\0") for page in pages)


def write_file(file: BinaryIO, buckets: Buckets, page_bytes: int = PAGE_BYTES) -> Meta:
    """Writes a database to a seekable file from its present start. Raises BoltError, OSError."""
    start = file.tell()
    file.write(bytes(FIRST_PAGE * page_bytes))
    meta = _write(PageWriter(file.write, page_bytes), buckets, page_bytes)
    end = file.tell()
    file.seek(start)
    file.write(front_pages(meta))
    file.seek(end)
    return meta


def measure(buckets: Buckets, page_bytes: int = PAGE_BYTES) -> Meta:
    """What `stream` needs to know of the same input. Raises BoltError."""
    return _write(PageWriter(lambda _: None, page_bytes, with_bytes=False), buckets, page_bytes)


def write_stream(write: Callable[[bytes], object], buckets: Buckets, meta: Meta) -> None:
    """Hands the database to `write` in order, in pieces of about WRITE_BYTES.

    `meta` is from `measure` of the same input; together the pieces are `meta.pages` pages long.
    Raises BoltError when the input was not the same, before the last piece.
    """
    pending = [front_pages(meta)]
    pending_bytes = 0

    def emit(page: bytes) -> None:
        nonlocal pending_bytes
        pending.append(page)
        pending_bytes += len(page)
        if pending_bytes >= WRITE_BYTES:
            write(b"".join(pending))
            pending.clear()
            pending_bytes = 0

    writer = PageWriter(emit, meta.page_bytes)
    if _write(writer, buckets, meta.page_bytes) != meta:
        raise BoltError("the database changed while it was written")
    write(b"".join(pending))
