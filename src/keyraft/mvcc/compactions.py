"""Compactions that are scheduled, and the reads that hold them back.

They run one after the other, a slice at a time. A read in steps pins the store: rows that it may
still need stay until it unpins, because a compaction that was scheduled after the pin waits for it.

Invariants: jobs run in the order of their revisions; a job begins only when every pin that is older
than it is gone; each pin is given back once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .compaction import Compaction

if TYPE_CHECKING:
    from .store import Store

COMPACTION_BATCH_ROWS: Final = 1000  # --compaction-batch-limit
COMPACTION_SLEEP_S: Final = 0.01  # --compaction-sleep-interval


class Compactions:
    """See the module.

    `ended`, `last` and `removed_rows` tell of those that ended, since the database was read.
    """

    __slots__ = (
        "_jobs",
        "_pins",
        "_store",
        "batch_rows",
        "ended",
        "epoch",
        "last",
        "removed_rows",
        "sleep_s",
    )

    def __init__(self, store: Store, batch_rows: int, sleep_s: float) -> None:
        """After `batch_rows` rows (0: the default) a compaction rests for `sleep_s`."""
        self._store = store
        self.batch_rows = batch_rows or COMPACTION_BATCH_ROWS
        self.sleep_s = sleep_s
        self.epoch = 0  # how many were scheduled; a reader pins the one that it started in
        self._pins: dict[int, int] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets all compactions: the store has got another database. Pins stay."""
        self._jobs: list[Compaction] = []
        self.ended = 0
        self.last: Compaction | None = None
        self.removed_rows = 0

    def __len__(self) -> int:
        """How many are left to do."""
        return len(self._jobs)

    def schedule(self, revision: int, whole: bool, done: Callable[[], None] | None = None) -> None:
        """Queues one; see `Compaction`. The store's compact revision is still the one before."""
        previous = self._store.compact_revision
        self._jobs.append(Compaction(self._store, revision, previous, whole, done))
        self.epoch += 1

    def step(self) -> float | None:
        """One slice of at most some milliseconds; seconds until the next, None if all is done."""
        if not self._jobs:
            return None
        job = self._jobs[0]
        if any(epoch < job.epoch for epoch in self._pins):
            return self.sleep_s
        delay = job.step()
        if delay is not None:
            return delay
        del self._jobs[0]
        self.ended += 1
        self.removed_rows += job.removed
        self.last = job
        if job.done is not None:
            self._store.backend.flush(job.done)
        return 0.0 if self._jobs else None

    def pin(self) -> int:
        """Holds back compactions scheduled from now on; give the result to `unpin`."""
        epoch = self.epoch
        self._pins[epoch] = self._pins.get(epoch, 0) + 1
        return epoch

    def unpin(self, epoch: int) -> None:
        """Ends one `pin`."""
        left = self._pins[epoch] - 1
        if left:
            self._pins[epoch] = left
        else:
            del self._pins[epoch]

    @property
    def pins(self) -> int:
        """How many readers hold compactions back."""
        return sum(self._pins.values())
