"""Durations as Go writes them: "300ms", "1h15m30.5s".

Every flag, environment variable and tool option that takes a time uses this form, and logs print
it. Inside the program a duration is whole nanoseconds (`int`), as in a configuration file, or
seconds (`float`) for clocks.
"""

from __future__ import annotations

import re
from typing import Final

NANOSECOND: Final = 1
MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

_UNITS: Final = {
    "ns": NANOSECOND,
    "us": MICROSECOND,
    "µs": MICROSECOND,  # U+00B5, the micro sign
    "μs": MICROSECOND,  # U+03BC, the Greek letter
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_PIECE: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
_NANOSECONDS_MAX: Final = (1 << 63) - 1
_DIGITS_MAX: Final = 19  # of a whole number that may still fit, and of a fraction that still counts


class DurationError(ValueError):
    """The text is no duration; the message is Go's."""


def parse_duration(text: str) -> int:
    """The nanoseconds that `text` means; raises DurationError (Go `time.ParseDuration`)."""
    rest = text
    negative = False
    if rest[:1] in ("-", "+"):
        negative = rest[0] == "-"
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise DurationError(f"time: invalid duration {_quote(text)}")
    total = 0
    while rest:
        match = _PIECE.match(rest)
        assert match is not None, rest  # it always matches: every part may be empty
        whole, fraction, unit = match.groups()
        if (not whole and not fraction) or len(whole.lstrip("0")) > _DIGITS_MAX:
            raise DurationError(f"time: invalid duration {_quote(text)}")
        if not unit:
            raise DurationError(f"time: missing unit in duration {_quote(text)}")
        if unit not in _UNITS:
            raise DurationError(f"time: unknown unit {_quote(unit)} in duration {_quote(text)}")
        scale = _UNITS[unit]
        total += int(whole.lstrip("0") or "0") * scale
        if fraction:
            fraction = fraction[:_DIGITS_MAX]
            total += int(fraction) * scale // 10 ** len(fraction)
        if total > _NANOSECONDS_MAX:
            raise DurationError(f"time: invalid duration {_quote(text)}")
        rest = rest[match.end() :]
    return -total if negative else total


def format_duration(nanoseconds: int) -> str:
    """The shortest form that Go prints: "1m30s", "1.5ms", "0s" (Go `Duration.String`)."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    left = abs(nanoseconds)
    if left < SECOND:
        for unit, scale in (("ns", NANOSECOND), ("µs", MICROSECOND), ("ms", MILLISECOND)):
            if left < scale * 1000:
                return f"{sign}{_decimal(left, scale)}{unit}"
    hours, left = divmod(left, HOUR)
    minutes, left = divmod(left, MINUTE)
    seconds = f"{_decimal(left, SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    if minutes:
        return f"{sign}{minutes}m{seconds}"
    return f"{sign}{seconds}"


def _decimal(value: int, scale: int) -> str:
    whole, fraction = divmod(value, scale)
    if not fraction:
        return str(whole)
    digits = str(fraction).rjust(len(str(scale)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def _quote(text: str) -> str:
    """As Go's package `time` quotes, which is not as `%q` does: byte by byte beyond ASCII."""
    out = []
    for char in text:
        if " " <= char < "\x80":
            out.append("\\" + char if char in '"\\' else char)
        else:
            out += [f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape")]
    return '"' + "".join(out) + '"'
