"""Where the log's bytes go: the last segment, and the spare one that will be next.

Room is reserved ahead, so that what was begun can be finished on a full disk: a segment's bytes when
it is made, and the next segment (`SPARE_NAME`) when half of this one is used.

A write for which there is no room (`storage.files.NO_ROOM`) is not the end of the log: it fails with
WALFullError, and the same batches are written again later, at the same places. Everything behind the
last good sync is then written once more, not only synced: after a failed sync it is unknown what
of it is on the disk, and a second sync would not tell (`storage.files`). A sync that fails by itself,
and every other error, ends the log.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from keyraft.base.log import Logger
from keyraft.storage.files import NO_ROOM, File, Files
from keyraft.storage.wal.encode import WALBatch
from keyraft.storage.wal.record import WALFullError, WALWriteError
from keyraft.storage.wal.segments import segment_name

SPARE_NAME: Final = "spare.tmp"  # etcd passes over names of this ending


class SegmentWriter:
    """Writes batches. One thread at a time calls it, but for `reserve`, which may run beside."""

    __slots__ = (
        "_failure",
        "_files",
        "_log",
        "_path",
        "_size",
        "_spare",
        "_unsynced",
        "behind",
        "reserved",
        "segments",
    )

    def __init__(
        self,
        files: Files,
        path: str,
        segments: list[tuple[int, File]],
        size: int,
        log: Logger,
        reserved: bool = True,
    ) -> None:
        """`segments`: (first index, locked file), oldest first; the last is written. `reserved`:
        its room is reserved."""
        self.segments = segments
        self.reserved = reserved
        self.behind = False  # batches wait for room
        self._files = files
        self._path = path
        self._size = size
        self._log = log
        self._spare: File | None = None
        self._unsynced: list[bytes] = []  # consecutive, behind the last sync of the segment
        self._failure: OSError | None = None

    @property
    def failed(self) -> bool:
        """Whether the log has ended by an error."""
        return self._failure is not None

    @property
    def has_spare(self) -> bool:
        """Whether room for the next segment is reserved."""
        return self._spare is not None

    # --- writing ------------------------------------------------------------------------------

    def write(self, batches: Sequence[WALBatch]) -> None:
        """One write and one sync for each segment that the batches are for.

        Raises WALFullError: only its `written` first batches are on the disk, and the others come
        again before any later one. Raises WALWriteError; from then on always.
        """
        if self._failure is not None:
            raise WALWriteError(f"wal: a write has failed before: {self._failure}")
        first = 0
        try:
            for last, batch in enumerate(batches):
                if batch.head is not None:
                    self._write_run(batches[first : last + 1])
                    self._cut(batch)
                    first = last + 1
            if first < len(batches):
                self._write_run(batches[first:] if first else batches)
        except WALFullError as error:
            self.behind = True
            error.written = first
            raise
        except OSError as error:
            self._failure = error
            raise WALWriteError(
                f"wal: cannot write to '{self.segments[-1][1].path}': {error}"
            ) from error
        self.behind = False

    def _write_run(self, batches: Sequence[WALBatch]) -> None:
        first = batches[0]
        if len(batches) == 1:
            data, sync = first.data, first.sync
        else:
            data = b"".join([batch.data for batch in batches])
            sync = any(batch.sync for batch in batches)
        offset = first.offset
        if self.behind and self._unsynced:
            before = b"".join(self._unsynced)
            offset -= len(before)
            data = before + data
            self._unsynced = []
        file = self.segments[-1][1]
        try:
            file.pwrite(data, offset, sync)
        except OSError as error:
            if error.errno in NO_ROOM:
                self._undo(file, first.offset)
            self._give_way(error)
        if sync:
            self._unsynced.clear()
        else:
            self._unsynced.append(data)

    def _undo(self, file: File, offset: int) -> None:
        """Takes a part of a write back: a start could take a torn record for a damaged one."""
        try:
            file.wipe(offset)
        except OSError:
            self.reserved = False
            with suppress(OSError):
                file.truncate(offset)

    def _give_way(self, error: OSError) -> None:
        """Raises WALFullError where there is no room, else the error."""
        if error.errno not in NO_ROOM:
            raise error
        name = self.segments[-1][1].path
        raise WALFullError(f"wal: no room to write to '{name}': {error}") from error

    def _cut(self, batch: WALBatch) -> None:
        """Ends the segment behind `batch` and begins the next with the batch's head."""
        assert batch.head is not None, batch.sequence
        tail = self.segments[-1][1]
        tail.truncate(batch.offset + len(batch.data))
        tail.fdatasync()
        self._unsynced.clear()
        sequence = batch.sequence + 1
        index = batch.entries_last + 1
        final = posixpath.join(self._path, segment_name(sequence, index))
        file, self._spare = self._spare, None
        if file is None:
            file = self._room_for_next(f"{sequence & 1}.tmp")
        try:
            try:
                file.pwrite(batch.head, 0)
            except OSError as error:
                self._give_way(error)
            file.fdatasync()
            try:
                self._files.rename(file.path, final)
            except OSError as error:
                self._give_way(error)
            self._files.sync_dir(self._path)
        except WALFullError:
            self._spare = file
            raise
        except BaseException:
            file.close()
            raise
        self.segments.append((index, file))
        self.reserved = True
        self._log.info("created a new WAL segment", path=final)

    def _room_for_next(self, name: str) -> File:
        try:
            return self._allocated(name)
        except OSError as error:
            self._give_way(error)
            raise

    def _allocated(self, name: str) -> File:
        """A file of zeros whose room is reserved. Without room nothing of it is kept."""
        file = self._files.open_locked(posixpath.join(self._path, name), create=True)
        try:
            file.truncate(0)
            file.allocate(self._size)
        except BaseException:
            with suppress(OSError):
                file.truncate(0)
            file.close()
            raise
        return file

    # --- room ---------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Reserves what is missing of the last segment's room, and the next segment's.

        Blocks; may run beside `write`. Raises OSError.
        """
        if not self.reserved:
            tail = self.segments[-1][1]
            tail.allocate(self._size)
            self.reserved = True
        if self._spare is None:
            self._spare = self._allocated(SPARE_NAME)

    # --- letting go ---------------------------------------------------------------------------

    def release_to(self, index: int) -> None:
        """Gives up the locks of segments that hold only entries before `index`, for `purge`.

        The newest segment that begins before `index` is kept.
        """
        segments = self.segments
        keep = len(segments) - 1
        for position, (first, _) in enumerate(segments):
            if first >= index:
                keep = position - 1
                break
        for _, file in segments[: max(0, keep)]:
            file.close()
        del segments[: max(0, keep)]

    def close(self) -> None:
        """Lets go of all locks; the spare segment is for the next life."""
        for _, file in self.segments:
            file.close()
        self.segments.clear()
        if self._spare is not None:
            self._spare.close()
            self._spare = None
