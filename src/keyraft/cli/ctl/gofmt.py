"""Durations, lines in words and raw arguments, as the original's tool reads and shows them."""

from __future__ import annotations

import re
from typing import Final

from keyraft.base import durations
from keyraft.base.gotext import unquote


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "1m30s"; the ValueError's text is Go's."""
    return durations.parse_duration(text) / durations.SECOND


def duration(seconds: float) -> str:
    """`seconds` as Go prints a duration: 3.362876ms, 1.5s, 1m0.5s."""
    return durations.format_duration(round(seconds * durations.SECOND))


_WORDS: Final = re.compile(r""""(?:[^"\\]|\\.)*"|'[^']*'|[^'"\s]\S*[^'"\s]?""")


def words(line: str) -> list[str]:
    """Splits a line into words: '…' is literal, "…" has escapes; ValueError for a bad escape."""
    found = []
    for word in _WORDS.findall(line):
        if word.startswith("'"):
            word = word[1:-1]
        elif word.startswith('"'):
            word = unquote(word).decode("utf-8", "surrogateescape")
        found.append(word)
    return found


def raw(text: str) -> bytes:
    """The bytes of a command-line argument, UTF-8 or not."""
    return text.encode("utf-8", "surrogateescape")
