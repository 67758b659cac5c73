"""The committed database as a `Backend` that refuses to be written, for other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from ...mvcc.backend import BackendError
from .lmdb_engine import LMDBReader


class ReadOnlyBackend:
    """`mvcc.Backend` over a reader."""

    __slots__ = ("_reader",)

    def __init__(self, reader: LMDBReader) -> None:
        self._reader = reader

    @property
    def size_bytes(self) -> int:
        return self._reader.size_bytes

    @property
    def size_in_use_bytes(self) -> int:
        return self._reader.size_in_use_bytes

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self._reader.get(bucket, key)

    def get_all(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._reader.get_all(bucket, keys)

    def range(
        self, bucket: bytes, start: bytes = b"", end: bytes | None = None, limit: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        found = self._reader.range(bucket, start, end)
        return islice(found, limit) if limit else found

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        raise BackendError("the database is open for reading only")

    def delete(self, bucket: bytes, key: bytes) -> None:
        raise BackendError("the database is open for reading only")

    def before_commit(self, hook: Callable[[], None]) -> None:
        return None

    def flush(self, done: Callable[[], None] | None = None) -> None:
        if done is not None:
            done()
