"""Sizes for people, as tables and log lines show them (go-humanize)."""

from __future__ import annotations


def size(count: int) -> str:
    """`count` bytes in decimal units with two significant digits: 20 kB, 1.2 MB."""
    if count < 10:
        return f"{count} B"
    exponent = min(len(str(count)) - 1, 20) // 3
    number = int(count / 1000**exponent * 10 + 0.5) / 10
    unit = ("B", "kB", "MB", "GB", "TB", "PB", "EB")[exponent]
    return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
