"""A file whose content is wanted afresh whenever it changes, for the price of one `stat`.

A file that was written a moment before it was read may be written again without a sign of it: times
have a grain. Such a one is read again, and compared, until it is older (the same is true of git's
index, `Documentation/technical/racy-git.adoc`).
"""

from __future__ import annotations

import errno
import os
import time
from typing import Final

from .pairs import UnfitError

_GRAIN_S: Final = 2.0
_FILE_BYTES_MAX: Final = 64 << 20
"""More than any bundle or revocation list has; what is larger is refused, not read into memory."""

_Signs = tuple[int, int, int, int, int]


class WatchedFile:
    """One path. `data` is its content when it was last read, None while it cannot be read."""

    __slots__ = ("_settled", "_signs", "data", "error", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.data: bytes | None = None
        self.error: OSError | None = None
        self._signs: _Signs | None = None
        self._settled = False

    def changed(self) -> bool:
        """Looks at the file; true when `data` or `error` is new. The first look is a change."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            return self._fail(error)
        signs = (
            found.st_dev,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )
        if signs == self._signs and self._settled:
            return False
        now = time.time()
        try:
            with open(self.path, "rb") as file:
                data = file.read(_FILE_BYTES_MAX + 1)
        except OSError as error:
            return self._fail(error)
        if len(data) > _FILE_BYTES_MAX:
            return self._fail(OSError(errno.EFBIG, os.strerror(errno.EFBIG), self.path))
        self._signs = signs
        self._settled = abs(now - found.st_mtime) > _GRAIN_S
        if data == self.data and self.error is None:
            return False
        self.data, self.error = data, None
        return True

    def content(self) -> bytes:
        """What it held when it was last looked at; raises UnfitError with Go's text."""
        if self.data is None:
            assert self.error is not None, self.path
            reason = os.strerror(self.error.errno or 0).lower()
            raise UnfitError(f"open {self.path}: {reason}")
        return self.data

    def _fail(self, error: OSError) -> bool:
        before, self.error = self.error, error
        self._signs, self._settled = None, False
        self.data = None
        return before is None or before.errno != error.errno
