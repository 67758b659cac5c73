"""The original's ways of writing and reading values, which are Go's, where output shows them."""

from __future__ import annotations

import re
from typing import Final

from keyraft.base import durations

INT64_MAX: Final = (1 << 63) - 1
UINT64_MAX: Final = (1 << 64) - 1

_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}
_UNESCAPES: Final = {name[1]: char for char, name in _ESCAPES.items()} | {"'": "'"}


def quote(value: bytes | str) -> str:
    """`value` as `%q` prints it: double quotes, escapes for what does not print."""
    text = value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
    out = []
    for char in text:
        code = ord(char)
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
            out.append(f"\\x{code - 0xDC00:02x}")
        elif char.isprintable():
            out.append(char)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            out.append(f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


def unquote(text: str) -> bytes:
    """The bytes that a double-quoted string stands for; ValueError when it is none."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        raise ValueError("invalid syntax")
    out = bytearray()
    rest = text[1:-1]
    at = 0
    while at < len(rest):
        char = rest[at]
        at += 1
        if char == '"':
            raise ValueError("invalid syntax")
        if char != "\\":
            out += char.encode("utf-8", "surrogateescape")
            continue
        if at >= len(rest):
            raise ValueError("invalid syntax")
        kind = rest[at]
        at += 1
        if kind in _UNESCAPES and kind != "'":
            out += _UNESCAPES[kind].encode()
            continue
        digits = {"x": 2, "u": 4, "U": 8}.get(kind)
        if digits is not None:
            number = rest[at : at + digits]
            if len(number) < digits or not re.fullmatch(r"[0-9a-fA-F]+", number):
                raise ValueError("invalid syntax")
            at += digits
            out += bytes((int(number, 16),)) if kind == "x" else _rune(int(number, 16))
        elif kind in "01234567":
            number = rest[at - 1 : at + 2]
            if not re.fullmatch(r"[0-7]{3}", number) or int(number, 8) > 255:
                raise ValueError("invalid syntax")
            at += 2
            out += bytes((int(number, 8),))
        else:
            raise ValueError("invalid syntax")
    return bytes(out)


def _rune(code: int) -> bytes:
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError("invalid syntax")
    return chr(code).encode()


def parse_int(text: str, base: int = 10) -> int:
    """A signed 64-bit number; the ValueError's text is Go's."""
    return _parse("ParseInt", text, base, -INT64_MAX - 1, INT64_MAX, r"[+-]?")


def parse_uint(text: str, base: int = 10) -> int:
    """An unsigned 64-bit number; the ValueError's text is Go's."""
    return _parse("ParseUint", text, base, 0, UINT64_MAX, "")


def _parse(function: str, text: str, base: int, low: int, high: int, sign: str) -> int:
    digits = r"[0-9a-fA-F]+" if base == 16 else r"[0-9]+"
    if re.fullmatch(sign + digits, text) is None:
        raise ValueError(f"strconv.{function}: parsing {quote(text)}: invalid syntax")
    number = int(text, base)
    if not low <= number <= high:
        raise ValueError(f"strconv.{function}: parsing {quote(text)}: value out of range")
    return number


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "1m30s"; the ValueError's text is Go's."""
    return durations.parse_duration(text) / durations.SECOND


def duration(seconds: float) -> str:
    """`seconds` as Go prints a duration: 3.362876ms, 1.5s, 1m0.5s."""
    return durations.format_duration(round(seconds * durations.SECOND))


_WORDS: Final = re.compile(r""""(?:[^"\\]|\\.)*"|'[^']*'|[^'"\s]\S*[^'"\s]?""")


def words(line: str) -> list[str]:
    """A line in words: '…' as it is, "…" with escapes; ValueError for a bad escape."""
    found = []
    for word in _WORDS.findall(line):
        if word.startswith("'"):
            word = word[1:-1]
        elif word.startswith('"'):
            word = unquote(word).decode("utf-8", "surrogateescape")
        found.append(word)
    return found


def raw(text: str) -> bytes:
    """The bytes of a command-line argument, whatever they are."""
    return text.encode("utf-8", "surrogateescape")
