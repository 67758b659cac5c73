"""Watches of one range become one watch of the cluster: nothing is missed, nothing told twice."""

from __future__ import annotations

from random import Random

import pytest

from keyraft.client import Headers
from keyraft.proto import mvcc_pb2
from keyraft.proxy.grpcproxy.broadcast import Broadcast, Lines, WatchRanges
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
        self.feeds: dict[SharedWatch, bool] = {}
        """Whether each runs."""

    @property
    def idle(self) -> bool:
        return not self.feeds

    def start(self, feed: SharedWatch) -> None:
        self.feeds[feed] = False
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
                self.feeds[feed] = True
                feed.on_created()
            return
        if random.random() < 0.1:
            self.feeds[feed] = False
            feed.on_lost()
            return
        due = [event for event in cluster.events if event[0] >= feed.next_revision]
        if due:
            last = random.choice(due)[0]
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


@pytest.mark.parametrize("seed", range(150))
def test_random_watchers_are_told_everything_once(seed: int) -> None:
    random, cluster = Random(seed), Cluster()
    ranges = WatchRanges(Lines(cluster.line))  # type: ignore[arg-type]  # a Line stands in
    readers: list[Reader] = []
    for _ in range(300):
        match random.randrange(8):
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
    ranges.check()
    for reader in readers:
        if not reader.ended:
            assert reader.told == [one for one in cluster.events if one[0] >= reader.first]


def test_watchers_of_one_range_cost_one_watch() -> None:
    cluster = Cluster()
    ranges = WatchRanges(Lines(cluster.line))  # type: ignore[arg-type]  # a Line stands in
    for number in range(1_000):
        ranges.add(Reader(2, ((b"token", b"%d" % number),)))
    assert len(cluster.feeds) == 1
    assert ranges.counts.coalesced_watchers == 999


def test_one_that_began_in_the_past_joins_the_others_when_it_has_caught_up() -> None:
    cluster, random = Cluster(), Random(1)
    ranges = WatchRanges(Lines(cluster.line))  # type: ignore[arg-type]  # a Line stands in
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
