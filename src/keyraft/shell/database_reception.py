"""The order in which a leader's database replaces a member's own, and its checks.

1. the file has come whole, and is durable (`begin`);
2. the database is built from it beside the one in use, and read (`check_built`, `ready`);
3. Raft takes the message that it came with (`has_database`); the log records the snapshot;
4. the database takes the place of the old one, and the file is removed (`put_in_place`).

So a crash leaves either the old database with a log that fits it, or everything that the new one is
made from: a start does 2 and 4 from the file where the log's snapshot is newer than the database
(`finish_at_start`). Files and databases themselves are the world's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from keyraft.base.log import Logger
from keyraft.mvcc import BackendError
from keyraft.raft import Message, Snapshot, SnapshotMeta
from keyraft.server import Member, decode_conf_state
from keyraft.server.membership.v2_tree import encode_rows
from keyraft.storage.files import Files
from keyraft.storage.wal import newest_snapshot

BEHIND_ENTRIES_MAX: Final = 10_000  # entries without effect, which other members do not count


class DatabaseFiles(Protocol):
    """The databases that have been received and are not in their place yet."""

    def indexes(self) -> Iterable[int]:
        """Of their snapshots."""

    def remove(self, index: int) -> None:
        """This one is needed no more."""

    def put_in_place(self) -> None:
        """What was built last takes the place of the member's own; raises BackendError, OSError."""


class DatabaseReception:
    """One database at a time, the newest. Owned by the member's loop."""

    def __init__(self, files: DatabaseFiles) -> None:
        self._files = files
        self.ready_index = 0  # of the database that is ready to be put in place; 0: none is

    def has_database(self, message: Message) -> bool:
        """Whether the database of a snapshot message is ready."""
        snapshot = message.snapshot
        return snapshot is not None and 0 < snapshot.meta.index == self.ready_index

    def begin(self, index: int, installing: bool) -> None:
        """A file is durable, and the database is built from it next, in the place of an earlier one.

        `installing`: the earlier one is being installed now; then raises ValueError.
        """
        if installing:
            self._files.remove(index)
            raise ValueError("another snapshot is being put in place")
        self.ready_index = 0

    def check_built(self, index: int, stored_index: int) -> None:
        """The database that was built holds the entries up to `stored_index`; raises ValueError.

        Otherwise changes would be missing for ever, or be applied twice.
        """
        if not 0 <= index - stored_index <= BEHIND_ENTRIES_MAX:
            raise ValueError(f"a database of index {stored_index} for a snapshot of {index}")

    def ready(self, index: int) -> None:
        """The database is built and read: Raft may get its message."""
        self.ready_index = index

    def put_in_place(self, index: int) -> None:
        """The log has the snapshot: its database becomes the member's own. Raises BackendError,
        OSError."""
        if self.ready_index != index:
            raise BackendError(f"no database of index {index} has been received")
        self._files.put_in_place()
        self.ready_index = 0
        for older in [one for one in self._files.indexes() if one <= index]:
            self._files.remove(older)


def finish_at_start(
    files: Files,
    wal_path: str,
    received: Iterable[int],
    stored_index: Callable[[], int],
    install: Callable[[int], None],
    remove: Callable[[int], None],
    log: Logger,
) -> None:
    """Finishes, before the database is opened, what a crash has interrupted.

    `received`: the indexes of the files there. `stored_index`: up to where the member's own database
    goes. `install` builds the database from a file and puts it in place. Raises what they raise.
    """
    indexes = set(received)
    mark = newest_snapshot(files, wal_path) if indexes else None
    if mark is None or mark.index not in indexes:
        return
    stored = stored_index()
    if stored < mark.index:
        log.info(
            "Recovering from snapshot backend", consistent_index=stored, snapshot_index=mark.index
        )
        install(mark.index)
    remove(mark.index)


def sent_snapshot(
    member: Member, index: int, conf_state: bytes, membership: Mapping[bytes, dict[bytes, bytes]]
) -> Snapshot:
    """What the message says that takes a database with it: the index, configuration and members that
    the database holds. The member has applied more since.

    Raises StorageError where the log no longer knows the index, and ValueError.
    """
    meta = SnapshotMeta(decode_conf_state(conf_state), index, member.raft.term_at(index))
    return Snapshot(encode_rows(membership), meta)
