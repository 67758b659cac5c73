"""The names of segments: listing, choosing where to begin, and removing what is no longer needed."""

from __future__ import annotations

import posixpath
import re
from itertools import pairwise
from typing import Final

from keyraft.storage.files import FileLockedError, Files
from keyraft.storage.wal.record import WALDamagedError, WALNotFoundError

_NAME: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")


def segment_name(sequence: int, index: int) -> str:
    """`index`: that of the first entry that may stand in it."""
    return f"{sequence:016x}-{index:016x}.wal"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """Sequence and index; None when it is no segment's name."""
    match = _NAME.fullmatch(name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def segment_names(files: Files, path: str) -> list[str]:
    """The segments of a directory in order; other files in it are passed over."""
    try:
        return [name for name in files.list(path) if _NAME.fullmatch(name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def wal_exists(files: Files, path: str) -> bool:
    """Whether the directory holds a log."""
    return bool(segment_names(files, path))


def segments_from(files: Files, path: str, index: int) -> list[str]:
    """The segments to read for everything behind `index`.

    Raises WALNotFoundError when they do not reach back so far, WALDamagedError when one between
    them is missing.
    """
    names = segment_names(files, path)
    if not names:
        raise WALNotFoundError(f"wal: no segment found in '{path}'")
    begin = -1
    for position, name in enumerate(names):
        if int(name[17:33], 16) <= index:
            begin = position
    if begin < 0:
        raise WALNotFoundError(
            f"wal: file not found which matches the snapshot index '{index}' in '{path}'"
        )
    chosen = names[begin:]
    for before, after in pairwise(chosen):
        if int(after[:16], 16) != int(before[:16], 16) + 1:
            raise WALDamagedError(
                f"wal: file sequence numbers do not increase continuously: "
                f"'{before}' is followed by '{after}' in '{path}'"
            )
    return chosen


def purge_segments(files: Files, path: str, keep: int) -> list[str]:
    """Removes the oldest segments beyond `keep` until one is locked; the names removed.

    The member holds the locks of what it still needs (`WAL.release_to`).
    """
    removed: list[str] = []
    names = segment_names(files, path)
    for name in names[: max(0, len(names) - keep)]:
        full = posixpath.join(path, name)
        try:
            file = files.open_locked(full)
        except FileLockedError:
            break
        try:
            files.remove(full)
        finally:
            file.close()
        removed.append(name)
    if removed:
        files.sync_dir(path)
    return removed
