"""Carries out compactions: revisions are gone for readers at once, and rows are deleted in slices.

Between two slices the loop is free and `--compaction-sleep-interval` passes, so a compaction of
millions of rows does not slow requests.
"""

from __future__ import annotations

from collections.abc import Callable

from keyraft.base.clock import Loop, WallClock
from keyraft.base.durations import SECOND, format_duration
from keyraft.base.log import Logger
from keyraft.base.sizes import size
from keyraft.mvcc import Store
from keyraft.server.counters import Counters


class Compactor:
    """Steps the store's compactions. Owned by the member's loop."""

    def __init__(
        self, loop: Loop, store: Store, counters: Counters, wall_clock: WallClock, log: Logger
    ) -> None:
        self._loop = loop
        self._store = store
        self._counters = counters
        self._wall_clock = wall_clock
        self._log = log
        self._began_s = 0.0
        self._scheduled = False
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._finished = store.compact_revision if not store.compactions else -1
        self.resume()

    def compact(self, revision: int) -> None:
        """Compacts up to `revision`. Raises CompactedError, FutureRevisionError."""
        self._store.compact(revision, lambda: self._done(revision))
        self.resume()

    def when_done(self, revision: int, done: Callable[[], None]) -> None:
        """Calls `done` once the rows up to `revision` are deleted and that is recorded."""
        if revision <= self._finished:
            done()
        else:
            self._waiting.append((revision, done))

    def resume(self) -> None:
        """Continues an unfinished compaction, for instance after a restart."""
        if self._store.compactions and not self._scheduled:
            self._scheduled = True
            self._began_s = self._loop.time()
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._scheduled = False
        ended_before = self._store.compactions.ended
        started_s = self._loop.time()
        delay_s = self._store.compactions.step()
        ended_s = self._loop.time()
        counters = self._counters
        counters.compaction_pause_ms.observe((ended_s - started_s) * 1000)
        counters.index_compaction_pause_ms.observe((ended_s - started_s) * 1000)
        if self._store.compactions.ended > ended_before:
            counters.compaction_ms.observe((ended_s - self._began_s) * 1000)
            counters.compacted_at_unix_s = self._wall_clock()
            self._say_finished(ended_s - self._began_s)
            self._began_s = ended_s
        if delay_s is not None:
            self._scheduled = True
            self._loop.call_later(delay_s, self._step)

    def _say_finished(self, took_s: float) -> None:
        compaction = self._store.compactions.last
        assert compaction is not None, "one has ended"
        size_bytes, in_use_bytes = (
            self._store.backend.size_bytes,
            self._store.backend.size_in_use_bytes,
        )
        self._log.info(
            "finished scheduled compaction",
            compact_revision=compaction.revision,
            took=format_duration(round(took_s * SECOND)),
            number_of_keys_compacted=compaction.removed,
            hash=compaction.hash,
            current_db_size_bytes=size_bytes,
            current_db_size=size(size_bytes),
            current_db_size_in_use_bytes=in_use_bytes,
            current_db_size_in_use=size(in_use_bytes),
        )

    def _done(self, revision: int) -> None:
        self._finished = max(self._finished, revision)
        waiting, self._waiting = self._waiting, []
        for wanted, done in waiting:
            if wanted <= revision:
                done()
            else:
                self._waiting.append((wanted, done))
