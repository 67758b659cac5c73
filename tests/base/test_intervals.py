"""A union of intervals holds what its intervals hold, whatever their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.intervals import Intervals

KEYS = [bytes((first, second)) for first in b"abcd" for second in b"ab"]
keys = st.sampled_from(KEYS)
intervals = st.lists(st.tuples(keys, st.none() | keys), max_size=8)


def holds(interval: tuple[bytes, bytes | None], key: bytes) -> bool:
    begin, end = interval
    return begin <= key and (end is None or key < end)


@given(intervals, st.tuples(keys, st.none() | keys))
def test_a_union_holds_what_its_parts_hold(
    added: list[tuple[bytes, bytes | None]], asked: tuple[bytes, bytes | None]
) -> None:
    union = Intervals()
    for begin, end in added:
        union.add(begin, end)
        union.check()
    at_once = Intervals.union_of(sorted(added, key=lambda each: each[0]))
    at_once.check()
    assert at_once.same(union)
    for key in KEYS:
        assert union.has(key) == any(holds(one, key) for one in added)
        assert union.has(key) == any(holds(one, key) for one in union)
    within = [key for key in KEYS if holds(asked, key)]
    if within and asked[1] is not None:
        assert union.has_all(*asked) == all(union.has(key) for key in within)
    elif within:
        open_from = [begin for begin, end in union if end is None]
        assert union.has_all(*asked) == any(begin <= asked[0] for begin in open_from)


def test_intervals_that_touch_become_one() -> None:
    union = Intervals()
    for begin, end in ((b"c", b"e"), (b"a", b"b"), (b"g", None), (b"b", b"c"), (b"x", b"x")):
        union.add(begin, end)
    assert list(union) == [(b"a", b"e"), (b"g", None)]
    union.add(b"d", b"h")
    assert list(union) == [(b"a", None)]
