"""The index of watched ranges beside a list that is searched from end to end."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.mvcc.watch_ranges import OPEN, SEGMENT_VALUES_MAX, RangeIndex
from tests.support.examples import examples

short = st.binary(max_size=3)
ends = st.one_of(st.none(), st.just(OPEN), st.binary(min_size=1, max_size=3))
ranges = st.tuples(short, ends).filter(lambda r: not r[1] or r[0] < r[1])


def holds(start: bytes, end: bytes | None, key: bytes) -> bool:
    if end is None:
        return key == start
    return key >= start and (end == OPEN or key < end)


@examples(200)
@given(
    st.lists(st.one_of(ranges, short), max_size=60),
    st.integers(0, 9),
    st.sampled_from((0, 1, 6, 1_000)),
)
def test_finds_what_a_full_search_finds(steps, seed, bounds_max):
    index: RangeIndex[tuple[bytes, bytes | None]] = RangeIndex(random.Random(seed), bounds_max)
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
            index.add(step[0], step[1], step)
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


def test_what_is_remembered_is_one_answer_for_a_segment_and_none_is_long():
    index: RangeIndex[int] = RangeIndex(random.Random(1))
    for i in range(SEGMENT_VALUES_MAX):
        index.add(b"%02d" % i, OPEN, i)
    for i in range(1_000):
        assert index.find(b"%04d" % i) == tuple(range(min(i // 100 + 1, SEGMENT_VALUES_MAX)))
    assert len(index._segments) <= SEGMENT_VALUES_MAX
    index.add(b"99", OPEN, 99)
    assert len(index.find(b"99")) == SEGMENT_VALUES_MAX + 1
    assert not index._segments


def test_an_empty_range_is_our_own_bug():
    index: RangeIndex[int] = RangeIndex(random.Random(1))
    with pytest.raises(AssertionError):
        index.add(b"b", b"a", 1)
