"""How Go's `strconv` writes and reads plain values: strings in quotes, booleans, integers.

etcd's messages, flags and tools show them, and operators compare and grep for them; so there is one
place for each, for every folder. Refusals are `ValueError`s in Go's words.
"""

from __future__ import annotations

import re
from typing import Final

from keyraft.base.ids import INT64_MAX, UINT64_MAX

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
_UNESCAPES: Final = {name[1]: char.encode() for char, name in _ESCAPES.items()}
_DIGITS: Final = {"x": 2, "u": 4, "U": 8}  # how many follow the letter

_BOOLS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


# --- strings --------------------------------------------------------------------------------------


def quote(value: bytes | str) -> str:
    """`value` in double quotes as `strconv.Quote` and `%q` write it.

    A byte that is no UTF-8, in a string one that was decoded with "surrogateescape", is `\\xff`.
    """
    text = value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
    return '"' + "".join(map(_quoted, text)) + '"'


def _quoted(char: str) -> str:
    code = ord(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unquote(text: str) -> bytes:
    """The bytes that a double-quoted string stands for (`strconv.Unquote`); raises ValueError."""
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
        if kind in _UNESCAPES:
            out += _UNESCAPES[kind]
        elif kind in _DIGITS:
            number = rest[at : at + _DIGITS[kind]]
            if len(number) < _DIGITS[kind] or not re.fullmatch(r"[0-9a-fA-F]+", number):
                raise ValueError("invalid syntax")
            at += _DIGITS[kind]
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


# --- booleans and integers ------------------------------------------------------------------------


def format_bool(value: bool) -> str:
    """`strconv.FormatBool`."""
    return "true" if value else "false"


def parse_bool(text: str) -> bool:
    """`strconv.ParseBool`; raises ValueError."""
    value = _BOOLS.get(text)
    if value is None:
        raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")
    return value


def parse_int(text: str, base: int = 10) -> int:
    """`strconv.ParseInt` for 64 bits, in base 10 or 16; raises ValueError."""
    return _parse("ParseInt", text, base, -INT64_MAX - 1, INT64_MAX, r"[+-]?")


def parse_uint(text: str, base: int = 10) -> int:
    """`strconv.ParseUint` for 64 bits, in base 10 or 16; raises ValueError."""
    return _parse("ParseUint", text, base, 0, UINT64_MAX, "")


def _parse(function: str, text: str, base: int, low: int, high: int, sign: str) -> int:
    digits = r"[0-9a-fA-F]+" if base == 16 else r"[0-9]+"
    match = re.fullmatch(f"({sign})0*({digits})", text)
    if match is None:
        raise ValueError(f"strconv.{function}: parsing {quote(text)}: invalid syntax")
    # What has more than twenty digits is out of range, and Python refuses to read thousands.
    number = int(match[1] + match[2][:21], base)
    if not low <= number <= high:
        raise ValueError(f"strconv.{function}: parsing {quote(text)}: value out of range")
    return number
