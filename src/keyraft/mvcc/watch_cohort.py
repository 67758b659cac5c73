"""Cohorts: watchers with the same range, the same filters and the same prev_kv.

All watchers of a cohort get the same event bytes, which are encoded once per cohort. Each watcher
only needs a small head and one `send`. A batch of events that is being sent to a cohort is a `Job`.
While it runs, further events wait in `pending` and become the next job. So the busier a member is,
the more revisions are in one message: a hundred puts to ten thousand watchers are ten thousand
messages, not a million.

`min_revision` of a watcher is the next revision that it needs: it gets all events from there on and
none below. Everything else here may be dropped and read again from the store.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, Protocol

from keyraft.base.clock import Random
from keyraft.base.invariants import hold

from .watch_messages import EncodedEvent, KeyValueAt, watch_id_field
from .watch_ranges import RangeIndex

NOPUT: Final = 1  # variant bits
NODELETE: Final = 2
PREVIOUS: Final = 4

NEVER: Final = 1 << 63
"""The `min_revision` of a watcher that has ended: above every revision."""

MESSAGE_BYTES_TARGET: Final = 1_048_576
"""A message holds whole revisions up to about this size; clients commonly accept 4 MiB."""

SUFFIXES_MAX: Final = 8  # parts of a job that are kept for other watchers that need the same

PIECE_BYTES: Final = 16_256
"""The size of pieces of a large payload: with a head it fills a frame of HTTP/2 (16,384)."""

ENCODED_MAX: Final = 1_000  # events that `prepare` looks at in one call; about a millisecond

EVENT_OVERHEAD_BYTES: Final = 128  # counted for an event beside its KeyValue

# The states of a watcher.
SYNCED: Final = 0  # in a live cohort: gets events as they happen
READY: Final = 1  # behind; waits for the next pass through the store
LAGGING: Final = 2  # behind; takes part in the pass that is under way
STALLED: Final = 3  # behind; its stream is full
ENDED: Final = 4  # cancelled, or behind the compacted revision


class Sink(Protocol):
    """Receives a stream's messages: the server's end of a gRPC stream."""

    @property
    def writable(self) -> int:
        """Bytes that may still be queued; zero or less asks to wait."""

    def send(self, message: bytes) -> None:
        """Queues one message; harmless when the stream is over."""


class BulkSink(Protocol):
    """The same stream's interface for many messages and for large ones."""

    def send_framed(self, framed: bytes, count: int) -> None:
        """Queues `count` messages, each with gRPC's five bytes in front."""

    def send_shared(self, head: bytes, pieces: list[bytes]) -> None:
        """Queues one message: head and pieces, all of one size but for a smaller last one.

        The pieces are shared, and never copied or changed.
        """


class Watcher:
    """One watch of one stream; changed by the hub only."""

    __slots__ = (
        "bulk",
        "cohort",
        "end",
        "fragment",
        "id",
        "id_field",
        "min_revision",
        "notify",
        "sent",
        "sink",
        "stalled_with",
        "start",
        "start_revision",
        "state",
        "variant",
    )

    def __init__(
        self,
        watch_id: int,
        start: bytes,
        end: bytes | None,
        start_revision: int,
        variant: int,
        sink: Sink,
        stalled_with: dict[Watcher, None],
        bulk: BulkSink | None = None,
    ) -> None:
        self.id = watch_id
        self.id_field = watch_id_field(watch_id)
        self.start = start
        self.end = end
        self.start_revision = start_revision
        self.min_revision = start_revision
        self.variant = variant
        self.sink = sink
        self.bulk = bulk  # None for a sink inside the member
        self.stalled_with = stalled_with  # the stream's watchers that wait for room
        self.state = READY
        self.cohort: Cohort | None = None
        self.fragment = False
        self.notify = False  # wants progress notifications
        self.sent = False  # an event was sent since the last progress tick


class Job:
    """Events that are being sent to the watchers of a cohort.

    `covered` is the header's revision.
    """

    __slots__ = (
        "_last",
        "after",
        "at",
        "covered",
        "encoded",
        "first",
        "payload",
        "pieces",
        "revisions",
        "suffixes",
        "targets",
        "weight",
    )

    def __init__(
        self,
        events: list[EncodedEvent],
        encoded: list[bytes],
        targets: list[Watcher],
        covered: int,
        weight: int,
    ) -> None:
        self.revisions = [event.revision for event in events]
        self.first = self.revisions[0]
        self.after = self.revisions[-1] + 1
        self.covered = covered
        self.encoded = encoded
        self.payload = b"".join(encoded)
        self.pieces: list[bytes] = []  # the payload once more, when it is large
        if len(self.payload) > PIECE_BYTES:
            view = memoryview(self.payload)
            self.pieces = [
                bytes(view[at : at + PIECE_BYTES]) for at in range(0, len(view), PIECE_BYTES)
            ]
        self.targets = targets
        self.at = 0  # the first `at` targets are served
        self.weight = weight  # what `pending_bytes` counts for it
        self.suffixes: dict[int, bytes] = {}
        self._last: tuple[bytes, bytes, bytes] = (b"", b"", b"")

    def message(self, head: bytes, id_field: bytes) -> bytes:
        """The whole job as one message; the same object for watchers with the same id."""
        if self._last[1] != id_field or self._last[0] != head:
            self._last = head, id_field, b"".join((head, id_field, self.payload))
        return self._last[2]

    def from_revision(self, revision: int) -> list[bytes]:
        """The events from a revision on, for a watcher that has got the others."""
        return self.encoded[bisect_left(self.revisions, revision) :]

    def payload_from(self, revision: int) -> bytes:
        """The same as one payload, built once for all watchers that need it."""
        start = bisect_left(self.revisions, revision)
        found = self.suffixes.get(start)
        if found is None:
            if len(self.suffixes) >= SUFFIXES_MAX:
                self.suffixes.clear()
            found = self.suffixes[start] = b"".join(self.encoded[start:])
        return found


class Cohort:
    """The watchers of one range and variant that are all synced, or all in a pass."""

    __slots__ = (
        "covered",
        "encoded",
        "encoded_bytes",
        "end",
        "job",
        "pending",
        "queued",
        "start",
        "variant",
        "watchers",
        "weight",
    )

    def __init__(self, start: bytes, end: bytes | None, variant: int) -> None:
        self.start = start
        self.end = end
        self.variant = variant
        self.watchers: dict[Watcher, None] = {}
        self.pending: list[EncodedEvent] = []
        self.encoded: list[bytes] = []  # the first of them, as they will be sent
        self.encoded_bytes = 0
        self.job: Job | None = None
        self.weight = 0  # what `pending_bytes` counts for `pending`
        self.queued = False  # in the delivery queue
        self.covered = 0  # the last revision of the chunk that `pending` is from; 0: live

    def wants(self, delete: bool) -> bool:
        """Whether events of this kind pass its filters."""
        return not self.variant & (NODELETE if delete else NOPUT)

    def encode(self, event: EncodedEvent, kv_at: KeyValueAt) -> bytes:
        """The event in this cohort's encoding."""
        return event.with_previous(kv_at) if self.variant & PREVIOUS else event.plain()

    def prepare(self, kv_at: KeyValueAt, before: int) -> bool:
        """Encodes whole revisions of `pending`, as many as fit a message, into `encoded`; False
        when there is more to be done, in another call. Those from `before` on are left."""
        events, encoded = self.pending, self.encoded
        size = self.encoded_bytes
        at = len(encoded)
        count = len(events)
        stop = min(at + ENCODED_MAX, count)
        while at < stop:
            event = events[at]
            if event.revision >= before:
                break
            if size >= MESSAGE_BYTES_TARGET and event.revision != events[at - 1].revision:
                break
            piece = self.encode(event, kv_at)
            encoded.append(piece)
            size += len(piece)
            at += 1
        self.encoded_bytes = size
        return at < stop or stop == count

    def drop(self) -> None:
        """Drops events that it has not begun to send."""
        self.pending = []
        self.encoded = []
        self.encoded_bytes = 0

    def start_job(self) -> Job:
        """Makes a job of the encoded events."""
        events = self.pending
        encoded, size = self.encoded, self.encoded_bytes
        taken = len(encoded)
        if taken == len(events):
            weight, self.weight = self.weight, 0
            self.drop()
            covered = self.covered or events[-1].revision
        else:
            self.drop()
            self.pending = events[taken:]
            events = events[:taken]
            weight = min(self.weight, size)
            self.weight -= weight
            covered = events[-1].revision
        job = Job(events, encoded, list(self.watchers), covered, weight)
        self.job = job
        return job


class CohortIndex:
    """Cohorts by what they watch; a cohort is made for its first watcher and goes with its last."""

    __slots__ = ("_ranges", "find")

    def __init__(self, random: Random) -> None:
        self._ranges: RangeIndex[dict[int, Cohort]] = RangeIndex(random)
        self.find = self._ranges.find
        """(key) -> for each range that holds the key, its cohorts by variant."""

    def __len__(self) -> int:
        return len(self._ranges)

    def cohorts(self) -> list[Cohort]:
        """All of them."""
        return [cohort for range_ in self._ranges.values() for cohort in range_.values()]

    def some(self, count: int) -> list[Cohort]:
        """So many of them, or all if there are fewer; more if the last range has several."""
        some = self._ranges.some(count)
        return [cohort for range_ in some for cohort in range_.values()]

    def join(self, watcher: Watcher) -> None:
        """Puts a watcher that is in no cohort into its own."""
        variants = self._ranges.get(watcher.start, watcher.end)
        if variants is None:
            variants = {}
            self._ranges.add(watcher.start, watcher.end, variants)
        cohort = variants.get(watcher.variant)
        if cohort is None:
            cohort = variants[watcher.variant] = Cohort(watcher.start, watcher.end, watcher.variant)
        cohort.watchers[watcher] = None
        watcher.cohort = cohort

    def leave(self, watcher: Watcher) -> None:
        """Takes a watcher out of its cohort."""
        cohort = watcher.cohort
        assert cohort is not None, f"watcher {watcher.id} has no cohort"
        watcher.cohort = None
        del cohort.watchers[watcher]
        if cohort.watchers:
            return
        variants = self._ranges.get(cohort.start, cohort.end)
        assert variants is not None, "a cohort is not in its index"
        del variants[cohort.variant]
        if not variants:
            self._ranges.remove(cohort.start, cohort.end)

    def has(self, cohort: Cohort) -> bool:
        """Whether it is one of them."""
        variants = self._ranges.get(cohort.start, cohort.end)
        return variants is not None and variants.get(cohort.variant) is cohort

    def check(self) -> None:
        """The ranges are in order and no cohort is empty; raises InvariantError."""
        self._ranges.check()
        for cohort in self.cohorts():
            hold(bool(cohort.watchers), "no cohort is empty", cohort.start, cohort.end)
            for watcher in cohort.watchers:
                hold(watcher.cohort is cohort, "a watcher knows its cohort", watcher.id)
