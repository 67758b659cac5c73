"""Watch: a client's stream of watches, each of them in a broadcast of its range.

Whether a client may watch a range, and what "from now on" means for it, is asked of the cluster by
a range request that counts one key, with the client's own credentials. Requests that come while one
for the same range and credentials is under way share the next one. Answers to a stream's requests
keep their order, so what comes behind a create waits for it; when `PENDING_MAX` wait, the stream is
not read.

DEVIATION: progress requests are answered, and a client's own watch ids are kept; the original
ignores both. A stream that requires a leader is ended when the cluster has none; the original looks
for that wish in the wrong place and never finds it.
Source: etcd `server/proxy/grpcproxy/watch.go`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from keyraft.base.errors import CompactedError, NoLeaderError, RawError
from keyraft.base.log import Logger
from keyraft.base.parsing import parse
from keyraft.client import Headers, Namespace
from keyraft.grpc import Router, ServerStream, StreamHandler
from keyraft.proto import rpc_pb2
from keyraft.proxy.grpcproxy.broadcast import Broadcast, WatchRanges
from keyraft.proxy.grpcproxy.leadership import LeaderWatch
from keyraft.proxy.grpcproxy.passed_events import (
    INVALID_ID,
    NO_DELETE,
    NO_PUT,
    PREVIOUS,
    PassedEvents,
    fragments,
    header_field,
    id_field,
    varint,
)
from keyraft.proxy.grpcproxy.upstream import Upstream, credentials_of

PENDING_MAX: Final = 1_000  # requests of one stream that wait for an answer of the cluster
WATCHERS_MAX: Final = 1_000_000  # of the proxy; about 600 bytes each
EVERY_KEY: Final = b"\x00"
DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the ProxyWatchStream"
TOO_MANY: Final = "etcdserver: too many requests"
_RANGE: Final = b"/etcdserverpb.KV/Range"
_CREATED: Final = b"\x18\x01"
_CANCELED: Final = b"\x20\x01"
_NO_HEADER: Final = b"\x0a\x00"

Checked = Callable[[str, rpc_pb2.ResponseHeader], None]
"""Gets why the range may not be watched ("": it may), and where the cluster is."""


class RangeChecks:
    """Asks the cluster whether somebody may read a range, one request at a time for each."""

    def __init__(self, upstream: Upstream, space: Namespace | None) -> None:
        self._upstream = upstream
        self._space = space
        self._waiting: dict[tuple[Headers, bytes, bytes], list[Checked]] = {}

    def ask(self, credentials: Headers, key: bytes, range_end: bytes, done: Checked) -> None:
        """`done` is called later, perhaps at once."""
        name = (credentials, key, range_end)
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.append(done)
            return
        self._waiting[name] = []
        self._send(name, [done])

    def _send(self, name: tuple[Headers, bytes, bytes], asked: list[Checked]) -> None:
        credentials, key, range_end = name
        request = rpc_pb2.RangeRequest(
            key=key or EVERY_KEY,
            range_end=range_end if key else EVERY_KEY,
            serializable=True,
            count_only=True,
            limit=1,
        )
        if self._space is not None:
            self._space.into_range(request)

        def answered(code: int, text: str, reply: bytes) -> None:
            waiting = self._waiting[name]
            if waiting:
                self._waiting[name] = []
            else:
                del self._waiting[name]
            header = rpc_pb2.RangeResponse.FromString(reply).header
            for done in asked:
                done(text or "unknown error" if code else "", header)
            if waiting:
                self._send(name, waiting)

        self._upstream.call(
            _RANGE,
            request.SerializeToString(),
            self._upstream.with_credentials(credentials),
            answered,
            safe=True,
        )


class ProxyWatcher:
    """One watch of a client (broadcast.Receiver)."""

    __slots__ = (
        "at_once",
        "broadcast",
        "credentials",
        "fragment",
        "header",
        "id",
        "id_field",
        "key",
        "next_revision",
        "progress",
        "range_end",
        "stream",
        "variant",
    )

    broadcast: Broadcast | None

    def __init__(
        self, stream: ProxyWatchStream, watch_id: int, request: rpc_pb2.WatchCreateRequest
    ) -> None:
        self.stream = stream
        self.id = watch_id
        self.id_field = id_field(watch_id)
        self.key = request.key
        self.range_end = request.range_end
        self.credentials = stream.credentials
        self.next_revision = request.start_revision
        self.progress = request.progress_notify
        self.fragment = request.fragment
        self.variant = PREVIOUS if request.prev_kv else 0
        for unwanted in request.filters:
            if unwanted == rpc_pb2.WatchCreateRequest.NOPUT:
                self.variant |= NO_PUT
            elif unwanted == rpc_pb2.WatchCreateRequest.NODELETE:
                self.variant |= NO_DELETE
        self.broadcast = None
        self.at_once = False
        self.header = _NO_HEADER

    def on_batch(self, batch: PassedEvents) -> bool:
        """Receiver."""
        wanted = self.next_revision
        if batch.after <= wanted:
            return True
        sink = self.stream.sink
        body = batch.body(self.variant, wanted)
        if body is not None:
            if sink.writable <= 0:
                self.stream.stalled[self] = None
                return False
            self.header = batch.header
            if body.pieces is None:
                sink.send(batch.header + self.id_field + body.payload)
            elif self.fragment:
                for message in fragments(batch.header + self.id_field, body.events):
                    sink.send(message)
            else:
                sink.send_shared(batch.header + self.id_field, body.pieces)
        self.next_revision = batch.after
        return True

    def on_progress(self, header: bytes, revision: int) -> None:
        """Receiver."""
        if self.progress and self.stream.sink.writable > 0:
            self.header = header
            self.stream.sink.send(header + self.id_field)

    def on_canceled(self, header: bytes, reason: str, compact_revision: int) -> None:
        """Receiver."""
        self.stream.forget(self)
        message = header + self.id_field + _CANCELED
        if compact_revision:
            message += b"\x28" + varint(compact_revision)
        if reason:
            text = reason.encode()
            message += b"\x32" + varint(len(text)) + text
        self.stream.sink.send(message)

    def on_running(self, running: bool) -> None:
        """Receiver: a client is not told."""


class _Pending:
    """A request that waits for its turn; `ready` when the cluster has said what it needs."""

    __slots__ = ("carry_out", "ready")

    def __init__(self, carry_out: Callable[[], None], ready: bool) -> None:
        self.carry_out = carry_out
        self.ready = ready


class WatchProxy:
    """Registered on a router."""

    def __init__(
        self,
        upstream: Upstream,
        ranges: WatchRanges,
        leader: LeaderWatch,
        space: Namespace | None,
        log: Logger,
    ) -> None:
        self.ranges = ranges
        self.checks = RangeChecks(upstream, space)
        self.leader = leader
        self.log = log

    def register(self, router: Router) -> None:
        """Makes the method callable."""
        router.stream("/etcdserverpb.Watch/Watch", self.open)

    def open(self, stream: ServerStream) -> StreamHandler:
        """A new stream; raises NoLeaderError."""
        if stream.metadata.get(b"hasleader") == b"true":
            if self.leader.lost:
                raise NoLeaderError
            self.leader.join(stream)
        return ProxyWatchStream(self, stream)


class ProxyWatchStream:
    """One Watch stream."""

    def __init__(self, proxy: WatchProxy, stream: ServerStream) -> None:
        self.sink = stream
        self.credentials = credentials_of(stream.metadata)
        self.stalled: dict[ProxyWatcher, None] = {}
        self._proxy = proxy
        self._watchers: dict[int, ProxyWatcher] = {}
        self._pending: deque[_Pending] = deque()
        self._next_id = 0
        self._paused = False
        self._over = False

    # --- the transport's side -------------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """A request to create, to cancel, or for progress; any other is ignored."""
        try:
            request = parse(rpc_pb2.WatchRequest, message)
        except RawError as refusal:
            self.on_cancel(refusal.code)
            self.sink.finish(refusal.code, refusal.text)
            return
        which = request.WhichOneof("request_union")
        if which == "create_request":
            self._ask(request.create_request)
        elif which == "cancel_request":
            watch_id = request.cancel_request.watch_id
            self._pending.append(_Pending(lambda: self._cancel(watch_id), True))
        elif which == "progress_request":
            self._pending.append(_Pending(self._progress, True))
        self._carry_out()
        if not self._paused and (self.sink.writable <= 0 or len(self._pending) >= PENDING_MAX):
            self._paused = True
            self.sink.pause_reading()

    def on_half_close(self) -> None:
        """The client sends no more requests, but still wants its events."""

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._over = True
        self._proxy.leader.leave(self.sink)
        self._pending.clear()
        self.stalled.clear()
        for watcher in list(self._watchers.values()):
            self._proxy.ranges.remove(watcher)
        self._proxy.ranges.counts.watchers -= len(self._watchers)
        self._watchers.clear()

    def on_writable(self) -> None:
        """The client has read."""
        stalled, self.stalled = self.stalled, {}
        for watcher in stalled:
            self._proxy.ranges.add(watcher)
        self._release()

    def _release(self) -> None:
        if self._paused and self.sink.writable > 0 and len(self._pending) < PENDING_MAX:
            self._paused = False
            self.sink.resume_reading()

    # --- requests, in their order ---------------------------------------------------------------

    def _carry_out(self) -> None:
        while self._pending and self._pending[0].ready and not self._over:
            self._pending.popleft().carry_out()

    def _ask(self, request: rpc_pb2.WatchCreateRequest) -> None:
        if request.start_revision < 0:
            text = CompactedError.text
            self._pending.append(_Pending(lambda: self._refuse(text), True))
            return
        answer: list[tuple[str, rpc_pb2.ResponseHeader]] = []
        pending = _Pending(lambda: self._create(request, *answer[0]), False)
        self._pending.append(pending)

        def checked(refusal: str, header: rpc_pb2.ResponseHeader) -> None:
            answer.append((refusal, header))
            pending.ready = True
            if not self._over:
                self._carry_out()
                self._release()

        self._proxy.checks.ask(self.credentials, request.key, request.range_end, checked)

    def _refuse(self, reason: str) -> None:
        text = reason.encode()
        message = _NO_HEADER + id_field(INVALID_ID) + _CREATED + _CANCELED
        if text:
            message += b"\x32" + varint(len(text)) + text
        self.sink.send(message)

    def _create(
        self, request: rpc_pb2.WatchCreateRequest, refusal: str, header: rpc_pb2.ResponseHeader
    ) -> None:
        key, end = request.key, request.range_end
        if refusal:
            self._refuse(refusal)
        elif end and end <= key and end != EVERY_KEY:
            self._refuse("")  # as the original: without a reason
        elif request.watch_id and request.watch_id in self._watchers:
            self._refuse(DUPLICATE_ID)
        elif self._proxy.ranges.counts.watchers >= WATCHERS_MAX:
            self._refuse(TOO_MANY)
        else:
            self._begin(request, header)

    def _begin(self, request: rpc_pb2.WatchCreateRequest, header: rpc_pb2.ResponseHeader) -> None:
        watch_id = request.watch_id
        if not watch_id:
            while self._next_id in self._watchers:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        watcher = ProxyWatcher(self, watch_id, request)
        if not watcher.next_revision:
            watcher.next_revision = header.revision + 1
        self._watchers[watch_id] = watcher
        self._proxy.ranges.counts.watchers += 1
        self.sink.send(header_field(header) + watcher.id_field + _CREATED)
        self._proxy.ranges.add(watcher)
        self._proxy.log.debug(
            "create watcher",
            key=watcher.key.decode("utf-8", "replace"),
            end=watcher.range_end.decode("utf-8", "replace"),
            watcherId=watch_id,
        )

    def _cancel(self, watch_id: int) -> None:
        watcher = self._watchers.get(watch_id)
        if watcher is None:
            return
        self._proxy.ranges.remove(watcher)
        self.forget(watcher)
        self.sink.send(watcher.header + watcher.id_field + _CANCELED)
        self._proxy.log.debug("cancel watcher", watcherId=watch_id)

    def forget(self, watcher: ProxyWatcher) -> None:
        """For ProxyWatcher: it has ended."""
        if self._watchers.pop(watcher.id, None) is not None:
            self._proxy.ranges.counts.watchers -= 1
        self.stalled.pop(watcher, None)

    def _progress(self) -> None:
        """Answers when the cluster has said for each line how far it is; not while any watch is
        behind, as a member does."""
        broadcasts = {watcher.broadcast for watcher in self._watchers.values()}
        lines = {broadcast.line: broadcast for broadcast in broadcasts if broadcast is not None}
        if not lines or None in broadcasts:
            return
        told: list[tuple[int, bytes]] = []

        def progressed(header: bytes, revision: int) -> None:
            told.append((revision, header))
            if len(told) == len(lines):
                self._when_told(min(told)[1] + id_field(INVALID_ID))

        for broadcast in lines.values():
            broadcast.ask_progress(progressed)

    def _when_told(self, message: bytes) -> None:
        """Sends it when no watch of the stream is behind what came before."""
        if self._over or self.stalled:
            return
        for watcher in self._watchers.values():
            if watcher.broadcast is not None and watcher.broadcast.busy:
                watcher.broadcast.when_told(lambda: self._when_told(message))
                return
        self.sink.send(message)
