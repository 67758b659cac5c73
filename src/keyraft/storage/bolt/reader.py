"""Reading a bbolt database: mapped into memory, walked in key order, every offset checked.

The bytes may come from anywhere. A page is looked at only when its number is below the high-water
mark and its extent lies within the file; an element only when it lies within its page; a walk goes
no deeper than DEPTH_MAX and visits no more pages than there are, overflow included, so a cycle ends
and no page is read again and again. Elements of a page share no bytes, so what is read of it is no
larger than it. What is wrong raises BoltError and nothing else; memory stays at one page a level.

Order of keys is not checked here but by `check`.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from operator import add
from pathlib import Path
from struct import iter_unpack, unpack_from

from keyraft.storage.bolt.format import (
    BRANCH,
    BUCKET_BYTES,
    BUCKET_ELEMENT,
    DEPTH_MAX,
    ELEMENT_BYTES,
    HEADER_BYTES,
    LEAF,
    META_BYTES,
    PAGE_BYTES_MAX,
    PAGE_BYTES_MIN,
    BoltError,
    Meta,
    bucket_header,
    decode_meta,
    header,
)

Element = tuple[int, bytes, bytes]
"""Flags, key, value."""


Columns = tuple[tuple[int, ...], list[bytes], list[bytes]]
"""Flags, keys, values of a leaf's elements."""


class Leaf:
    """The elements of a leaf by columns; all lie within `data`.

    The key of row n is `data[starts[n]:middles[n]]`, its value `data[middles[n]:stops[n]]`.
    """

    __slots__ = ("data", "flags", "keys", "middles", "starts", "stops", "value_sizes")

    def __init__(
        self,
        data: bytes,
        flags: tuple[int, ...],
        starts: list[int],
        middles: list[int],
        stops: list[int],
        value_sizes: tuple[int, ...],
    ) -> None:
        self.data = data
        self.flags = flags
        self.starts = starts
        self.middles = middles
        self.stops = stops
        self.value_sizes = value_sizes
        self.keys = [data[start:stop] for start, stop in zip(starts, middles)]

    def values(self) -> list[bytes]:
        """All values."""
        data = self.data
        return [data[start:stop] for start, stop in zip(self.middles, self.stops)]

    def joined(self) -> bytes:
        """Each row's key and value, one row after the other."""
        if self.starts[1:] == self.stops[:-1]:  # as bbolt and we write it
            return self.data[self.starts[0] : self.stops[-1]] if self.starts else b""
        pairs = [b""] * (2 * len(self.keys))
        pairs[0::2] = self.keys
        pairs[1::2] = self.values()
        return b"".join(pairs)


class Page:
    """A page's header and the bytes of its whole extent."""

    __slots__ = ("count", "data", "flags", "id", "overflow")

    def __init__(self, id: int, flags: int, count: int, overflow: int, data: memoryview) -> None:
        self.id = id
        self.flags = flags
        self.count = count
        self.overflow = overflow
        self.data = data

    def leaf(self) -> Leaf:
        """The elements; raises BoltError when one does not lie within the page.

        The work for each element is done in C: a million rows are read in a second.
        """
        data = self.data.tobytes()
        end = HEADER_BYTES + self.count * ELEMENT_BYTES
        if end > len(data):
            raise BoltError(f"page {self.id}: {self.count} elements do not fit")
        numbers = unpack_from(f"<{4 * self.count}I", data, HEADER_BYTES)
        sizes = numbers[3::4]
        starts = list(map(add, numbers[1::4], range(HEADER_BYTES, end, ELEMENT_BYTES)))
        middles = list(map(add, starts, numbers[2::4]))
        stops = list(map(add, middles, sizes))
        if numbers and (max(stops) > len(data) or min(starts) < end):
            raise BoltError(f"page {self.id}: an element lies outside")
        if sum(numbers[2::4]) + sum(sizes) > len(data) - end:
            raise BoltError(f"page {self.id}: elements overlap")
        return Leaf(data, numbers[0::4], starts, middles, stops, sizes)

    def leaf_elements(self) -> list[Element]:
        """The same as rows; raises BoltError."""
        leaf = self.leaf()
        return list(zip(leaf.flags, leaf.keys, leaf.values()))

    def branch_elements(self) -> list[tuple[bytes, int]]:
        """First key and page of each child; raises BoltError."""
        data = self.data
        size = len(data)
        end = HEADER_BYTES + self.count * ELEMENT_BYTES
        if end > size:
            raise BoltError(f"page {self.id}: {self.count} elements do not fit")
        out: list[tuple[bytes, int]] = []
        at = HEADER_BYTES
        left = size - end
        for pos, key_bytes, child in iter_unpack("<IIQ", data[at:end]):
            start = at + pos
            if start + key_bytes > size or start < end:
                raise BoltError(f"page {self.id}: element {len(out)} lies outside")
            left -= key_bytes
            if left < 0:
                raise BoltError(f"page {self.id}: elements overlap")
            out.append((bytes(data[start : start + key_bytes]), child))
            at += ELEMENT_BYTES
        return out


class Bucket:
    """A sorted map of byte strings within a file."""

    __slots__ = ("_db", "_inline", "root", "sequence")

    def __init__(self, db: BoltFile, root: int, sequence: int, inline: Page | None) -> None:
        self._db = db
        self._inline = inline
        self.root = root  # 0: inline
        self.sequence = sequence

    def root_page(self) -> Page:
        """The inline page or the tree's root; raises BoltError."""
        return self._inline if self._inline is not None else self._db.page(self.root)

    def leaves(self, start: bytes = b"") -> Iterator[Columns]:
        """The columns of one leaf after another, from `start` on. Raises BoltError."""
        budget = [self._db.meta.pages + 1]
        for page in self._walk(self.root_page(), start, 0, budget):
            leaf = page.leaf()
            flags, keys, values = leaf.flags, leaf.keys, leaf.values()
            if start and keys and keys[0] < start:
                kept = [position for position, key in enumerate(keys) if key >= start]
                flags = tuple(flags[position] for position in kept)
                keys = [keys[position] for position in kept]
                values = [values[position] for position in kept]
            yield flags, keys, values

    def elements(self, start: bytes = b"") -> Iterator[Element]:
        """Flags, key and value in stored order, from `start` on. Raises BoltError."""
        for columns in self.leaves(start):
            yield from zip(*columns)

    def items(self, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Key and value in stored order from `start` on, nested buckets left out."""
        for keys, values in self.columns(start):
            yield from zip(keys, values)

    def columns(self, start: bytes = b"") -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Keys and values, a leaf at a time, nested buckets left out. Raises BoltError."""
        for flags, keys, values in self.leaves(start):
            if any(flags):
                rows = [
                    position for position, flag in enumerate(flags) if not flag & BUCKET_ELEMENT
                ]
                keys = [keys[position] for position in rows]
                values = [values[position] for position in rows]
            if keys:
                yield keys, values

    def get(self, key: bytes) -> bytes | None:
        """The value; None when there is none or it is a bucket."""
        for flags, found, value in self.elements(key):
            return value if found == key and not flags & BUCKET_ELEMENT else None
        return None

    def last(self) -> tuple[bytes, bytes] | None:
        """The last key and value; None when the bucket is empty. Raises BoltError."""
        page = self.root_page()
        for _ in range(DEPTH_MAX):
            if page.flags == LEAF:
                elements = page.leaf_elements()
                return elements[-1][1:] if elements else None
            children = self._children(page)
            page = self._db.page(children[-1][1])
        raise BoltError(f"page {page.id}: the tree is too deep")

    def buckets(self) -> Iterator[tuple[bytes, Bucket]]:
        """The buckets nested in this one, in stored order. Raises BoltError."""
        for flags, key, value in self.elements():
            if flags & BUCKET_ELEMENT:
                yield key, self._db.open_bucket(key, value)

    def _children(self, page: Page) -> list[tuple[bytes, int]]:
        if page.flags != BRANCH:
            raise BoltError(f"page {page.id}: unexpected page type (flags: {page.flags:x})")
        children = page.branch_elements()
        if not children:
            raise BoltError(f"page {page.id}: a branch without children")
        return children

    def _walk(self, page: Page, start: bytes, depth: int, budget: list[int]) -> Iterator[Page]:
        """The leaves in order; the first may begin before `start`."""
        budget[0] -= 1 + page.overflow
        if depth > DEPTH_MAX or budget[0] < 0:
            raise BoltError(f"page {page.id}: the tree does not end")
        if page.flags == LEAF:
            yield page
            return
        children = self._children(page)
        first = 0
        if start:
            for position, (key, _) in enumerate(children):
                if key <= start:
                    first = position
        for position in range(first, len(children)):
            child = self._db.page(children[position][1])
            yield from self._walk(child, start if position == first else b"", depth + 1, budget)


class BoltFile:
    """An open database. Close it, or use it as a context manager."""

    __slots__ = ("_map", "_size", "_view", "meta", "path")

    def __init__(self, path: str | Path) -> None:
        """Maps the file for reading. Raises BoltError, OSError."""
        self.path = str(path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._size = os.fstat(fd).st_size
            if self._size < 2 * PAGE_BYTES_MIN:
                raise BoltError("file size too small")
            self._map = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        except (ValueError, OverflowError) as error:
            raise BoltError(f"cannot be mapped: {error}") from error
        finally:
            os.close(fd)
        self._view = memoryview(self._map)
        try:
            self.meta = self._find_meta()
        except BoltError:
            self.close()
            raise

    def __enter__(self) -> BoltFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmaps the file; pages obtained before may not be used any more."""
        self._view.release()
        try:
            self._map.close()
        except BufferError:
            pass  # a page is still in use; the map is freed with it

    @property
    def size_bytes(self) -> int:
        """What the database takes: its pages up to the high-water mark."""
        return self.meta.pages * self.meta.page_bytes

    @property
    def file_bytes(self) -> int:
        """The length of the file."""
        return self._size

    def _find_meta(self) -> Meta:
        found: list[Meta] = []
        problem: BoltError | None = None
        page_bytes = 0
        try:
            first = self._meta_at(0)
            page_bytes = first.page_bytes
            found.append(first)
        except BoltError as error:
            problem = error
        sizes = [page_bytes] if page_bytes else _page_sizes()
        for size in sizes:
            try:
                second = self._meta_at(size)
            except BoltError as error:
                problem = problem or error
                continue
            if second.page_bytes == size:
                found.append(second)
                break
        if not found:
            raise problem or BoltError("invalid database")
        meta = max(found, key=lambda each: each.txid)
        if meta.pages < 3 or meta.root >= meta.pages:
            raise BoltError("invalid database: root page above the high-water mark")
        if meta.pages * meta.page_bytes > self._size:
            raise BoltError(
                f"file size {self._size} is less than the database's "
                f"{meta.pages * meta.page_bytes} bytes"
            )
        return meta

    def _meta_at(self, offset: int) -> Meta:
        start = offset + HEADER_BYTES
        return decode_meta(bytes(self._view[start : start + META_BYTES]))

    def page(self, number: int) -> Page:
        """A page with its overflow. Raises BoltError."""
        page_bytes = self.meta.page_bytes
        if not 2 <= number < self.meta.pages:
            raise BoltError(f"page {number}: out of bounds: {self.meta.pages}")
        start = number * page_bytes
        id_, flags, count, overflow = header.unpack_from(self._view, start)
        if id_ != number:
            raise BoltError(f"page {number}: says that it is page {id_}")
        if number + overflow >= self.meta.pages:
            raise BoltError(f"page {number}: out of bounds: {self.meta.pages}")
        end = start + (overflow + 1) * page_bytes
        return Page(number, flags, count, overflow, self._view[start:end])

    def root(self) -> Bucket:
        """The bucket of buckets."""
        return Bucket(self, self.meta.root, self.meta.sequence, None)

    def buckets(self) -> Iterator[tuple[bytes, Bucket]]:
        """The named buckets in stored order. Raises BoltError."""
        return self.root().buckets()

    def bucket(self, name: bytes) -> Bucket | None:
        """The bucket of this name. Raises BoltError."""
        for flags, key, value in self.root().elements(name):
            if key == name and flags & BUCKET_ELEMENT:
                return self.open_bucket(key, value)
            break
        return None

    def open_bucket(self, name: bytes, value: bytes) -> Bucket:
        """A bucket from its element's value. Raises BoltError."""
        if len(value) < BUCKET_BYTES:
            raise BoltError(f"bucket {name!r}: its header is cut short")
        root, sequence = bucket_header.unpack_from(value)
        if root:
            return Bucket(self, root, sequence, None)
        if len(value) < BUCKET_BYTES + HEADER_BYTES:
            raise BoltError(f"bucket {name!r}: its inline page is cut short")
        id_, flags, count, overflow = header.unpack_from(value, BUCKET_BYTES)
        if flags != LEAF:
            raise BoltError(f"bucket {name!r}: its inline page is no leaf (flags: {flags:x})")
        inline = Page(id_, flags, count, overflow, memoryview(value)[BUCKET_BYTES:])
        return Bucket(self, 0, sequence, inline)


def _page_sizes() -> list[int]:
    sizes = []
    size = PAGE_BYTES_MIN
    while size <= PAGE_BYTES_MAX:
        sizes.append(size)
        size *= 2
    return sizes
