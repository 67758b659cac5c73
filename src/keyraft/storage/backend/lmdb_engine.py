"""LMDB as an engine: read on the loop, written by another process.

py-lmdb releases the GIL around its puts, so a thread that writes starves beside a busy loop
(docs/ARCHITECTURE.md, Decisions). The storage process (`writer.py`) is fed by a thread of ours
that only waits: one blocking write of a whole batch, one blocking read of the answer.

Invariants:
- One batch is under way at a time; the read transaction is renewed before its `done` is called.
- Carrying out a batch twice gives the same result. So when the process died before it answered, the
  batch is sent to the next process, once.
- A batch that the disk has no room for is tried again until it has, or until the end (`abandon`);
  meanwhile `starved` says why. LMDB writes its pages beside those in use, so nothing is lost.
- Both this process and the storage process hold the lock on the directory. So when a member was
  killed, the directory stays locked until the commit under way has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import lmdb

from ...mvcc.backend import BUCKETS, OWN, BackendError
from ..files import make_private_dirs
from ..process import StorageProcess
from . import long_keys
from .engine import Batch
from .gate import opening
from .writer_client import NoRoomError, NotDefragmentedError, Writer, WriterLostError

MAP_BYTES: Final = (
    1 << 40
)  # address space, not memory and not disk; halved where it is not to be had
MAP_BYTES_MIN: Final = 1 << 28
LOCK_NAME: Final = "LOCK"
ROOM_RETRY_S: Final = 0.5  # between two attempts to commit what there was no room for
_DATABASES_MAX: Final = 16
_META_PAGES: Final = 2  # of every LMDB file


class DatabaseLockedError(BackendError):
    """Another member (or its last commit) holds the directory."""


class LMDBReader:
    """The committed data as of the last `renew`. Any process may have one beside the member."""

    __slots__ = (
        "_data_fd",
        "_databases",
        "_env",
        "_folder",
        "_get",
        "_map_bytes",
        "_size_bytes",
        "_txn",
    )

    def __init__(self, path: Path, map_bytes: int = 0) -> None:
        """Opens the database in directory `path`, which must exist. Raises lmdb.Error."""
        self._folder = str(path)
        self._map_bytes = map_bytes or _map_bytes()
        self._data_fd = -1
        self._open()

    def _open(self) -> None:
        with opening(self._folder):
            self._env = lmdb.open(
                self._folder, map_size=self._map_bytes, max_dbs=_DATABASES_MAX, readonly=True
            )
            # Open the file by its descriptor, not by its name: operators move directories while a
            # member runs.
            self._data_fd = os.open(
                os.path.join(self._folder, "data.mdb"), os.O_RDONLY | os.O_CLOEXEC
            )
        self._databases = {name: self._env.open_db(name, create=False) for name in BUCKETS}
        with contextlib.suppress(lmdb.NotFoundError):  # a database that no member has opened yet
            self._databases[OWN] = self._env.open_db(OWN, create=False)
        self._txn = self._env.begin()
        self._get = self._txn.get
        self._size_bytes = os.fstat(self._data_fd).st_size

    def reopen(self) -> None:
        """Another file may have taken the database's place; no iterator may be open.

        Raises lmdb.Error, OSError.
        """
        LMDBReader.close(self)
        self._open()

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        value: bytes | None
        if 0 < len(key) <= long_keys.PLAIN_BYTES_MAX:
            try:
                value = self._get(key, None, self._databases[bucket])
            except KeyError:
                return None  # `OWN` in a database that no member has opened yet
            return value
        if not key:
            return None
        stored = long_keys.stored_key(key)
        value = self._get(stored, None, self._databases[bucket])
        return None if value is None else long_keys.original(stored, value)[1]

    def get_all(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        get, database = self._get, self._databases[bucket]
        return [get(key, None, database) for key in keys]

    def range(
        self, bucket: bytes, start: bytes, end: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        with self._txn.cursor(db=self._databases[bucket]) as cursor:
            by_name = bucket in long_keys.BUCKETS
            first = long_keys.stored_start(start) if by_name else start
            if not (cursor.set_range(first) if first else cursor.first()):
                return
            if by_name:
                yield from long_keys.ordered(cursor, start, end)
                return
            if end is None:
                yield from cursor
                return
            for pair in cursor:
                if pair[0] >= end:
                    return
                yield pair

    def renew(self) -> None:
        """Sees what was committed since; no iterator of `range` may be open."""
        self._txn.abort()
        try:
            self._txn = self._env.begin()
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)
            self._txn = self._env.begin()
        self._get = self._txn.get
        self._size_bytes = os.fstat(self._data_fd).st_size

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def size_in_use_bytes(self) -> int:
        pages = _META_PAGES  # in use from the start, so a new member tells no zero
        page_bytes = 4096
        for database in self._databases.values():
            stat = self._txn.stat(database)
            page_bytes = stat["psize"]
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * page_bytes

    def close(self) -> None:
        self._txn.abort()
        self._env.close()
        if self._data_fd >= 0:
            os.close(self._data_fd)
            self._data_fd = -1


class Defragment:
    """Among the batches: asks for a defragmentation."""


class LMDBEngine(LMDBReader):
    """See the module. `call_soon` hands a call to the loop from another thread."""

    __slots__ = (
        "_abandoned",
        "_call_soon",
        "_done",
        "_failed",
        "_idle",
        "_lock_fd",
        "_number",
        "_path",
        "_queue",
        "_reopen",
        "_report",
        "_thread",
        "_undone",
        "_writer",
        "starved",
    )

    def __init__(
        self,
        path: str | Path,
        call_soon: Callable[..., Any],
        wait_for_lock: Callable[[], None] | None = None,
        spare: StorageProcess | None = None,
        start_process: Callable[[], StorageProcess] = StorageProcess,
    ) -> None:
        """Opens or creates the database in directory `path`, with the storage process `spare` if
        one was started before.

        When another process holds the lock, `wait_for_lock()` is called once (to say so), and then
        this waits, as etcd does. Without `wait_for_lock` it raises DatabaseLockedError. Raises
        BackendError.
        """
        self._path = Path(path)
        make_private_dirs(str(self._path))
        self._lock_fd = _lock(self._path / LOCK_NAME, wait_for_lock)
        self._call_soon = call_soon
        self._failed: str | None = None
        self._report: Callable[[str], None] | None = None
        self._done: Callable[[], None] | None = None
        self._number = 0
        self._idle = threading.Event()
        self._idle.set()
        map_bytes = _map_bytes()
        self._writer = Writer(self._path, map_bytes, self._lock_fd, spare, start_process)
        try:
            self._writer.start()
            super().__init__(self._path, map_bytes)
        except (lmdb.Error, OSError, BackendError) as error:
            self._writer.stop()
            os.close(self._lock_fd)
            raise BackendError(f"cannot open the database in {self._path}: {error}") from error
        self.starved = ""
        self._abandoned = threading.Event()
        self._reopen = False  # another file may have replaced the database
        self._undone: str | None = None  # why the last defragmentation was not carried out
        self._queue: queue.SimpleQueue[Batch | Defragment | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._feed, name="keyraft-storage", daemon=True)
        self._thread.start()

    # --- Engine -----------------------------------------------------------------------------

    def commit(self, batch: Batch, done: Callable[[], None]) -> None:
        assert self._done is None, "one commit at a time"
        self._done = done
        self._number += 1
        self._idle.clear()
        self._queue.put(batch)

    def defragment(self, done: Callable[[str | None], None]) -> None:
        def finished() -> None:
            undone, self._undone = self._undone, None
            done(undone)

        assert self._done is None, "one commit at a time"
        self._done = finished
        self._number += 1
        self._idle.clear()
        self._queue.put(Defragment())

    def wait(self) -> None:
        while not self._idle.wait(ROOM_RETRY_S / 10):
            if self.starved:
                return
        self._finish(self._number)

    def on_failure(self, report: Callable[[str], None]) -> None:
        self._report = report

    def abandon(self) -> None:
        self._done = None
        self._abandoned.set()
        self._idle.wait()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        super().close()
        self._writer.stop()
        os.close(self._lock_fd)

    @property
    def writer_pid(self) -> int:
        """The storage process."""
        return self._writer.pid

    # --- committing -------------------------------------------------------------------------

    def _feed(self) -> None:
        """The thread: hands batches over and waits for the answers."""
        while True:
            batch = self._queue.get()
            if batch is None:
                return
            try:
                if isinstance(batch, Defragment):
                    self._defragment()
                else:
                    self._write(batch)
            except (BackendError, OSError) as error:
                self._failed = f"cannot write the database: {error}"
            number = self._number
            self._idle.set()
            try:
                self._call_soon(self._finish, number)
            except RuntimeError:
                pass  # the loop is closed already: who stops the member calls `wait`

    def _write(self, batch: Batch) -> None:
        writer = self._writer
        lost = False
        attempt: Callable[[], None] = partial(writer.write, batch)
        while True:
            try:
                attempt()
                break
            except NoRoomError as error:
                self.starved = str(error)
                lost = False
                attempt = writer.again
                if self._abandoned.wait(ROOM_RETRY_S):
                    break
            except WriterLostError:
                if lost:
                    raise
                lost = True
                writer.stop()
                writer.start()
                attempt = partial(writer.write, batch)
        self.starved = ""

    def _defragment(self) -> None:
        """After a failure the database is either the old file or the new one, and is complete."""
        try:
            self._writer.defragment()
            self._reopen = True
        except NotDefragmentedError as error:
            self._undone = str(error)  # and its files have not moved
        except WriterLostError as error:
            self._undone = str(error)
            self._reopen = True
            self._writer.stop()
            self._writer.start()

    def _finish(self, number: int) -> None:
        """On the loop: what commit `number` wrote becomes readable. Harmless when already done."""
        if number != self._number:
            return
        done, self._done = self._done, None
        if self._failed is None and done is not None:
            try:
                if self._reopen:
                    self.reopen()
                else:
                    self.renew()
                self._reopen = False
            except (lmdb.Error, OSError) as error:
                self._failed = f"cannot read the database: {error}"
        if self._failed is not None:
            self._finish_failed()
            return
        if done is not None:
            done()

    def _finish_failed(self) -> None:
        report, self._report = self._report, None
        if report is not None:
            report(self._failed or "")


def _lock(path: Path, wait_for_lock: Callable[[], None] | None) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if wait_for_lock is None:
            os.close(fd)
            raise DatabaseLockedError(
                f"the database in {path.parent} is used by another process"
            ) from None
        wait_for_lock()
        fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _map_bytes() -> int:
    """As much address space as both environments can get."""
    size = MAP_BYTES
    while size > MAP_BYTES_MIN:
        try:
            mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | 0x4000, prot=mmap.PROT_READ).close()
            return size
        except (OSError, ValueError):
            size //= 2
    return MAP_BYTES_MIN
