"""Where the lines go: standard error, or a file that is set aside when it is too large.

Every method may raise OSError; nothing is written twice then: what was written of a batch before is
remembered, and the next attempt goes on behind it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import gmtime, strftime

LOOK_S = 1.0  # between two looks whether the file still has its name
MODE = 0o600
STDERR = "stderr"


class AuditFile:
    """One output. `bytes_max` and `backups_max` of 0 are no limit."""

    def __init__(
        self,
        path: str,
        bytes_max: int,
        backups_max: int,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._backups_max = backups_max
        self._clock = clock
        self._wall_clock = wall_clock
        self._written = 0  # of a batch that could not be written whole
        self._looked_s = clock()
        self._size = 0
        self._descriptor = 2
        if path != STDERR:
            self._descriptor = -1
            self._open()

    def write(self, data: bytes) -> None:
        """Writes a batch, or what an attempt before has left of it."""
        if not self._written:
            self._prepare(len(data))
        view = memoryview(data)
        while self._written < len(data):
            count = os.write(self._descriptor, view[self._written :])
            self._written += count
            self._size += count
        self._written = 0

    def _prepare(self, size: int) -> None:
        """Before the first byte of a batch: the right file, with room."""
        if self._path == STDERR:
            return
        if self._descriptor < 0:
            self._open()
        now = self._clock()
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            if not self._has_name():
                self._reopen()
        if self._bytes_max and self._size and self._size + size > self._bytes_max:
            self._set_aside()

    def _has_name(self) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        ours = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, MODE)
        self._size = os.fstat(self._descriptor).st_size
        try:
            torn = self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n"
        except OSError:
            torn = False  # a pipe or a terminal has no end to look at
        if torn:
            self._size += os.write(self._descriptor, b"\n")

    def _reopen(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        self._open()

    def _set_aside(self) -> None:
        now = self._wall_clock()
        stamp = strftime("%Y-%m-%dT%H-%M-%S", gmtime(now)) + f".{int(now * 1e3) % 1000:03d}"
        stem, extension = os.path.splitext(self._path)
        os.replace(self._path, f"{stem}-{stamp}{extension}")
        self._reopen()
        if self._backups_max:
            self._purge(stem, extension)

    def _purge(self, stem: str, extension: str) -> None:
        """Keeps the newest; their names sort by time."""
        folder, name = os.path.split(stem)
        prefix = name + "-"
        aside = sorted(
            entry
            for entry in os.listdir(folder or ".")
            if entry.startswith(prefix)
            and entry.endswith(extension)
            and _is_stamp(entry[len(prefix) : len(entry) - len(extension)])
        )
        for entry in aside[: -self._backups_max]:
            os.unlink(os.path.join(folder, entry))


def _is_stamp(text: str) -> bool:
    """Whether it is "2026-11-28T08-35-17.123", so that no file of another is removed."""
    shape = "".join("0" if one.isdigit() else one for one in text)
    return shape == "0000-00-00T00-00-00.000"
