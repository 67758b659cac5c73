"""From our LMDB database to a bbolt one: what `snapshot save` and a follower that fell behind get.

A process of its own reads the database in one transaction, so the member's loop is never held. Its
memory is bounded by a page a level and the pipe. The process reads everything twice: first for the
layout, then for the bytes (storage.bolt.writer). Its standard output is:

    8 bytes   little-endian: the length of the database that follows
    4 bytes   little-endian: the length of what follows
    ...       marshalled: its consistent index, the configuration there (`confState` of bucket
              `meta`), and the rows of the buckets in MEMBERSHIP
    ...       the database
    32 bytes  its SHA-256, when asked for

The member commits what it wants to be in the snapshot, then starts the process.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import marshal
import os
import sys
from collections.abc import Callable
from struct import Struct
from typing import Any, BinaryIO, Final

import lmdb

from keyraft.mvcc.backend import (
    CLUSTER,
    MEMBERS,
    MEMBERS_REMOVED,
    META,
    META_CONF_STATE,
    META_CONSISTENT_INDEX,
)
from keyraft.storage.backend import opening
from keyraft.storage.bolt import BoltError, measure, write_file, write_stream
from keyraft.storage.transfer.background import Background
from keyraft.storage.transfer.environment import (
    TransferError,
    open_environment,
    read_buckets,
    require_environment,
)
from keyraft.storage.transfer.layout import DIGEST_BYTES

MEMBERSHIP: Final = (MEMBERS, MEMBERS_REMOVED, CLUSTER)
"""Buckets whose rows go before the database."""
_HEAD: Final = Struct("<QI")
_PIPE_BYTES: Final = 1 << 20  # how far the process may be ahead of its reader
_ERROR_BYTES_MAX: Final = 4096


def export(
    path: str, write: Callable[[bytes], object], digest: bool, background: Background
) -> None:
    """Hands length, database and digest to `write`. Blocks. Raises TransferError, OSError."""
    require_environment(path)
    try:
        with opening(path):
            env = open_environment(path, readonly=True)
        try:
            with env.begin() as txn:
                meta = measure(read_buckets(txn, env))
                size = meta.pages * meta.page_bytes
                write(_head(txn, env, size))
                sha = hashlib.sha256()

                def hand_on(data: bytes) -> None:
                    if digest:
                        sha.update(data)
                    background.pause()
                    write(data)
                    background.resume()

                background.recede()
                write_stream(hand_on, read_buckets(txn, env), meta)
                if digest:
                    write(sha.digest())
        finally:
            env.close()
    except (lmdb.Error, BoltError) as error:
        raise TransferError(f"cannot export '{path}': {error}") from error


def _head(txn: Any, env: Any, size: int) -> bytes:
    meta = _rows(txn, env, META)
    index = int.from_bytes(meta.get(META_CONSISTENT_INDEX, b""), "big")
    rows = {name: _rows(txn, env, name) for name in MEMBERSHIP}
    told = marshal.dumps((index, meta.get(META_CONF_STATE, b""), rows))
    return _HEAD.pack(size, len(told)) + told


def _rows(txn: Any, env: Any, name: bytes) -> dict[bytes, bytes]:
    try:
        database = env.open_db(name, txn, create=False)
    except lmdb.NotFoundError:
        return {}
    with txn.cursor(db=database) as cursor:
        return {bytes(key): bytes(value) for key, value in cursor}


def export_file(path: str, file: BinaryIO) -> int:
    """Writes the database as bbolt into an empty seekable file; its length. No digest.

    Blocks. Raises TransferError, OSError.
    """
    require_environment(path)
    try:
        with opening(path):
            env = open_environment(path, readonly=True)
        try:
            with env.begin() as txn:
                meta = write_file(file, read_buckets(txn, env))
        finally:
            env.close()
    except (lmdb.Error, BoltError) as error:
        raise TransferError(f"cannot export '{path}': {error}") from error
    return meta.pages * meta.page_bytes


class SnapshotExport:
    """A snapshot that an exporting process produces. The owner must always close it.

    The pipe is read here and not by a StreamReader: a stream would copy each byte twice more and
    wake the loop for each 64 KiB.
    """

    __slots__ = (
        "_fd",
        "_process",
        "_remaining",
        "conf_state",
        "consistent_index",
        "membership",
        "size_bytes",
    )

    def __init__(
        self, process: asyncio.subprocess.Process, fd: int, size_bytes: int, digest: bool
    ) -> None:
        self._process = process
        self._fd = fd  # our end of the pipe; -1 when closed
        self.size_bytes = size_bytes  # of the database, without the digest
        self.consistent_index = 0  # the last entry that the database holds
        self.conf_state = b""  # the configuration there, as bucket `meta` holds it
        self.membership: dict[bytes, dict[bytes, bytes]] = {}  # rows there, by bucket
        self._remaining = size_bytes + (DIGEST_BYTES if digest else 0)

    @classmethod
    async def start(cls, path: str, digest: bool = True) -> SnapshotExport:
        """Starts the process and waits until it knows the length. `path`: the `kv` directory.

        Raises TransferError, OSError.
        """
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            _enlarge(ours)
            os.set_blocking(ours, False)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "keyraft.storage.transfer.child",
                "export",
                path,
                "1" if digest else "0",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=asyncio.subprocess.PIPE,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        export = cls(process, ours, 0, digest)
        try:
            head = await export._exactly(_HEAD.size)
            size, told_bytes = _HEAD.unpack(head)
            told = marshal.loads(await export._exactly(told_bytes))
            export.consistent_index, export.conf_state, export.membership = told
        except BaseException:
            await export.close()
            raise
        export.size_bytes = size
        export._remaining += export.size_bytes
        return export

    @property
    def remaining_bytes(self) -> int:
        """What `read` has not yet returned, digest included."""
        return self._remaining

    async def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end, empty behind it.

        The digest is read on its own. Raises TransferError when the process failed.
        """
        size = min(size, self._remaining)
        if self._remaining > DIGEST_BYTES:
            size = min(size, self._remaining - DIGEST_BYTES)
        if not size:
            return b""
        data = await self._exactly(size)
        self._remaining -= size
        return data

    async def _exactly(self, size: int) -> bytes:
        """The next bytes of the pipe. Raises TransferError when it ends before."""
        parts: list[bytes] = []
        while size:
            try:
                data = os.read(self._fd, size)
            except BlockingIOError:
                await self._readable()
                continue
            if not data:
                raise TransferError(await self._failure())
            parts.append(data)
            size -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def done() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(self._fd, done)
        try:
            await ready
        finally:
            loop.remove_reader(self._fd)

    async def close(self) -> None:
        """Ends the process, finished or not."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._process.returncode is None:
            try:
                self._process.kill()
            except ProcessLookupError:
                pass
            await self._process.wait()

    async def _failure(self) -> str:
        assert self._process.stderr is not None
        text = (await self._process.stderr.read(_ERROR_BYTES_MAX)).decode("utf-8", "replace")
        return text.strip() or "the exporting process ended unexpectedly"


def _enlarge(pipe: int) -> None:
    """Makes the pipe as large as the system allows, up to _PIPE_BYTES."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        return  # the user's limit for pipes is reached; the loop then only wakes more often


def write_fd(fd: int) -> Callable[[bytes], None]:
    """A writer that writes everything to a descriptor."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write
