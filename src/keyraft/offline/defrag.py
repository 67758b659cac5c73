"""Defragmenting the database of a member that is stopped: written anew beside it, then renamed."""

from __future__ import annotations

import os
import shutil

import lmdb

from keyraft.offline.source import OfflineError, database_path, lock
from keyraft.storage.bolt import BoltError, BoltFile, check, write_file
from keyraft.storage.files import create_private
from keyraft.storage.transfer.environment import open_environment
from keyraft.storage.transfer.layout import DATA_FILE, sync_dir


def defrag(data_dir: str, timeout_s: float) -> tuple[int, int]:
    """The database's size before and after, bytes. Raises OfflineError."""
    path = database_path(data_dir)
    held = lock(path, timeout_s, exclusive=True)
    try:
        return _lmdb(path) if os.path.isdir(path) else _bolt(path)
    except (BoltError, lmdb.Error, OSError) as error:
        raise OfflineError(str(error)) from error
    finally:
        os.close(held)


def _bolt(path: str) -> tuple[int, int]:
    temporary = f"{path}.tmp.{os.getpid()}"
    before = os.stat(path).st_size
    try:
        with BoltFile(path) as db:
            errors = check(db)
            if errors:
                raise BoltError("\n".join(errors))
            with os.fdopen(create_private(temporary, os.O_RDWR), "w+b") as file:
                write_file(file, ((name, bucket.items()) for name, bucket in db.buckets()))
                file.flush()
                os.fsync(file.fileno())
        after = os.stat(temporary).st_size
        os.rename(temporary, path)
        sync_dir(os.path.dirname(os.path.abspath(path)))
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return before, after


def _lmdb(path: str) -> tuple[int, int]:
    temporary = path + ".building"
    data = os.path.join(path, DATA_FILE)
    before = os.stat(data).st_size
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary, 0o700)
    try:
        env = open_environment(path, readonly=True)
        try:
            env.copy(temporary, compact=True)
        finally:
            env.close()
        copy = os.path.join(temporary, DATA_FILE)
        os.chmod(copy, 0o600)
        fd = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        after = os.stat(copy).st_size
        os.rename(copy, data)
        sync_dir(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return before, after
