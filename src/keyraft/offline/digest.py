"""The SHA-256 at a snapshot's end, computed by a thread while the rows are read."""

from __future__ import annotations

import hashlib
import mmap
import os
from threading import Thread
from typing import Final

from keyraft.offline.source import (
    DIGEST_BYTES,
    SECTOR_BYTES,
    OfflineError,
    ProgressCallback,
    digest_mismatch,
    has_digest,
    no_progress,
)

# Hashing releases the interpreter's lock; getting it back takes up to 5 ms each time.
_PIECE_BYTES: Final = 16 << 20


class DigestCheck:
    """Compares the digest at a file's end, if there is one, with the bytes before it."""

    def __init__(self, path: str, progress: ProgressCallback = no_progress) -> None:
        """Begins at once. `progress` is called by the thread. Raises OfflineError, OSError."""
        self._progress = progress
        self._stopped = False
        self._problem: OfflineError | None = None
        self._thread: Thread | None = None
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if not has_digest(size):
                if size % SECTOR_BYTES:
                    self._problem = OfflineError(
                        f"snapshot file of {size} bytes is neither a database nor one with its "
                        "digest"
                    )
                return
            mapped = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        self._thread = Thread(target=self._run, args=(mapped,), name="digest", daemon=True)
        self._thread.start()

    def _run(self, mapped: mmap.mmap) -> None:
        sha = hashlib.sha256()
        with mapped, memoryview(mapped) as view:
            end = len(view) - DIGEST_BYTES
            for start in range(0, end, _PIECE_BYTES):
                if self._stopped:
                    return
                stop = min(start + _PIECE_BYTES, end)
                with view[start:stop] as piece:
                    sha.update(piece)
                self._progress(stop, end)
            wanted = bytes(view[end:])
        if wanted != sha.digest():
            self._problem = digest_mismatch(wanted, sha.digest())

    def wait(self) -> None:
        """Waits until the whole file is read; raises OfflineError when the digest differs."""
        if self._thread is not None:
            self._thread.join()
        if self._problem is not None:
            raise self._problem

    def close(self) -> None:
        """Ends the thread, finished or not."""
        self._stopped = True
        if self._thread is not None:
            self._thread.join()
