"""Sending databases to members that fell behind, and receiving and installing them.

A transfer carries the database as it is when it starts, not as it was when Raft asked: the message
gets the index, term and configuration of exactly what the file holds (etcd's "merged" snapshot).
Reading and building a database happen in processes of their own.

In which order a received one takes its place: `shell.database_reception`. Here the file is
`INDEX.snap.db`, and what is built from it waits as `kv.ready`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import lmdb

from keyraft.base.histograms import Histogram, exponential
from keyraft.base.log import Logger
from keyraft.peer.transport import Transport
from keyraft.raft import Message, MessageType
from keyraft.raft.errors import StorageError
from keyraft.server import REBUILD_CONTEXT, Member, ReceivedDatabase
from keyraft.shell.database_reception import DatabaseReception, sent_snapshot
from keyraft.storage.backend import LMDBReader, ReadOnlyBackend
from keyraft.storage.files import create_private
from keyraft.storage.transfer import TransferError
from keyraft.storage.transfer.layout import READY, sync_dir

if TYPE_CHECKING:
    from keyraft.storage.transfer import SnapshotExport

TRANSFERS_MAX: Final = 16  # under way at once (etcd `maxInFlightMsgSnap`)
SUFFIX: Final = ".snap.db"
CHUNK_BYTES: Final = 256 * 1024


class ReceivedFiles:
    """The files of databases that were received; a `DatabaseFiles` once the member's own is open."""

    def __init__(self, snap_directory: str) -> None:
        self._directory = snap_directory
        self.put_in_place: Callable[[], None] = _nothing

    def path(self, index: int) -> str:
        """The file of a received database, until it is installed."""
        return os.path.join(self._directory, f"{index:016x}{SUFFIX}")

    def indexes(self) -> list[int]:
        """Of the files that are there; names of no index are passed over."""
        found = []
        for name in os.listdir(self._directory):
            if name.endswith(SUFFIX):
                with contextlib.suppress(ValueError):
                    found.append(int(name.removesuffix(SUFFIX), 16))
        return found

    def remove(self, index: int) -> None:
        """Harmless when there is none."""
        with contextlib.suppress(OSError):
            os.unlink(self.path(index))


def _nothing() -> None:
    """Until the member's own database is open there is none to replace."""


class Transfers:
    """Both directions, for one member. Owned by the loop."""

    def __init__(self, snap_directory: str, kv_directory: str, log: Logger) -> None:
        self._directory = snap_directory
        self._kv = kv_directory
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        self._receiving = asyncio.Lock()
        self.fsync_s = Histogram(exponential(0.001, 2, 14))
        self.saved_s = Histogram(exponential(0.1, 2, 10))
        self.files = ReceivedFiles(snap_directory)
        self.reception = DatabaseReception(self.files)

    # --- sending ------------------------------------------------------------------------------

    def send(self, member: Member, transport: Transport, message: Message) -> None:
        """Starts to send the database to `message.to`; the result is reported to Raft."""
        if len(self._tasks) >= TRANSFERS_MAX:
            self._failed(member, message, "too many snapshot transfers are under way")
            return
        self._spawn(self._send(member, transport, message))

    def send_copy(self, member: Member, transport: Transport, to: int) -> str:
        """Starts to send the database to a member that asked for it; "", or why not.

        Raft hears of the message nowhere (`server.upkeep.rebuild`).
        """
        if not member.rebuild.trusted:
            return "the keys of this member may be wrong"
        if to == member.settings.member_id or member.membership.cluster.member(to) is None:
            return "the member is unknown"
        if len(self._tasks) >= TRANSFERS_MAX:
            return "too many snapshot transfers are under way"
        message = Message(
            MessageType.SNAP,
            to,
            member.settings.member_id,
            member.leadership.term,
            context=REBUILD_CONTEXT,
        )
        self._spawn(self._send(member, transport, message))
        return ""

    async def _send(self, member: Member, transport: Transport, message: Message) -> None:
        committed = asyncio.Event()
        member.backend.flush(committed.set)
        await committed.wait()
        try:
            from keyraft.storage.transfer import SnapshotExport

            export = await SnapshotExport.start(self._kv, digest=False)
        except (TransferError, OSError) as error:
            self._failed(member, message, str(error))
            return
        try:
            message.snapshot = sent_snapshot(
                member, export.consistent_index, export.conf_state, export.membership
            )
        except (StorageError, ValueError) as error:
            await export.close()
            self._failed(member, message, str(error))
            return
        if not transport.send_snapshot(message, _blobs(export), export.size_bytes):
            await export.close()
            self._failed(member, message, "the member has left")

    def _failed(self, member: Member, message: Message, why: str) -> None:
        self._log.warn(
            "failed to send database snapshot", remote_peer_id=f"{message.to:x}", error=why
        )
        member.raft.report_snapshot(message.to, False)

    # --- receiving ----------------------------------------------------------------------------

    async def receive(
        self,
        index: int,
        database: AsyncIterator[bytes],
        installing: Callable[[], bool],
        received: ReceivedDatabase,
    ) -> int:
        """Saves the file, builds the database from it and reads that; its size in bytes.

        `installing`: the database received before is being installed now. Raises OSError, and
        ValueError for a file that is no database or has another index.
        """
        loop = asyncio.get_running_loop()
        async with self._receiving:
            path = self.files.path(index)
            size = 0
            started_s = loop.time()
            file = await loop.run_in_executor(None, _create, path + ".tmp")
            try:
                async for chunk in database:
                    size += len(chunk)
                    await loop.run_in_executor(None, file.write, chunk)
                written_s = loop.time()
                await loop.run_in_executor(None, _finish, file, path)
                self.fsync_s.observe(loop.time() - written_s)
                self.saved_s.observe(loop.time() - started_s)
            except BaseException:
                with contextlib.suppress(OSError):  # what it still buffers may have no room, either
                    file.close()
                with contextlib.suppress(OSError):
                    os.unlink(path + ".tmp")
                raise
            self.reception.begin(index, installing())
            try:
                from keyraft.storage.transfer import prepare_in_child

                prepare = partial(prepare_in_child, path, self._directory)
                stored = await loop.run_in_executor(None, prepare)
                self.reception.check_built(index, stored)
                await _read(index, os.path.join(self._directory, READY), received)
            except (TransferError, ValueError) as error:
                self.files.remove(index)
                raise ValueError(str(error)) from None
            self.reception.ready(index)
            return size

    async def stop(self) -> None:
        """Cancels transfers."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _read(index: int, path: str, received: ReceivedDatabase) -> None:
    """Raises TransferError."""
    try:
        reader = LMDBReader(Path(path))
    except lmdb.Error as error:
        raise TransferError(str(error)) from None
    outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    try:
        received.read(index, ReadOnlyBackend(reader), outcome.set_result)
        problem = await outcome
    except asyncio.CancelledError:
        received.forget()
        raise
    finally:
        reader.close()
    if problem is not None:
        raise TransferError(str(problem))


def _create(path: str) -> BinaryIO:
    return os.fdopen(create_private(path), "wb")


def _finish(file: BinaryIO, path: str) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    os.rename(path + ".tmp", path)
    sync_dir(os.path.dirname(path))


async def _blobs(export: SnapshotExport) -> AsyncIterator[bytes]:
    try:
        while blob := await export.read(CHUNK_BYTES):
            yield blob
    finally:
        await export.close()
