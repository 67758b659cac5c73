"""Where one JSON value ends in a text that may go on, and what is wrong if it is none.

The states and the words are those of Go's `encoding/json` (`scanner.go`), through which every
request of the original's gateway passes first. A value that has been found here is valid JSON, but
for the characters in its strings: they may be no UTF-8 or half a surrogate pair.
"""

from __future__ import annotations

import re
from typing import Final

from keyraft.base.gotext import quote

DEPTH_MAX: Final = 10_000  # Go: maxNestingDepth
UNEXPECTED_END: Final = "unexpected EOF"

_SPACES: Final = re.compile(rb"[ \t\r\n]*+").match
STRING: Final = re.compile(
    rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
).match
NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*+)(\.[0-9]++)?([eE][+-]?[0-9]++)?").match
_STRING_HEAD: Final = re.compile(
    rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+'
).match
_LITERALS: Final = {0x74: b"true", 0x66: b"false", 0x6E: b"null"}
_HEX: Final = b"0123456789abcdefABCDEF"
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{}[]"
_QUOTE, _COMMA, _COLON, _MINUS, _BACKSLASH, _DOT = b'",:-\\.'


class SyntaxProblem(Exception):
    """The text is not JSON; `str()` has Go's words."""


class EndOfText(SyntaxProblem):
    """The text ends inside a value; more of it may follow."""

    def __init__(self) -> None:
        super().__init__(UNEXPECTED_END)


def skip_spaces(text: bytes, at: int) -> int:
    """The index of the next character that is no white space."""
    found = _SPACES(text, at)
    assert found is not None, "the pattern takes nothing, too"
    return found.end()


def find_value(text: bytes, at: int = 0, *, ended: bool = True) -> tuple[int, int] | None:
    """Start and end of the next value; None if only white space is left. Raises SyntaxProblem.

    `ended`: nothing follows the text. Otherwise a number or a word at its end is not complete.
    """
    start = skip_spaces(text, at)
    if start == len(text):
        return None
    end = _value_end(text, start)
    if end == len(text) and not ended and text[start] not in b'{["':
        raise EndOfText
    return start, end


def _value_end(text: bytes, at: int) -> int:
    """The index behind the value that starts at `at`."""
    closers: list[int] = []
    size = len(text)
    while True:
        # a value begins at `at`
        if at == size:
            raise EndOfText
        char = text[at]
        if char in (_OPEN_OBJECT, _OPEN_ARRAY):
            if len(closers) == DEPTH_MAX:
                raise _bad(char, "exceeded max depth")
            closers.append(char + 2)  # "}" is two behind "{", and "]" behind "["
            at = skip_spaces(text, at + 1)
            if at < size and text[at] == char + 2:
                closers.pop()
                at += 1
            elif char == _OPEN_OBJECT:
                at = _name_end(text, at)
                continue
            else:
                continue
        else:
            at = _scalar_end(text, at)
        # a value has ended before `at`
        while closers:
            at = skip_spaces(text, at)
            if at == size:
                raise EndOfText
            char, closer = text[at], closers[-1]
            if char == closer:
                closers.pop()
                at += 1
            elif char == _COMMA:
                at = skip_spaces(text, at + 1)
                if closer == _CLOSE_OBJECT:
                    at = _name_end(text, at)
                break
            elif closer == _CLOSE_OBJECT:
                raise _bad(char, "after object key:value pair")
            else:
                raise _bad(char, "after array element")
        else:
            return at


def _name_end(text: bytes, at: int) -> int:
    """Passes a name and its colon; the index where its value begins."""
    if at == len(text):
        raise EndOfText
    if text[at] != _QUOTE:
        raise _bad(text[at], "looking for beginning of object key string")
    at = skip_spaces(text, _string_end(text, at))
    if at == len(text):
        raise EndOfText
    if text[at] != _COLON:
        raise _bad(text[at], "after object key")
    return skip_spaces(text, at + 1)


def _scalar_end(text: bytes, at: int) -> int:
    char = text[at]
    if char == _QUOTE:
        return _string_end(text, at)
    if char == _MINUS or 0x30 <= char <= 0x39:
        return _number_end(text, at)
    word = _LITERALS.get(char)
    if word is None:
        raise _bad(char, "looking for beginning of value")
    for number, expected in enumerate(word):
        if at + number == len(text):
            raise EndOfText
        if text[at + number] != expected:
            raise _bad(
                text[at + number], f"in literal {word.decode()} (expecting '{chr(expected)}')"
            )
    return at + len(word)


def _string_end(text: bytes, at: int) -> int:
    found = STRING(text, at)
    if found is not None:
        return found.end()
    head = _STRING_HEAD(text, at)
    assert head is not None, "a string begins with a quotation mark"
    at = head.end()
    if at == len(text):
        raise EndOfText
    if text[at] != _BACKSLASH:
        raise _bad(text[at], "in string literal")
    at += 1
    if at == len(text):
        raise EndOfText
    if text[at] != 0x75:
        raise _bad(text[at], "in string escape code")
    for digit in text[at + 1 : at + 5]:
        if digit not in _HEX:
            raise _bad(digit, "in \\u hexadecimal character escape")
    raise EndOfText


def _number_end(text: bytes, at: int) -> int:
    found = NUMBER(text, at)
    if found is None:  # a minus and no digit
        raise _bad_at(text, at + 1, "in numeric literal")
    end = found.end()
    if end < len(text) and found[2] is None:
        if text[end] == _DOT and found[1] is None:
            raise _bad_at(text, end + 1, "after decimal point in numeric literal")
        if text[end] in b"eE":
            end += 1
            if text[end : end + 1] in (b"+", b"-"):
                end += 1
            raise _bad_at(text, end, "in exponent of numeric literal")
    return end


def _bad_at(text: bytes, at: int, where: str) -> SyntaxProblem:
    return EndOfText() if at >= len(text) else _bad(text[at], where)


def _bad(char: int, where: str) -> SyntaxProblem:
    """Go's `quoteChar`: a byte is shown as the character of its number."""
    if char == _QUOTE:
        shown = '"'
    elif char == 0x27:
        shown = "\\'"
    else:
        shown = quote(chr(char))[1:-1]
    return SyntaxProblem(f"invalid character '{shown}' {where}")
