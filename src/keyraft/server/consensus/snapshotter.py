"""Snapshots, which shorten the log: one is made after every `--snapshot-count` entries.

The state is the database, which is on the disk already. So a snapshot only states that the database
holds everything up to an index. It is made in this order: the database commits, the snapshot file
is written, the log records it, older segments may be removed (docs/formats/snap.md). In memory the
newest `--snapshot-catchup-entries` applied entries are kept, so that a follower that lags less gets
its entries from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyraft.raft import MemoryStorage, SnapshotMeta
from keyraft.server.ports import DurableLog

if TYPE_CHECKING:
    from keyraft.server.member import Member

TRIM_ENTRIES: Final = (
    100  # the memory log is trimmed in steps of this many (etcd `memorySnapshotCount`)
)
RELEASE_S: Final = (
    30.0  # entries stay so long after a database was sent (etcd `releaseDelayAfterSnapshot`)
)
ROOM_RETRY_S: Final = 5.0  # before a snapshot that the disk had no room for is tried again


class Snapshotter:
    """Decides when to make a snapshot, and trims the log in memory. Owned by the member's loop."""

    def __init__(
        self, member: Member, storage: MemoryStorage, log: DurableLog, snapshot_index: int
    ) -> None:
        self._member = member
        self._storage = storage
        self._log = log
        self._index = snapshot_index
        self._life = 0  # counts databases that a leader's replaced
        self._busy = False
        self._forced = False
        settings = member.settings
        self._count = settings.snapshot_count
        self._keep = settings.snapshot_catchup_entries
        self.trim_entries = TRIM_ENTRIES
        self.release_s = RELEASE_S
        self._next_trim = snapshot_index + TRIM_ENTRIES + 1
        self._sending_s = float("-inf")  # when a database was last being sent

    @property
    def busy(self) -> bool:
        """Whether one is being made."""
        return self._busy

    @property
    def index(self) -> int:
        """The index of the newest snapshot."""
        return self._index

    def force(self) -> None:
        """A snapshot is made with the next applied entry, whatever the count."""
        self._forced = True

    def applied(self, index: int) -> None:
        """Entries up to `index` have been applied; called after every slice."""
        due = (index - self._index > self._count or self._forced) and not self._busy
        # A snapshot on disk trims the memory as well, however small the count is.
        if (due or index >= self._next_trim) and not self._is_sending():
            self._trim(index)
        if due:
            self._begin(index)

    def _is_sending(self) -> bool:
        """Whether a database is being sent to a follower, or was a moment ago.

        The follower then needs the entries behind it, or else the database again.
        """
        now_s = self._member.loop.time()
        if self._member.raft.sends_database:
            self._sending_s = now_s
        return now_s - self._sending_s < self.release_s

    def _trim(self, index: int) -> None:
        self._next_trim = index + self.trim_entries
        # Raft learns the applied index when the write under way ends, and may read entries until
        # then.
        last_wanted = min(index - self._keep, self._member.raft.applied_index)
        if last_wanted >= self._storage.first_index():
            # A follower that needs trimmed entries is sent the database. Raft only needs to know
            # that there is a snapshot; what is sent is always newer (app/snapshot_transfers.py).
            self._storage.create_snapshot(index, self._member.membership.state)
            self._storage.compact(last_wanted)

    def _begin(self, index: int) -> None:
        member = self._member
        self._busy = True
        self._forced = False
        member.logger.info(
            "triggering snapshot",
            local_member_id=f"{member.settings.member_id:x}",
            local_member_applied_index=index,
            local_member_snapshot_index=self._index,
            local_member_snapshot_count=self._count,
        )
        meta = SnapshotMeta(member.membership.state, index, self._storage.term(index))
        data = member.membership.encode_v2()
        life = self._life
        member.backend.flush(lambda: self._database_durable(meta, data, life))

    def _database_durable(self, meta: SnapshotMeta, data: bytes, life: int) -> None:
        if life != self._life:
            return
        if meta.index <= self._index or self._member.stopped:
            self._busy = False
            return
        self._log.save_snapshot(
            meta, data, lambda: self._saved(meta, data, life), lambda: self._no_room(life)
        )

    def _no_room(self, life: int) -> None:
        """On a full disk: another attempt comes later."""
        if life == self._life:
            self._member.loop.call_later(ROOM_RETRY_S, self._leave, life)

    def _leave(self, life: int) -> None:
        if life == self._life:
            self._busy = False
            self._forced = True

    def _saved(self, meta: SnapshotMeta, data: bytes, life: int) -> None:
        if life != self._life:
            return
        self._busy = False
        self._index = meta.index
        if meta.index > self._storage.snapshot().meta.index:
            self._storage.create_snapshot(meta.index, meta.conf_state, data)
        self._member.logger.info("saved snapshot", snapshot_index=meta.index)

    def installed(self, meta: SnapshotMeta) -> None:
        """A snapshot came from the leader: one under way here is about the old database."""
        self._life += 1
        self._busy = False
        self._index = meta.index
        self._next_trim = 0
