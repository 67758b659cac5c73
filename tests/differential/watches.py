"""Watches beside the random operations: every event of every watcher compared.

A watcher over everything, from the first revision on, tells the truth: what each other watcher
must have by now follows from it. So the two servers are waited for, and nobody sleeps. What is
compared for a watcher is the sequence of its events, byte by byte, and how it was created and
ended; how many revisions share a message is timing, but no revision may be in two.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

import grpc

from keyraft.proto import mvcc_pb2, rpc_pb2
from tests.differential.operations import KEYS, KV, Generator, Operation
from tests.differential.runner import Client, Report, _step

STREAMS: Final = 3
WATCHERS_MAX: Final = 40
WAIT_S: Final = 20.0
TRUTH_ID: Final = 9_999

Create = rpc_pb2.WatchCreateRequest


class Missing(AssertionError):
    """Something did not come in time, or came that must not."""


@dataclass
class Watched:
    """What one side was told of one watcher."""

    events: list[mvcc_pb2.Event] = field(default_factory=list)
    created: rpc_pb2.WatchResponse | None = None
    ended: rpc_pb2.WatchResponse | None = None


class Stream:
    """One Watch stream of one server, read by a thread."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self.watched: dict[int, Watched] = {}
        self.refused: list[rpc_pb2.WatchResponse] = []
        self.progress: list[int] = []
        self.fault = ""
        method = channel.stream_stream("/etcdserverpb.Watch/Watch")
        self._call = method(iter(self._requests.get, None))
        threading.Thread(target=self._read, args=(self._call,), daemon=True).start()

    def send(self, request: rpc_pb2.WatchRequest) -> None:
        """A request; the answer is waited for with `until`."""
        self._requests.put(request.SerializeToString())

    def _read(self, call: Iterator[bytes]) -> None:
        try:
            for message in call:
                with self._changed:
                    self._take(rpc_pb2.WatchResponse.FromString(message))
                    self._changed.notify_all()
        except grpc.RpcError as error:
            with self._changed:
                if error.code() is not grpc.StatusCode.CANCELLED:
                    self.fault = f"{error.code()} {error.details()}"
                self._changed.notify_all()

    def _take(self, response: rpc_pb2.WatchResponse) -> None:
        revision = response.header.revision
        if response.watch_id == -1:
            if response.created:
                self.refused.append(response)
            else:
                self.progress.append(revision)
            return
        if response.created:
            self.watched[response.watch_id] = Watched(created=response)
            return
        watched = self.watched[response.watch_id]
        if watched.ended is not None:
            self.fault = f"watcher {response.watch_id} is told of something after its end"
        if response.canceled:
            watched.ended = response
            return
        if response.events:
            first, last = response.events[0].kv, response.events[-1].kv
            if watched.events and watched.events[-1].kv.mod_revision >= first.mod_revision:
                self.fault = f"revision {first.mod_revision} is in two messages"
            if revision < last.mod_revision:
                self.fault = f"header revision {revision} below event {last.mod_revision}"
            watched.events.extend(response.events)

    def until(self, what: str, done: object, timeout_s: float = WAIT_S) -> None:
        """Waits until `done()`; raises Missing when it does not come to that."""
        assert callable(done)
        with self._changed:
            if not self._changed.wait_for(lambda: self.fault or done(), timeout_s):
                raise Missing(f"{what} did not come in {timeout_s} s")
            if self.fault:
                raise Missing(self.fault)

    def close(self) -> None:
        """Ends it."""
        self._call.cancel()


@dataclass
class Asked:
    """A watcher as it was asked for."""

    stream: int
    request: Create
    watch_id: int
    first: int

    def wants(self, event: mvcc_pb2.Event) -> bool:
        """Whether an event of the truth is for it."""
        key, end = self.request.key or b"\0", self.request.range_end
        name = event.kv.key
        inside = name == key if not end else name >= key and (end == b"\0" or name < end)
        return (
            inside
            and event.kv.mod_revision >= self.first
            and int(event.type) not in list(self.request.filters)
        )


class Watches:
    """The streams of both servers, asked the same in step."""

    def __init__(self, endpoints: tuple[str, str], generator: Generator, seed: int) -> None:
        self._channels = [
            grpc.insecure_channel(each, options=[("grpc.max_receive_message_length", -1)])
            for each in endpoints
        ]
        self.sides = [[Stream(channel) for _ in range(STREAMS)] for channel in self._channels]
        self.generator = generator
        self.random = Random(seed)
        self.live: list[Asked] = []
        self.compared = 0
        self.counts = {"created": 0, "refused": 0, "compacted": 0, "cancelled": 0, "progress": 0}
        truth = Create(
            key=b"\0", range_end=b"\0", start_revision=1, watch_id=TRUTH_ID, prev_kv=True
        )
        self._ask(Asked(0, truth, TRUTH_ID, 1))
        self.truth = self.live.pop()

    def _both(self, number: int) -> list[Stream]:
        return [side[number] for side in self.sides]

    def _ask(self, asked: Asked) -> None:
        """Sends a create request to both and waits for the answers, which must be alike."""
        streams = self._both(asked.stream)
        refused = [len(stream.refused) for stream in streams]
        known = set(streams[0].watched)
        for stream in streams:
            stream.send(rpc_pb2.WatchRequest(create_request=asked.request))
        for stream, before in zip(streams, refused):
            stream.until(
                f"an answer to {asked.request}",
                lambda s=stream, b=before: set(s.watched) - known or len(s.refused) > b,
            )
        answers = []
        for stream in streams:
            new = set(stream.watched) - known
            answers.append(stream.watched[new.pop()].created if new else stream.refused[-1])
        left, right = (_masked(answer) for answer in answers)
        if left != right:
            raise Missing(f"{asked.request}\n--- original\n{left}\n--- ours\n{right}")
        if left.watch_id == -1:
            self.counts["refused"] += 1
            return
        asked.watch_id = left.watch_id
        self.counts["created"] += 1
        self.live.append(asked)

    def create(self) -> None:
        """A watcher of any kind: past, present and future starts, ranges, filters, fragments."""
        random, known = self.random, self.generator.known
        key = b"" if random.random() < 0.05 else random.choice(KEYS)
        request = Create(key=key, range_end=self.generator._range_end(key))
        kind = random.randrange(8)
        if kind <= 2:
            low = max(1, known.compacted)
            request.start_revision = random.randint(low, max(low, known.revision))
        elif kind == 3:
            request.start_revision = known.revision + random.randint(1, 20)
        elif kind == 4 and known.compacted > 1:
            request.start_revision = max(1, known.compacted + random.randint(-2, 1))
        request.prev_kv = random.random() < 0.5
        request.fragment = random.random() < 0.2
        for name in (Create.NOPUT, Create.NODELETE):
            if random.random() < 0.2:
                request.filters.append(name)
        if random.random() < 0.2:
            request.watch_id = random.randrange(1, 30)
        first = request.start_revision or known.revision + 1
        asked = Asked(random.randrange(STREAMS), request, 0, max(first, 1))
        before = len(self.live)
        self._ask(asked)
        if len(self.live) > before and 0 < request.start_revision < known.compacted:
            self._compacted(asked)
        elif len(self.live) > WATCHERS_MAX:
            self.cancel()

    def _compacted(self, asked: Asked) -> None:
        watched = [stream.watched[asked.watch_id] for stream in self._both(asked.stream)]
        for stream, each in zip(self._both(asked.stream), watched):
            stream.until(f"the end of {asked.request}", lambda w=each: w.ended)
        left, right = (_masked(each.ended) for each in watched)
        if left != right or watched[0].events or watched[1].events:
            raise Missing(f"{asked.request}\n--- original\n{left}\n--- ours\n{right}")
        self.counts["compacted"] += 1
        self._forget(asked)

    def _forget(self, asked: Asked) -> None:
        """Cancels it, so that its id and its place are free again."""
        self.live.remove(asked)
        for stream in self._both(asked.stream):
            watched = stream.watched[asked.watch_id]
            watched.ended = None
            request = rpc_pb2.WatchCancelRequest(watch_id=asked.watch_id)
            stream.send(rpc_pb2.WatchRequest(cancel_request=request))
            stream.until(f"the end of watcher {asked.watch_id}", lambda w=watched: w.ended)
            del stream.watched[asked.watch_id]

    def cancel(self) -> None:
        """Ends one, after all its events were compared."""
        if self.live:
            asked = self.random.choice(self.live)
            self.compare(asked)
            self._forget(asked)
            self.counts["cancelled"] += 1

    def progress(self) -> None:
        """Asks for progress on a stream whose watchers have all begun."""
        number = self.random.randrange(1, STREAMS)
        mine = [asked for asked in self.live if asked.stream == number]
        revision = self.generator.known.revision
        if not mine or any(asked.request.start_revision > revision for asked in mine):
            return
        for asked in mine:
            self.compare(asked)
        for stream in self._both(number):
            before = len(stream.progress)
            stream.send(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))
            self._await_progress(stream, before)
        left, right = (stream.progress[-1] for stream in self._both(number))
        if left != right:
            raise Missing(f"progress: {left} from the original, {right} from ours")
        self.counts["progress"] += 1

    def _await_progress(self, stream: Stream, before: int) -> None:
        """A watcher may count as behind for a moment after its last event: asked again then."""
        until_s = time.monotonic() + WAIT_S
        while True:
            try:
                stream.until("progress", lambda: len(stream.progress) > before, 0.3)
                return
            except Missing:
                if stream.fault or time.monotonic() > until_s:
                    raise
            stream.send(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))

    def _truth(self) -> list[mvcc_pb2.Event]:
        revision = self.generator.known.revision
        for stream in self._both(0):
            events = stream.watched[TRUTH_ID].events
            if revision > 1:
                stream.until(
                    f"revision {revision}",
                    lambda e=events: e and e[-1].kv.mod_revision >= revision,
                )
        return self.sides[0][0].watched[TRUTH_ID].events

    def compare(self, asked: Asked) -> None:
        """Waits until both sides have all the events of a watcher; they must be the same."""
        due = [event for event in self._truth() if asked.wants(event)]
        seen = []
        for stream in self._both(asked.stream):
            events = stream.watched[asked.watch_id].events
            stream.until(
                f"event {len(due)} of {asked.request}", lambda e=events: len(e) >= len(due)
            )
            seen.append(list(events))
        for number, (true, left, right) in enumerate(zip(due, *seen)):
            if left != right or left.kv != true.kv:
                raise Missing(
                    f"event {number} of {asked.request}\n--- truth\n{true}\n"
                    f"--- original\n{left}\n--- ours\n{right}"
                )
            self.compared += 1
        if not len(seen[0]) == len(seen[1]) == len(due):
            raise Missing(f"{list(map(len, seen))} events of {len(due)} for {asked.request}")

    def compare_all(self) -> None:
        """Every watcher, the one that tells the truth included."""
        for asked in (*self.live, self.truth):
            self.compare(asked)

    def close(self) -> None:
        """Ends all streams."""
        for side in self.sides:
            for stream in side:
                stream.close()
        for channel in self._channels:
            channel.close()


def _masked(response: rpc_pb2.WatchResponse | None) -> rpc_pb2.WatchResponse:
    masked = rpc_pb2.WatchResponse()
    assert response is not None
    masked.CopyFrom(response)
    for name in ("cluster_id", "member_id", "raft_term"):
        masked.header.ClearField(name)
    return masked


def run_watches(seed: int, count: int, original: str, ours: str) -> tuple[Report, Watches]:
    """Random operations with leases, and watchers coming and going between them."""
    generator = Generator(seed, with_leases=True)
    report = Report()
    left, right = Client(original), Client(ours)
    watches = Watches((original, ours), generator, seed + 1)
    choose = Random(seed + 2)
    try:
        for number in range(count):
            try:
                kind = choose.randrange(1000)
                if kind < 40:
                    watches.create()
                elif kind < 55:
                    watches.cancel()
                elif kind < 62:
                    watches.progress()
                elif kind < 70:
                    watches.compare_all()
                else:
                    operation: Operation = generator.next()
                    if operation.method == KV + "Compact":
                        watches.compare_all()
                    if not _step(operation, left, right, generator, report):
                        report.difference = f"seed {seed}, {number}: {report.difference}"
                        return report, watches
            except Missing as missing:
                report.difference = f"seed {seed}, operation {number}: {missing}"
                return report, watches
        try:
            watches.compare_all()
        except Missing as missing:
            report.difference = f"seed {seed}, at the end: {missing}"
    finally:
        watches.close()
        left.close()
        right.close()
    return report, watches
