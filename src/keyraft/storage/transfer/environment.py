"""Our LMDB database seen from outside the member: opened, and its buckets in order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

import lmdb

from keyraft.mvcc.backend import BUCKETS
from keyraft.storage.backend import long_keys

MAP_BYTES: Final = 1 << 40  # address space, not memory and not disk
MAP_BYTES_MIN: Final = 1 << 28


class TransferError(Exception):
    """A database cannot be brought over or handed out; the text says which and why."""


def open_environment(path: str, *, readonly: bool = False) -> Any:
    """An LMDB environment as the backend lays it out. Raises lmdb.Error."""
    size = MAP_BYTES
    while True:
        try:
            return lmdb.open(
                path,
                map_size=size,
                max_dbs=len(BUCKETS) + 4,
                readonly=readonly,
                mode=0o600,
                sync=False,
                metasync=False,
                create=not readonly,
            )
        except (lmdb.MemoryError, lmdb.InvalidParameterError, OverflowError):
            if size <= MAP_BYTES_MIN:
                raise
            size //= 2


def read_buckets(txn: Any, env: Any) -> Iterator[tuple[bytes, Iterator[tuple[bytes, Any]]]]:
    """Name and sorted items of each of a member's buckets, those that are missing as empty.

    Raises lmdb.Error.
    """
    for name in BUCKETS:
        try:
            database = env.open_db(name, txn=txn, create=False)
        except lmdb.NotFoundError:
            yield name, iter(())
            continue
        if name in long_keys.BUCKETS:
            yield name, iter(long_keys.ordered(_items(txn, database)))
        else:
            yield name, _items(txn, database)


def _items(txn: Any, database: Any) -> Iterator[tuple[bytes, Any]]:
    with txn.cursor(db=database) as cursor:
        yield from cursor


def require_environment(path: str) -> None:
    """Raises TransferError when there is no LMDB database in the directory."""
    if not os.path.isfile(os.path.join(path, "data.mdb")):
        raise TransferError(f"there is no database in '{path}'")
