"""The key index as a file, so that a start reads only the rows written since.

A checkpoint only makes a start faster. If it is missing, damaged, of another format, or the
database does not vouch for it, all rows are read instead. The database vouches by holding the
checkpoint's first `HEAD_BYTES` in its own bucket (`backend.OWN`). That record is written after the
file is durable, in order with the rows. So a database that has the record has every row that the
checkpoint covers, and a database that was reset to an older state does not have the record.

    offset  size  meaning (little endian)
    0       8     "KRINDEX1"
    8       8     revision R: all rows up to R are covered
    16      8     length of the body
    24      4     crc32c of the body
    28      4     crc32c of the 28 bytes before
    32            body: marshalled tuple (compact revision, live keys in order, dead keys in
                  order, the entries of both in that order, leases)

The body is Python's marshal, format 2 (the same on all supported versions of Python); nothing is
unmarshalled before both checksums and the database's record agree.
"""

from __future__ import annotations

import marshal
from struct import Struct
from typing import TYPE_CHECKING, Final

from ..base.crc import crc32c
from .index import Entry

if TYPE_CHECKING:
    from .store import Store

MAGIC: Final = b"KRINDEX1"
HEAD_BYTES: Final = 32
_HEAD: Final = Struct("<8sQQI")
_CRC: Final = Struct("<I")
_FORMAT: Final = 2


class Checkpoint:
    """A decoded checkpoint.

    `live` and `dead` ascend; `entries` has those of `live`, then of `dead`.
    """

    __slots__ = ("compact_revision", "dead", "entries", "leases", "live", "revision")

    def __init__(
        self,
        revision: int,
        compact_revision: int,
        live: list[bytes],
        dead: list[bytes],
        entries: list[Entry],
        leases: dict[bytes, int],
    ) -> None:
        self.revision = revision
        self.compact_revision = compact_revision
        self.live = live
        self.dead = dead
        self.entries = entries
        self.leases = leases

    def covers(self, finished: int, scheduled: int) -> bool:
        """Whether it can replace the rows of a database with this compact revision.

        After a compaction beyond R, rows that the next start needs are told apart from removed
        ones only by the rows themselves.
        """
        return max(finished, scheduled) <= self.revision


def encode(store: Store) -> bytes:
    """The file's bytes for the store as it is now."""
    index = store.index
    live = index.live.slice(b"", None)
    dead = index.dead.slice(b"", None)
    entries = list(map(index.entries.__getitem__, live + dead))
    body = marshal.dumps((store.compact_revision, live, dead, entries, store.key_leases), _FORMAT)
    head = _HEAD.pack(MAGIC, store.revision, len(body), crc32c(body))
    return head + _CRC.pack(crc32c(head)) + body


def size_of(head: bytes) -> int:
    """The length of the file with this head; 0 if it is no head."""
    return HEAD_BYTES + int(_HEAD.unpack_from(head)[2]) if len(head) == HEAD_BYTES else 0


def decode(data: bytes, vouched: bytes | None) -> Checkpoint | None:
    """The checkpoint in `data`, or None if it must not be used.

    `vouched` is the record of the database.
    """
    if len(data) < HEAD_BYTES or data[:HEAD_BYTES] != vouched:
        return None
    magic, revision, length, crc = _HEAD.unpack_from(data)
    body = memoryview(data)[HEAD_BYTES:]
    if magic != MAGIC or len(body) != length or crc32c(body) != crc:
        return None
    return Checkpoint(revision, *marshal.loads(body))
