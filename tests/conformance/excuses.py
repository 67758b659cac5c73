"""Which failures of a suite are no faults of ours, and why: read from `excuses.txt`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

FILE: Final = Path(__file__).with_name("excuses.txt")


class Excuse(NamedTuple):
    """A line of the file."""

    release: re.Pattern[str]
    suite: str
    test: re.Pattern[str]
    """The whole name, of a test or of a subtest."""
    reason: str

    def covers(self, release: str, suite: str, test: str) -> bool:
        """Whether it speaks of this test."""
        return bool(
            suite == self.suite and self.release.fullmatch(release) and self.test.fullmatch(test)
        )


def read(text: str) -> list[Excuse]:
    """One excuse a line, in four columns; `#` begins a comment."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(None, 3)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 4:
            raise ValueError(f"line {number} has no reason: {line}")
        release, suite, test, reason = words
        found.append(Excuse(re.compile(release), suite, re.compile(test), reason))
    return found


def reason(excuses: list[Excuse], release: str, suite: str, test: str) -> str | None:
    """Why a failure is excused: for its own name or for that of a test that holds it."""
    words = test.split("/")
    for length in range(len(words), 0, -1):
        name = "/".join(words[:length])
        for excuse in excuses:
            if excuse.covers(release, suite, name):
                return excuse.reason
    return None
