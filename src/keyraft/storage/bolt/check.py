"""The consistency check that bbolt runs: every page reachable once, of the right kind, in order.

Messages are bbolt's own (`tx_check.go`), because operators search for them. Beyond bbolt's check,
which trusts offsets, whatever the reader refuses becomes a message as well; the check itself never
fails. Memory: two bytes a page.

A caller that reads the whole database anyway passes a `Visitor`, so it is read only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from operator import lt
from typing import Final, Protocol

from keyraft.storage.bolt.format import (
    BRANCH,
    DEPTH_MAX,
    FREELIST,
    HEADER_BYTES,
    LEAF,
    NO_FREELIST,
    BoltError,
)
from keyraft.storage.bolt.reader import BoltFile, Bucket, Leaf, Page

ERRORS_MAX: Final = 1000  # a file with more wrong than this is described well enough


class Visitor(Protocol):
    """Is called with all rows in order if the database is sound, else with some of them."""

    def bucket(self, name: bytes, depth: int) -> None:
        """The leaves that follow are this bucket's. Depth 0 is the root, which has no name."""

    def leaf(self, leaf: Leaf) -> None:
        """The next leaf."""


class _NoVisitor:
    """A visitor that does nothing."""

    def bucket(self, name: bytes, depth: int) -> None:
        """Does nothing."""

    def leaf(self, leaf: Leaf) -> None:
        """Does nothing."""


def check(db: BoltFile, visitor: Visitor | None = None) -> list[str]:
    """What is wrong with the database; empty when it is sound. At most ERRORS_MAX messages."""
    messages: list[str] = []
    for message in _Check(db, visitor or _NoVisitor()).run():
        messages.append(message)
        if len(messages) == ERRORS_MAX:
            break
    return messages


def free_pages(db: BoltFile) -> list[int]:
    """The stored list of free pages; empty when none is stored. Raises BoltError."""
    if db.meta.freelist == NO_FREELIST:
        return []
    page = db.page(db.meta.freelist)
    if page.flags != FREELIST:
        raise BoltError(f"page {page.id}: invalid freelist page (flags: {page.flags:x})")
    ids = page.data[HEADER_BYTES:]
    ids = ids[: len(ids) // 8 * 8].cast("Q")
    count, first = page.count, 0
    if count == 0xFFFF:
        count, first = ids[0], 1
    if count > len(ids) - first:
        raise BoltError(f"page {page.id}: {count} free pages do not fit")
    return ids[first : first + count].tolist()


class _Check:
    __slots__ = ("_db", "_free", "_nested", "_reached", "_visitor")

    def __init__(self, db: BoltFile, visitor: Visitor) -> None:
        self._db = db
        self._visitor = visitor
        self._nested = False  # a bucket was seen among the rows of the present one
        self._free = bytearray(db.meta.pages + 1)
        self._reached = bytearray(db.meta.pages + 1)

    def run(self) -> Iterator[str]:
        db = self._db
        stored = db.meta.freelist != NO_FREELIST
        self._reached[0] = self._reached[1] = 1
        if stored:
            try:
                for number in free_pages(db):
                    if number >= db.meta.pages:
                        yield f"page {number}: out of bounds: {db.meta.pages} (free)"
                        continue
                    if self._free[number]:
                        yield f"page {number}: already freed"
                    self._free[number] = 1
                page = db.page(db.meta.freelist)
                for number in range(page.id, page.id + page.overflow + 1):
                    self._reached[number] = 1
            except BoltError as error:
                yield str(error)
        yield from self._bucket(b"", db.root(), 0)
        if stored:
            for number in range(db.meta.pages):
                if not self._reached[number] and not self._free[number]:
                    yield f"page {number}: unreachable unfreed"

    def _bucket(self, name: bytes, bucket: Bucket, depth: int) -> Iterator[str]:
        if depth > DEPTH_MAX:
            yield "buckets are nested too deep"
            return
        self._visitor.bucket(name, depth)
        self._nested = False
        try:
            page = bucket.root_page()
            if bucket.root:
                yield from self._tree(page, None, None, [])
            else:
                yield from self._leaf(page, None, None, [page.id])
            if not self._nested:
                return
            nested = bucket.buckets()
        except BoltError as error:
            yield str(error)
            return
        while True:
            try:
                name, child = next(nested)
            except StopIteration:
                return
            except BoltError as error:
                yield str(error)
                return
            yield from self._bucket(name, child, depth + 1)

    def _tree(
        self, page: Page, low: bytes | None, high: bytes | None, stack: list[int]
    ) -> Iterator[str]:
        """Keys of the tree lie in [low, high); raises BoltError when it cannot be walked."""
        stack = [*stack, page.id]
        shown = " ".join(map(str, stack))
        seen = False
        for number in range(page.id, page.id + page.overflow + 1):
            if self._reached[number]:
                yield f"page {number}: multiple references (stack: [{shown}])"
                seen = True
            self._reached[number] = 1
        if self._free[page.id]:
            yield f"page {page.id}: reachable freed"
        if seen or len(stack) > DEPTH_MAX:
            return
        if page.flags == LEAF:
            yield from self._leaf(page, low, high, stack)
            return
        if page.flags != BRANCH:
            yield f"page {page.id}: invalid type: {_kind(page.flags)} (stack: [{shown}])"
            return
        children = page.branch_elements()
        before = low
        for position, (key, child) in enumerate(children):
            upper = children[position + 1][0] if position + 1 < len(children) else high
            if (
                (position and before is not None and before >= key)
                or (not position and before is not None and before > key)
                or (high is not None and key >= high)
            ):
                yield from _order("branch", child, position, key, before, high, stack)
            try:
                below = self._db.page(child)
                if not self._is_sound_leaf(below, key, upper):
                    yield from self._tree(below, key, upper, stack)
            except BoltError as error:
                yield str(error)
            before = key

    def _is_sound_leaf(self, page: Page, low: bytes | None, high: bytes | None) -> bool:
        """Whether nothing is wrong with a leaf, which then counts as reached; the quick way."""
        extent = slice(page.id, page.id + page.overflow + 1)
        if page.flags != LEAF or any(self._reached[extent]) or self._free[page.id]:
            return False
        leaf = page.leaf()
        if not _in_order(leaf.keys, low, high):
            return False
        self._reached[extent] = b"\1" * (page.overflow + 1)
        self._nested = self._nested or any(leaf.flags)
        self._visitor.leaf(leaf)
        return True

    def _leaf(
        self, page: Page, low: bytes | None, high: bytes | None, stack: list[int]
    ) -> Iterator[str]:
        leaf = page.leaf()
        self._nested = self._nested or any(leaf.flags)
        if _in_order(leaf.keys, low, high):
            self._visitor.leaf(leaf)
            return
        before = low
        for position, key in enumerate(leaf.keys):
            yield from _order("leaf", page.id, position, key, before, high, stack)
            before = key


def _in_order(keys: list[bytes], low: bytes | None, high: bytes | None) -> bool:
    return not keys or (
        (low is None or low <= keys[0])
        and (high is None or keys[-1] < high)
        and all(map(lt, keys, islice(keys, 1, None)))
    )


def _order(
    kind: str,
    page: int,
    position: int,
    key: bytes,
    before: bytes | None,
    high: bytes | None,
    stack: list[int],
) -> Iterator[str]:
    shown = " ".join(map(str, stack))
    if before is not None:
        if position == 0 and before > key:
            yield (
                f"the first key[{position}]=(hex){key.hex()} on {kind} page({page}) needs to be "
                f">= the key in the ancestor ({before.hex()}). Stack: [{shown}]"
            )
        if position > 0 and before >= key:
            yield (
                f"key[{position}]=(hex){key.hex()} on {kind} page({page}) needs to be > "
                f"(found {'=' if before == key else '<'}) than previous element "
                f"(hex){before.hex()}. Stack: [{shown}]"
            )
    if high is not None and key >= high:
        yield (
            f"key[{position}]=(hex){key.hex()} on {kind} page({page}) needs to be < than key of "
            f"the next element in ancestor (hex){(before or b'').hex()}. Pages stack: [{shown}]"
        )


def _kind(flags: int) -> str:
    names = {BRANCH: "branch", LEAF: "leaf", 4: "meta", FREELIST: "freelist"}
    return names.get(flags, f"unknown<{flags:02x}>")
