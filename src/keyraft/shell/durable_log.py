"""The member's log on its disk: appends, snapshots, and removing old segments.

On a fast disk the loop itself does small writes; the log's thread does all others (see
`storage.wal.appender`). A failed write stops the member at once: it is unknown what is on the disk,
so nothing that depends on it may be acknowledged. Only where there is no room for it (`NO_ROOM`) it
waits: appends and a leader's snapshot are tried again until they fit, and a snapshot of this member's
own is left to a later one. Disk, threads and clock are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from keyraft.base.histograms import Histogram, exponential
from keyraft.base.log import Logger
from keyraft.mvcc import BackendError
from keyraft.raft import Entry, HardState, Snapshot, SnapshotMeta
from keyraft.storage.files import NO_ROOM, Files
from keyraft.storage.snap import SnapDir
from keyraft.storage.wal import WAL, Appender, SnapshotMark, WALError, purge_segments

ROOM_LOOK_S: Final = 1.0  # between two attempts to reserve room, or to save a leader's snapshot
SYNC_EXPECTED_S: Final = 1.0  # a slower one is logged (etcd `warnSyncDuration`)


class Thread(Protocol):
    """Runs jobs one after another, beside the loop."""

    def submit(self, job: Callable[[], None]) -> None:
        """Runs `job` after those before it; it must not raise."""

    def stop(self) -> None:
        """Waits for the jobs handed in so far, and takes no more."""


@dataclass(frozen=True, slots=True)
class DiskWorld:
    """Disk, clock and threads of a log: real ones, or simulated ones in the simulator."""

    files: Files
    clock: Callable[[], float]  # monotonic seconds, of the finest clock
    call_loop: Callable[..., Any]  # `call_soon_threadsafe` of the loop
    call_later: Callable[..., Any]  # the loop's
    log_thread: Thread  # writes the log
    files_thread: Thread  # writes snapshot files, so that their syncs do not delay the log


class MemberLog:
    """A `DurableLog` over a WAL. Owned by the loop, except for what the threads run."""

    def __init__(
        self,
        wal: WAL,
        snap_path: str,
        world: DiskWorld,
        logger: Logger,
        fatal: Callable[[str, str], None],
        replace_database: Callable[[int], None],
    ) -> None:
        """`fatal(what, why)` stops the member. `replace_database(index)` puts a received database
        in the place of the member's own; it raises BackendError or OSError.
        """
        self._replace_database = replace_database
        self._wal = wal
        self._files = world.files
        self.snapshots = SnapDir(world.files, snap_path, logger, world.clock)
        self._call_loop = world.call_loop
        self._call_later = world.call_later
        self._clock = world.clock
        self._reserving = False
        self._reserve_failed = ""
        self._reserved_s = float("-inf")  # when it was last tried
        self._log_thread = world.log_thread
        self._files_thread = world.files_thread
        self._logger = logger
        self._fatal = fatal
        self.fsync_s = Histogram(exponential(0.001, 2, 14))
        self.written_bytes = 0
        self._appender = Appender(
            wal,
            clock=world.clock,
            submit=world.log_thread.submit,
            call_loop=world.call_loop,
            call_later=world.call_later,
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

    # --- room -----------------------------------------------------------------------------------

    @property
    def room_bytes(self) -> int:
        """See `server.ports.DurableLog`."""
        return self._wal.room_bytes

    def short_of_room(self) -> str:
        """See `server.ports.DurableLog`."""
        if self._appender.starved:
            return "the log cannot be written"
        if not self._wal.wants_room:
            self._reserve_failed = ""
        elif not self._reserving and self._clock() - self._reserved_s >= ROOM_LOOK_S:
            self._reserving = True
            self._reserved_s = self._clock()
            self._files_thread.submit(self._reserve)
        return self._reserve_failed

    def _reserve(self) -> None:
        """In the thread: also what a log without room needs, so that it can go on."""
        try:
            self._wal.reserve()
        except OSError as error:
            self._call_loop(self._tried_to_reserve, error)
        else:
            self._call_loop(self._tried_to_reserve, None)

    def _tried_to_reserve(self, error: OSError | None) -> None:
        self._reserving = False
        if error is None or error.errno not in NO_ROOM:
            # Without a reserve for another reason, a write will tell.
            self._reserve_failed = ""
        else:
            self._reserve_failed = f"no room for the log: {(error.strerror or str(error)).lower()}"

    # --- snapshots ------------------------------------------------------------------------------

    def save_snapshot(
        self,
        meta: SnapshotMeta,
        data: bytes,
        done: Callable[[], None],
        no_room: Callable[[], None] | None = None,
    ) -> None:
        """Writes the file first, then the mark that makes it valid.

        Without room calls `no_room`, or tries again until there is some where it is not given.
        """

        def submit() -> None:
            self._files_thread.submit(write_file)

        def left() -> None:
            if no_room is not None:
                no_room()
            else:
                self._call_later(ROOM_LOOK_S, submit)

        def write_file() -> None:
            try:
                self.snapshots.save(Snapshot(data, meta))
            except OSError as error:
                if error.errno in NO_ROOM:
                    self._call_loop(left)
                    return
                why = f"{error.filename}: {(error.strerror or str(error)).lower()}"
                self._call_loop(self._fatal, "failed to save snapshot", why)
                return
            self._call_loop(write_mark)

        def write_mark() -> None:
            mark = SnapshotMark(meta.index, meta.term, meta.conf_state)
            self._appender.save_snapshot(mark, marked)

        def marked(error: WALError | None) -> None:
            if error is not None:
                self._fatal("failed to save snapshot", str(error))
                return
            self._appender.release_to(meta.index)
            done()

        submit()

    def install(
        self, snapshot: Snapshot, hard_state: HardState | None, done: Callable[[], None]
    ) -> None:
        """Installs a snapshot of the leader, whose database has been received already."""

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
        """Removes old segments and snapshot files, except for the newest so many; 0 keeps all."""

        def work() -> None:
            try:
                removed = purge_segments(self._files, wal_directory, wals_max) if wals_max else []
                removed += self.snapshots.purge(snapshots_max) if snapshots_max else []
            except OSError as error:
                self._logger.error("failed to purge files", error=str(error))
                return
            if removed:
                self._logger.info("purged", files=removed)

        self._files_thread.submit(work)

    def close(self) -> None:
        """Waits for writes under way and closes the files."""
        self._files_thread.stop()
        self._log_thread.stop()
        try:
            self._wal.close()
        except WALError as error:
            self._logger.error("failed to close the write-ahead log", error=str(error))
