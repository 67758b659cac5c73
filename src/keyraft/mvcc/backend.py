"""What every core sees of the database: buckets of sorted keys, written in batches.

The real one is `storage.backend` (a write buffer over LMDB), the one of tests and of the
simulator is `mvcc.memory`. Invariants that each of them keeps:

- A read sees every write made before it, committed or not.
- Writes become durable in batches, in the order of writing: after a crash the database holds
  the writes up to some batch and nothing of any later one.
- The consistent index, the term and the configuration go into each batch with the writes they
  belong to (`before_commit`), so a replay of the log starts exactly behind them.
- All calls come from the one thread that owns the member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

# etcd's buckets (etcd `server/storage/schema/bucket.go`); each is a named database.
KEY: Final = b"key"
META: Final = b"meta"
LEASE: Final = b"lease"
ALARM: Final = b"alarm"
CLUSTER: Final = b"cluster"
MEMBERS: Final = b"members"
MEMBERS_REMOVED: Final = b"members_removed"
AUTH: Final = b"auth"
AUTH_USERS: Final = b"authUsers"
AUTH_ROLES: Final = b"authRoles"

BUCKETS: Final = tuple(
    sorted(
        (
            KEY,
            META,
            LEASE,
            ALARM,
            CLUSTER,
            MEMBERS,
            MEMBERS_REMOVED,
            AUTH,
            AUTH_USERS,
            AUTH_ROLES,
        )
    )
)
"""All buckets in the byte order that whole-database hashes walk them in."""

OWN: Final = b"keyraft"
"""Our own bookkeeping: no bucket of etcd's, in no hash and in no snapshot."""
OWN_CHECKPOINT: Final = b"index"  # the head of the index checkpoint that belongs to these rows
OWN_MEMBERSHIP: Final = b"membership"  # members and configuration are those at the consistent index

# Keys of the `meta` bucket.
META_CONSISTENT_INDEX: Final = b"consistent_index"  # u64 BE
META_TERM: Final = b"term"  # u64 BE
META_CONF_STATE: Final = b"confState"  # JSON
META_SCHEDULED_COMPACT: Final = b"scheduledCompactRev"  # 17-byte revision
META_FINISHED_COMPACT: Final = b"finishedCompactRev"  # 17-byte revision
META_STORAGE_VERSION: Final = b"storageVersion"  # text, "3.7.0"


class BackendError(Exception):
    """The database failed (disk full, damaged, writer lost); the member must stop."""


class Backend(Protocol):
    """A database with a write buffer. Keys are 1 to 511 bytes, values up to 2 GiB."""

    @property
    def size_bytes(self) -> int:
        """The database's size on disk, used or free."""

    @property
    def size_in_use_bytes(self) -> int:
        """The part of it that holds data."""

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        """The value, or None."""

    def get_all(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of many keys, in their order. Keys are short (`KEY`'s are)."""

    def range(
        self, bucket: bytes, start: bytes = b"", end: bytes | None = None, limit: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, end) in byte order; no `end` means the rest, no `limit` all of them.

        The caller exhausts or drops it within the turn and writes nothing to the bucket meanwhile.
        """

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        """Writes into the current batch."""

    def delete(self, bucket: bytes, key: bytes) -> None:
        """Deletes in the current batch; nothing happens if the key is not there."""

    def before_commit(self, hook: Callable[[], None]) -> None:
        """`hook` runs whenever a batch is sealed and may put into that very batch."""

    def flush(self, done: Callable[[], None] | None = None) -> None:
        """Seals the current batch now; `done` is called once all written so far is durable."""


class BatchBackend(Backend, Protocol):
    """The database of a running member, which applies some entries in several turns of the loop."""

    def defragment(self, done: Callable[[str | None], None]) -> None:
        """Returns free space to the disk while reads and writes go on. `done` is called with None,
        or with the reason why it was not done."""

    @property
    def busy_since_s(self) -> float | None:
        """When the commit or defragmentation that is under way began, in loop time; or None."""

    @property
    def starved(self) -> str:
        """Why nothing can be committed until there is room on the disk; "" when it can."""

    def hold(self) -> None:
        """Until `release` no batch is sealed: all writes until then belong together."""

    def release(self) -> None:
        """Ends `hold`; the consistent index already counts these writes."""


def missing_row(row: bytes) -> BackendError:
    """The index has a revision that the database lacks: damage."""
    return BackendError("revision " + row.hex() + " is in the index but not in the database")
