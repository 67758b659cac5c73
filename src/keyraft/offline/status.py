"""What a snapshot holds: hash, revision, live keys, size, storage version.

The hash is CRC-32C over every bucket's name and each of its keys and values, in order; etcd's
`etcdutl snapshot status` prints the same. The structure is checked with bbolt's own check as the
rows are read: both in one pass over the pages, while a thread computes the digest.

DEVIATION: a digest at the file's end is compared as well, so a flipped bit within a value, which
the original passes, is an error here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keyraft.base.crc import crc32c
from keyraft.mvcc.backend import KEY, META, META_STORAGE_VERSION
from keyraft.mvcc.wire import stored_key
from keyraft.offline.digest import DigestCheck
from keyraft.offline.source import OfflineError, ProgressCallback, Source, no_progress
from keyraft.storage.bolt import BoltFile, Leaf, check

_ROW_BYTES: Final = 17
_TOMBSTONE_BYTES: Final = 18


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """What `snapshot status` prints."""

    hash: int
    revision: int
    keys: int  # keys that are not deleted at the last revision
    size_bytes: int
    version: str  # empty for databases of etcd 3.5 and older


def status(
    path: str, timeout_s: float = 0, progress: ProgressCallback = no_progress
) -> SnapshotStatus:
    """Reads the whole database at `path`. Raises OfflineError."""
    with Source(path, timeout_s) as source:
        content = _Content()
        if source.bolt is not None:
            _read_bolt(source.path, source.bolt, content, progress)
        else:
            for name, chunks in source.buckets():
                content.bucket(name, 1)
                for keys, values in chunks:
                    content.columns(keys, values)
        return SnapshotStatus(
            content.hash,
            content.rows.revision,
            len(content.rows.live),
            source.size_bytes,
            content.version.decode("utf-8", "replace"),
        )


def _read_bolt(path: str, db: BoltFile, content: _Content, progress: ProgressCallback) -> None:
    digest = DigestCheck(path, progress)
    problem: OfflineError | None = None
    try:
        try:
            errors = check(db, content)
        except OfflineError as error:  # an error in a row; the messages of the check come first
            problem = error
            errors = check(db)
        if errors:
            shown = "\n".join(errors)
            raise OfflineError(
                f"snapshot file integrity check failed. {len(errors)} errors found.\n{shown}"
            )
        digest.wait()
        if problem is not None:
            raise problem
    finally:
        digest.close()


class _Content:
    """Collects the status, bucket by bucket."""

    def __init__(self) -> None:
        self.hash = 0
        self.version = b""
        self.rows = _KeyHistory()
        self._name = b""
        self._depth = 0

    def bucket(self, name: bytes, depth: int) -> None:
        """Visitor."""
        self._name, self._depth = name, depth
        if depth == 1:
            self.hash = crc32c(name, self.hash)

    def leaf(self, leaf: Leaf) -> None:
        """Visitor. Raises OfflineError."""
        if self._depth != 1:
            return
        if any(leaf.flags):
            rows = [row for row, flags in enumerate(leaf.flags) if not flags]
            values = leaf.values()
            self.columns([leaf.keys[row] for row in rows], [values[row] for row in rows])
            return
        self.hash = crc32c(leaf.joined(), self.hash)
        if self._name == KEY:
            self.rows.follow_leaf(leaf)
        elif self._name == META:
            self._meta(leaf.keys, leaf.values())

    def columns(self, keys: list[bytes], values: list[bytes]) -> None:
        """Consecutive rows. Raises OfflineError."""
        pairs = [b""] * (2 * len(keys))
        pairs[0::2] = keys
        pairs[1::2] = values
        self.hash = crc32c(b"".join(pairs), self.hash)
        if self._name == KEY:
            self.rows.follow(keys, values)
        elif self._name == META:
            self._meta(keys, values)

    def _meta(self, keys: list[bytes], values: list[bytes]) -> None:
        if META_STORAGE_VERSION in keys:
            self.version = values[keys.index(META_STORAGE_VERSION)]


class _KeyHistory:
    """Follows the rows of bucket `key`, to know the revision and the keys that are not deleted."""

    def __init__(self) -> None:
        self.revision = 0
        self.live: set[bytes] = set()

    def follow_leaf(self, leaf: Leaf) -> None:
        """As `follow`, without copying the values where possible."""
        keys, data = leaf.keys, leaf.data
        if not keys or {*map(len, keys)} != {_ROW_BYTES} or min(leaf.value_sizes) < 2:
            self.follow(keys, leaf.values())
            return
        # Nothing was deleted here. A KeyValue begins with its key: tag, length, bytes.
        try:
            self.live.update(
                [
                    data[at + 2 : at + 2 + data[at + 1]]
                    if data[at] == 0x0A and 0 < data[at + 1] < 128
                    else stored_key(data[at:stop])
                    for at, stop in zip(leaf.middles, leaf.stops)
                ]
            )
        except (ValueError, IndexError) as error:
            raise OfflineError(f"cannot parse a row from {keys[0].hex()} on: {error}") from None
        self.revision = int.from_bytes(keys[-1][:8], "big")

    def follow(self, rows: list[bytes], values: list[bytes]) -> None:
        """Consecutive rows. Raises OfflineError for what is no row."""
        row = b""
        try:
            for row, stored in zip(rows, values):
                self._follow(row, stored)
        except (ValueError, IndexError) as error:
            raise OfflineError(f"cannot parse revision key {row.hex()}: {error}") from None
        if rows:
            self.revision = int.from_bytes(rows[-1][:8], "big")

    def _follow(self, row: bytes, stored: bytes) -> None:
        if len(row) == _ROW_BYTES:
            self.live.add(stored_key(stored))  # a bumped revision's is empty, and counts
        elif len(row) == _TOMBSTONE_BYTES and row[-1] == 0x74:
            self.live.discard(stored_key(stored))
        else:
            raise ValueError(f"a revision of {len(row)} bytes")
