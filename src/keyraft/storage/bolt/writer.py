"""Writing a bbolt database from sorted input, bottom-up, in one page of memory a level.

Pages come out in the order of their numbers: a leaf as soon as it is full, a branch as soon as
its last child is known, the root bucket last. So the file can be written as a stream, except for
the two meta pages at its front, which name the root. There are two solutions:

- `write_file` leaves room for them and fills it at the end: one pass, needs a seekable file;
- `measure` first runs over the input counting only lengths; `write_stream` can then begin with the
  true meta pages, and its length is known. The layout depends on nothing but the
  lengths, so both passes agree; the stream checks that they did.

Layout: 0 and 1 meta, 2 an empty freelist, then buckets in byte order of their names, then the
root bucket. Buckets whose page would fill a quarter of a page at most are kept inline, as bbolt
does. Pages are filled to FILL_PERCENT, as etcd's defragmentation does.

Rows are taken CHUNK_ROWS at a time and stored in columns, so that the work for each row is done in
C. Memory: one such chunk, and one page a level.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate, islice, pairwise
from operator import add, lt, sub
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
CHUNK_ROWS: Final = 64  # taken at once; each may be as long as a client's request

Buckets = Iterable[tuple[bytes, Iterable[tuple[bytes, bytes]]]]
"""Name and sorted items of each bucket, names sorted."""


class _Branch:
    """The open page of one level of branches."""

    __slots__ = ("children", "keys", "size")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.children: list[int] = []
        self.size = HEADER_BYTES


class _LeafRows:
    """Rows in columns. `ends[n]` is what the first n take in a leaf, its header left out."""

    __slots__ = ("ends", "key_sizes", "keys", "value_sizes", "values")

    def __init__(self, keys: list[bytes], values: list[bytes]) -> None:
        self.keys = keys
        self.values = values
        self.key_sizes = list(map(len, keys))
        self.value_sizes = list(map(len, values))
        bare = map(add, self.key_sizes, self.value_sizes)
        self.ends = list(accumulate(map(ELEMENT_BYTES.__add__, bare), initial=0))

    def check_order(self) -> None:
        """Raises BoltError."""
        keys = self.keys
        if not all(map(lt, keys, islice(keys, 1, None))):
            before, key = next(pair for pair in pairwise(keys) if pair[0] >= pair[1])
            raise BoltError(f"key {key.hex()} follows {before.hex()}")

    def cuts(self, room: int) -> list[int]:
        """Where leaves of at most `room` bytes end; the rows behind the last cut fit into one leaf.

        A longer row has a leaf of its own.
        """
        ends = self.ends
        total, at, cuts = ends[-1], 0, []
        while total - ends[at] > room:
            stop = max(bisect_right(ends, ends[at] + room) - 1, at + 1)
            if stop == len(self.keys):
                break
            cuts.append(stop)
            at = stop
        return cuts

    def leaves(self, cuts: list[int], flags: int) -> Iterator[tuple[bytes, bytes]]:
        """Elements and data of each leaf that ends at a cut."""
        ends, count = self.ends, cuts[-1]
        # A position counts from its own element, so each next element is nearer to the data.
        bare = list(map(sub, ends, range(0, (count + 1) * ELEMENT_BYTES, ELEMENT_BYTES)))
        level = list(map(sub, bare, range(0, count * ELEMENT_BYTES, ELEMENT_BYTES)))
        positions: list[int] = []
        at = 0
        for stop in cuts:
            base = (stop - at) * ELEMENT_BYTES - level[at]
            positions += map(base.__add__, level[at:stop])
            at = stop
        numbers = [flags] * (4 * count)
        numbers[1::4] = positions
        numbers[2::4] = self.key_sizes[:count]
        numbers[3::4] = self.value_sizes[:count]
        elements = pack(f"<{4 * count}I", *numbers)
        pairs = [b""] * (2 * count)
        pairs[0::2] = self.keys[:count]
        pairs[1::2] = self.values[:count]
        data = b"".join(pairs)
        at = 0
        for stop in cuts:
            yield (
                elements[at * ELEMENT_BYTES : stop * ELEMENT_BYTES],
                data[bare[at] : bare[stop]],
            )
            at = stop


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
        levels: list[_Branch] = []
        rest = self._fill(levels, items, element_flags)
        return self._finish(levels, rest, element_flags)

    def bucket(self, items: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Writes sorted items as a bucket; the value of its element in the root bucket."""
        levels: list[_Branch] = []
        rest = self._fill(levels, items, 0)
        size = HEADER_BYTES + rest.ends[-1]
        if not levels and size <= self._page_bytes // 4:
            inline = bytes(size)
            if self._with_bytes:
                inline = leaf_bytes(0, 0, [0] * len(rest.keys), rest.keys, rest.values)
            return bucket_header.pack(0, 0) + inline
        return bucket_header.pack(self._finish(levels, rest, 0), 0)

    def _fill(
        self, levels: list[_Branch], items: Iterable[tuple[bytes, bytes]], element_flags: int
    ) -> _LeafRows:
        """Writes all leaves but the last, whose rows it returns."""
        left = iter(items)
        room = self._fill_bytes - HEADER_BYTES
        rows = _LeafRows([], [])
        at = 0
        while chunk := list(islice(left, CHUNK_ROWS)):
            keys, values = zip(*chunk)
            rows = _LeafRows([*rows.keys[at:], *keys], [*rows.values[at:], *values])
            rows.check_order()
            cuts = rows.cuts(room)
            at = cuts[-1] if cuts else 0
            self._leaves(levels, rows, cuts, element_flags)
        return _LeafRows(rows.keys[at:], rows.values[at:])

    def _leaves(
        self, levels: list[_Branch], rows: _LeafRows, cuts: list[int], element_flags: int
    ) -> None:
        """Writes rows up to the last cut and tells the level above."""
        if not cuts:
            return
        made = rows.leaves(cuts, element_flags) if self._with_bytes else None
        ends, page_bytes = rows.ends, self._page_bytes
        at = 0
        for stop in cuts:
            size = HEADER_BYTES + ends[stop] - ends[at]
            page = self.pages
            extent = -(-size // page_bytes)
            self.pages = page + extent
            if made is not None:
                head = header.pack(page, LEAF, stop - at, extent - 1)
                self._emit(b"".join((head, *next(made), bytes(extent * page_bytes - size))))
            self._above(levels, 0, rows.keys[at], page)
            at = stop

    def _above(self, levels: list[_Branch], number: int, key: bytes, page: int) -> None:
        """Adds a child to the open branch of a level."""
        if number == len(levels):
            levels.append(_Branch())
        above = levels[number]
        more = ELEMENT_BYTES + len(key)
        # A branch takes at least two children, however long their keys.
        if above.size + more > self._fill_bytes and len(above.keys) >= 2:
            self._close(levels, number)
            above = levels[number]
        above.keys.append(key)
        above.children.append(page)
        above.size += more

    def _close(self, levels: list[_Branch], number: int) -> int:
        """Writes a level's open branch and tells the level above; the page's number."""
        level = levels[number]
        page = self.pages
        extent = -(-level.size // self._page_bytes)
        self.pages += extent
        if self._with_bytes:
            data = branch_bytes(page, extent - 1, level.keys, level.children)
            self._emit(data.ljust(extent * self._page_bytes, b"\0"))
        levels[number] = _Branch()
        self._above(levels, number + 1, level.keys[0], page)
        return page

    def _finish(self, levels: list[_Branch], rest: _LeafRows, element_flags: int) -> int:
        """Writes what is open, upwards; the number of the root."""
        page = self.pages
        if rest.keys:
            self._leaves(levels, rest, [len(rest.keys)], element_flags)
        else:
            page = self.place(partial(leaf_bytes, flags=[], keys=[], values=[]))
        number = 0
        while number < len(levels) and (
            len(levels[number].children) > 1 or number + 1 < len(levels)
        ):
            page = self._close(levels, number)
            number += 1
        return page

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
