"""Merged intervals against the dumbest thing that could be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.auth.ranges import OPEN_END, Interval, Ranges, interval, is_valid

KEYS = st.binary(max_size=2).map(lambda key: key.translate(bytes(b % 4 for b in range(256))))
PERMISSIONS = st.lists(st.tuples(KEYS, KEYS), max_size=8)


class Twin:
    """The intervals as they were granted, looked through one by one."""

    def __init__(self, intervals: list[Interval]) -> None:
        self._intervals = intervals

    def has(self, begin: bytes, end: bytes | None) -> bool:
        """Whether [begin, end) is covered: each point where cover could end lies in an interval."""
        points = {begin} | {e for _, e in self._intervals if e is not None}
        return all(
            any(b and b <= point and (e is None or point < e) for b, e in self._intervals)
            for point in points
            if begin <= point and (end is None or point < end)
        ) and (end is not None or any(b and e is None for b, e in self._intervals))


@given(PERMISSIONS, KEYS, KEYS)
def test_a_set_has_what_its_intervals_have(
    permissions: list[tuple[bytes, bytes]], key: bytes, range_end: bytes
) -> None:
    intervals = [interval(*each) for each in permissions]
    ranges, twin = Ranges(intervals), Twin(intervals)
    ranges.check()
    point = twin.has(key, key + b"\0") if key else False
    assert ranges.has_range(key, b"") == point
    if not range_end or (range_end != OPEN_END and range_end <= key):
        expected = point
    else:
        expected = bool(key) and twin.has(key, None if range_end == OPEN_END else range_end)
    assert ranges.has_range(key, range_end) == expected


@given(PERMISSIONS)
def test_the_order_of_granting_does_not_matter(permissions: list[tuple[bytes, bytes]]) -> None:
    intervals = [interval(*each) for each in permissions]
    one, other = Ranges(intervals), Ranges(reversed(intervals))
    for key, end in [*permissions, (b"\1", OPEN_END), (b"\1", b"\2")]:
        assert one.has_range(key, end) == other.has_range(key, end)


@pytest.mark.parametrize(
    ("granted", "key", "range_end", "allowed"),
    [
        # adjacent intervals are one
        ([(b"a", b"b"), (b"b", b"c")], b"a", b"c", True),
        ([(b"a", b"b"), (b"b\0", b"c")], b"a", b"c", False),
        ([(b"a", b""), (b"a\0", b"b")], b"a", b"b", True),
        # one key is no range
        ([(b"a", b"")], b"a", b"", True),
        ([(b"a", b"")], b"a", b"a\0", True),
        ([(b"a", b"")], b"a", b"a\0\0", False),
        ([(b"a", b"")], b"a", OPEN_END, False),  # GHSA-xg4h-6gfc-h4m8
        # open ends
        ([(b"m", OPEN_END)], b"m", OPEN_END, True),
        ([(b"m", OPEN_END)], b"l", OPEN_END, False),
        ([(b"m", OPEN_END)], b"z", b"zz", True),
        ([(b"a", b"m"), (b"m", OPEN_END)], b"b", OPEN_END, True),
        ([(b"a", b"m"), (b"b", OPEN_END)], b"a", OPEN_END, True),
        ([(OPEN_END, OPEN_END)], OPEN_END, OPEN_END, True),
        ([(b"a", b"\xff\xff")], b"a", OPEN_END, False),
        # nested
        ([(b"a", b"z"), (b"b", b"c")], b"c", b"y", True),
        # no key, no permission
        ([(b"", b"z")], b"a", b"", False),
        ([(OPEN_END, OPEN_END)], b"", b"", False),
        ([(OPEN_END, OPEN_END)], b"", OPEN_END, False),
        # a range without keys
        ([(b"c", b"d")], b"c", b"a", True),
        ([(b"c", b"d")], b"x", b"a", False),
    ],
)
def test_a_range_is_allowed_if_permissions_cover_it(
    granted: list[tuple[bytes, bytes]], key: bytes, range_end: bytes, allowed: bool
) -> None:
    assert Ranges(interval(*each) for each in granted).has_range(key, range_end) is allowed


@pytest.mark.parametrize(
    ("key", "range_end", "valid"),
    [
        (b"", b"", False),
        (b"", b"a", False),
        (b"a", b"", True),
        (b"a", b"b", True),
        (b"b", b"a", False),
        (b"a", b"a", False),
        (b"a", OPEN_END, True),
        (OPEN_END, OPEN_END, True),
    ],
)
def test_what_may_be_granted(key: bytes, range_end: bytes, valid: bool) -> None:
    assert is_valid(key, range_end) is valid
