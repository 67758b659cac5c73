"""From a bbolt database (a snapshot, a leader's, Go etcd's own) to our LMDB one.

Buckets arrive sorted, so they are appended page after page; a transaction takes a bounded number
of bytes, and everything is synced once at the end. The result appears under its name only when it
is whole and durable.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import lt
from typing import Final

import lmdb

from keyraft.mvcc.backend import BUCKETS, META, META_CONSISTENT_INDEX
from keyraft.storage.backend import long_keys
from keyraft.storage.bolt import BoltError, BoltFile, Bucket
from keyraft.storage.transfer.environment import TransferError, open_environment
from keyraft.storage.transfer.layout import (
    BUILDING,
    READY,
    replace,
    sync_dir,
)

TRANSACTION_BYTES: Final = 8 << 20  # keys and values written between two commits
KEY_BYTES_MAX: Final = long_keys.PLAIN_BYTES_MAX  # of buckets whose keys clients do not choose


@dataclass(frozen=True, slots=True)
class Imported:
    """What was brought over."""

    keys: int  # of all buckets
    consistent_index: int
    passed_over: tuple[str, ...]  # buckets that a member has no use for


def import_bolt(source: str, target: str) -> Imported:
    """Makes directory `target` an LMDB database with the contents of bbolt file `source`.

    `target` must not exist; it is durable when this returns and gone when it raises. Blocks, for
    seconds per million keys. Raises TransferError, OSError.
    """
    try:
        os.makedirs(target, 0o700)
        with BoltFile(source) as db:
            result = _fill(db, target)
        sync_dir(target)
        sync_dir(os.path.dirname(os.path.abspath(target)))
        return result
    except (BoltError, lmdb.Error) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise TransferError(f"cannot import '{source}': {error}") from error
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _fill(db: BoltFile, target: str) -> Imported:
    keys = 0
    index = 0
    passed_over: list[str] = []
    env = open_environment(target)
    try:
        databases = {name: env.open_db(name) for name in BUCKETS}
        for name, bucket in db.buckets():
            database = databases.get(name)
            if database is None:
                passed_over.append(name.decode("utf-8", "backslashreplace"))
                continue
            for chunk in _chunks(name, bucket):
                with env.begin(write=True) as txn, txn.cursor(db=database) as cursor:
                    cursor.putmulti(chunk, append=name not in long_keys.BUCKETS)
                keys += len(chunk)
        with env.begin() as txn:
            stored = txn.get(META_CONSISTENT_INDEX, db=databases[META])
            index = int.from_bytes(stored or b"", "big")
        env.sync(True)
    finally:
        env.close()
    return Imported(keys, index, tuple(passed_over))


def _chunks(name: bytes, bucket: Bucket) -> Iterator[list[tuple[bytes, bytes]]]:
    """A bucket's rows, about TRANSACTION_BYTES at a time; raises BoltError out of order."""
    chunk: list[tuple[bytes, bytes]] = []
    size = 0
    before = b""
    long = name in long_keys.BUCKETS
    for keys, values in bucket.columns():
        if before >= keys[0] or not all(map(lt, keys, islice(keys, 1, None))):
            raise BoltError(f"bucket {name!r}: a key follows a larger one ({keys[0].hex()} ...)")
        if max(map(len, keys)) > KEY_BYTES_MAX and not long:
            raise BoltError(f"bucket {name!r}: a key of more than {KEY_BYTES_MAX} bytes")
        before = keys[-1]
        if long:
            chunk += zip(map(long_keys.stored_key, keys), map(long_keys.stored_value, keys, values))
        else:
            chunk += zip(keys, values)
        size += sum(map(len, keys)) + sum(map(len, values))
        if size >= TRANSACTION_BYTES:
            yield chunk
            chunk = []
            size = 0
    if chunk:
        yield chunk


def install(source: str, snap_dir: str) -> Imported:
    """Replaces the member's database by the contents of bbolt file `source`; nobody may have it
    open. Blocks. Raises TransferError, OSError.
    """
    result = prepare(source, snap_dir)
    replace(snap_dir)
    return result


def prepare(source: str, snap_dir: str) -> Imported:
    """The first and long half of `install`: the member goes on meanwhile, `replace` follows.

    Blocks. Raises TransferError, OSError.
    """
    building, ready = os.path.join(snap_dir, BUILDING), os.path.join(snap_dir, READY)
    shutil.rmtree(building, ignore_errors=True)
    shutil.rmtree(ready, ignore_errors=True)
    result = import_bolt(source, building)
    os.rename(building, ready)
    sync_dir(snap_dir)
    return result


def prepare_command(source: str, snap_dir: str) -> list[str]:
    """The command of a child process that runs `prepare`: exit 0, or 1 and a line on stderr."""
    return [sys.executable, "-m", "keyraft.storage.transfer.child", "import", source, snap_dir]


def prepare_in_child(source: str, snap_dir: str) -> int:
    """`prepare` in a process of its own, whose memory goes with it; the consistent index.

    Blocks. Raises TransferError.
    """
    done = subprocess.run(
        prepare_command(source, snap_dir), capture_output=True, text=True, check=False
    )
    if done.returncode:
        # One that died at once, as of a page without room, has left what it built.
        shutil.rmtree(os.path.join(snap_dir, BUILDING), ignore_errors=True)
        raise TransferError(
            done.stderr.strip() or f"the importing process ended: {done.returncode}"
        )
    return int(done.stdout)
