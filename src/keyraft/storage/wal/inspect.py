"""Reading a log without locking or changing it: which snapshots count, and whether it is sound."""

from __future__ import annotations

import posixpath

from keyraft.raft import codec
from keyraft.raft.types import HardState
from keyraft.storage.files import File, Files
from keyraft.storage.wal.decode import WALDecoder
from keyraft.storage.wal.log import Replay, read
from keyraft.storage.wal.record import (
    SNAPSHOT,
    STATE,
    SnapshotMark,
    WALDamagedError,
    WALTornError,
    decode_snapshot_mark,
)
from keyraft.storage.wal.segments import segment_names, segments_from


def valid_snapshots(files: Files, path: str) -> list[SnapshotMark]:
    """The snapshot marks that count, oldest first: those not ahead of the last commit index.

    A mark ahead of it was written by a member that crashed before its hard state was durable. A
    torn tail ends the reading quietly. Raises WALDamagedError, OSError.
    """
    marks, state = _marks(files, path, segment_names(files, path))
    return [mark for mark in marks if mark.index <= state.commit]


def _marks(files: Files, path: str, names: list[str]) -> tuple[list[SnapshotMark], HardState]:
    """All marks of consecutive segments, and the last hard state in them."""
    marks: list[SnapshotMark] = []
    state = HardState()
    opened = _open(files, path, names)
    try:
        for kind, data in WALDecoder(opened):
            if kind == SNAPSHOT:
                marks.append(decode_snapshot_mark(data))
            elif kind == STATE:
                state = codec.decode_hard_state(data)
    except WALTornError:
        pass
    except ValueError as error:
        raise WALDamagedError(f"wal: {error}: in '{path}'") from error
    finally:
        for file in opened:
            file.close()
    return marks, state


def newest_snapshot(files: Files, path: str, index_max: int | None = None) -> SnapshotMark | None:
    """The last mark that counts and is not behind `index_max`; None when there is none.

    Segments are read from the newest backwards, each by itself, so a start need not read the whole
    log twice. Raises WALDamagedError, OSError.
    """
    commit: int | None = None
    for name in reversed(segment_names(files, path)):
        marks, state = _marks(files, path, [name])
        if commit is None:
            commit = state.commit
        limit = commit if index_max is None else min(commit, index_max)
        usable = [mark for mark in marks if mark.index <= limit]
        if usable:
            return usable[-1]
    return None


def read_wal(files: Files, path: str, start: SnapshotMark | None = None) -> Replay:
    """What `WAL.open` would replay, of a log that may be in use; a torn tail is left out.

    Raises WALNotFoundError, WALDamagedError, OSError.
    """
    return _read(files, path, start or SnapshotMark(), want_entries=True)


def verify(files: Files, path: str, start: SnapshotMark | None = None) -> HardState:
    """The last hard state of a log that is sound from `start` on; raises as `read_wal` does."""
    return _read(files, path, start or SnapshotMark(), want_entries=False).state


def _read(files: Files, path: str, start: SnapshotMark, want_entries: bool) -> Replay:
    opened = _open(files, path, segments_from(files, path, start.index))
    try:
        return read(opened, start, torn_ends=True, want_entries=want_entries)[0]
    finally:
        for file in opened:
            file.close()


def _open(files: Files, path: str, names: list[str]) -> list[File]:
    opened: list[File] = []
    try:
        for name in names:
            opened.append(files.open(posixpath.join(path, name)))
    except BaseException:
        for file in opened:
            file.close()
        raise
    return opened
