"""Automatic compaction: `--auto-compaction-mode` and `--auto-compaction-retention`.

Periodic: the revision is noted every tenth of the retention (of an hour, if the retention is
longer); once the retention has passed, what was current that long ago is compacted, and again
every retention or hour, whichever is shorter. By revision: every five minutes all but the newest
`retention` revisions are compacted.

Only the leader compacts. The others note revisions too, so a new leader continues where the old one
stopped. A compaction that fails is tried again at the next check (etcd
`server/etcdserver/api/v3compactor`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from keyraft.base import errors
from keyraft.base.errors import EtcdError
from keyraft.base.waiters import Result
from keyraft.proto import rpc_pb2
from keyraft.server.apply.internal_request import KIND_COMPACTION

if TYPE_CHECKING:
    from keyraft.server.member import Member

HOUR_S: Final = 3_600.0
NOTES_PER_INTERVAL: Final = 10
REVISION_INTERVAL_S: Final = 300.0
NOTES_MAX: Final = 100_000  # enough for a year; beyond it the oldest note is used


class Retention(Protocol):
    """When to check, and up to which revision to compact."""

    interval_s: float

    def note(self, revision: int) -> None:
        """Before each wait: the current revision."""

    def due(self, revision: int, now_s: float) -> int | None:
        """The revision to compact now, or None."""

    def done(self, revision: int, now_s: float) -> None:
        """The compaction was done."""


class PeriodicRetention:
    """Keep `retention_s` seconds of history. Pure: the time is handed in."""

    def __init__(self, retention_s: float, now_s: float) -> None:
        self.retention_s = retention_s
        self.compact_interval_s = min(retention_s, HOUR_S)
        self.interval_s = self.compact_interval_s / NOTES_PER_INTERVAL
        notes = int(retention_s / self.interval_s + 1e-9) + 1
        self._notes: deque[int] = deque(maxlen=min(notes, NOTES_MAX))
        self._wait_s = retention_s
        self._last_s = now_s
        self._last_revision = 0

    def note(self, revision: int) -> None:
        """Notes the current revision; the first of a full list is `retention_s` old."""
        self._notes.append(revision)

    def due(self, revision: int, now_s: float) -> int | None:
        """The oldest note, if the interval has passed and it is not compacted yet."""
        oldest = self._notes[0]
        # A timer may fire slightly early; without tolerance that would cost a tenth of an interval.
        if now_s - self._last_s < self._wait_s - 1e-3 or oldest == self._last_revision:
            return None
        self._wait_s = self.compact_interval_s
        return oldest

    def done(self, revision: int, now_s: float) -> None:
        """The next one is an interval away."""
        self._last_revision = revision
        self._last_s = now_s


class RevisionRetention:
    """Keep the newest `retention` revisions."""

    interval_s = REVISION_INTERVAL_S

    def __init__(self, retention: int) -> None:
        self._retention = retention
        self._last_revision = 0

    def note(self, revision: int) -> None:
        """Nothing to remember."""

    def due(self, revision: int, now_s: float) -> int | None:
        """The revision behind which the newest `retention` are, if it is not compacted yet."""
        wanted = revision - self._retention
        return wanted if wanted > 0 and wanted != self._last_revision else None

    def done(self, revision: int, now_s: float) -> None:
        """Remembers it, so that it is not compacted again."""
        self._last_revision = revision


class AutoCompaction:
    """Compacts by a retention. Owned by the member's loop."""

    def __init__(self, member: Member, plan: Retention, mode: str) -> None:
        self._member = member
        self._plan = plan
        self._mode = mode

    def start(self) -> None:
        """Begins."""
        self._plan.note(self._member.store.revision)
        self._member.loop.call_later(self._plan.interval_s, self._look)

    def _look(self) -> None:
        member = self._member
        if member.stopped:
            return
        now_s = member.loop.time()
        if member.leadership.leading:
            wanted = self._plan.due(member.store.revision, now_s)
            if wanted is not None:
                self._compact(wanted, now_s)
        self.start()

    def _compact(self, revision: int, start_s: float) -> None:
        member = self._member
        member.logger.info(f"starting auto {self._mode} compaction", revision=revision)

        def done(result: Result) -> None:
            if isinstance(result, bytes | errors.CompactedError):
                now_s = member.loop.time()
                self._plan.done(revision, now_s)
                member.logger.info(
                    f"completed auto {self._mode} compaction",
                    revision=revision,
                    took=f"{now_s - start_s:.6f}s",
                )
            else:
                member.logger.warn(
                    f"failed auto {self._mode} compaction", revision=revision, error=result.text
                )

        request = rpc_pb2.CompactionRequest(revision=revision).SerializeToString()
        self._propose(request, done)

    def _propose(self, request: bytes, done: Callable[[Result], None]) -> None:
        member = self._member
        try:
            member.propose(KIND_COMPACTION, request, done, member.auth.own())
        except EtcdError as refusal:
            done(refusal)


def auto_compaction(member: Member) -> AutoCompaction | None:
    """As the settings say; None when it is off."""
    settings = member.settings
    retention = settings.auto_compaction_retention
    if retention <= 0:
        return None
    if settings.auto_compaction_periodic:
        return AutoCompaction(member, PeriodicRetention(retention, member.loop.time()), "periodic")
    return AutoCompaction(member, RevisionRetention(int(retention)), "revision")
