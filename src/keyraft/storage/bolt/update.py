"""One transaction on a bbolt file, committed as bbolt does: new pages, then the meta page.

Nothing that is in use is overwritten: changed buckets and the root bucket are written anew behind
the high-water mark and synced; only then does the meta page of the older transaction point to
them. A crash before leaves the database as it was. Small buckets are rewritten whole; a row may be
appended to a large one, which rewrites the pages from its last leaf up to its root. The list of
free pages is marked as not stored, so bbolt finds the free pages by itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Final

from keyraft.storage.bolt.format import (
    BRANCH,
    BUCKET_ELEMENT,
    LEAF,
    META,
    NO_FREELIST,
    BoltError,
    Meta,
    bucket_header,
    header,
)
from keyraft.storage.bolt.reader import BoltFile, Bucket
from keyraft.storage.bolt.writer import PageWriter, branch_bytes, leaf_bytes

TXID_MAX: Final = (1 << 64) - 1
REWRITE_BYTES_MAX: Final = 64 << 20  # a bucket beyond this is not one to rewrite whole

Changes = Mapping[bytes, bytes | None]
"""Key to new value, None to delete."""


class Update:
    """Changes gathered for one commit."""

    def __init__(self) -> None:
        self._changes: dict[bytes, dict[bytes, bytes | None]] = {}
        self._cleared: set[bytes] = set()
        self._appended: dict[bytes, tuple[bytes, bytes]] = {}

    def change(self, bucket: bytes, changes: Changes) -> None:
        """Puts and deletes in a small bucket, which is made when there is none."""
        self._changes.setdefault(bucket, {}).update(changes)

    def clear(self, bucket: bytes) -> None:
        """Empties a bucket before its changes."""
        self._cleared.add(bucket)
        self._changes.setdefault(bucket, {})

    def append(self, bucket: bytes, key: bytes, value: bytes) -> None:
        """One row behind the last of a bucket of any size; once a bucket."""
        self._appended[bucket] = (key, value)

    def commit(self, path: str) -> Meta:
        """Carries everything out; bytes behind the database in the file are cut off.

        Raises BoltError, OSError; then the database is as it was.
        """
        with BoltFile(path) as db:
            meta, pages = self._pages(db)
            end = db.size_bytes
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, end)
            _pwrite(fd, b"".join(pages), end)
            os.fsync(fd)
            number = meta.txid % 2
            page = header.pack(number, META, 0, 0) + meta.encode()
            _pwrite(fd, page.ljust(meta.page_bytes, b"\0"), number * meta.page_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)
        return meta

    def _pages(self, db: BoltFile) -> tuple[Meta, list[bytes]]:
        old = db.meta
        if old.txid >= TXID_MAX:
            raise BoltError(f"there is no transaction behind {old.txid}")
        pages: list[bytes] = []
        writer = PageWriter(pages.append, old.page_bytes)
        writer.pages = old.pages
        elements: dict[bytes, bytes] = {}
        for flags, name, value in db.root().elements():
            if not flags & BUCKET_ELEMENT:
                raise BoltError(f"{name!r} is no bucket")
            elements[name] = value
        for name, changes in self._changes.items():
            content: dict[bytes, bytes] = {}
            if name in elements and name not in self._cleared:
                content = _content(db.open_bucket(name, elements[name]), name)
            for key, new in changes.items():
                if new is None:
                    content.pop(key, None)
                else:
                    content[key] = new
            if name in self._appended:  # its pages are not in the file yet
                _append_content(content, *self._appended[name])
            elements[name] = writer.bucket(sorted(content.items()))
        for name, (key, row) in self._appended.items():
            if name in self._changes:
                continue
            if name not in elements:
                raise BoltError(f"there is no bucket {name!r}")
            bucket = db.open_bucket(name, elements[name])
            elements[name] = _append(db, bucket, writer, pages, key, row)
        root = writer.tree(sorted(elements.items()), BUCKET_ELEMENT)
        meta = Meta(old.page_bytes, root, old.sequence, NO_FREELIST, writer.pages, old.txid + 1)
        return meta, pages


def _content(bucket: Bucket, name: bytes) -> dict[bytes, bytes]:
    content: dict[bytes, bytes] = {}
    size = 0
    for key, value in bucket.items():
        content[key] = value
        size += len(key) + len(value)
        if size > REWRITE_BYTES_MAX:
            raise BoltError(f"bucket {name!r} is too large to be rewritten")
    return content


def _append_content(content: dict[bytes, bytes], key: bytes, row: bytes) -> None:
    if content and max(content) >= key:
        raise BoltError(f"key {key.hex()} follows {max(content).hex()}")
    content[key] = row


def _append(
    db: BoltFile, bucket: Bucket, writer: PageWriter, pages: list[bytes], key: bytes, row: bytes
) -> bytes:
    """The bucket's element with a row more; the pages on its right edge are written anew."""
    if not bucket.root:
        content = dict(bucket.items())
        _append_content(content, key, row)
        return writer.bucket(sorted(content.items()))
    edge = []
    page = bucket.root_page()
    while page.flags == BRANCH:
        edge.append(page)
        children = page.branch_elements()
        if not children or len(edge) > db.meta.pages:
            raise BoltError(f"page {page.id}: a branch without an end")
        page = db.page(children[-1][1])
    if page.flags != LEAF:
        raise BoltError(f"page {page.id}: unexpected page type (flags: {page.flags:x})")
    leaf = page.leaf_elements()
    if leaf and leaf[-1][1] >= key:
        raise BoltError(f"key {key.hex()} follows {leaf[-1][1].hex()}")
    leaf.append((0, key, row))
    flags, keys, values = (list(column) for column in zip(*leaf))
    number = writer.place(partial(leaf_bytes, flags=flags, keys=keys, values=values))
    for above in reversed(edge):
        children = above.branch_elements()
        children[-1] = (children[-1][0], number)
        child_keys, child_pages = (list(column) for column in zip(*children))
        number = writer.place(partial(branch_bytes, keys=child_keys, children=child_pages))
    return bucket_header.pack(number, bucket.sequence)


def _pwrite(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
