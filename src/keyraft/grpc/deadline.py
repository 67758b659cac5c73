"""`grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests")."""

from __future__ import annotations

from typing import Final

_UNITS_S: Final = {
    0x48: 3600.0,  # H
    0x4D: 60.0,  # M
    0x53: 1.0,  # S
    0x6D: 1e-3,  # m
    0x75: 1e-6,  # u
    0x6E: 1e-9,  # n
}
DIGITS_MAX: Final = 8
TIMEOUT_S_MAX: Final = 100_000_000 * 3600.0


def parse_timeout(value: bytes) -> float | None:
    """Seconds, or None when the value is malformed."""
    digits = value[:-1]
    if not 1 <= len(digits) <= DIGITS_MAX or not digits.isdigit():
        return None
    unit = _UNITS_S.get(value[-1])
    return None if unit is None else int(digits) * unit


def format_timeout(seconds: float) -> bytes:
    """The finest unit that fits eight digits, rounded up; nothing left is one nanosecond."""
    if seconds <= 0:
        return b"1n"
    for suffix, unit in ((b"n", 1e-9), (b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0), (b"M", 60.0)):
        count = -int(-seconds // unit)
        if count < 10**DIGITS_MAX:
            return b"%d%s" % (max(count, 1), suffix)
    return b"%dH" % min(-int(-seconds // 3600.0), 10**DIGITS_MAX - 1)
