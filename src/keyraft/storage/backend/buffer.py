"""The write buffer: what is written but not yet durable, over an engine.

There are three layers, newest first: the batch being filled, the one sealed batch that the engine
is committing, the engine. A read looks in that order. The batch is sealed `BATCH_INTERVAL_S` after
its first operation or at `BATCH_OPS` operations, but never while another is being committed. So a
slow disk makes batches larger, not more numerous. When the backlog grows too large, `overloaded`
asks the member to stop applying. While an entry is applied in several turns of the loop, `hold`
keeps the batch open: all of the entry is in one batch.

Invariants: at most one sealed batch; the hooks of `before_commit` have run on it, so consistent
index and data are in the same batch; operations reach the engine in batches in order of writing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from ...base.clock import Loop, Timer
from ...base.invariants import AT_ONCE, CHECK_SLICE, Checks, hold, whole
from ...base.limits import BACKEND_BATCH_INTERVAL_S, BACKEND_BATCH_OPS
from ...mvcc.backend import BUCKETS, OWN, BackendError
from .engine import Batch, StorageEngine

BACKLOG_OPS_MAX: Final = 200_000  # operations waiting behind a slow commit before `overloaded`
VALUE_SHIFT: Final = 12  # 4 KiB of a value count as one more operation: bounds bytes


class WriteBuffer:
    """`mvcc.Backend` over an engine. One thread calls; `loop` only times the commits."""

    __slots__ = (
        "_batch",
        "_batch_ops",
        "_defragmenting",
        "_engine",
        "_fail",
        "_flush_wanted",
        "_held",
        "_hooks",
        "_interval_s",
        "_loop",
        "_ops",
        "_orders",
        "_sealed",
        "_sealed_done",
        "_sealed_orders",
        "_sealed_s",
        "_timer",
        "_waiting",
        "commits",
        "failure",
        "on_commit",
    )

    def __init__(
        self,
        engine: StorageEngine,
        loop: Loop,
        fail: Callable[[str], None],
        batch_interval_s: float = BACKEND_BATCH_INTERVAL_S,
        batch_ops: int = BACKEND_BATCH_OPS,
    ) -> None:
        """`fail(text)` is called once when nothing can be committed any more; the member stops."""
        self._engine = engine
        self._loop = loop
        self._fail = fail
        self._interval_s = batch_interval_s
        self._batch_ops = batch_ops
        self._batch: Batch = {name: {} for name in (*BUCKETS, OWN)}
        self._sealed: Batch | None = None
        self._sealed_done: list[Callable[[], None]] = []
        self._waiting: list[Callable[[], None]] = []
        self._defragmenting: list[Callable[[str | None], None]] = []
        self._hooks: list[Callable[[], None]] = []
        self._timer: Timer | None = None
        self._ops = 0
        self._flush_wanted = False
        self._held = False
        self._orders: dict[bytes, _Order] = {}  # of the batch, by bucket
        self._sealed_orders: dict[bytes, _Order] = {}
        self.commits = 0
        self.on_commit: Callable[[float], None] | None = None  # told the seconds of each commit
        self._sealed_s = 0.0
        self.failure: str | None = None
        engine.on_failure(self._failed)

    # --- Backend ----------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        return self._engine.size_bytes

    @property
    def size_in_use_bytes(self) -> int:
        return self._engine.size_in_use_bytes

    @property
    def busy_since_s(self) -> float | None:
        return None if self._sealed is None else self._sealed_s

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        changes = self._batch[bucket]
        if key in changes:
            return changes[key]
        if self._sealed is not None:
            changes = self._sealed[bucket]
            if key in changes:
                return changes[key]
        return self._engine.get(bucket, key)

    def get_all(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        changes = self._batch[bucket]
        sealed = self._sealed[bucket] if self._sealed is not None else changes
        if changes.keys().isdisjoint(keys) and sealed.keys().isdisjoint(keys):
            return self._engine.get_all(bucket, keys)
        return [self.get(bucket, key) for key in keys]

    def range(
        self, bucket: bytes, start: bytes = b"", end: bytes | None = None, limit: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        found = self._engine.range(bucket, start, end)
        if self._sealed is not None:
            changes = self._sealed[bucket]
            if changes:
                found = _overlaid(found, changes, self._sealed_orders, bucket, start, end)
        changes = self._batch[bucket]
        if changes:
            found = _overlaid(found, changes, self._orders, bucket, start, end)
        return _first(found, limit) if limit else found

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        self._batch[bucket][key] = value
        self._ops = ops = self._ops + 1 + (len(value) >> VALUE_SHIFT)
        if self._timer is None or ops >= self._batch_ops:
            self._schedule()

    def delete(self, bucket: bytes, key: bytes) -> None:
        self._batch[bucket][key] = None
        self._ops = ops = self._ops + 1
        if self._timer is None or ops >= self._batch_ops:
            self._schedule()

    def before_commit(self, hook: Callable[[], None]) -> None:
        self._hooks.append(hook)

    def flush(self, done: Callable[[], None] | None = None) -> None:
        if done is not None:
            self._waiting.append(done)
        if self._sealed is None and not self._held:
            self._seal()
        else:
            self._flush_wanted = True

    def defragment(self, done: Callable[[str | None], None]) -> None:
        self._defragmenting.append(done)
        if self._sealed is None:
            self._defragment()

    def hold(self) -> None:
        assert not self._held, "an entry within an entry"
        self._held = True

    def release(self) -> None:
        assert self._held, "nothing is held"
        self._held = False
        if self._flush_wanted or self._ops >= self._batch_ops:
            self._loop.call_soon(self._due)

    # --- committing -------------------------------------------------------------------------

    @property
    def overloaded(self) -> bool:
        """Whether commits lag so far behind that nothing more should be applied for now."""
        return self._ops > BACKLOG_OPS_MAX

    @property
    def starved(self) -> str:
        """See `BatchBackend`."""
        return self._engine.starved

    def _schedule(self) -> None:
        if self.failure is not None:
            raise BackendError(self.failure)
        if self._ops >= self._batch_ops:
            if self._sealed is None and not self._held:
                # Do not seal here: this call may come in the middle of an entry, whose operations
                # and consistent index must all be in one batch.
                if not self._flush_wanted:
                    self._flush_wanted = True
                    self._loop.call_soon(self._due)
        elif self._timer is None:
            self._timer = self._loop.call_later(self._interval_s, self._due)

    def _due(self) -> None:
        self._timer = None
        if self.failure is not None:
            return
        if self._sealed is not None or self._held:
            self._flush_wanted = True
        elif self._ops or self._waiting:
            self._seal()

    def _seal(self) -> None:
        if self.failure is not None:
            raise BackendError(self.failure)
        self._flush_wanted = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for hook in self._hooks:
            hook()
        if self._timer is not None:  # set by the puts of the hooks
            self._timer.cancel()
            self._timer = None
        self._flush_wanted = False
        self._sealed = self._batch
        self._sealed_done = self._waiting
        self._waiting = []
        self._batch = {name: {} for name in (*BUCKETS, OWN)}
        self._sealed_orders, self._orders = self._orders, {}
        self._ops = 0
        self._sealed_s = self._loop.time()
        self._engine.commit({n: c for n, c in self._sealed.items() if c}, self._committed)

    def _defragment(self) -> None:
        """Defragments between two commits. Writes that come meanwhile are the next batch."""
        if self.failure is not None:
            raise BackendError(self.failure)
        waiting, self._defragmenting = self._defragmenting, []

        def defragmented(undone: str | None) -> None:
            self._sealed = None
            for done in waiting:
                done(undone)
            self._go_on()

        self._sealed = {name: {} for name in (*BUCKETS, OWN)}
        self._sealed_orders = {}
        self._sealed_s = self._loop.time()
        self._engine.defragment(defragmented)

    def _committed(self) -> None:
        self._sealed = None
        self.commits += 1
        if self.on_commit is not None:
            self.on_commit(self._loop.time() - self._sealed_s)
        waiting, self._sealed_done = self._sealed_done, []
        for done in waiting:
            done()
        self._go_on()

    def _go_on(self) -> None:
        """Begins what waits, unless a callback that was just called has begun a commit already."""
        if self._sealed is None and self._defragmenting:
            self._defragment()
        if self._sealed is None and not self._held:
            if self._flush_wanted or self._ops >= self._batch_ops:
                if self._ops or self._waiting:
                    self._seal()

    def _failed(self, text: str) -> None:
        if self.failure is None:
            self.failure = text
            self._fail(text)

    def exchange(self, replace: Callable[[], StorageEngine]) -> None:
        """Puts another database in the place of this one and drops what is not yet committed.

        The engine is closed, then `replace` opens the new one. Callbacks of a `flush` that is
        waited for are called. Blocks while a commit is under way. Raises BackendError.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sealed is not None:
            self._engine.wait()
            if self._engine.starved:
                self._engine.abandon()
        self._engine.close()
        self._batch = {name: {} for name in (*BUCKETS, OWN)}
        self._orders = {}
        self._sealed = None
        self._ops = 0
        self._flush_wanted = False
        self._engine = replace()
        self._engine.on_failure(self._failed)
        waiting = self._sealed_done + self._waiting
        self._sealed_done, self._waiting = [], []
        asked, self._defragmenting = self._defragmenting, []
        for done in waiting:
            done()
        for told in asked:
            told(None)  # the new one has no free pages

    def close(self) -> None:
        """Commits the batch, waits for it and closes the engine.

        A batch that holds half an entry is dropped: the log still has all entries of the batch. So
        is one that the disk has no room for.
        """
        while self.failure is None and (self._sealed is not None or self._unsealed):
            if self._sealed is None:
                self._seal()
            self._engine.wait()
            if self._engine.starved:
                self._engine.abandon()
                break
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._engine.close()

    @property
    def _unsealed(self) -> bool:
        """Whether there is a batch to commit at the end."""
        return not self._held and bool(self._ops or self._waiting)

    # --- looking inside ---------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Counters for metrics and tests."""
        return {
            "pending_ops": self._ops,
            "committing": self._sealed is not None,
            "commits": self.commits,
            "size_bytes": self.size_bytes,
            "size_in_use_bytes": self.size_in_use_bytes,
        }

    def check(self) -> None:
        """The invariants above, and that every bucket can be read in order; slow. Raises
        InvariantError."""
        for orders, batch in ((self._orders, self._batch), (self._sealed_orders, self._sealed)):
            for bucket, order in orders.items():
                if batch is not None:
                    keys = order.keys
                    hold(keys == sorted(set(keys)), "changed keys are in order", bucket)
                    hold(order.seen == len(keys), "changed keys are counted", bucket, order.seen)
                    hold(batch[bucket].keys() >= set(keys), "changed keys changed", bucket)
        whole(self.check_steps(AT_ONCE))

    def check_steps(self, size: int = CHECK_SLICE) -> Checks:
        """What a step can see: what is written will be committed, and a part of a bucket."""
        for bucket in (*BUCKETS, OWN):
            more, at = True, b""
            while more:
                self._check_schedule()
                count = 0
                for key, _ in self.range(bucket, at, None, size):
                    hold(key >= at, "a bucket is read in order", bucket, at, key)
                    at = key + b"\0"
                    count += 1
                more = count == size
                if more:
                    yield
        yield

    def _check_schedule(self) -> None:
        hold(self._sealed is not None or not self._sealed_done, "nobody waits for no commit")
        changes = sum(map(len, self._batch.values()))
        hold(changes <= self._ops, "operations are counted", changes, self._ops)
        hold((changes > 0) == (self._ops > 0), "a batch has what it counts", changes, self._ops)
        full = self._ops >= self._batch_ops and (self._sealed is not None or self._held)
        comes = self._timer is not None or self._flush_wanted or full
        hold(not changes or comes or self.failure is not None, "changes will be sealed", changes)


class _Order:
    """The keys of a bucket's changes in order; they are sorted when a reader needs them."""

    __slots__ = ("keys", "seen")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.seen = 0  # so many of the changes, the oldest, are in `keys`

    def catch_up(self, changes: dict[bytes, bytes | None]) -> list[bytes]:
        """All keys in order; mostly only the new ones must be sorted."""
        fresh = len(changes) - self.seen
        keys = self.keys
        if fresh:
            self.seen += fresh
            new = sorted(islice(reversed(changes), fresh))
            behind = not keys or keys[-1] < new[0]
            keys += new
            if not behind:
                keys.sort()
        return keys


def _overlaid(
    stored: Iterator[tuple[bytes, bytes]],
    changes: dict[bytes, bytes | None],
    orders: dict[bytes, _Order],
    bucket: bytes,
    start: bytes,
    end: bytes | None,
) -> Iterator[tuple[bytes, bytes]]:
    """The stored rows of [start, end), with the changes of one layer applied."""
    order = orders.get(bucket)
    if order is None:
        order = orders[bucket] = _Order()
    keys = order.catch_up(changes)
    low = bisect_left(keys, start)
    high = len(keys) if end is None else bisect_left(keys, end)
    return _merge(stored, changes, keys, low, high) if low < high else stored


def _merge(
    stored: Iterator[tuple[bytes, bytes]],
    changes: dict[bytes, bytes | None],
    keys: list[bytes],
    at: int,
    end: int,
) -> Iterator[tuple[bytes, bytes]]:
    """Merges both in key order. Where a key is in both, the change wins. None deletes."""
    for pair in stored:
        key = pair[0]
        while at < end and keys[at] < key:
            newer = keys[at]
            at += 1
            value = changes[newer]
            if value is not None:
                yield newer, value
        if at < end and keys[at] == key:
            at += 1
            value = changes[key]
            if value is not None:
                yield key, value
        else:
            yield pair
    while at < end:
        newer = keys[at]
        at += 1
        value = changes[newer]
        if value is not None:
            yield newer, value


def _first(found: Iterator[tuple[bytes, bytes]], limit: int) -> Iterator[tuple[bytes, bytes]]:
    for pair in found:
        yield pair
        limit -= 1
        if not limit:
            return
