"""Carries out compactions: the revisions go at once for readers, their rows in small slices.

Between two slices the loop is free and `--compaction-sleep-interval` passes, so a compaction of
millions of rows is felt by nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from keyraft.base.clock import Loop
from keyraft.mvcc import Store


class Compactor:
    """Steps the store's compactions. Owned by the member's loop."""

    def __init__(self, loop: Loop, store: Store) -> None:
        self._loop = loop
        self._store = store
        self._scheduled = False
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._finished = store.compact_revision if not store.compacting else -1
        self.resume()

    def compact(self, revision: int) -> None:
        """Compacts up to `revision`. Raises CompactedError, FutureRevisionError."""
        self._store.compact(revision, lambda: self._done(revision))
        self.resume()

    def when_done(self, revision: int, done: Callable[[], None]) -> None:
        """Calls `done` once the rows up to `revision` are gone and the database knows."""
        if revision <= self._finished:
            done()
        else:
            self._waiting.append((revision, done))

    def resume(self) -> None:
        """Goes on with what is left, for instance from before a restart."""
        if self._store.compacting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._scheduled = False
        delay_s = self._store.compaction_step()
        if delay_s is not None:
            self._scheduled = True
            self._loop.call_later(delay_s, self._step)

    def _done(self, revision: int) -> None:
        self._finished = max(self._finished, revision)
        waiting, self._waiting = self._waiting, []
        for wanted, done in waiting:
            if wanted <= revision:
                done()
            else:
                self._waiting.append((wanted, done))
