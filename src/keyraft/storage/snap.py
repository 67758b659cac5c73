"""Snapshot files: where in the log a snapshot stands, and the configuration there.

`{term:016x}-{index:016x}.snap` holds

    snappb.snapshot   crc 1: CRC-32C of data, from 0;  data 2: raftpb.Snapshot
    raftpb.Snapshot   data 1 (the application's own), metadata 2 {conf_state, index, term}

A file counts only when it is sound and the log holds a snapshot mark of the same index and term;
the log's mark is written after the file. A file that cannot be read is renamed to `NAME.broken`;
then an older one is used and more of the log is replayed. Written as `NAME.tmp`, synced, renamed:
so no file with a snapshot's name is ever half written. Source: etcd `server/etcdserver/api/snap`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from keyraft.base.crc import crc32c
from keyraft.base.histograms import Histogram, exponential
from keyraft.base.log import Logger, NullLogger
from keyraft.base.protofields import fields
from keyraft.raft import codec
from keyraft.raft.types import Snapshot
from keyraft.storage.files import FileLockedError, Files
from keyraft.storage.wal.record import SnapshotMark

SNAP_BYTES_MAX: Final = 512 << 20  # a file beyond this is taken for damaged
_NAME: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.snap")
_RECEIVED: Final = re.compile(r"([0-9a-f]{16})\.snap\.db")


class SnapError(Exception):
    """A snapshot file that cannot be used; the text says which and why."""


def snap_name(term: int, index: int) -> str:
    """The file's name."""
    return f"{term:016x}-{index:016x}.snap"


def encode_snap(snapshot: Snapshot) -> bytes:
    """The whole file."""
    data = codec.encode_snapshot(snapshot)
    varint = codec.encode_varint
    return b"\x08" + varint(crc32c(data)) + b"\x12" + varint(len(data)) + data


def decode_snap(content: bytes, name: str) -> Snapshot:
    """Raises SnapError; `name` is for its text."""
    if not content:
        raise SnapError(f"snap: empty snapshot file '{name}'")
    crc = 0
    data = b""
    try:
        for number, value in fields(content):
            if number == 1 and isinstance(value, int):
                crc = value
            elif number == 2 and isinstance(value, bytes):
                data = value
        if not data or not crc:
            raise SnapError(f"snap: empty snapshot file '{name}'")
        if crc32c(data) != crc:
            raise SnapError(f"snap: crc mismatch in '{name}'")
        snapshot = codec.decode_snapshot(data)
    except ValueError as error:
        raise SnapError(f"snap: '{name}' is no snapshot file: {error}") from error
    return snapshot


def _no_clock() -> float:
    """The default of `clock`: nobody asks how long it takes."""
    return 0.0


class SnapDir:
    """The `member/snap` directory, as far as snapshot files go."""

    __slots__ = ("_clock", "_files", "_log", "_path", "encoded_s", "saved_s", "synced_s")

    def __init__(
        self,
        files: Files,
        path: str,
        log: Logger | None = None,
        clock: Callable[[], float] = _no_clock,
    ) -> None:
        """`clock`: monotonic seconds, for how long it takes to save one."""
        self._clock = clock
        self.encoded_s = Histogram(exponential(0.001, 2, 14))
        self.synced_s = Histogram(exponential(0.001, 2, 14))
        self.saved_s = Histogram(exponential(0.001, 2, 14))
        self._files = files
        self._path = path
        self._log = log or NullLogger()

    def save(self, snapshot: Snapshot) -> str:
        """Durable when it returns the file's path; an empty snapshot is not saved. Raises OSError."""
        meta = snapshot.meta
        assert meta.index, "an empty snapshot has no file"
        clock = self._clock
        began_s = clock()
        encoded = encode_snap(snapshot)
        self.encoded_s.observe(clock() - began_s)
        final = posixpath.join(self._path, snap_name(meta.term, meta.index))
        file = self._files.open(final + ".tmp", create=True)
        try:
            file.truncate(0)
            file.pwrite(encoded, 0)
            written_s = clock()
            file.fdatasync()
            self.synced_s.observe(clock() - written_s)
        except OSError:
            with suppress(OSError):
                file.truncate(0)  # a part of it would take room that is wanted
            raise
        finally:
            file.close()
        self._files.rename(final + ".tmp", final)
        self._files.sync_dir(self._path)
        self.saved_s.observe(clock() - began_s)
        return final

    def names(self) -> list[str]:
        """The snapshot files, newest first; other files are passed over."""
        try:
            names = self._files.list(self._path)
        except FileNotFoundError:
            return []
        return [name for name in reversed(names) if _NAME.fullmatch(name)]

    def load(self, name: str) -> Snapshot:
        """Raises SnapError, OSError."""
        file = self._files.open(posixpath.join(self._path, name))
        try:
            size = file.size()
            if size > SNAP_BYTES_MAX:
                raise SnapError(f"snap: '{name}' is {size} bytes long")
            snapshot = decode_snap(file.pread(size, 0), name)
        finally:
            file.close()
        match = _NAME.fullmatch(name)
        if match and (snapshot.meta.term, snapshot.meta.index) != (
            int(match[1], 16),
            int(match[2], 16),
        ):
            raise SnapError(f"snap: '{name}' holds the snapshot of another term or index")
        return snapshot

    def load_newest(self, marks: Sequence[SnapshotMark] | None = None) -> Snapshot | None:
        """The newest sound snapshot, among `marks` when given; None when there is none.

        Files that cannot be read are renamed to `NAME.broken`.
        """
        wanted = None if marks is None else {(mark.term, mark.index) for mark in marks}
        for name in self.names():
            match = _NAME.fullmatch(name)
            assert match is not None, name
            try:
                snapshot = self.load(name)
            except SnapError as error:
                broken = posixpath.join(self._path, name) + ".broken"
                self._log.warn(
                    "failed to read a snapshot file, set it aside", path=broken, error=str(error)
                )
                self._files.rename(posixpath.join(self._path, name), broken)
                continue
            if wanted is None or (snapshot.meta.term, snapshot.meta.index) in wanted:
                return snapshot
        return None

    def purge(self, keep: int) -> list[str]:
        """Removes all but the newest `keep` snapshot files; the names removed, oldest first."""
        removed: list[str] = []
        for name in reversed(self.names()[keep:]):
            path = posixpath.join(self._path, name)
            try:
                self._files.open_locked(path).close()
            except FileLockedError:
                break
            self._files.remove(path)
            removed.append(name)
        return removed

    def clean(self, index: int = 0) -> list[str]:
        """Removes what a crash left half-made, and databases received for snapshots before `index`.

        Called at start and after a snapshot was applied; the names removed.
        """
        removed: list[str] = []
        for name in self._files.list(self._path):
            received = _RECEIVED.fullmatch(name)
            if (
                (received is not None and int(received[1], 16) < index)
                or (received is None and name.startswith(("tmp", "db.tmp")))
                or name.endswith(".snap.tmp")
            ):
                self._files.remove(posixpath.join(self._path, name))
                removed.append(name)
        return removed

    def received_path(self, index: int) -> str:
        """Where a database received from the leader waits until it is applied."""
        return posixpath.join(self._path, f"{index:016x}.snap.db")
