"""Parsing the text of a flag: one `Kind` for each type of flag.

Errors have the words of Go's `flag` and `strconv` packages and of etcd's own flag types, because
operators search for them. Durations become seconds, numbers are range-checked as the Go type behind
the flag is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from keyraft.base import gotext
from keyraft.base.durations import SECOND, DurationError, parse_duration
from keyraft.base.gotext import quote
from keyraft.base.urls import URL, URLError, parse_urls
from keyraft.config.feature_gates import parse_gates

_INTEGER: Final = re.compile(
    r"[+-]?(0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|0[0-7_]*|[1-9][0-9_]*)\Z"
)
_LEGACY_OCTAL: Final = re.compile(r"0[0-7_]+\Z")

V2_PHASES: Final = ("gone", "write-only", "write-only-drop-data", "write-only-skip-check")


class ValueRefused(ValueError):
    """The text is no value of this kind; the message goes behind "invalid value … for flag"."""


class Kind(NamedTuple):
    """A type of flag: `go_type` as the configuration file's errors name it, and its parser.

    `parse(text, previous)` gets the flag's previous value, for kinds that add to it.
    """

    go_type: str
    parse: Callable[[str, Any], Any]
    is_bool: bool = False


def parse_bool(text: str) -> bool:
    """A truth value as Go spells it; raises ValueRefused."""
    try:
        return gotext.parse_bool(text)
    except ValueError:
        raise ValueRefused("parse error") from None


def parse_integer(text: str) -> int | None:
    """An integer in Go's base-0 syntax (0x, 0o, 0b, leading 0 for octal), None when it is none."""
    if not _INTEGER.match(text):
        return None
    sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    if _LEGACY_OCTAL.match(digits):
        digits = "0o" + digits[1:].lstrip("_")
    try:
        return int(sign + digits, 0)
    except ValueError:
        return None


def _integer(low: int, high: int) -> Callable[[str, Any], int]:
    def parse(text: str, previous: object) -> int:
        value = None if low == 0 and text[:1] in ("+", "-") else parse_integer(text)
        if value is None:
            raise ValueRefused("parse error")
        if not low <= value <= high:
            raise ValueRefused("value out of range")
        return value

    return parse


def _uint32(text: str, previous: object) -> int:
    value = None if text[:1] in ("+", "-") else parse_integer(text)
    if value is None:
        raise ValueRefused(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax")
    if value >= 1 << 32:
        raise ValueRefused(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return value


def _duration(text: str, previous: object) -> float:
    try:
        return parse_duration(text) / SECOND
    except DurationError:
        raise ValueRefused("parse error") from None


def _urls(text: str, previous: tuple[URL, ...]) -> tuple[URL, ...]:
    if not text:
        return previous  # etcd accepts an empty list and keeps the previous value
    try:
        urls = parse_urls(text.split(","))
    except URLError as error:
        raise ValueRefused(str(error)) from None
    return tuple({url.text: url for url in urls}.values())


def parse_origins(text: str, previous: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Browser origins: "*", or URLs; raises ValueRefused."""
    if text == "*":
        return tuple(sorted({*previous, "*"}))
    if not text:
        return previous
    return tuple(url.text for url in _urls(text, ()))


def _one_of(*values: str) -> Callable[[str, Any], str]:
    def parse(text: str, previous: object) -> str:
        if text not in values:
            raise ValueRefused("invalid value")
        return text

    return parse


def _v2_phase(text: str, previous: object) -> str:
    for phase in text.split(","):
        if phase not in V2_PHASES:
            raise ValueRefused(f"invalid value {quote(phase)}")
    return text


def _gates(text: str, previous: Mapping[str, bool]) -> Mapping[str, bool]:
    try:
        return parse_gates(text, previous)
    except ValueError as error:
        raise ValueRefused(str(error)) from None


STRING: Final = Kind("string", lambda text, previous: text)
BOOL: Final = Kind("bool", lambda text, previous: parse_bool(text), is_bool=True)
INT: Final = Kind("int", _integer(-(1 << 63), (1 << 63) - 1))
INT64: Final = Kind("int64", _integer(-(1 << 63), (1 << 63) - 1))
UINT: Final = Kind("uint", _integer(0, (1 << 64) - 1))
UINT64: Final = Kind("uint64", _integer(0, (1 << 64) - 1))
UINT32: Final = Kind("uint32", _uint32)
DURATION: Final = Kind("time.Duration", _duration)
URLS: Final = Kind("string", _urls)
ORIGINS: Final = Kind("string", parse_origins)
STRINGS: Final = Kind("[]string", lambda text, previous: tuple(text.split(",")))
UNIQUE: Final = Kind("[]string", lambda text, previous: tuple(sorted(set(text.split(",")))))
CLUSTER_STATE: Final = Kind("string", _one_of("new", "existing"))
FALLBACK: Final = Kind("string", _one_of("exit", "proxy"))
V2_PHASE: Final = Kind("string", _v2_phase)
GATES: Final = Kind("string", _gates)
IGNORED: Final = Kind("bool", lambda text, previous: None, is_bool=True)
