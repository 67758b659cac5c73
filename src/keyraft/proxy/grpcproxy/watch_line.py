"""Watches of the cluster: one stream for all that were asked for with the same credentials.

    a feed on the line is     until
    wanted                    its create request is sent
    creating                  the cluster's `created` (they come in order)
    running                   cancelled, or the stream breaks; then wanted again

When the stream breaks, another is opened and every feed is created anew at its next revision. So a
feed sees every change from its first revision on, once and in order, whatever happens to single
members. It ends when the cluster cancels it: its next revision is compacted, or those credentials
may not watch (any more).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from keyraft.client import DirectConnection, Headers, Namespace
from keyraft.grpc import ClientReceiver, ClientStream
from keyraft.proto import rpc_pb2
from keyraft.proxy.grpcproxy.passed_events import PassedEvent, PassedEvents, header_field
from keyraft.proxy.grpcproxy.upstream import Upstream

METHOD: Final = b"/etcdserverpb.Watch/Watch"
REOPEN_S_MIN: Final = 0.01
REOPEN_S_MAX: Final = 0.5


class SharedWatch(Protocol):
    """One watch of the cluster."""

    key: bytes
    range_end: bytes
    next_revision: int
    """What must come next; the line reads it whenever it creates the watch."""

    def on_created(self) -> None:
        """It runs, for the first time or again."""

    def on_lost(self) -> None:
        """It does not run for now."""

    def on_batch(self, batch: PassedEvents) -> None:
        """Events, none of them below `next_revision`."""

    def on_progress(self, header: bytes, revision: int) -> None:
        """All up to `revision` has been told; `header` is field 1."""

    def on_canceled(self, header: bytes, reason: str, compact_revision: int) -> None:
        """The cluster ended it."""


Progressed = Callable[[bytes, int], None]
"""Gets the header (field 1) and the revision up to which all feeds of a line have been told."""


class UpstreamWatches:
    """One stream and its feeds."""

    def __init__(self, upstream: Upstream, credentials: Headers, space: Namespace | None) -> None:
        self.credentials = credentials
        self._upstream = upstream
        self._space = space
        self._feeds: dict[SharedWatch, None] = {}
        self._creating: deque[SharedWatch | None] = deque()
        self._running: dict[int, SharedWatch] = {}
        self._ids: dict[SharedWatch, int] = {}
        self._parts: dict[int, list[PassedEvent]] = {}
        self._progress: list[Progressed] = []
        self._stream: ClientStream | None = None
        self._receiver: _WatchAnswers | None = None
        self._opening = False
        self._pause_s = REOPEN_S_MIN

    @property
    def idle(self) -> bool:
        """Nothing is watched."""
        return not self._feeds

    def start(self, feed: SharedWatch) -> None:
        """Watches for a feed."""
        self._feeds[feed] = None
        if self._stream is not None:
            self._create(self._stream, feed)
        else:
            self._open()

    def stop(self, feed: SharedWatch) -> None:
        """Ends a feed; it is told nothing more."""
        if self._feeds.pop(feed, feed) is feed:
            return
        watch_id = self._ids.pop(feed, None)
        if watch_id is not None:
            del self._running[watch_id]
            self._cancel(watch_id)
        elif feed in self._creating:
            self._creating[self._creating.index(feed)] = None
        if not self._feeds:
            self._close()

    def ask_progress(self, done: Progressed) -> None:
        """Asks how far all feeds are; `done` is not called if the cluster does not say."""
        if self._stream is None:
            return
        self._progress.append(done)
        if len(self._progress) == 1:
            self._stream.send(rpc_pb2.WatchRequest(progress_request={}).SerializeToString())

    # --- the stream -----------------------------------------------------------------------------

    def _open(self) -> None:
        if not self._opening:
            self._opening = True
            self._upstream.when_ready(self._opened)

    def _opened(self, connection: DirectConnection) -> None:
        self._opening = False
        if not self._feeds:
            return
        receiver = self._receiver = _WatchAnswers(self)
        headers = self._upstream.with_credentials(self.credentials)
        stream = connection.open(METHOD, headers, receiver)
        if stream.over:
            return  # `ended` was called, and tries again
        self._stream = stream
        for feed in list(self._feeds):
            self._create(stream, feed)

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        self._receiver = None
        self._forget()
        if stream is not None:
            stream.cancel()

    def _forget(self) -> None:
        self._creating.clear()
        self._running.clear()
        self._ids.clear()
        self._parts.clear()
        self._progress.clear()

    def ended(self, receiver: _WatchAnswers) -> None:
        """The stream has broken."""
        if receiver is not self._receiver:
            return
        self._stream = self._receiver = None
        self._forget()
        for feed in list(self._feeds):
            feed.on_lost()
        self._reopen()

    def _reopen(self) -> None:
        if not self._feeds or self._opening:
            return
        self._opening = True
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, REOPEN_S_MAX)
        self._upstream.loop.call_later(pause_s, lambda: self._upstream.when_ready(self._opened))

    def _create(self, stream: ClientStream, feed: SharedWatch) -> None:
        key, end = feed.key, feed.range_end
        if self._space is not None:
            key, end = self._space.prefix + key, self._space.range_end(end)
        request = rpc_pb2.WatchCreateRequest(
            key=key,
            range_end=end,
            start_revision=feed.next_revision,
            progress_notify=True,
            prev_kv=True,
            fragment=True,
        )
        self._creating.append(feed)
        stream.send(rpc_pb2.WatchRequest(create_request=request).SerializeToString())

    def _cancel(self, watch_id: int) -> None:
        if self._stream is not None:
            request = rpc_pb2.WatchRequest(cancel_request={"watch_id": watch_id})
            self._stream.send(request.SerializeToString())

    # --- answers --------------------------------------------------------------------------------

    def answered(self, receiver: _WatchAnswers, message: bytes) -> None:
        """One answer of the cluster."""
        if receiver is not self._receiver or self._stream is None:
            return
        try:
            answer = rpc_pb2.WatchResponse.FromString(message)
        except DecodeError:
            self._stream.cancel()
            return
        if answer.created:
            self._on_created(answer)
            return
        feed = self._running.get(answer.watch_id)
        if feed is None:
            if answer.watch_id < 0 and not answer.canceled:
                waiting, self._progress = self._progress, []
                for done in waiting:
                    done(header_field(answer.header), answer.header.revision)
            return
        if answer.canceled:
            self._end(feed, answer)
        elif answer.events or answer.watch_id in self._parts:
            self._on_events(feed, answer)
        else:
            feed.on_progress(header_field(answer.header), answer.header.revision)

    def _on_created(self, answer: rpc_pb2.WatchResponse) -> None:
        feed = self._creating.popleft() if self._creating else None
        if answer.canceled:
            if feed is not None:
                self._end(feed, answer)
            return
        if feed is None:
            self._cancel(answer.watch_id)
            return
        self._pause_s = REOPEN_S_MIN
        self._running[answer.watch_id] = feed
        self._ids[feed] = answer.watch_id
        feed.on_created()

    def _on_events(self, feed: SharedWatch, answer: rpc_pb2.WatchResponse) -> None:
        if self._space is not None:
            self._space.strip_events(answer)
        wanted = feed.next_revision
        events = [PassedEvent(event) for event in answer.events if event.kv.mod_revision >= wanted]
        parts = self._parts.pop(answer.watch_id, None)
        if parts is not None:
            events = parts + events
        if answer.fragment:
            self._parts[answer.watch_id] = events
        elif events:
            feed.on_batch(PassedEvents(header_field(answer.header), events))

    def _end(self, feed: SharedWatch, answer: rpc_pb2.WatchResponse) -> None:
        self._feeds.pop(feed, None)
        watch_id = self._ids.pop(feed, None)
        if watch_id is not None:
            self._running.pop(watch_id, None)
            self._parts.pop(watch_id, None)
        feed.on_canceled(header_field(answer.header), answer.cancel_reason, answer.compact_revision)
        if not self._feeds:
            self._close()


class _WatchAnswers(ClientReceiver):
    """One stream's end; the line takes no notice of those before its present one."""

    def __init__(self, line: UpstreamWatches) -> None:
        self._line = line

    def on_message(self, message: bytes) -> None:
        """ClientReceiver."""
        self._line.answered(self, message)

    def on_end(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        """ClientReceiver."""
        self._line.ended(self)

    def on_writable(self) -> None:
        """ClientReceiver."""
