"""The packed key index against generations kept in plain lists."""

from __future__ import annotations

import gc
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.mvcc.index import Entry, KeyIndex, find, kept_for_hash, restored
from keyraft.mvcc.order import CHUNK_KEYS, SortedKeys
from tests.support.examples import examples


class TwinKey:
    """A key's generations as etcd draws them: [created, version of the first, revisions, closed]."""

    def __init__(self) -> None:
        self.generations: list[tuple[int, int, list[tuple[int, int]], bool]] = []

    def put(self, main: int, sub: int) -> tuple[int, int]:
        if not self.generations or self.generations[-1][3]:
            self.generations.append((main, 1, [], False))
        created, first, revisions, _ = self.generations[-1]
        revisions.append((main, sub))
        return created, first + len(revisions) - 1

    def delete(self, main: int, sub: int) -> None:
        created, first, revisions, _ = self.generations[-1]
        revisions.append((main, sub))
        self.generations[-1] = (created, first, revisions, True)

    @property
    def alive(self) -> bool:
        return bool(self.generations) and not self.generations[-1][3]

    def find(self, at: int) -> tuple[int, int, int, int] | None:
        newest = None
        for created, first, revisions, closed in self.generations:
            for number, (main, sub) in enumerate(revisions):
                if main <= at:
                    last = closed and number == len(revisions) - 1
                    newest = None if last else (main, sub, created, first + number)
        return newest

    def keep(self, at: int) -> tuple[int, int] | None:
        """What a compaction keeps of the revisions up to `at`, tombstones left out."""
        for _, _, revisions, closed in self.generations:
            if closed and revisions[-1][0] < at:
                continue
            upto = [r for r in revisions if r[0] <= at]
            if not upto or (closed and upto[-1] == revisions[-1]):
                return None
            return upto[-1]
        return None

    def compact(self, at: int) -> None:
        while self.generations:
            created, first, revisions, closed = self.generations[0]
            if closed and revisions[-1][0] < at:
                del self.generations[0]
                continue
            old = max(sum(main <= at for main, _ in revisions) - 1, 0)
            self.generations[0] = (created, first + old, revisions[old:], closed)
            return

    def rows(self) -> list[tuple[int, int, bool, int, int]]:
        return [
            (main, sub, closed and number == len(revisions) - 1, created, first + number)
            for created, first, revisions, closed in self.generations
            for number, (main, sub) in enumerate(revisions)
        ]


@examples(60)
@given(seed=st.integers(0, 1 << 32), steps=st.sampled_from([5, 30, 200]), data=st.data())
def test_one_key_of_any_history(seed: int, steps: int, data: st.DataObject) -> None:
    r = random.Random(seed)
    deletes = r.choice([0.0, 0.1, 0.5])
    index, twin = KeyIndex(), TwinKey()
    main = 1
    compacted = -1
    for _ in range(steps):
        main += r.choice([0, 1, 1, 2]) if index.entries else 1
        sub = r.randrange(3)
        if twin.generations and (main, sub) <= twin.generations[-1][2][-1]:
            main += 1
        if twin.alive and r.random() < deletes:
            index.delete(b"k", main, sub)
            twin.delete(main, sub)
        else:
            assert index.put(b"k", main, sub) == twin.put(main, sub)
        if r.random() < 0.05:
            compacted = r.randint(max(compacted, 1), main)
            index.compact(b"k", compacted)
            twin.compact(compacted)
        index.check()
    for at in range(max(compacted, 0), main + 2):
        assert index.get(b"k", at) == twin.find(at), at
        entry = index.entries.get(b"k")
        if entry is not None:
            assert kept_for_hash(entry, at) == twin.keep(at), at
    assert index.alive(b"k") == twin.alive
    again: Entry | None = None
    for row in twin.rows():
        again = restored(again, *row)
    if again is not None:
        for at in range(max(compacted, 0), main + 2):
            assert find(again, at) == twin.find(at), at


def test_a_hot_key_grows_in_place() -> None:
    index = KeyIndex()
    for main in range(2, 1002):
        assert index.put(b"hot", main, 0) == (2, main - 1)
    entry = index.entries[b"hot"]
    assert isinstance(entry, bytearray)
    assert index.get(b"hot", 500) == (500, 0, 2, 499)
    index.compact(b"hot", 1001)
    assert isinstance(index.entries[b"hot"], bytes)
    assert index.get(b"hot", 1001) == (1001, 0, 2, 1000)


def test_entries_are_nothing_to_walk_for_the_collector() -> None:
    index = KeyIndex()
    for main in range(2, 2000):
        index.put(b"%d" % (main % 700), main, 0)
    assert not any(gc.is_tracked(entry) for entry in index.entries.values())


@examples(40)
@given(seed=st.integers(0, 1 << 32), size=st.sampled_from([10, 600, 3000]))
def test_sorted_keys_are_a_sorted_set(seed: int, size: int) -> None:
    r = random.Random(seed)
    twin: set[bytes] = set()
    keys = SortedKeys()
    space = r.choice([size, size * 4])
    for step in range(size):
        key = b"%05d" % (step if r.random() < 0.2 else r.randrange(space))
        if key not in twin:
            keys.add(key)
            twin.add(key)
        elif r.random() < 0.5:
            keys.remove(key)
            twin.remove(key)
        if r.random() < 0.02:
            start, end = b"%05d" % r.randrange(space), b"%05d" % r.randrange(space)
            inside = sorted(k for k in twin if start <= k < end)
            limit = r.randrange(5)
            assert keys.slice(start, end) == inside
            assert keys.count(start, end) == len(inside)
            assert (
                keys.slice(start, None, limit)
                == sorted(k for k in twin if k >= start)[: limit or None]
            )
    assert list(keys) == sorted(twin) and len(keys) == len(twin)
    keys.check()
    rebuilt = SortedKeys()
    half = size // 2
    rebuilt.extend(sorted(twin)[:half])
    rebuilt.extend(sorted(twin)[half:])
    rebuilt.check()
    assert rebuilt.slice(b"", None) == sorted(twin)
    left = len(rebuilt)
    while rebuilt.drop_last(7):
        rebuilt.check()
        assert len(rebuilt) <= max(left - 7, 0)
        left = len(rebuilt)
        assert rebuilt.slice(b"", None) == sorted(twin)[:left]
    assert not left


@pytest.mark.parametrize("order", [1, -1])
def test_keys_added_in_order_fill_chunks(order: int) -> None:
    keys = SortedKeys()
    for number in range(20 * CHUNK_KEYS)[::order]:
        keys.add(b"%08d" % number)
    keys.check()
    assert keys.count(b"", None) == 20 * CHUNK_KEYS
