"""The watchers of one stream, by id: carries out and answers its requests.

Source: etcd `server/etcdserver/api/v3rpc/watch.go`, `server/storage/mvcc/watcher.go`.
"""

from __future__ import annotations

from . import watch_messages as messages
from .watch import WatchHub
from .watch_cohort import ENDED, BulkSink, Sink, Watcher
from .watch_ranges import OPEN


class WatchStream:
    """One stream; must be closed.

    Answers go to its sink at once. `bulk` is the same sink's interface for many and for large
    messages, if it has one.
    """

    __slots__ = ("_bulk", "_hub", "_next_id", "_sink", "_stalled", "watchers")

    def __init__(self, hub: WatchHub, sink: Sink, bulk: BulkSink | None = None) -> None:
        hub.streams += 1
        self._hub = hub
        self._sink = sink
        self._bulk = bulk
        self._next_id = 0
        self._stalled: dict[Watcher, None] = {}
        self.watchers: dict[int, Watcher] = {}

    def create(
        self,
        key: bytes,
        range_end: bytes,
        start_revision: int = 0,
        watch_id: int = 0,
        *,
        variant: int = 0,
        fragment: bool = False,
        notify: bool = False,
    ) -> None:
        """Answers a create request, as the client sent it, and starts the watcher."""
        hub = self._hub
        if start_revision < 0:
            self.refuse(messages.REASON_COMPACTED)
            return
        start = key or b"\x00"
        end = None if not range_end else OPEN if range_end == b"\x00" else range_end
        if end and start >= end:
            self.refuse(messages.REASON_EMPTY_RANGE)
            return
        if hub.full():
            self.refuse(messages.REASON_TOO_MANY)
            return
        if watch_id == 0:
            while self._next_id in self.watchers:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        elif watch_id in self.watchers:
            self.refuse(messages.REASON_DUPLICATE_ID)
            return
        watcher = Watcher(
            watch_id, start, end, start_revision, variant, self._sink, self._stalled, self._bulk
        )
        watcher.fragment = fragment
        watcher.notify = notify
        self.watchers[watch_id] = watcher
        self._sink.send(messages.created(hub.header(), watch_id))
        hub.add(watcher)

    def refuse(self, reason: str) -> None:
        """Answers a create request that makes no watcher."""
        self._sink.send(messages.refused(self._hub.header(), reason))

    def cancel(self, watch_id: int, reason: str = "") -> None:
        """Cancels a watcher and answers; an unknown id is not answered.

        With a reason the client has not asked for it.
        """
        watcher = self.watchers.pop(watch_id, None)
        if watcher is None:
            return
        self._hub.end(watcher)
        self._sink.send(messages.canceled(self._hub.header(), watch_id, reason))

    def progress(self) -> None:
        """Answers a progress request, if all watchers have got everything."""
        hub = self._hub
        active = [watcher for watcher in self.watchers.values() if watcher.state != ENDED]
        if active and all(hub.caught_up(watcher) for watcher in active):
            self._sink.send(messages.progress(hub.header(), messages.NO_WATCH_ID))

    def tick(self) -> None:
        """Progress notifications: for each watcher that asked and has had no event since."""
        hub = self._hub
        for watcher in list(self.watchers.values()):
            if not watcher.notify or watcher.state == ENDED:
                continue
            if not watcher.sent and self._sink.writable > 0 and hub.caught_up(watcher):
                if not watcher.sent:
                    self._sink.send(messages.progress(hub.header(), watcher.id))
            watcher.sent = False

    @property
    def notifying(self) -> bool:
        """Whether any watcher wants progress notifications."""
        return any(w.notify and w.state != ENDED for w in self.watchers.values())

    def on_writable(self) -> None:
        """The sink has room again."""
        if self._stalled:
            self._hub.resume(self._stalled)

    def close(self) -> None:
        """Ends all watchers; nothing is sent any more."""
        for watcher in self.watchers.values():
            self._hub.end(watcher)
        self.watchers.clear()
        self._hub.streams -= 1
