"""Values are written and read as Go's `strconv` does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.gotext import format_bool, parse_bool, parse_int, parse_uint, quote, unquote

QUOTED = [
    (b"", '""'),
    (b"plain", '"plain"'),
    (b'say "hi"\\', r'"say \"hi\"\\"'),
    (b"\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
    (b"\x00\x01\x7f", r'"\x00\x01\x7f"'),
    (b"\xff\xfe", r'"\xff\xfe"'),
    (b"\xed\xa0\x80", r'"\xed\xa0\x80"'),  # a surrogate is no character
    ("grüße ☃ 😀".encode(), '"grüße ☃ 😀"'),
    ("\u0085\u00a0\u200b\u2028".encode(), r'"\u0085\u00a0\u200b\u2028"'),
    ("\U000e0001".encode(), r'"\U000e0001"'),
]


@pytest.mark.parametrize(("value", "text"), QUOTED)
def test_quoting_is_that_of_go(value: bytes, text: str) -> None:
    assert quote(value) == text
    assert quote(value.decode("utf-8", "surrogateescape")) == text
    assert unquote(text) == value


@given(st.binary())
def test_quoting_can_be_undone(value: bytes) -> None:
    assert unquote(quote(value)) == value


@pytest.mark.parametrize(
    "text", ["", '"', '"\\"', '"\\z"', '"\\\'"', '"\\x1"', '"\\ud800"', '"\\400"', '"a"b"']
)
def test_what_is_no_quoted_string_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid syntax"):
        unquote(text)


def test_booleans_have_gos_six_spellings_each() -> None:
    assert all(parse_bool(text) for text in ("1", "t", "T", "true", "TRUE", "True"))
    assert not any(parse_bool(text) for text in ("0", "f", "F", "false", "FALSE", "False"))
    assert (format_bool(True), format_bool(False)) == ("true", "false")
    for text in ("", "tRUE", "yes", "2", "1 "):
        with pytest.raises(ValueError) as refused:
            parse_bool(text)
        assert str(refused.value) == f'strconv.ParseBool: parsing "{text}": invalid syntax'


def test_integers_are_read_within_their_range() -> None:
    assert parse_int("-12") == -12
    assert parse_int("+007") == 7
    assert parse_int("-9223372036854775808") == -(1 << 63)
    assert parse_uint("ff", 16) == 255
    assert parse_uint("0" * 5_000 + "18446744073709551615") == (1 << 64) - 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "invalid syntax"),
        ("12x", "invalid syntax"),
        ("１", "invalid syntax"),
        ("9" * 20, "value out of range"),
        ("9" * 5_000, "value out of range"),
    ],
)
def test_other_integers_are_refused_in_the_words_of_go(text: str, reason: str) -> None:
    for parse, name in ((parse_int, "ParseInt"), (parse_uint, "ParseUint")):
        with pytest.raises(ValueError) as refused:
            parse(text)
        assert str(refused.value) == f'strconv.{name}: parsing "{text}": {reason}'
    with pytest.raises(ValueError, match="invalid syntax"):
        parse_uint("-1")
