"""What a snapshot holds: hash, revision, live keys, size, storage version.

The hash is CRC-32C over every bucket's name and each of its keys and values, in order; etcd's
`etcdutl snapshot status` prints the same. The structure is checked first with bbolt's own check.

DEVIATION: a digest at the file's end is compared as well, so a flipped bit within a value, which
the original passes, is an error here too.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    counter = _Rows()
    version = b""
    for name, items in source.buckets():
        value = crc32c(name, value)
        if name == KEY:
            items = counter.pass_on(items)
        for key, stored in items:
            value = crc32c(stored, crc32c(key, value))
            if name == META and key == META_STORAGE_VERSION:
                version = stored
    return Status(
        value,
        counter.revision,
        len(counter.live),
        source.size_bytes,
        version.decode("utf-8", "replace"),
    )


class _Rows:
    """Follows the rows of bucket `key`: the revision, and which keys live."""

    def __init__(self) -> None:
        self.revision = 0
        self.live: set[bytes] = set()

    def pass_on(self, items: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """The same items. Raises OfflineError for what is no row."""
        add, discard = self.live.add, self.live.discard
        row = b""
        for item in items:
            row, stored = item
            try:
                if len(row) == _ROW_BYTES:
                    # A revision bump leaves a row without a key.
                    add(stored_key(stored) if stored else b"")
                elif len(row) == _TOMBSTONE_BYTES and row[-1] == 0x74:
                    discard(stored_key(stored))
                else:
                    raise ValueError(f"a revision of {len(row)} bytes")
            except ValueError as error:
                raise OfflineError(f"cannot parse revision key {row.hex()}: {error}") from None
            yield item
        self.revision = int.from_bytes(row[:8], "big")
