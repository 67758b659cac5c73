"""The index of watched ranges beside a list that is searched from end to end."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyraft.mvcc.watch_ranges import MEMO_KEYS_MAX, OPEN, RangeIndex

short = st.binary(max_size=3)
ends = st.one_of(st.none(), st.just(OPEN), st.binary(min_size=1, max_size=3))
ranges = st.tuples(short, ends).filter(lambda r: not r[1] or r[0] < r[1])


def holds(start: bytes, end: bytes | None, key: bytes) -> bool:
    if end is None:
        return key == start
    return key >= start and (end == OPEN or key < end)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(ranges, short), max_size=60), st.integers(0, 9))
def test_finds_what_a_full_search_finds(steps, seed):
    index: RangeIndex[tuple[bytes, bytes | None]] = RangeIndex(random.Random(seed))
    twin: set[tuple[bytes, bytes | None]] = set()
    for step in steps:
        if isinstance(step, bytes):
            found = index.find(step)
            assert len(found) == len(set(found))
            assert set(found) == {r for r in twin if holds(*r, step)}
        elif step in twin:
            assert index.get(*step) == step
            index.remove(*step)
            twin.remove(step)
        else:
            assert index.get(*step) is None
            index.add(*step, step)
            twin.add(step)
        index.check()
        assert len(index) == len(twin)
        assert set(index.values()) == twin


def test_a_thousand_disjoint_prefixes_are_one_short_walk():
    index: RangeIndex[int] = RangeIndex(random.Random(1))
    for i in range(1000):
        index.add(b"%04d/" % i, b"%04d0" % i, i)
    index.check()
    for i in range(1000):
        assert index.find(b"%04d/x" % i) == (i,)
    assert index.find(b"5") == ()


def test_what_is_remembered_is_bounded():
    index: RangeIndex[int] = RangeIndex(random.Random(1))
    index.add(b"", OPEN, 1)
    for i in range(MEMO_KEYS_MAX + 10):
        assert index.find(b"%d" % i) == (1,)
    index.find(b"x" * 10_000)
    assert len(index._memo) <= MEMO_KEYS_MAX
    assert b"x" * 10_000 not in index._memo


def test_an_empty_range_is_our_own_bug():
    index: RangeIndex[int] = RangeIndex(random.Random(1))
    with pytest.raises(AssertionError):
        index.add(b"b", b"a", 1)
