"""Outputs that few members have: a file that is set aside when it is large, and systemd's journal.

A rotated file follows the rules of lumberjack, which etcd uses: `etcd.log` becomes
`etcd-2006-01-02T15-04-05.000.log`, and old ones go by number (`maxbackups`) and by the age that their
names tell (`maxage`, days). Names that hold no such time are not touched. Compressing and removing is
done by a thread, because a hundred megabytes take seconds; what a member that ended has left
uncompressed is found by the next rotation.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

MEGABYTE: Final = 1024 * 1024
SIZE_MEGABYTES: Final = 100  # of a file, where `maxsize` is 0
JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
_STAMP: Final = "%Y-%m-%dT%H-%M-%S"
_STAMPED: Final = r"-(\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2})\.(\d{3})"
_PACKED: Final = ".gz"
_PRIORITIES: Final = {b"debug": 7, b"info": 6, b"warn": 4, b"error": 3}  # RFC 5424 §6.2.1
_LEVEL: Final = re.compile(rb'^\{"level":"(\w+)"|^[^\t]+\t(\w+)\t')
_CALLER: Final = re.compile(rb'"caller":"([^"/]+)/|\t([\w.]+)/[\w.]+:\d+\t')


class RotatingOutput:
    """A file that is set aside when the next line would make it larger than `maxsize`."""

    def __init__(self, path: str, settings: Mapping[str, Any]) -> None:
        self._path = Path(path)
        self._bytes_max = int(settings.get("maxsize") or SIZE_MEGABYTES) * MEGABYTE
        self._age_days_max = int(settings.get("maxage") or 0)
        self._backups_max = int(settings.get("maxbackups") or 0)
        self._localtime = bool(settings.get("localtime"))
        self._compress = bool(settings.get("compress"))
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._mode = 0o600
        self._descriptor = -1
        self._size = 0
        self._cleaning: threading.Thread | None = None
        self._again = False
        self._lock = threading.Lock()
        self._open()

    def write(self, line: bytes) -> None:
        """Rotates first when the line would not fit; a full disk must not stop the member."""
        with contextlib.suppress(OSError):
            if self._size and self._size + len(line) > self._bytes_max:
                self._rotate()
            self._size += os.write(self._descriptor, line)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, self._mode)
        found = os.fstat(self._descriptor)
        self._size, self._mode = found.st_size, found.st_mode & 0o777

    def _rotate(self) -> None:
        os.rename(self._path, self._free_name())
        old = self._descriptor
        self._open()
        os.close(old)
        self._clean_later()

    def _free_name(self) -> Path:
        """A name with the time, or the first millisecond after it whose name no file has."""
        now = datetime.now(None if self._localtime else UTC)
        while True:
            stamp = f"{now.strftime(_STAMP)}.{now.microsecond // 1000:03d}"
            name = self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")
            if not name.exists() and not name.with_name(name.name + _PACKED).exists():
                return name
            now += timedelta(milliseconds=1)

    def _clean_later(self) -> None:
        """Has a thread look at the old files; one that looks already looks again."""
        with self._lock:
            self._again = True
            if self._cleaning is None:
                self._cleaning = threading.Thread(
                    target=self._clean_all, name="keyraft-logs", daemon=True
                )
                self._cleaning.start()

    def wait(self) -> None:
        """Until old files are as they shall be."""
        with self._lock:
            cleaning = self._cleaning
        if cleaning is not None:
            cleaning.join()

    def _clean_all(self) -> None:
        while True:
            with self._lock:
                if not self._again:
                    self._cleaning = None
                    return
                self._again = False
            with contextlib.suppress(OSError):
                self._clean()

    def _clean(self) -> None:
        old = self.backups()
        # Both forms of one file are one: a member may have ended while it compressed.
        times = sorted({moment for moment, _ in old}, reverse=True)
        kept = set(times[: self._backups_max] if self._backups_max else times)
        if self._age_days_max:
            now = datetime.now() if self._localtime else datetime.now(UTC).replace(tzinfo=None)
            oldest = now - timedelta(days=self._age_days_max)
            kept = {moment for moment in kept if moment >= oldest}
        for moment, path in old:
            if moment not in kept:
                path.unlink(missing_ok=True)
            elif self._compress and path.suffix != _PACKED:
                _pack(path)

    def backups(self) -> list[tuple[datetime, Path]]:
        """The files set aside, with the time in their names; the newest first."""
        stem, suffix = re.escape(self._path.stem), re.escape(self._path.suffix)
        named = re.compile(f"{stem}{_STAMPED}{suffix}(?:{re.escape(_PACKED)})?\\Z")
        found: list[tuple[datetime, Path]] = []
        for path in self._path.parent.iterdir():
            match = named.match(path.name)
            if match is not None:
                with contextlib.suppress(ValueError):
                    moment = datetime.strptime(match[1], _STAMP)
                    found.append((moment + timedelta(milliseconds=int(match[2])), path))
        return sorted(found, reverse=True)


def _pack(path: Path) -> None:
    """Makes NAME.gz of NAME; a half one is never found under that name."""
    import gzip
    import shutil

    unfinished = path.with_name(f"{path.name}{_PACKED}.tmp")
    mode = path.stat().st_mode & 0o777
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with (
        open(path, "rb") as source,
        open(descriptor, "wb") as file,
        gzip.open(file, "wb") as target,
    ):
        shutil.copyfileobj(source, target)
    os.rename(unfinished, f"{path}{_PACKED}")
    path.unlink()


class JournalOutput:
    """systemd's journal, one datagram a line; standard error when the journal goes away."""

    def __init__(self, address: str = JOURNAL_SOCKET) -> None:
        """Raises OSError where there is no journal."""
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise

    def write(self, line: bytes) -> None:
        """The message as one field with its length, as the native protocol wants it."""
        text = line.rstrip(b"\n")
        level, caller = _LEVEL.match(line), _CALLER.search(line)
        name = (level[1] or level[2]) if level is not None else b"info"
        package = (caller[1] or caller[2]) if caller is not None else b"etcd"
        head = b"PRIORITY=%d\nPACKAGE=%s\nSYSLOG_IDENTIFIER=etcd\nMESSAGE\n" % (
            _PRIORITIES.get(name, 2),
            package,
        )
        try:
            self._socket.sendto(
                head + len(text).to_bytes(8, "little") + text + b"\n", self._address
            )
        except OSError:
            with contextlib.suppress(OSError):
                os.write(2, line)
