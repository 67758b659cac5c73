"""The member's log on the real disk: appends, snapshots, and letting old segments go.

Small writes go to a fast disk on the loop itself, everything else through the storage thread (see
`storage.wal.appender`). A write that fails stops the member at once: what is on the disk is in
doubt, and nobody may be told anything that rests on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from keyraft.base.histograms import Histogram, exponential
from keyraft.base.log import Logger
from keyraft.mvcc import BackendError
from keyraft.raft import Entry, HardState, Snapshot, SnapshotMeta
from keyraft.storage.files import OsFiles
from keyraft.storage.snap import SnapDir
from keyraft.storage.wal import (
    WAL,
    Appender,
    SnapshotMark,
    StorageThread,
    WALError,
    purge_segments,
)

SYNC_EXPECTED_S: Final = 1.0  # a slower one is told (etcd `warnSyncDuration`)


class ThreadsafeLoop(Protocol):
    """The part of an event loop that other threads may call."""

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> Any:
        """Runs `callback` on the loop."""


class MemberLog:
    """A `DurableLog` over a WAL. Owned by the loop, but for what the storage thread runs."""

    def __init__(
        self,
        wal: WAL,
        snapshots: SnapDir,
        loop: ThreadsafeLoop,
        logger: Logger,
        fatal: Callable[[str, str], None],
        replace_database: Callable[[int], None],
    ) -> None:
        """`fatal(what, why)` stops the member. `replace_database(index)` puts a received database
        in the place of the member's own; it raises BackendError or OSError.
        """
        self._replace_database = replace_database
        self._wal = wal
        self._snapshots = snapshots
        self._loop = loop
        self._logger = logger
        self._fatal = fatal
        self._thread = StorageThread()
        # Snapshot files are synced beside the log, not in front of it.
        self._files_thread = StorageThread("keyraft-snapshots")
        self.fsync_s = Histogram(exponential(0.001, 2, 14))
        self.written_bytes = 0
        self._appender = Appender(
            wal,
            clock=time.perf_counter,
            submit=self._thread.submit,
            call_loop=loop.call_soon_threadsafe,
            on_sync=self._synced,
        )

    def _synced(self, seconds: float, size: int) -> None:
        self.fsync_s.observe(seconds)
        self.written_bytes += size
        if seconds > SYNC_EXPECTED_S:
            self._logger.warn(
                "slow fdatasync",
                took=f"{seconds:.9f}s",
                expected_duration=f"{SYNC_EXPECTED_S:g}s",
            )

    def append(
        self,
        entries: Sequence[Entry],
        hard_state: HardState | None,
        must_sync: bool,
        done: Callable[[], None],
        alone: bool = False,
    ) -> None:
        """See `server.ports.DurableLog`."""

        def written(error: WALError | None) -> None:
            if error is None:
                done()
            else:
                self._fatal("failed to save Raft hard state and entries", str(error))

        self._appender.append(entries, hard_state, must_sync, written, alone)

    def save_snapshot(self, meta: SnapshotMeta, data: bytes, done: Callable[[], None]) -> None:
        """The file first, then the mark that makes it count."""

        def write_file() -> None:
            try:
                self._snapshots.save(Snapshot(data, meta))
            except OSError as error:
                why = f"{error.filename}: {(error.strerror or str(error)).lower()}"
                self._loop.call_soon_threadsafe(self._fatal, "failed to save snapshot", why)
                return
            self._loop.call_soon_threadsafe(write_mark)

        def write_mark() -> None:
            mark = SnapshotMark(meta.index, meta.term, meta.conf_state)
            self._appender.save_snapshot(mark, marked)

        def marked(error: WALError | None) -> None:
            if error is not None:
                self._fatal("failed to save snapshot", str(error))
                return
            self._appender.release_to(meta.index)
            done()

        self._files_thread.submit(write_file)

    def install(
        self, snapshot: Snapshot, hard_state: HardState | None, done: Callable[[], None]
    ) -> None:
        """A snapshot from the leader; its database has been received before."""

        def recorded() -> None:
            self.append([], hard_state, True, counted)

        def counted() -> None:
            try:
                self._replace_database(snapshot.meta.index)
            except (BackendError, OSError) as error:
                self._fatal("failed to install the leader's database", str(error))
                return
            done()

        self.save_snapshot(snapshot.meta, snapshot.data, recorded)

    def purge(self, wal_directory: str, wals_max: int, snapshots_max: int) -> None:
        """Has old segments and snapshot files removed, but the newest so many; 0 keeps all."""

        def work() -> None:
            try:
                removed = purge_segments(OsFiles(), wal_directory, wals_max) if wals_max else []
                removed += self._snapshots.purge(snapshots_max) if snapshots_max else []
            except OSError as error:
                self._logger.error("failed to purge files", error=str(error))
                return
            if removed:
                self._logger.info("purged", files=removed)

        self._files_thread.submit(work)

    def close(self) -> None:
        """Waits for what is under way and lets go of the files."""
        self._files_thread.stop()
        self._thread.stop()
        try:
            self._wal.close()
        except WALError as error:
            self._logger.error("failed to close the write-ahead log", error=str(error))
