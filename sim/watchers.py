"""Clients that watch: from the past or from now, at any member, over breaks of every kind.

A client has one line (a stream) at a time with one to three watches on it. It reads slowly now and
then, asks for progress, hangs up, and goes to another member when it hears nothing. What a watch
got over all its lines is kept in spans: one span is an unbroken promise, and only a compaction
behind the watch's back begins a new one. In the end `sim.watches` judges every span by the twin.

A client goes on where a client library would: behind the last whole revision that it was sent, and
behind the revision that a progress notification, or the message's header, covers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from keyraft.base.errors import EtcdError
from keyraft.mvcc import NODELETE, NOPUT, PREVIOUS
from keyraft.proto import mvcc_pb2, rpc_pb2
from keyraft.service.watch import WatchHandler
from sim.cluster import SimCluster
from sim.node import Node
from sim.watches import Event, EventBatch, WatchViolation, check_watch

PATIENCE_S: Final = 4.0  # without a word although progress was asked for
GLANCE_S: Final = 0.7  # between two looks at the line
QUEUE_BYTES: Final = (300, 3_000, 1 << 20)  # what a line holds before it is full
PREFIXES: Final = ("", "a", "l", "b")


@dataclass(slots=True)
class Span:
    """What one unbroken promise has brought."""

    first_revision: int
    batches: list[EventBatch] = field(default_factory=list)
    told: int = 0  # everything up to here must have come


class SimWatch:
    """One watch over all its lines."""

    def __init__(self, prefix: str, variant: int, fragment: bool, start: int) -> None:
        self.prefix = prefix
        self.variant = variant
        self.fragment = fragment
        self.next_revision = start  # 0: from now on
        self.spans: list[Span] = [Span(start)] if start else []
        self.without_previous: set[tuple[int, str]] = set()  # compacted away when it was sent
        self.breaks = 0

    def create(self) -> rpc_pb2.WatchCreateRequest:
        """The request that begins, or goes on."""
        request = rpc_pb2.WatchCreateRequest(
            key=self.prefix.encode() or b"\0",
            range_end=self.prefix.encode()[:-1] + bytes((ord(self.prefix[-1]) + 1,))
            if self.prefix
            else b"\0",
            start_revision=self.next_revision,
            prev_kv=bool(self.variant & PREVIOUS),
            fragment=self.fragment,
        )
        if self.variant & NOPUT:
            request.filters.append(rpc_pb2.WatchCreateRequest.NOPUT)
        if self.variant & NODELETE:
            request.filters.append(rpc_pb2.WatchCreateRequest.NODELETE)
        return request

    def broken(self) -> None:
        """The line is gone: of a revision that came in part, nothing counts."""
        self.breaks += 1
        if self.spans:
            batches = self.spans[-1].batches
            while batches and batches[-1].fragment:
                batches.pop()

    def judge(self, truth: list[Event], until: int) -> None:
        """Raises WatchViolation unless every span is what it must be; the last goes to `until`."""
        mine = [self._as_sent(event) for event in truth if self._wants(event)]
        for number, span in enumerate(self.spans):
            last = until if number == len(self.spans) - 1 else span.told
            check_watch(mine, span.batches, span.first_revision, last, self.prefix)

    def past_all(self, truth: list[Event]) -> bool:
        """Whether the next revision lies behind all events that this watch wants."""
        mine = (event.revision for event in reversed(truth) if self._wants(event))
        return self.next_revision > next(mine, 0)

    def _wants(self, event: Event) -> bool:
        return event.key.startswith(self.prefix) and not self.variant & (
            NODELETE if event.value is None else NOPUT
        )

    def _as_sent(self, event: Event) -> Event:
        gone = (event.revision, event.key) in self.without_previous
        return event if self.variant & PREVIOUS and not gone else replace(event, previous=None)


class WatchLine:
    """A stream between a client and a member: both ends, and the way between; a `ServerStream`."""

    metadata: Mapping[bytes, bytes]
    common_name = None
    peer = "sim"

    def __init__(self, client: WatchClient, node: Node, chance: Random) -> None:
        member = node.member
        route = node.router.find(b"/etcdserverpb.Watch/Watch")
        assert member is not None and route is not None and route.open is not None, "it runs"
        self._client = client
        self._node = node
        self._member = member
        self._chance = chance
        self._room_bytes = self._limit_bytes = chance.choice(QUEUE_BYTES)
        self._queue: deque[bytes | None] = deque()
        self._under_way = False
        self._was_full = False
        self._held_requests: deque[bytes] | None = None
        self.metadata = {b"hasleader": b"true"} if chance.random() < 0.5 else {}
        self.reads_from_s = 0.0  # the client does not read before
        self.open = True
        handler = route.open(self)  # type: ignore[arg-type]  # what a handler uses of it
        assert isinstance(handler, WatchHandler)
        self._handler = handler

    # --- the member's end ---------------------------------------------------------------------

    @property
    def writable(self) -> int:
        """Room in the queue."""
        return self._room_bytes

    def send(self, message: bytes) -> None:
        """Queues a message for the client."""
        self._put(message)
        self._room_bytes -= len(message)
        self._was_full = self._was_full or self._room_bytes <= 0

    def send_framed(self, framed: bytes, count: int) -> None:
        """Queues `count` messages, each with its five bytes in front."""
        at = 0
        for _ in range(count):
            end = at + 5 + int.from_bytes(framed[at + 1 : at + 5], "big")
            self.send(framed[at + 5 : end])
            at = end
        assert at == len(framed), f"{len(framed) - at} bytes behind the last message"

    def send_shared(self, head: bytes, pieces: Sequence[bytes]) -> None:
        """Queues one message that is made of pieces."""
        self.send(b"".join((head, *pieces)))

    def finish(self, code: int = 0, text: str = "") -> None:
        """The handler ends the stream."""
        self._put(None)

    def drop(self, code: int, text: str) -> None:
        """The handler waits no longer for the client to read."""
        self.finish(code, text)

    def abort(self, code: int, text: str) -> None:
        """The member ends the stream over its handler's head."""
        self._handler.on_cancel(code)
        self.finish(code, text)

    def pause_reading(self) -> None:
        """Requests wait."""
        if self._held_requests is None:
            self._held_requests = deque()

    def resume_reading(self) -> None:
        """Requests come in again."""
        held, self._held_requests = self._held_requests or deque(), None
        for request in held:
            self.ask(request)

    # --- the way ------------------------------------------------------------------------------

    def _put(self, message: bytes | None) -> None:
        if self.open:
            self._queue.append(message)
            self._deliver_later()

    def _deliver_later(self) -> None:
        if self._under_way or not self._queue:
            return
        self._under_way = True
        now_s = self._client.cluster.loop.time()
        delay_s = 0.0005 + self._chance.random() * 0.005
        self._client.cluster.loop.call_later(max(delay_s, self.reads_from_s - now_s), self._deliver)

    def _deliver(self) -> None:
        self._under_way = False
        if not self.open:
            return
        if self._node.member is not self._member and self._chance.random() < 0.5:
            self.open = False  # the rest died with the member
            self._client.lost()
            return
        message = self._queue.popleft()
        self._deliver_later()
        if message is None:
            self.open = False
            self._client.lost()
            return
        self._room_bytes += len(message)
        if self._was_full and self._room_bytes > self._limit_bytes // 2:
            self._was_full = False
            self._to_member(self._handler.on_writable)
        self._client.receive(rpc_pb2.WatchResponse.FromString(message))

    def _to_member(self, what: object, *args: object) -> None:
        if self._node.member is self._member:
            self._node.later(what, *args)  # type: ignore[arg-type]  # one of the handler's methods

    # --- the client's end ---------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the member at the other end still lives this life."""
        return self.open and self._node.member is self._member

    def ask(self, request: bytes) -> None:
        """A request to the member, in order with those before it."""
        if self._held_requests is not None:
            self._held_requests.append(request)
        else:
            self._to_member(self._handler.on_message, request)

    def hang_up(self) -> None:
        """The client is gone; the member hears of it when it next runs."""
        self.open = False
        self._to_member(self._handler.on_cancel, 1)


class WatchClient:
    """One client with its watches."""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self._chance = Random(cluster.chance.randrange(0, 1 << 30))
        self.watches: list[SimWatch] = []
        self._line: WatchLine | None = None
        self._creating: deque[SimWatch] = deque()
        self._by_id: dict[int, SimWatch] = {}
        self._heard_s = 0.0
        self.steady = False  # no more whims: it only wants to hear everything
        self.lines = 0
        self.events = 0
        cluster.loop.call_later(self._chance.random() * 3, self._glance)

    def heard_all(self) -> bool:
        """Whether every watch is past the last event that it wants."""
        events = self.cluster.witness.twin.events
        return all(watch.past_all(events) for watch in self.watches)

    # --- lines --------------------------------------------------------------------------------

    def _glance(self) -> None:
        """Looks after the line, now and then."""
        chance = self._chance
        self.cluster.loop.call_later(GLANCE_S * (0.5 + chance.random()), self._glance)
        line = self._line
        if line is None or not line.alive:
            self._connect()
            return
        now_s = self.cluster.loop.time()
        if now_s - self._heard_s > PATIENCE_S * (5 if self.steady else 1):
            self._hang_up()
            return
        whim = chance.random()
        if self.steady or whim < 0.5:
            self._ask_progress(line)
        elif whim < 0.6:
            self._hang_up()
        elif whim < 0.75:
            line.reads_from_s = now_s + chance.random() * 3
            self._heard_s = line.reads_from_s

    def _connect(self) -> None:
        self.lost()
        nodes = [node for node in self.cluster.nodes.values() if node.running]
        if not nodes:
            return
        while len(self.watches) < 1 or (len(self.watches) < 3 and self._chance.random() < 0.3):
            self.watches.append(self._new_watch())
        try:
            line = WatchLine(self, self._chance.choice(nodes), self._chance)
        except EtcdError:
            return  # a learner, or one that knows no leader
        self._line = line
        self.lines += 1
        self._heard_s = self.cluster.loop.time()
        self._by_id.clear()
        self._creating = deque(self.watches)
        for watch in self.watches:
            request = rpc_pb2.WatchRequest(create_request=watch.create())
            line.ask(request.SerializeToString())
        if self._chance.random() < 0.5:
            self._ask_progress(line)

    def _ask_progress(self, line: WatchLine) -> None:
        request = rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())
        line.ask(request.SerializeToString())

    def _new_watch(self) -> SimWatch:
        chance = self._chance
        twin = self.cluster.witness.twin
        start = chance.choice([0, 0, 1, twin.revision // 2, twin.revision, twin.revision + 3])
        variant = chance.choice([0, 0, PREVIOUS, PREVIOUS, NOPUT, NODELETE])
        return SimWatch(chance.choice(PREFIXES), variant, chance.random() < 0.5, start)

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.hang_up()
        self.lost()

    def lost(self) -> None:
        """The line is gone."""
        if self._line is not None:
            self._line.open = False
            self._line = None
            for watch in self.watches:
                watch.broken()

    # --- what comes in ------------------------------------------------------------------------

    def receive(self, response: rpc_pb2.WatchResponse) -> None:
        """One response."""
        self._heard_s = max(self._heard_s, self.cluster.loop.time())
        if response.created:
            self._created(response)
        elif response.canceled:
            self._canceled(response)
        elif response.events:
            self._events(self._by_id[response.watch_id], response)
        elif response.watch_id == -1:
            # Of those that are created and not cancelled: only for them does the member speak.
            for watch in self._by_id.values():
                self._covered(watch, response.header.revision)
        else:
            self._covered(self._by_id[response.watch_id], response.header.revision)

    def _created(self, response: rpc_pb2.WatchResponse) -> None:
        watch = self._creating.popleft()
        if response.canceled:
            raise WatchViolation(f"a watch was refused: {response.cancel_reason}")
        self._by_id[response.watch_id] = watch
        if not watch.next_revision:
            watch.next_revision = response.header.revision + 1
            watch.spans.append(Span(watch.next_revision))

    def _canceled(self, response: rpc_pb2.WatchResponse) -> None:
        watch = self._by_id.pop(response.watch_id)
        compacted = response.compact_revision
        if not compacted:
            raise WatchViolation(f"a watch was cancelled: {response.cancel_reason}")
        if not watch.next_revision < compacted <= self.cluster.witness.twin.compacted:
            raise WatchViolation(
                f"a watch that goes on at {watch.next_revision} was told of a compaction at "
                f"{compacted}; compacted is {self.cluster.witness.twin.compacted}"
            )
        watch.broken()
        watch.next_revision = compacted
        watch.spans.append(Span(compacted))
        assert self._line is not None, "the answer came over it"
        self._creating.append(watch)
        self._line.ask(rpc_pb2.WatchRequest(create_request=watch.create()).SerializeToString())

    def _events(self, watch: SimWatch, response: rpc_pb2.WatchResponse) -> None:
        span = watch.spans[-1]
        events = [self._event(watch, event) for event in response.events]
        span.batches.append(EventBatch(events, response.fragment))
        self.events += len(events)
        last = events[-1].revision
        if not response.fragment:
            if response.header.revision < last:
                raise WatchViolation(f"header {response.header.revision} of an event at {last}")
            self._covered(watch, max(last, response.header.revision))

    def _covered(self, watch: SimWatch, revision: int) -> None:
        span = watch.spans[-1]
        span.told = max(span.told, revision)
        watch.next_revision = max(watch.next_revision, revision + 1)

    def _event(self, watch: SimWatch, event: mvcc_pb2.Event) -> Event:
        kv = event.kv
        key = kv.key.decode()
        previous = event.prev_kv.value.decode() if event.HasField("prev_kv") else None
        if watch.variant & PREVIOUS and previous is None:
            if kv.mod_revision - 1 < self.cluster.witness.twin.compacted:
                watch.without_previous.add((kv.mod_revision, key))
        if event.type == mvcc_pb2.Event.DELETE:
            return Event(kv.mod_revision, key, None, previous=previous)
        return Event(
            kv.mod_revision,
            key,
            kv.value.decode(),
            kv.create_revision,
            kv.version,
            kv.lease,
            previous,
        )

    def judge(self) -> None:
        """Raises WatchViolation unless every watch was sent everything, once, in order."""
        twin = self.cluster.witness.twin
        for number, watch in enumerate(self.watches):
            try:
                watch.judge(twin.events, twin.revision)
            except WatchViolation as violation:
                raise WatchViolation(
                    f"watch {number} of {watch.prefix!r} (variant {watch.variant}, "
                    f"{watch.breaks} breaks): {violation}"
                ) from None
