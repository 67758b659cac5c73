"""What a snapshot holds: hash, revision, live keys, size, storage version.

The hash is CRC-32C over every bucket's name and each of its keys and values, in order; etcd's
`etcdutl snapshot status` prints the same. The structure is checked first with bbolt's own check.

DEVIATION: a digest at the file's end is compared as well, so a flipped bit within a value, which
the original passes, is an error here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from keyraft.app.offline.source import OfflineError, Progress, Source, check_digest, no_progress
from keyraft.mvcc.backend import KEY, META, META_STORAGE_VERSION
from keyraft.mvcc.wire import stored_key
from keyraft.storage.bolt import check

_ROW_BYTES: Final = 17
_TOMBSTONE_BYTES: Final = 18


@dataclass(frozen=True, slots=True)
class Status:
    """What `snapshot status` prints."""

    hash: int
    revision: int
    keys: int  # keys that are not deleted at the last revision
    size_bytes: int
    version: str  # empty for databases of etcd 3.5 and older


def status(path: str, timeout_s: float = 0, progress: Progress = no_progress) -> Status:
    """Reads the whole database at `path`. Raises OfflineError."""
    with Source(path, timeout_s) as source:
        if source.bolt is not None:
            errors = check(source.bolt)
            if errors:
                shown = "\n".join(errors)
                raise OfflineError(
                    f"snapshot file integrity check failed. {len(errors)} errors found.\n{shown}"
                )
            check_digest(source.path, progress)
        return _read(source)


def _read(source: Source) -> Status:
    value = 0
    rows = _Rows()
    version = b""
    for name, chunks in source.buckets():
        value = crc32c(name, value)
        for keys, values in chunks:
            parts = [b""] * (2 * len(keys))
            parts[0::2] = keys
            parts[1::2] = values
            value = crc32c(b"".join(parts), value)
            if name == KEY:
                rows.follow(keys, values)
            elif name == META and META_STORAGE_VERSION in keys:
                version = values[keys.index(META_STORAGE_VERSION)]
    return Status(
        value,
        rows.revision,
        len(rows.live),
        source.size_bytes,
        version.decode("utf-8", "replace"),
    )


class _Rows:
    """Follows the rows of bucket `key`: the revision, and which keys live."""

    def __init__(self) -> None:
        self.revision = 0
        self.live: set[bytes] = set()

    def follow(self, rows: list[bytes], values: list[bytes]) -> None:
        """Consecutive rows. Raises OfflineError for what is no row."""
        row = b""
        try:
            if {*map(len, rows)} == {_ROW_BYTES}:
                # Nothing was deleted here. A revision bump leaves a row without a key.
                self.live.update(
                    [
                        stored[2 : 2 + stored[1]]
                        if stored[:1] == b"\x0a" and 0 < stored[1] < 128
                        else stored_key(stored)
                        for stored in values
                        if stored
                    ]
                )
            else:
                for row, stored in zip(rows, values):
                    self._follow(row, stored)
        except (ValueError, IndexError) as error:
            raise OfflineError(f"cannot parse revision key {row.hex()}: {error}") from None
        self.revision = int.from_bytes(rows[-1][:8], "big")

    def _follow(self, row: bytes, stored: bytes) -> None:
        if len(row) == _ROW_BYTES:
            if stored:
                self.live.add(stored_key(stored))
        elif len(row) == _TOMBSTONE_BYTES and row[-1] == 0x74:
            self.live.discard(stored_key(stored))
        else:
            raise ValueError(f"a revision of {len(row)} bytes")
