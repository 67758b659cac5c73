"""The gate through which other processes open a member's database.

A defragmentation puts another file in the place of the database and of LMDB's lock file. A process
that opens both at that moment could get one old and one new file. So opening takes a shared lock of
the file GATE, and the exchange (`writer.py`) takes an exclusive one for some milliseconds.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

GATE: Final = "GATE"


@contextmanager
def opening(path: str | os.PathLike[str]) -> Iterator[None]:
    """Meanwhile nobody replaces the files of the database in directory `path`."""
    try:
        fd = os.open(os.path.join(path, GATE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield  # nobody can replace files in a folder that is missing or not writable
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)
