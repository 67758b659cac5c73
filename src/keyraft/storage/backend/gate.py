"""The gate through which other processes open a member's database.

A defragmentation puts another file in the place of the database and of LMDB's lock file. Whoever
opens both while it does so could have one old and one new. Opening takes a shared lock of the file
GATE, the exchange (`writer.py`) an exclusive one, for some milliseconds.
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
    """Both files of the database in directory `path` stay what they are meanwhile."""
    try:
        fd = os.open(os.path.join(path, GATE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield  # nobody exchanges anything in a folder that cannot be written or is not there
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)
