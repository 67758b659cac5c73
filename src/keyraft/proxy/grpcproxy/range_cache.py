"""Answers to serializable range requests, kept while a watch of the cluster says that they hold.

A range that is read a second time soon is kept: from then on the range is watched (a receiver in the
same broadcasts as the clients' watchers), and its answers are kept as long as nothing of it changes.
So reads of ever new ranges leave nothing behind but `SEEN_MAX` numbers.

Invariants:
- An answer is given again only while its range's watch runs, and no event of the range is known
  that is newer than it. A write that passes through the proxy drops what it may change twice: before
  it is sent, and when its answer is here.
- Only requests without credentials are answered from here, and only within `TRUST_S` of the last
  such request that the cluster itself has answered: users may have been switched on meanwhile.
- Bytes and answers are bounded; the least recently read go first. Ranges that are watched are
  bounded too, and one without answers goes before any other.

DEVIATION: the original keeps every answer, also one of a user for everybody, and drops it only when
a write passes through itself; its index of ranges keeps growing.
Source: etcd `server/proxy/grpcproxy/cache/store.go`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from keyraft.client import Headers
from keyraft.proxy.grpcproxy.broadcast import Broadcast, WatchRanges
from keyraft.proxy.grpcproxy.passed_events import PassedEvents

ENTRIES_MAX: Final = 2_048  # etcd's DefaultMaxEntries
BYTES_MAX: Final = 67_108_864
ANSWER_BYTES_MAX: Final = 1_048_576
POINTS_MAX: Final = 2_048  # single keys that are watched
INTERVALS_MAX: Final = 256  # true ranges; each write looks at all of them
SEEN_MAX: Final = 4_096
TRUST_S: Final = 1.0
ENTRY_BYTES: Final = 400  # beside request and answer
FROM_KEY: Final = b"\x00"

Range = tuple[bytes, bytes]


class CachedRange:
    """One range that is watched, and the answers about it (broadcast.Receiver)."""

    def __init__(self, cache: RangeCache, name: Range, next_revision: int) -> None:
        self.key, self.range_end = name
        self.next_revision = next_revision
        self.credentials: Headers = ()
        self.broadcast: Broadcast | None = None
        self.at_once = True
        self.running = False
        self.answers: set[bytes] = set()
        self.generation = 0
        self._cache = cache

    def on_batch(self, batch: PassedEvents) -> bool:
        """Receiver."""
        if batch.after > self.next_revision:
            self.next_revision = batch.after
            self._cache.drop(self)
        return True

    def on_progress(self, header: bytes, revision: int) -> None:
        """Receiver: what is kept stays true."""

    def on_canceled(self, header: bytes, reason: str, compact_revision: int) -> None:
        """Receiver."""
        self._cache.forget(self)

    def on_running(self, running: bool) -> None:
        """Receiver."""
        self.running = running
        if not running:
            self._cache.drop(self)


class RangeCache:
    """Owned by the loop; `clock` in seconds."""

    def __init__(self, ranges: WatchRanges, clock: Callable[[], float]) -> None:
        self.hits = 0
        self.misses = 0
        self.bytes = 0
        self._ranges = ranges
        self._clock = clock
        self._trusted_until = 0.0
        self._answers: OrderedDict[bytes, tuple[bytes, CachedRange, int]] = OrderedDict()
        self._points: OrderedDict[Range, CachedRange] = OrderedDict()
        self._intervals: OrderedDict[Range, CachedRange] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def active(self) -> bool:
        """Whether a write must be looked at."""
        return bool(self._points or self._intervals)

    def get(self, request: bytes, revision_min: int) -> bytes | None:
        """An answer that is kept and not from before `revision_min`."""
        found = self._answers.get(request)
        if (
            found is None
            or not found[1].running
            or found[2] < revision_min
            or self._clock() >= self._trusted_until
        ):
            self.misses += 1
            return None
        self.hits += 1
        self._answers.move_to_end(request)
        return found[0]

    def generation(self, name: Range) -> int:
        """To be handed to `add` with the answer to a request that is sent now."""
        found = self._table(name).get(name)
        return -1 if found is None else found.generation

    def add(
        self, request: bytes, name: Range, generation: int, answer: bytes, revision: int
    ) -> None:
        """The cluster has answered a request without credentials."""
        self._trusted_until = self._clock() + TRUST_S
        table = self._table(name)
        found = table.get(name)
        if found is None:
            if not self._seen_before(name):
                return
            found = self._watch(table, name, revision + 1)
        elif generation != found.generation or revision + 1 < found.next_revision:
            return
        size = len(request) + len(answer) + ENTRY_BYTES
        if len(answer) > ANSWER_BYTES_MAX or found.broadcast is None:
            return
        table.move_to_end(name)
        self._remove(request)
        self._answers[request] = (answer, found, revision)
        found.answers.add(request)
        self.bytes += size
        while self.bytes > BYTES_MAX or len(self._answers) > ENTRIES_MAX:
            self._remove(next(iter(self._answers)))

    def invalidate(self, key: bytes, range_end: bytes) -> None:
        """A write of [key, range_end) passes, or has passed."""
        if not range_end:
            point = self._points.get((key, b""))
            if point is not None:
                self.drop(point)
        else:
            for point in list(self._points.values()):
                if _overlap(key, range_end, point.key, b""):
                    self.drop(point)
        for interval in list(self._intervals.values()):
            if _overlap(key, range_end, interval.key, interval.range_end):
                self.drop(interval)

    def clear(self) -> None:
        """Users are switched on or off."""
        self._trusted_until = 0.0
        for found in [*self._points.values(), *self._intervals.values()]:
            self._ranges.remove(found)
            self.forget(found)

    def drop(self, found: CachedRange) -> None:
        """Drops the answers about a range, and those that are under way; its watch goes on."""
        found.generation += 1
        for request in list(found.answers):
            self._remove(request)

    def forget(self, found: CachedRange) -> None:
        """The range is watched no longer."""
        self.drop(found)
        name = (found.key, found.range_end)
        if self._table(name).get(name) is found:
            del self._table(name)[name]

    def check(self) -> None:
        """The invariants, for tests."""
        total = 0
        for request, (answer, found, revision) in self._answers.items():
            total += len(request) + len(answer) + ENTRY_BYTES
            assert request in found.answers, request
            assert revision + 1 >= found.next_revision, request
        assert total == self.bytes, (total, self.bytes)
        assert len(self._answers) <= ENTRIES_MAX, len(self._answers)
        assert len(self._points) <= POINTS_MAX, len(self._points)
        assert len(self._intervals) <= INTERVALS_MAX, len(self._intervals)
        assert len(self._seen) <= SEEN_MAX, len(self._seen)

    def _table(self, name: Range) -> OrderedDict[Range, CachedRange]:
        return self._intervals if name[1] else self._points

    def _seen_before(self, name: Range) -> bool:
        number = hash(name)
        if self._seen.pop(number, number) is None:
            return True
        self._seen[number] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return False

    def _watch(
        self, table: OrderedDict[Range, CachedRange], name: Range, next_revision: int
    ) -> CachedRange:
        bound = INTERVALS_MAX if name[1] else POINTS_MAX
        if len(table) >= bound:
            oldest = next((one for one in table.values() if not one.answers), None)
            oldest = oldest or next(iter(table.values()))
            self._ranges.remove(oldest)
            self.forget(oldest)
        found = table[name] = CachedRange(self, name, next_revision)
        self._ranges.add(found)
        return found

    def _remove(self, request: bytes) -> None:
        found = self._answers.pop(request, None)
        if found is not None:
            found[1].answers.discard(request)
            self.bytes -= len(request) + len(found[0]) + ENTRY_BYTES


def _overlap(key: bytes, range_end: bytes, other: bytes, other_end: bytes) -> bool:
    """Whether two ranges share a key; an empty end is one key, `FROM_KEY` no end at all."""
    if range_end != FROM_KEY and (range_end <= other if range_end else key < other):
        return False
    return not (other_end != FROM_KEY and (other_end <= key if other_end else other < key))
