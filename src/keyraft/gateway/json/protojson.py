"""The exact reader of one JSON value as a message: what protobuf-go's `protojson` takes and refuses.

It gets a value that `scanner` has found, so the grammar is checked already. It sets every field as
`protojson.UnmarshalOptions{DiscardUnknown: true}` does: names as in the .proto file or in lower
camel case, once each; one field of a oneof; 64-bit integers as numbers or strings, also `1e2` and
`1.0`; bytes in both alphabets of base64, with or without padding; enums by name or number; null for
the default; unknown fields and names of enums are passed over.

Positions in refusals count from the value's first character, columns in characters.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import Any, Final

from google.protobuf.message import Message

from keyraft.base.gotext import quote
from keyraft.gateway.json.fields import (
    BOOL,
    BYTES,
    DEPTH_MAX,
    ENUM,
    INT32_MAX,
    INTEGER,
    STRING,
    Field,
    Table,
)
from keyraft.gateway.json.scanner import NUMBER, skip_spaces
from keyraft.gateway.json.scanner import STRING as A_STRING

_INT_DIGITS_MAX: Final = 20  # of the largest uint64
_EXPONENT_MAX: Final = INT32_MAX
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY, _QUOTE, _COMMA = b'{}[]",'
_NULL: Final = 0x6E
_TRUE: Final = 0x74
_FALSE: Final = 0x66
_NUMBER_PARTS: Final = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?\Z")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*+(={0,2})\Z").match
_BASE64_URL: Final = re.compile(r"[A-Za-z0-9_-]*+(={0,2})\Z").match
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
_PAIRED: Final = re.compile(rb"\\u([0-9a-fA-F]{4})").match
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HIGH: Final = range(0xD800, 0xDC00)
_LOW: Final = range(0xDC00, 0xE000)
_NUMBERS: Final = frozenset(b"-0123456789")


class ProtoJsonError(Exception):
    """The value does not fit the message; `str()` has protobuf-go's words."""


def read_message(table: Table, message: Message, text: bytes) -> None:
    """Fills `message` from `text`, one valid JSON value; raises ProtoJsonError."""
    _Reader(text).message(table, message, 0, 1)


class _Reader:
    """Reads from `text`. Each method gets the index where its value starts, and returns its end."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    # --- messages -----------------------------------------------------------------------------

    def message(self, table: Table, message: Message, at: int, depth: int) -> int:
        text = self._text
        if depth > DEPTH_MAX:
            raise ProtoJsonError("proto: exceeded max recursion depth")
        if text[at] != _OPEN_OBJECT:
            raise self._unexpected(at)
        seen = 0
        oneofs: set[str] = set()
        at = skip_spaces(text, at + 1)
        while text[at] != _CLOSE_OBJECT:
            name_at = at
            name, at = self._string(at)
            name_end = at
            at = skip_spaces(text, skip_spaces(text, at) + 1)  # the colon is between
            field = table.by_name.get(name)
            if field is None:
                at = self._skip(at)
            else:
                raw_name = (name_at, name_end)
                if seen & field.bit:
                    raise self._error(name_at, f"duplicate field {self._raw(*raw_name)}")
                seen |= field.bit
                if text[at] == _NULL:
                    at += 4
                elif field.repeated:
                    at = self._list(field, message, at, depth)
                else:
                    if field.oneof is not None:
                        if field.oneof in oneofs:
                            raise self._error(
                                name_at,
                                f"error parsing {self._raw(*raw_name)}, oneof "
                                f"{table.name}.{field.oneof} is already set",
                            )
                        oneofs.add(field.oneof)
                    at = self._singular(field, message, at, depth)
            at = self._next(at)
        return at + 1

    def _singular(self, field: Field, message: Message, at: int, depth: int) -> int:
        if field.table is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            return self.message(field.table, inner, at, depth + 1)
        value, at = self._scalar(field, at)
        if value is not None:
            setattr(message, field.name, value)
        return at

    def _list(self, field: Field, message: Message, at: int, depth: int) -> int:
        text = self._text
        if text[at] != _OPEN_ARRAY:
            raise self._unexpected(at)
        items = getattr(message, field.name)
        at = skip_spaces(text, at + 1)
        while text[at] != _CLOSE_ARRAY:
            if field.table is not None:
                at = self.message(field.table, items.add(), at, depth + 1)
            else:
                value, at = self._scalar(field, at)
                if value is not None:
                    items.append(value)
            at = self._next(at)
        return at + 1

    def _next(self, at: int) -> int:
        """Passes white space, and a comma if there is one."""
        at = skip_spaces(self._text, at)
        return skip_spaces(self._text, at + 1) if self._text[at] == _COMMA else at

    def _skip(self, at: int) -> int:
        """The index behind a value that nobody wants; its strings must be right all the same."""
        text = self._text
        depth = 0
        while True:
            char = text[at]
            if char == _QUOTE:
                _, at = self._string(at)
            elif char in b"{[":
                depth += 1
                at += 1
            elif char in b"}]":
                depth -= 1
                at += 1
            elif char in b",:":
                at += 1
            else:
                at = self._token_end(at)
            if depth == 0:
                return at
            at = skip_spaces(text, at)

    # --- scalars ------------------------------------------------------------------------------

    def _scalar(self, field: Field, at: int) -> tuple[Any, int]:
        """The value and where it ends; None for a name of an enum that is unknown."""
        text = self._text
        char, kind = text[at], field.kind
        if char in b"{}[]":
            raise self._invalid(field, at, at + 1)
        if char == _QUOTE:
            string, end = self._string(at)
            if kind == STRING:
                return string, end
            if kind == BYTES:
                data = _from_base64(string)
                if data is not None:
                    return data, end
            elif kind == ENUM:
                known = field.enum.values_by_name.get(string)
                return (None if known is None else known.number), end
            elif kind == INTEGER:
                number = _whole(string)
                if number is not None and field.least <= number <= field.most:
                    return number, end
            raise self._invalid(field, at, end)
        end = self._token_end(at)
        if char in _NUMBERS:
            number = _whole(text[at:end].decode("ascii"))
            if kind == INTEGER and number is not None and field.least <= number <= field.most:
                return number, end
            if kind == ENUM and number is not None and -INT32_MAX - 1 <= number <= INT32_MAX:
                return number, end
        elif kind == BOOL and char in (_TRUE, _FALSE):
            return char == _TRUE, end
        raise self._invalid(field, at, end)

    def _token_end(self, at: int) -> int:
        """The end of a number or of a word."""
        char = self._text[at]
        if char in _NUMBERS:
            found = NUMBER(self._text, at)
            assert found is not None, "the scanner has found a number"
            return found.end()
        return at + (5 if char == _FALSE else 4)

    def _string(self, at: int) -> tuple[str, int]:
        found = A_STRING(self._text, at)
        assert found is not None, "the scanner has found a string"
        end = found.end()
        raw = self._text[at + 1 : end - 1]
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            text = raw[: error.start].decode("utf-8")
            self._unescape(text, at)  # a bad escape before is told first
            raise self._syntax(at, "invalid UTF-8 in string") from None
        return (self._unescape(text, at) if "\\" in text else text), end

    def _unescape(self, text: str, at: int) -> str:
        pieces: list[str] = []
        start = 0
        while (found := _ESCAPE.search(text, start)) is not None:
            pieces.append(text[start : found.start()])
            start = found.end()
            if found[1] is None:
                pieces.append(_ESCAPES.get(found[2], found[2]))
                continue
            code = int(found[1], 16)
            if code in _HIGH or code in _LOW:
                behind = at + 1 + len(text[:start].encode("utf-8"))
                window = self._text[behind : behind + 6]
                if len(window) < 6:
                    raise ProtoJsonError("proto: unexpected EOF")
                pair = _PAIRED(window)
                second = 0 if pair is None else int(pair[1], 16)
                if code in _LOW or second not in _LOW:
                    raise self._syntax(at, f"invalid escape code {quote(window)} in string")
                code = 0x10000 + ((code - 0xD800) << 10) + second - 0xDC00
                start += 6
            pieces.append(chr(code))
        pieces.append(text[start:])
        return "".join(pieces)

    # --- refusals -----------------------------------------------------------------------------

    def _raw(self, start: int, end: int) -> str:
        return self._text[start:end].decode("utf-8", "replace")

    def _unexpected(self, at: int) -> ProtoJsonError:
        char = self._text[at]
        if char == _QUOTE:
            _, end = self._string(at)
        elif char in b"{}[]":
            end = at + 1
        else:
            end = self._token_end(at)
        return self._syntax(at, f"unexpected token {self._raw(at, end)}")

    def _invalid(self, field: Field, at: int, end: int) -> ProtoJsonError:
        shown = self._raw(at, end)
        return self._error(
            at, f"invalid value for {field.type_name} field {field.json_name}: {shown}"
        )

    def _error(self, at: int, text: str) -> ProtoJsonError:
        return ProtoJsonError(f"proto: (line {self._position(at)}): {text}")

    def _syntax(self, at: int, text: str) -> ProtoJsonError:
        return ProtoJsonError(f"proto: syntax error (line {self._position(at)}): {text}")

    def _position(self, at: int) -> str:
        before = self._text[:at]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        return f"{line}:{column}"


def _from_base64(text: str) -> bytes | None:
    """As protojson reads it: URL-safe if it has "-" or "_"; None if it is neither."""
    unpadded = len(text) % 4 != 0
    if "\n" in text or "\r" in text:  # Go's decoder passes over them
        text = text.replace("\r", "").replace("\n", "")
    url_safe = "-" in text or "_" in text
    found = (_BASE64_URL if url_safe else _BASE64)(text)
    if found is None:
        return None
    if unpadded:
        if found[1] or len(text) % 4 == 1:
            return None
        text += "=" * (-len(text) % 4)
    elif len(text) % 4:
        return None
    try:
        return urlsafe_b64decode(text) if url_safe else a2b_base64(text)
    except Base64Error:
        return None


def _whole(text: str) -> int | None:
    """The integer that a JSON number stands for, also with a fraction or exponent; else None."""
    found = _NUMBER_PARTS.match(text)
    if found is None:
        return None
    sign, whole, fraction, exponent = found.groups()
    digits = whole.lstrip("0")
    fraction = (fraction or "").rstrip("0")
    if not digits and not fraction:
        return 0
    power = 0
    if exponent:
        if len(exponent) > _INT_DIGITS_MAX or abs(power := int(exponent)) > _EXPONENT_MAX:
            return None
    if power >= 0:
        if len(fraction) > power or len(digits) + power > _INT_DIGITS_MAX:
            return None
        digits += fraction + "0" * (power - len(fraction))
    else:
        at = len(digits) + power
        if fraction or at < 0 or digits[at:].strip("0"):
            return None
        digits = digits[:at] or "0"
    return int(sign + digits) if len(digits) <= _INT_DIGITS_MAX else None
