"""Compaction: removing rows that only reads below the compact revision need.

One pass over the rows up to the compact revision N, in slices. Each key is compacted in the index
when the first row of it is met; a row then stays exactly if the index still has it. While passing,
the rows are hashed as they were before (etcd stores that hash and serves it as HashKV(N)).

After a crash the pass starts again from the first row. Nothing that must stay is ever removed, so
the second pass finds the rest. `finishedCompactRev` is written at the end, with the last rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .backend import KEY, META, META_FINISHED_COMPACT, BackendError
from .hash import AnyKey, Hasher, KVHash
from .index import holds, kept_for_compaction
from .revision import MalformedRevisionError, first_key, parse, row_key
from .wire import stored_key

if TYPE_CHECKING:
    from .store import Store

SLICE_ROWS: Final = 500  # rows per slice: about two milliseconds


class Compaction:
    """One scheduled compaction."""

    __slots__ = (
        "_at",
        "_batch",
        "_hasher",
        "_keeps",
        "_keeps_known",
        "_store",
        "done",
        "epoch",
        "previous",
        "removed",
        "revision",
        "whole",
    )

    def __init__(
        self,
        store: Store,
        revision: int,
        previous: int,
        whole: bool,
        done: Callable[[], None] | None,
    ) -> None:
        """`previous`: the compact revision before.

        `whole`: that compaction had finished, so this pass sees all rows that its hash must cover.
        """
        self._store = store
        self.revision = revision
        self.previous = previous
        self.whole = whole
        self.done = done
        self.epoch = store.compactions.epoch + 1
        self.removed = 0
        self._at = b""
        self._batch = 0
        self._hasher = Hasher()
        self._keeps = AnyKey(store, lambda entry: kept_for_compaction(entry, revision))
        self._keeps_known = previous <= 0  # not needed

    @property
    def hash(self) -> int:
        """The hash of the rows passed so far, as they were before."""
        return self._hasher.value

    def step(self) -> float | None:
        """Passes over the next slice of rows; seconds to wait before the next, None at the end."""
        store = self._store
        if not self._keeps_known:
            self._keeps_known = self._keeps.step()
            return 0.0
        limit = min(SLICE_ROWS, store.compactions.batch_rows - self._batch)
        rows = list(store.backend.range(KEY, self._at, first_key(self.revision + 1), limit))
        for row, stored in rows:
            self._pass(row, stored)
        if len(rows) < limit:
            store.backend.put(META, META_FINISHED_COMPACT, row_key(self.revision, 0))
            if self.whole:
                store.hashes.store(KVHash(self._hasher.value, self.previous, self.revision))
            return None
        self._at = rows[-1][0] + b"\x00"
        self._batch += limit
        if self._batch < store.compactions.batch_rows:
            return 0.0
        self._batch = 0
        store.backend.flush()
        return store.compactions.sleep_s

    def _pass(self, row: bytes, stored: bytes) -> None:
        store = self._store
        try:
            main, sub, tombstone = parse(row)
            key = stored_key(stored)
        except (MalformedRevisionError, ValueError) as error:
            raise BackendError(f"damaged row {row.hex()}: {error}") from None
        entry = store.index.compact(key, self.revision)
        kept = entry is not None and holds(entry, main, sub, tombstone, self.revision)
        if not kept:
            store.backend.delete(KEY, row)
            self.removed += 1
        if main <= self.previous:
            if not kept and self._keeps.found:
                return
            if tombstone and main == self.previous:
                return
        self._hasher.add(row, stored)
