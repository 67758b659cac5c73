"""Imports Go etcd's database when a member first starts on its data directory, and again when Go
etcd has run on the directory meanwhile.

The consistent indexes tell which database is newer. Ours began as a copy of etcd's and has only
grown since. So a `db` with a higher index was written by etcd later.
"""

from __future__ import annotations

import fcntl
import os

import lmdb

from keyraft.base.log import Logger
from keyraft.mvcc.backend import META, META_CONSISTENT_INDEX
from keyraft.storage.transfer.environment import TransferError, open_environment
from keyraft.storage.transfer.layout import BOLT, KV, has_bolt, has_lmdb, recover


def take_over(snap_dir: str, log: Logger) -> bool:
    """Makes a data directory of Go etcd ours: its `db` is imported and kept as it is.

    Also finishes a replacement that a crash interrupted. True when something was taken over.
    To be called before the database is opened. Raises TransferError, OSError.
    """
    if not os.path.isdir(snap_dir):
        return False
    recover(snap_dir)
    if not has_bolt(snap_dir):
        return False
    source = os.path.join(snap_dir, BOLT)
    if has_lmdb(snap_dir) and not _is_newer(source, os.path.join(snap_dir, KV), log):
        return False
    _require_unused(source)
    # Loaded here: once in a directory's life.
    from keyraft.storage.transfer.importing import install

    result = install(source, snap_dir)
    log.info(
        "took over the database of etcd; the original is kept",
        from_path=source,
        to_path=os.path.join(snap_dir, KV),
        keys=result.keys,
        consistent_index=result.consistent_index,
    )
    return True


def _is_newer(bolt: str, kv: str, log: Logger) -> bool:
    # Loaded here: only where etcd has been before.
    from keyraft.storage.bolt.format import BoltError
    from keyraft.storage.bolt.reader import BoltFile

    ours = consistent_index(kv)
    try:
        with BoltFile(bolt) as db:
            bucket = db.bucket(META)
            theirs = _index(bucket.get(META_CONSISTENT_INDEX) if bucket else None)
    except (BoltError, OSError) as error:
        log.warn("the database that etcd left cannot be read", path=bolt, error=str(error))
        return False
    if theirs <= ours:
        return False
    log.info(
        "etcd has run on this data directory since: its database is taken over again",
        path=bolt,
        consistent_index=theirs,
        own_consistent_index=ours,
    )
    return True


def consistent_index(path: str) -> int:
    """The consistent index of the LMDB database in a directory. Raises TransferError."""
    try:
        env = open_environment(path, readonly=True)
        try:
            with env.begin() as txn:
                meta = env.open_db(META, txn, create=False)
                return _index(txn.get(META_CONSISTENT_INDEX, db=meta))
        except lmdb.NotFoundError:
            return 0
        finally:
            env.close()
    except lmdb.Error as error:
        raise TransferError(f"cannot read '{path}': {error}") from error


def _index(stored: bytes | None) -> int:
    return int.from_bytes(stored or b"", "big")


def _require_unused(path: str) -> None:
    """Go etcd holds a lock on its database as long as it runs. Raises TransferError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TransferError(
            f"the data directory is in use: {path} is locked by another process"
        ) from None
    finally:
        os.close(fd)
