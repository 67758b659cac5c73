"""Index checkpoints on disk: `DATA/member/snap/kv/index` (format: `mvcc.checkpoint`).

One is written when the member stops, and from time to time by a process of its own that reads the
committed database (`python -m keyraft.storage.backend.checkpointer DIRECTORY`): it never holds up
the loop, and after a kill -9 only later rows are read. In either case the file is durable and in
place before its head is stored in the database (the database then vouches for it).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ...base.clock import Loop, Timer
from ...mvcc.backend import OWN, OWN_CHECKPOINT, Backend
from ...mvcc.checkpoint import HEAD_BYTES, Checkpoint, decode, encode, size_of
from ...mvcc.store import Store

FILE_NAME: Final = "index"
TEMPORARY_SUFFIX: Final = ".tmp"
REVISIONS_MIN: Final = 200_000  # since the last one; fewer are read in well under a second
INTERVAL_S: Final = 120.0  # at least this long between two
STOP_REVISIONS_MIN: Final = 20_000  # since the last one, to write one when stopping


def load_checkpoint(directory: str | Path, backend: Backend) -> Checkpoint | None:
    """The checkpoint whose head the database holds, or None. Removes half-written files."""
    directory = Path(directory)
    for left in directory.glob(FILE_NAME + ".*" + TEMPORARY_SUFFIX):
        left.unlink(missing_ok=True)
    vouched = backend.get(OWN, OWN_CHECKPOINT)
    path = directory / FILE_NAME
    try:
        if vouched is None or path.stat().st_size != size_of(vouched):
            return None
        return decode(path.read_bytes(), vouched)
    except OSError:
        return None


def write_temporary(directory: Path, data: bytes) -> Path:
    """Makes `data` durable under a temporary name. Raises OSError."""
    path = directory / f"{FILE_NAME}.{os.getpid()}{TEMPORARY_SUFFIX}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)  # a part of it would take room
        raise
    return path


def adopt(directory: Path, temporary: Path, head: bytes, backend: Backend) -> None:
    """Puts a durable file in place and stores its head in the database. Raises OSError."""
    temporary.replace(directory / FILE_NAME)
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    backend.put(OWN, OWN_CHECKPOINT, head)


def save_checkpoint(directory: Path, store: Store, backend: Backend) -> None:
    """Writes one of the store as it is; takes the better part of a second. Raises OSError."""
    data = encode(store)
    adopt(directory, write_temporary(directory, data), data[:HEAD_BYTES], backend)


class Checkpoints:
    """Decides when to write a checkpoint, and owns the process that does it."""

    __slots__ = (
        "_backend",
        "_call_soon",
        "_directory",
        "_interval_s",
        "_lives",
        "_loop",
        "_process",
        "_revisions_min",
        "_store",
        "_thread",
        "_timer",
        "revision",
        "written",
    )

    def __init__(
        self,
        directory: str | Path,
        store: Store,
        backend: Backend,
        loop: Loop,
        call_soon: Callable[..., Any],
        revision: int,
        revisions_min: int = REVISIONS_MIN,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """`revision`: of the checkpoint that was loaded, 0 if none. `call_soon` hands a call to
        the loop from another thread."""
        self._directory = Path(directory)
        self._store = store
        self._backend = backend
        self._loop = loop
        self._call_soon = call_soon
        self._revisions_min = revisions_min
        self._interval_s = interval_s
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._lives = store.lives
        self.revision = revision
        self.written = 0
        self._timer: Timer = loop.call_later(interval_s, self._due)

    def _worthwhile(self, revisions_min: int) -> bool:
        store = self._store
        if store.pending_revision != store.revision:
            return False  # the member stops within a transaction, which its next life applies again
        if store.revision - self.revision >= revisions_min:
            return True
        # A compaction beyond its revision made the last checkpoint useless.
        return store.compact_revision > self.revision and len(store.index.entries) >= revisions_min

    def _same_database(self) -> bool:
        """Whether the database is still the one that the last checkpoint is about."""
        if self._lives == self._store.lives:
            return True
        self._lives = self._store.lives
        self.revision = 0
        return False

    def _due(self) -> None:
        self._same_database()
        if self._process is None and self._worthwhile(self._revisions_min):
            self._start()
        else:
            self._timer = self._loop.call_later(self._interval_s, self._due)

    def _start(self) -> None:
        self._process = process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "keyraft.storage.backend.checkpointer",
                str(self._directory),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._thread = threading.Thread(
            target=self._wait, args=(process,), name="keyraft-checkpoint", daemon=True
        )
        self._thread.start()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """The thread: waits for the process."""
        said, _ = process.communicate()
        self._call_soon(self._ended, process, said)

    def _ended(self, process: subprocess.Popen[bytes], said: bytes) -> None:
        if self._process is not process:
            return
        self._process = None
        name, _, head = said.strip().partition(b" ")
        if process.returncode == 0 and head and self._same_database():
            self._adopt(self._directory / os.fsdecode(name), bytes.fromhex(head.decode()))
        self._timer = self._loop.call_later(self._interval_s, self._due)

    def _adopt(self, temporary: Path, head: bytes) -> None:
        try:
            adopt(self._directory, temporary, head, self._backend)
        except OSError:
            return  # checkpoints only make a start faster; the next one may succeed
        self.revision = int.from_bytes(head[8:16], "little")
        self.written += 1

    def stop(self) -> None:
        """Ends the process, and writes a last checkpoint if that speeds up the next start much."""
        self._timer.cancel()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            assert self._thread is not None
            self._thread.join()
        self._same_database()
        if self._worthwhile(min(STOP_REVISIONS_MIN, self._revisions_min)):
            try:
                save_checkpoint(self._directory, self._store, self._backend)
            except OSError:
                return  # the next start reads all rows
            self.revision = self._store.revision
            self.written += 1
