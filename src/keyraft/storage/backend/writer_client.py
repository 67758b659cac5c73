"""The member's end of the storage process (`writer.py`): batches out, answers in.

Its calls block; a thread of the engine makes them.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ...mvcc.backend import BUCKETS, OWN, BackendError
from ..process import StorageProcess
from . import long_keys
from .engine import Batch

PIECE_BYTES: Final = 1 << 20  # of a batch on its way to the storage process
DEFRAGMENT: Final = (1 << 64) - 1  # to the storage process, in place of a piece's length
_NOT_DONE: Final = 2  # its answers
_NO_ROOM: Final = 3


class NoRoomError(BackendError):
    """There is no room on the disk for the batch. The process keeps it (`Writer.again`)."""


class WriterLostError(BackendError):
    """The storage process ended without saying why."""


class NotDefragmentedError(BackendError):
    """The database is unchanged and still works; the text says why (no space for a copy)."""


class Writer:
    """The storage process. Its methods block; only the feeding thread and the start call them."""

    __slots__ = ("_lock_fd", "_map_bytes", "_path", "_process", "_spare", "_start_process")

    def __init__(
        self,
        path: Path,
        map_bytes: int,
        lock_fd: int,
        spare: StorageProcess | None = None,
        start_process: Callable[[], StorageProcess] = StorageProcess,
    ) -> None:
        """`spare`: a process that was started before and has opened nothing yet."""
        self._start_process = start_process
        self._path = path
        self._map_bytes = map_bytes
        self._lock_fd = lock_fd
        self._spare = spare
        self._process: StorageProcess | None = None

    @property
    def pid(self) -> int:
        """Of the running process; 0 if there is none."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts a process and waits until it has the database open. Raises BackendError."""
        process, self._spare = self._spare or self._start_process(), None
        self._process = process
        try:
            process.open(str(self._path), self._map_bytes, (*BUCKETS, OWN), self._lock_fd)
        except BrokenPipeError:
            raise WriterLostError("the storage process ended unexpectedly") from None
        self._answer()

    def write(self, batch: Batch) -> None:
        """Has one batch committed. Raises WriterLostError, NoRoomError, BackendError with the
        reason.

        The batch is sent in pieces, so that marshalling never holds the GIL, and thereby the loop,
        for long.
        """
        process = self._process
        assert process is not None
        fd = process.stdin
        try:
            for bucket, changes in batch.items():
                if bucket in long_keys.BUCKETS:
                    changes = {
                        long_keys.stored_key(key): (
                            None if value is None else long_keys.stored_value(key, value)
                        )
                        for key, value in changes.items()
                    }
                piece: dict[bytes, bytes | None] = {}
                size = 0
                for key, value in changes.items():
                    piece[key] = value
                    size += 64 if value is None else len(value) + 64
                    if size > PIECE_BYTES:
                        _send(fd, marshal.dumps((bucket, piece), 2))
                        piece = {}
                        size = 0
                if piece:
                    _send(fd, marshal.dumps((bucket, piece), 2))
            _send(fd, b"")
        except BrokenPipeError:
            self._answer()
            raise WriterLostError("the storage process stopped reading") from None
        self._answer()

    def again(self) -> None:
        """Has the batch committed for which there was no room. Raises what `write` does."""
        process = self._process
        assert process is not None
        try:
            _send(process.stdin, b"")
        except BrokenPipeError:
            raise WriterLostError("the storage process stopped reading") from None
        self._answer()

    def defragment(self) -> None:
        """Has the database written anew without its free pages.

        Raises WriterLostError, NotDefragmentedError with the reason.
        """
        process = self._process
        assert process is not None
        try:
            _send_all(process.stdin, DEFRAGMENT.to_bytes(8, "little"))
        except BrokenPipeError:
            raise WriterLostError("the storage process stopped reading") from None
        self._answer()

    def _answer(self) -> None:
        process = self._process
        assert process is not None
        head = _read(process.stdout, 5)
        text = _read(process.stdout, int.from_bytes(head[1:], "little"))
        if head[0] == _NOT_DONE:
            raise NotDefragmentedError(text.decode())
        if head[0] == _NO_ROOM:
            raise NoRoomError(text.decode())
        if head[0]:
            raise BackendError(text.decode())

    def stop(self) -> None:
        """Ends the process by ending its input."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()


def _send_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _send(fd: int, data: bytes) -> None:
    """Length and content, blocking."""
    head = len(data).to_bytes(8, "little")
    sent = os.writev(fd, (head, data)) - len(head)
    view = memoryview(data)
    assert sent >= 0, sent
    while sent < len(data):
        sent += os.write(fd, view[sent:])


def _read(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            raise WriterLostError("the storage process ended unexpectedly")
        data += part
    return data
