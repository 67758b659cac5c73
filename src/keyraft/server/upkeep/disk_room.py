"""What a member does while its disk is full: it takes no more, and goes on with everything else.

It is full when the log has reserved no room ahead (`storage.wal.segment_writer`), or when the
database cannot commit. Then

- writes of its clients are refused with etcd's error for a database without space, deletes,
  compactions and what the cluster itself writes are taken as long as the log's reserve lasts;
- reads, watches and renewals of leases go on;
- a leader hands over to the voter that has most of the log; a full member does not accept that;
- entries of the leader that do not fit into the reserve are dropped, as if they had been lost on the
  way; so they are acknowledged by nobody, and heartbeats, votes and reads go on;
- nothing is asked of the others: no alarm is raised, so a cluster with a quorum elsewhere goes on.

It ends by itself when there is room. What had been acknowledged is in the log; what the
database lacks is in memory, and in the log (docs/ARCHITECTURE.md, "A full disk").

DEVIATION: the original panics.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from keyraft.raft import Message, MessageType
from keyraft.server.ports import DurableLog

if TYPE_CHECKING:
    from keyraft.server.member import Member

HAND_OVER_S: Final = 2.0  # before a leader's second attempt; a target may be full, too
HAND_OVER_S_MAX: Final = 60.0  # it doubles, because Raft takes nothing during an attempt
FLOOR_PART: Final = 4  # one part in so many of the reserve is kept for votes and commits
FLOOR_BYTES_MAX: Final = 1 << 20
ENTRY_OVERHEAD_BYTES: Final = 128  # of the log's records around an entry, at most
_APP: Final = MessageType.APP.value
_PROP: Final = MessageType.PROP.value
_TIMEOUT_NOW: Final = MessageType.TIMEOUT_NOW.value


class DiskRoom:
    """One member's; owned by its loop. `full` is what the others read."""

    __slots__ = ("_due_s", "_floor", "_log", "_member", "_taken", "_wait_s", "full", "since_s")

    def __init__(self, member: Member, log: DurableLog) -> None:
        self._member = member
        self._log = log
        self._due_s = 0.0  # the next attempt to hand over
        self._wait_s = 0.0  # between this one and the next
        self._floor = 0
        self._taken = 0  # bytes that Raft was given since the log was last asked
        self.full = False
        self.since_s = 0.0

    def tick(self, now_s: float) -> None:
        """Looks at the disk; called with every Raft tick."""
        why = self._log.short_of_room() or self._member.backend.starved
        if bool(why) != self.full:
            self._changed(why, now_s)
        if self.full:
            self._hand_over(now_s)

    def _changed(self, why: str, now_s: float) -> None:
        member = self._member
        self.full = bool(why)
        member.quota.disk_full = self.full
        member.quota.refresh()
        member.raft.room = self if self.full else None
        if self.full:
            self.since_s = self._due_s = now_s
            self._wait_s = HAND_OVER_S
            self._floor = min(FLOOR_BYTES_MAX, self._log.room_bytes // FLOOR_PART)
            member.logger.error(
                "the disk is full; writes are refused until there is room",
                error=why,
                reserved_bytes=self._log.room_bytes,
            )
        else:
            member.logger.info(
                "the disk has room again; writes are accepted",
                took=f"{now_s - self.since_s:.1f}s",
            )

    def _hand_over(self, now_s: float) -> None:
        member = self._member
        if not member.leadership.leading or now_s < self._due_s:
            return
        self._due_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, HAND_OVER_S_MAX)
        target = member.leadership_transfer.most_caught_up()
        if target:
            member.logger.warn(
                "handing leadership over, because the disk is full", transferee=f"{target:x}"
            )
            member.raft.transfer(target)

    # --- what Raft is given -------------------------------------------------------------------

    def takes(self, message: Message) -> bool:
        """Whether Raft may have a message of another member."""
        if message.type == _TIMEOUT_NOW:
            return False
        if message.entries and message.type in (_APP, _PROP):
            return self.takes_entries([entry.data for entry in message.entries])
        return True

    def takes_entries(self, entries: Collection[bytes]) -> bool:
        """Whether these will fit into the log for sure, and may come.

        While the database cannot commit, applying stops at some point; then what the log takes would
        only gather in memory.
        """
        if self._member.lags():
            return False
        size = sum(map(len, entries)) + ENTRY_OVERHEAD_BYTES * len(entries)
        if size > self._log.room_bytes - self._floor - self._taken:
            return False
        self._taken += size
        return True

    def appended(self) -> None:
        """The log knows of everything that Raft was given."""
        self._taken = 0
