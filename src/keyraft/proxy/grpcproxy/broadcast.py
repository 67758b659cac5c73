"""One watch of the cluster for many watchers of the same range.

Invariants:
- A watcher is told every event of its range from its `next_revision` on, once and in order.
  `next_revision` never falls.
- A watcher may be in a broadcast only if the broadcast's `next_revision` is not above its own: what
  comes before its own is left out for it. Who fits in no broadcast of its range gets a new one.
- A watcher whose stream is full is in no broadcast. Nothing of it is kept but `next_revision`; when
  its client has read, it is added again, and the cluster tells what it has missed.
- What comes is told in slices (`deliveries`), in the order in which it came. A broadcast's
  `next_revision` moves on when all have been told; until then whoever joins is told it, too. What
  answers others from memory (`at_once`) is told at once, so that no answer is behind an event that
  a client knows.
- Two broadcasts of a range that need the same revision next become one (the smaller joins the
  larger), so a watcher that began in the past costs the cluster a watch only until it has caught up.

Source: etcd `server/proxy/grpcproxy/{watch_ranges,watch_broadcasts,watch_broadcast,watcher}.go`.
There a watcher whose stream is full for 50 ms has its whole stream ended, and all watches end when
the connection to a member is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from keyraft.client import Headers
from keyraft.proxy.grpcproxy.deliveries import Deliveries
from keyraft.proxy.grpcproxy.passed_events import PassedEvents
from keyraft.proxy.grpcproxy.watch_line import Progressed, SharedWatch, UpstreamWatches

NEWS_MAX: Final = 16  # that wait in one broadcast; with more, the oldest is told to the end


class _Progress(NamedTuple):
    """All up to `after - 1` has been told by the cluster."""

    header: bytes
    after: int


class Receiver(Protocol):
    """Who is in a broadcast: a watcher of a client, or a range of the cache."""

    key: bytes
    range_end: bytes
    next_revision: int
    credentials: Headers
    broadcast: Broadcast | None
    at_once: bool
    """It is told before all others, and takes everything."""

    def on_batch(self, batch: PassedEvents) -> bool:
        """Events; False: it is full, and leaves the broadcast."""

    def on_progress(self, header: bytes, revision: int) -> None:
        """Nothing is missing up to `revision`."""

    def on_canceled(self, header: bytes, reason: str, compact_revision: int) -> None:
        """The cluster does not go on."""

    def on_running(self, running: bool) -> None:
        """The watch of the cluster runs, or does not for now."""


class Counts:
    """For the metrics; plain numbers."""

    def __init__(self) -> None:
        self.watchers = 0
        self.coalesced_watchers = 0
        self.coalesced_events = 0
        self.broadcasts = 0


class Lines:
    """A line for each set of credentials in use."""

    def __init__(self, make: LineMaker) -> None:
        self._make = make
        self._lines: dict[Headers, UpstreamWatches] = {}

    def start(self, feed: SharedWatch, credentials: Headers) -> UpstreamWatches:
        """Watches for a feed on the line of those credentials."""
        line = self._lines.get(credentials)
        if line is None:
            line = self._lines[credentials] = self._make(credentials)
        line.start(feed)
        return line

    def tidy(self, line: UpstreamWatches) -> None:
        """Forgets a line that watches nothing."""
        if line.idle:
            self._lines.pop(line.credentials, None)


class LineMaker(Protocol):
    """Makes a line."""

    def __call__(self, credentials: Headers) -> UpstreamWatches: ...


class Broadcast:
    """One feed and its receivers."""

    def __init__(self, ranges: WatchRanges, first: Receiver) -> None:
        self.key = first.key
        self.range_end = first.range_end
        self.next_revision = first.next_revision
        self.credentials = first.credentials
        self.receivers: dict[Receiver, None] = {first: None}
        self.running = False
        self._ranges = ranges
        self._news: deque[PassedEvents | _Progress] = deque()
        self._todo: deque[Receiver] = deque()  # who is yet to be told the first of the news
        self._when_told: list[Callable[[], None]] = []
        self._at_once: dict[Receiver, None] = {first: None} if first.at_once else {}
        first.broadcast = self
        self.line = ranges.lines.start(self, first.credentials)

    def take(self, receiver: Receiver) -> None:
        """Lets one in; `next_revision` must not be above its own."""
        assert self.next_revision <= receiver.next_revision, (self, receiver)
        self.receivers[receiver] = None
        self._ranges.counts.coalesced_watchers += 1
        receiver.broadcast = self
        if self.running:
            receiver.on_running(True)
        if receiver.at_once:
            self._at_once[receiver] = None
            for news in self._news:
                if isinstance(news, PassedEvents):
                    receiver.on_batch(news)
        elif self._news:
            self._todo.append(receiver)

    def leave(self, receiver: Receiver) -> None:
        """Lets one out; the last one ends the watch of the cluster."""
        del self.receivers[receiver]
        self._at_once.pop(receiver, None)
        receiver.broadcast = None
        if self.receivers:
            self._ranges.counts.coalesced_watchers -= 1
        else:
            self.stop()

    def stop(self) -> None:
        """Ends it."""
        self._news.clear()
        self._todo.clear()
        self.line.stop(self)
        self._ranges.lines.tidy(self.line)
        self._ranges.ended(self)

    def ask_progress(self, done: Progressed) -> None:
        """Asks how far the line is."""
        self.line.ask_progress(done)

    # --- SharedWatch -----------------------------------------------------------------------------------

    def on_created(self) -> None:
        """watch_line.SharedWatch."""
        self.running = True
        for receiver in list(self.receivers):
            receiver.on_running(True)

    def on_lost(self) -> None:
        """watch_line.SharedWatch."""
        self.running = False
        for receiver in list(self.receivers):
            receiver.on_running(False)

    def on_batch(self, batch: PassedEvents) -> None:
        """watch_line.SharedWatch."""
        self._ranges.counts.coalesced_events += len(self.receivers) - 1
        for receiver in self._at_once:
            receiver.on_batch(batch)
        self._tell_soon(batch)

    def on_progress(self, header: bytes, revision: int) -> None:
        """watch_line.SharedWatch."""
        self._tell_soon(_Progress(header, revision + 1))

    def on_canceled(self, header: bytes, reason: str, compact_revision: int) -> None:
        """SharedWatch: who needs what is compacted, or has the credentials that were refused, ends; the
        others get another watch of the cluster."""
        while self._news:
            self.tell(len(self._todo) + 1)
        self.running = False
        self._ranges.lines.tidy(self.line)
        self._ranges.ended(self)
        self._ranges.counts.coalesced_watchers -= max(len(self.receivers) - 1, 0)
        receivers, self.receivers = self.receivers, {}
        for receiver in receivers:
            receiver.broadcast = None
            receiver.on_running(False)
        for receiver in receivers:
            if compact_revision:
                ends = receiver.next_revision < compact_revision
            else:
                ends = receiver.credentials == self.credentials
            if ends:
                receiver.on_canceled(header, reason, compact_revision)
            else:
                self._ranges.add(receiver)

    def check(self) -> None:
        """For tests."""
        at_once = {receiver for receiver in self.receivers if receiver.at_once}
        assert at_once == set(self._at_once), self.key
        assert self._news or not (self._todo or self._when_told), self.key
        assert len(self._news) <= NEWS_MAX, self.key

    # --- telling --------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """deliveries.Teller."""
        return bool(self._news)

    def when_told(self, done: Callable[[], None]) -> None:
        """Calls `done` when all have been told what has come until now."""
        if self._news:
            self._when_told.append(done)
        else:
            done()

    def _tell_soon(self, news: PassedEvents | _Progress) -> None:
        self._news.append(news)
        if len(self._news) == 1:
            self._todo.extend(self.receivers)
            self._ranges.deliveries.begin(self)
        while len(self._news) > NEWS_MAX:
            self.tell(len(self._todo))

    def tell(self, most: int) -> int:
        """deliveries.Teller."""
        todo, told = self._todo, 0
        while self._news and told <= most:
            news = self._news[0]
            while todo and told < most:
                receiver = todo.popleft()
                told += 1
                if receiver.broadcast is self and not self._tell_one(receiver, news):
                    self.leave(receiver)
            if todo or not self._news:
                break
            self._news.popleft()
            self.next_revision = max(self.next_revision, news.after)
            if self._news:
                todo.extend(self.receivers)
            elif self.receivers:
                self._all_told()
        return told

    def _tell_one(self, receiver: Receiver, news: PassedEvents | _Progress) -> bool:
        if isinstance(news, PassedEvents):
            return receiver.on_batch(news)
        if news.after > self.next_revision:
            receiver.next_revision = max(receiver.next_revision, news.after)
            receiver.on_progress(news.header, news.after - 1)
        return True

    def _all_told(self) -> None:
        waiting, self._when_told = self._when_told, []
        for done in waiting:
            done()
        self._ranges.merge(self)


class WatchRanges:
    """All broadcasts, by range."""

    def __init__(self, lines: Lines, deliveries: Deliveries) -> None:
        self.lines = lines
        self.deliveries = deliveries
        self.counts = Counts()
        self._ranges: dict[tuple[bytes, bytes], list[Broadcast]] = {}

    def add(self, receiver: Receiver) -> None:
        """Has a receiver told of everything from its `next_revision` on."""
        found = self._ranges.setdefault((receiver.key, receiver.range_end), [])
        best: Broadcast | None = None
        for broadcast in found:
            if broadcast.next_revision <= receiver.next_revision and (
                best is None or broadcast.next_revision > best.next_revision
            ):
                best = broadcast
        if best is not None:
            best.take(receiver)
            return
        self.counts.broadcasts += 1
        found.append(Broadcast(self, receiver))

    def remove(self, receiver: Receiver) -> None:
        """Ends it for one; harmless when it is in no broadcast."""
        if receiver.broadcast is not None:
            receiver.broadcast.leave(receiver)

    def ended(self, broadcast: Broadcast) -> None:
        """For Broadcast: it has ended."""
        found = self._ranges.get((broadcast.key, broadcast.range_end), [])
        if broadcast in found:
            found.remove(broadcast)
            self.counts.broadcasts -= 1
        if not found:
            self._ranges.pop((broadcast.key, broadcast.range_end), None)

    def merge(self, broadcast: Broadcast) -> None:
        """Joins it with another one that needs the same revision next."""
        found = self._ranges.get((broadcast.key, broadcast.range_end), [])
        if len(found) < 2:
            return
        for other in found:
            if other is broadcast or other.next_revision != broadcast.next_revision:
                continue
            if other.busy or broadcast.busy:
                continue
            small, large = sorted((other, broadcast), key=lambda one: len(one.receivers))
            if not large.running:
                continue
            receivers, small.receivers = small.receivers, {}
            self.counts.coalesced_watchers -= max(len(receivers) - 1, 0)
            small.stop()
            for receiver in receivers:
                large.take(receiver)
            return

    def check(self) -> None:
        """The invariants, for tests."""
        total = sum(len(found) for found in self._ranges.values())
        assert total == self.counts.broadcasts, (total, self.counts.broadcasts)
        coalesced = 0
        for (key, range_end), found in self._ranges.items():
            assert found, key
            for broadcast in found:
                assert broadcast.receivers, key
                broadcast.check()
                coalesced += len(broadcast.receivers) - 1
                for receiver in broadcast.receivers:
                    assert receiver.broadcast is broadcast, key
                    assert (receiver.key, receiver.range_end) == (key, range_end)
                    assert broadcast.next_revision <= receiver.next_revision, key
        assert coalesced == self.counts.coalesced_watchers, coalesced
