"""A database in any form: a snapshot file, Go etcd's `db`, or our LMDB directory.

A path may name the file, the LMDB directory, or a member's data directory, whose database is then
found in `member/snap`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Final

import lmdb

from keyraft.mvcc.backend import BackendError
from keyraft.storage.backend import long_keys
from keyraft.storage.bolt import BoltError, BoltFile
from keyraft.storage.transfer.environment import TransferError, open_environment, read_buckets

DIGEST_BYTES: Final = 32
SECTOR_BYTES: Final = 512  # a database's size is a multiple of it, and that with a digest is not
READ_BYTES: Final = 1 << 20
CHUNK_ROWS: Final = 512  # rows handed on at once
_LOCK_POLL_S: Final = 0.05
LOCK_NAME: Final = "LOCK"

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes in all."""


Columns = tuple[list[bytes], list[bytes]]
"""Keys and values of some consecutive rows."""


class OfflineError(Exception):
    """The command cannot be carried out; the text is what the operator is told."""


def no_progress(done: int, total: int) -> None:
    """Says nothing."""


def system_error(action: str, path: str, error: OSError) -> OfflineError:
    """The error as Go words it: "open x: no such file or directory"."""
    return OfflineError(f"{action} {path}: {os.strerror(error.errno or 0).lower()}")


def database_path(path: str) -> str:
    """The file or LMDB directory that `path` stands for; raises OfflineError."""
    try:
        os.stat(path)
    except OSError as error:
        raise system_error("stat", path, error) from None
    if not os.path.isdir(path):
        return path
    for candidate in (
        path,
        os.path.join(path, "member", "snap", "kv"),
        os.path.join(path, "kv"),
    ):
        if os.path.isfile(os.path.join(candidate, "data.mdb")):
            return candidate
    bolt = os.path.join(path, "member", "snap", "db")
    if os.path.isfile(bolt):
        return bolt
    raise OfflineError(f"there is no database in '{path}'")


def lock(path: str, timeout_s: float, *, exclusive: bool) -> int:
    """Takes the flock that a member holds on its database; the descriptor to close.

    `timeout_s` 0: waits for ever. Raises OfflineError.
    """
    if os.path.isdir(path):
        path = os.path.join(path, LOCK_NAME)
    flags = os.O_RDWR | os.O_CREAT if exclusive else os.O_RDONLY
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise system_error("open", path, error) from None
    deadline_s = time.monotonic() + timeout_s
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if timeout_s and time.monotonic() >= deadline_s:
                os.close(fd)
                raise OfflineError(f"timeout: '{path}' is used by another process") from None
            time.sleep(_LOCK_POLL_S)


class Source:
    """An open database. A context manager."""

    def __init__(self, path: str, timeout_s: float = 0, *, locked: bool = False) -> None:
        """Raises OfflineError. A member's LMDB database may be in use: it is read as it is.

        `locked`: the caller holds the lock.
        """
        self.path = database_path(path)
        self.is_bolt = not os.path.isdir(self.path)
        self.bolt: BoltFile | None = None
        self._env: Any = None
        self._txn: Any = None
        self._lock = -1
        if self.is_bolt and not locked:
            self._lock = lock(self.path, timeout_s, exclusive=False)
        try:
            if self.is_bolt:
                self.bolt = BoltFile(self.path)
            else:
                self._env = open_environment(self.path, readonly=True)
                self._txn = self._env.begin()
        except (BoltError, lmdb.Error) as error:
            self.close()
            raise OfflineError(str(error)) from error

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes everything."""
        if self.bolt is not None:
            self.bolt.close()
        if self._env is not None:
            if self._txn is not None:
                self._txn.abort()
            self._env.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def size_bytes(self) -> int:
        """What the database takes."""
        if self.bolt is not None:
            return self.bolt.size_bytes
        return os.stat(os.path.join(self.path, "data.mdb")).st_size

    def buckets(self) -> Iterator[tuple[bytes, Iterator[Columns]]]:
        """Name and sorted rows of each bucket. Raises OfflineError during the iteration."""
        try:
            if self.bolt is not None:
                for name, bucket in self.bolt.buckets():
                    yield name, bucket.columns()
            else:
                for name, items in read_buckets(self._txn, self._env):
                    yield name, _columns(items)
        except (BoltError, lmdb.Error, TransferError) as error:
            raise OfflineError(str(error)) from error

    # --- Backend, for reading -----------------------------------------------------------------

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        """The value; None when there is none. Raises BackendError."""
        for found, value in self.range(bucket, key, limit=1):
            return value if found == key else None
        return None

    def range(
        self, bucket: bytes, start: bytes = b"", end: bytes | None = None, limit: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        """As `Backend.range`. Raises BackendError."""
        count = 0
        try:
            for key, value in self._items(bucket, start):
                if end is not None and key >= end:
                    return
                yield key, value
                count += 1
                if count == limit:
                    return
        except (BoltError, lmdb.Error) as error:
            raise BackendError(str(error)) from error

    def _items(self, name: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        if self.bolt is not None:
            bucket = self.bolt.bucket(name)
            if bucket is not None:
                yield from bucket.items(start)
            return
        try:
            database = self._env.open_db(name, txn=self._txn, create=False)
        except lmdb.NotFoundError:
            return
        with self._txn.cursor(db=database) as cursor:
            if name in long_keys.BUCKETS:
                yield from long_keys.ordered(cursor, start)
                return
            if cursor.set_range(start) if start else cursor.first():
                yield from cursor


def _columns(items: Iterator[tuple[bytes, bytes]]) -> Iterator[Columns]:
    while chunk := list(islice(items, CHUNK_ROWS)):
        keys, values = zip(*chunk)
        yield list(keys), list(values)


def has_digest(size: int) -> bool:
    """Whether a file of this length ends in a digest."""
    return size % SECTOR_BYTES == DIGEST_BYTES


def digest_mismatch(wanted: bytes, got: bytes) -> OfflineError:
    """The original's words: both digests as decimal bytes."""
    return OfflineError(
        f"expected sha256 [{' '.join(map(str, wanted))}], got [{' '.join(map(str, got))}]"
    )
