"""Durations are read and written as Go does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.durations import DurationError, format_duration, parse_duration

CASES = [
    ("0", 0, "0s"),
    ("0s", 0, "0s"),
    ("100ms", 100_000_000, "100ms"),
    ("1m", 60_000_000_000, "1m0s"),
    ("1h15m30.918s", 4_530_918_000_000, "1h15m30.918s"),
    ("2h0m0s", 7_200_000_000_000, "2h0m0s"),
    ("-1.5h", -5_400_000_000_000, "-1h30m0s"),
    ("1.133624ms", 1_133_624, "1.133624ms"),
    (".5s", 500_000_000, "500ms"),
    ("5.s", 5_000_000_000, "5s"),
    ("12us", 12_000, "12µs"),
    ("1ns", 1, "1ns"),
]


@pytest.mark.parametrize(("text", "nanoseconds", "printed"), CASES)
def test_durations_are_read_and_printed_as_go_does(
    text: str, nanoseconds: int, printed: str
) -> None:
    assert parse_duration(text) == nanoseconds
    assert format_duration(nanoseconds) == printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("5", 'time: missing unit in duration "5"'),
        ("x", 'time: invalid duration "x"'),
        ("3parsecs", 'time: unknown unit "parsecs" in duration "3parsecs"'),
        (".s", 'time: invalid duration ".s"'),
        ("-", 'time: invalid duration "-"'),
        ("9999999h", 'time: invalid duration "9999999h"'),
        ("9" * 5_000, f'time: invalid duration "{"9" * 5_000}"'),
        ("5é", r'time: unknown unit "\xc3\xa9" in duration "5\xc3\xa9"'),
        ('5"\n', r'time: unknown unit "\"\x0a" in duration "5\"\x0a"'),
    ],
)
def test_refuses_in_the_words_of_go(text: str, message: str) -> None:
    with pytest.raises(DurationError) as caught:
        parse_duration(text)
    assert str(caught.value) == message


@given(st.integers(-(1 << 62), 1 << 62))
def test_what_is_printed_reads_back(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds
