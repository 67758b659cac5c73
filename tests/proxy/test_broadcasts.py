"""Watches of one range become one watch of the cluster: nothing is missed, nothing told twice."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from keyraft.client import Headers
from keyraft.proto import mvcc_pb2
from keyraft.proxy.grpcproxy.broadcast import NEWS_MAX, Broadcast, Lines, WatchRanges
from keyraft.proxy.grpcproxy.deliveries import Deliveries
from keyraft.proxy.grpcproxy.passed_events import (
    NO_DELETE,
    NO_PUT,
    PREVIOUS,
    PassedEvent,
    PassedEvents,
    fragments,
    id_field,
)
from keyraft.proxy.grpcproxy.watch_line import SharedWatch

KEY = b"k"


class Cluster:
    """A history of one key, and the feeds that are told of it."""

    def __init__(self) -> None:
        self.revision = 1
        self.events: list[tuple[int, int]] = []
        """(revision, number); a revision may have several."""
        self.compacted = 0
        self.lines: list[Line] = []
        self.watches_max = 0

    def line(self, credentials: Headers) -> Line:
        made = Line(self, credentials)
        self.lines.append(made)
        return made

    def change(self, count: int) -> None:
        self.revision += 1
        self.events += [(self.revision, number) for number in range(count)]

    @property
    def feeds(self) -> list[tuple[Line, SharedWatch]]:
        return [(line, feed) for line in self.lines for feed in line.feeds]


class Line:
    """Stands for watch_line.UpstreamWatches."""

    def __init__(self, cluster: Cluster, credentials: Headers) -> None:
        self.credentials = credentials
        self.cluster = cluster
        self.feeds: dict[SharedWatch, int] = {}
        """The revision that each is sent next; 0: it does not run."""

    @property
    def idle(self) -> bool:
        return not self.feeds

    def start(self, feed: SharedWatch) -> None:
        self.feeds[feed] = 0
        self.cluster.watches_max = max(self.cluster.watches_max, len(self.cluster.feeds))

    def stop(self, feed: SharedWatch) -> None:
        self.feeds.pop(feed, None)

    def step(self, feed: SharedWatch, random: Random) -> None:
        """What a member may do with it now."""
        cluster = self.cluster
        if not self.feeds[feed]:
            if feed.next_revision <= cluster.compacted:
                del self.feeds[feed]
                feed.on_canceled(b"", "", cluster.compacted + 1)
            else:
                self.feeds[feed] = feed.next_revision
                feed.on_created()
            return
        if random.random() < 0.1:
            self.feeds[feed] = 0
            feed.on_lost()
            return
        due = [event for event in cluster.events if event[0] >= self.feeds[feed]]
        if due:
            last = random.choice(due)[0]
            self.feeds[feed] = last + 1
            told = [PassedEvent(event_of(*one)) for one in due if one[0] <= last]
            feed.on_batch(PassedEvents(b"", told))
        elif random.random() < 0.3:
            feed.on_progress(b"", cluster.revision)


def event_of(revision: int, number: int) -> mvcc_pb2.Event:
    return mvcc_pb2.Event(kv={"key": KEY, "mod_revision": revision, "version": number + 1})


class Reader:
    """A receiver that is full at times."""

    def __init__(self, revision: int, credentials: Headers) -> None:
        self.key, self.range_end = KEY, b""
        self.first = self.next_revision = revision
        self.credentials = credentials
        self.broadcast: Broadcast | None = None
        self.at_once = False
        self.full = self.away = False
        self.ended = ""
        self.told: list[tuple[int, int]] = []

    def on_batch(self, batch: PassedEvents) -> bool:
        if self.full and batch.after > self.next_revision:
            self.away = True
            return False
        for event in batch.events:
            if event.revision >= self.next_revision:
                decoded = mvcc_pb2.Event.FromString(event.plain[2:])
                self.told.append((event.revision, decoded.kv.version - 1))
        self.next_revision = max(self.next_revision, batch.after)
        return True

    def on_progress(self, header: bytes, revision: int) -> None: ...

    def on_canceled(self, header: bytes, reason: str, compact_revision: int) -> None:
        assert self.next_revision < compact_revision
        self.ended = "compacted"

    def on_running(self, running: bool) -> None: ...


class Soon:
    """The turns of a loop."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self._calls.append(call)

    def turn(self) -> bool:
        """Whether there was something to do."""
        calls, self._calls = self._calls, []
        for call in calls:
            call()
        return bool(calls)


def ranges_of(cluster: Cluster, soon: Soon | None = None, told_per_turn: int = 500) -> WatchRanges:
    deliveries = Deliveries((soon or Soon()).call_soon, told_per_turn)
    return WatchRanges(Lines(cluster.line), deliveries)  # type: ignore[arg-type]  # a Line stands in


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(150))
def test_random_watchers_are_told_everything_once(seed: int) -> None:
    random, cluster = Random(seed), Cluster()
    soon = Soon()
    ranges = ranges_of(cluster, soon, random.choice((1, 2, 5, 500)))
    readers: list[Reader] = []
    for _ in range(300):
        match random.randrange(9):
            case 6:
                soon.turn()
            case 0:
                now = cluster.revision + 1
                revision = random.choice((now, now, now, random.randint(1, now + 3)))
                reader = Reader(revision, random.choice(((), ((b"token", b"t"),))))
                readers.append(reader)
                ranges.add(reader)
            case 1:
                cluster.change(random.randint(1, 3))
            case 2 if readers:
                random.choice(readers).full = True
            case 3 if readers:
                reader = random.choice(readers)
                reader.full = False
                if reader.away and not reader.ended:
                    reader.away = False
                    ranges.add(reader)
            case 4 if readers and random.random() < 0.3:
                reader = readers.pop(random.randrange(len(readers)))
                ranges.remove(reader)
            case 5 if random.random() < 0.05:
                cluster.compacted = random.randint(cluster.compacted, cluster.revision)
            case _:
                feeds = cluster.feeds
                if feeds:
                    line, feed = random.choice(feeds)
                    line.step(feed, random)
        ranges.check()
    for reader in readers:
        reader.full = False
        if reader.away and not reader.ended:
            ranges.add(reader)
    while any(
        not line.feeds[feed] or feed.next_revision <= cluster.revision
        for line, feed in cluster.feeds
        if cluster.events and feed.next_revision <= cluster.events[-1][0]
    ):
        line, feed = random.choice(cluster.feeds)
        line.step(feed, random)
        soon.turn()
    ranges.check()
    for reader in readers:
        if not reader.ended:
            assert reader.told == [one for one in cluster.events if one[0] >= reader.first]


def test_watchers_of_one_range_cost_one_watch() -> None:
    cluster = Cluster()
    ranges = ranges_of(cluster, told_per_turn=1_000_000)
    for number in range(1_000):
        ranges.add(Reader(2, ((b"token", b"%d" % number),)))
    assert len(cluster.feeds) == 1
    assert ranges.counts.coalesced_watchers == 999


def test_one_that_began_in_the_past_joins_the_others_when_it_has_caught_up() -> None:
    cluster, random = Cluster(), Random(1)
    ranges = ranges_of(cluster, told_per_turn=1_000_000)
    for _ in range(10):
        cluster.change(1)
    ranges.add(Reader(cluster.revision + 1, ()))
    late = Reader(3, ())
    ranges.add(late)
    assert len(cluster.feeds) == 2
    cluster.change(1)
    while len(cluster.feeds) > 1:
        line, feed = random.choice(cluster.feeds)
        line.step(feed, random)
    assert late.told == cluster.events[1:]


def test_many_watchers_are_told_in_several_turns_and_others_meanwhile() -> None:
    cluster, soon, random = Cluster(), Soon(), Random(4)
    ranges = ranges_of(cluster, soon, told_per_turn=100)
    crowd = [Reader(2, ()) for _ in range(1_000)]
    for reader in crowd:
        ranges.add(reader)
    kept = Reader(2, ())
    kept.at_once = True
    ranges.add(kept)
    cluster.change(1)
    ((line, feed),) = cluster.feeds
    while not crowd[0].told:
        line.step(feed, random)

    def told() -> int:
        return sum(bool(reader.told) for reader in crowd)

    assert (told(), len(kept.told)) == (100, 1)
    late = Reader(2, ())  # joins what is under way
    ranges.add(late)
    assert len(cluster.feeds) == 1 and not late.told
    ranges.remove(crowd.pop())
    cluster.change(1)
    while line.feeds[feed] != cluster.revision + 1:
        line.step(feed, random)
    assert (told(), len(kept.told)) == (100, 2)
    progress: list[int] = []
    assert kept.broadcast is not None
    kept.broadcast.when_told(lambda: progress.append(min(len(one.told) for one in crowd)))
    turns = 0
    while told() < len(crowd):
        assert soon.turn()
        ranges.check()
        turns += 1
    assert turns == 9 and not progress
    while soon.turn():
        pass
    assert all(reader.told == cluster.events for reader in (*crowd, late, kept))
    assert progress == [2]


def test_a_broadcast_that_cannot_keep_up_keeps_little() -> None:
    cluster, soon, random = Cluster(), Soon(), Random(4)
    ranges = ranges_of(cluster, soon, told_per_turn=10)
    readers = [Reader(2, ()) for _ in range(100)]
    for reader in readers:
        ranges.add(reader)
    ((line, feed),) = cluster.feeds
    for _ in range(50):
        cluster.change(1)
        while line.feeds[feed] != cluster.revision + 1:
            line.step(feed, random)
    assert min(len(reader.told) for reader in readers) >= 50 - NEWS_MAX - 1


def test_each_kind_of_watcher_gets_its_events() -> None:
    put = mvcc_pb2.Event(kv={"key": KEY, "mod_revision": 5}, prev_kv={"key": KEY, "value": b"old"})
    gone = mvcc_pb2.Event(type=mvcc_pb2.Event.DELETE, kv={"key": KEY, "mod_revision": 6})
    batch = PassedEvents(b"", [PassedEvent(put), PassedEvent(gone)])
    sizes = {}
    for variant in (0, NO_PUT, NO_DELETE, NO_PUT | NO_DELETE, PREVIOUS):
        chosen = batch.body(variant, 1)
        sizes[variant] = len(chosen.events) if chosen else 0
    assert sizes == {0: 2, NO_PUT: 1, NO_DELETE: 1, NO_PUT | NO_DELETE: 0, PREVIOUS: 2}
    plain, previous = batch.body(0, 1), batch.body(PREVIOUS, 1)
    assert plain is not None and b"old" not in plain.payload
    assert previous is not None and b"old" in previous.payload
    later = batch.body(0, 6)
    assert later is not None and len(later.events) == 1
    assert batch.body(0, 7) is None


def test_fragments_are_bounded_and_all_but_the_last_are_marked() -> None:
    events = [b"\x5a\x03abc"] * 10
    messages = fragments(b"HH", events, 12)
    assert b"".join(messages).replace(b"HH", b"").replace(b"\x38\x01", b"") == b"".join(events)
    assert [b"\x38\x01" in message for message in messages] == [True] * 9 + [False]
    assert id_field(0) == b"" and id_field(300) == b"\x10\xac\x02"
    assert id_field(-1) == b"\x10" + b"\xff" * 9 + b"\x01"
