"""Watches beside random operations: every event of every watch compared with the original's.

A master watch over the whole keyspace of the original tells the history; from it follows how
many events each watch must have had, so nothing here waits for time to pass: before a
compaction, a cancel or the end each watch is waited for until it has what it must have. Control
messages (created, canceled, progress) are compared as they come, events as one sequence a watch,
because a server may put several revisions into one message. That one revision never comes in two
messages is checked for each watch without fragments.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc

from keyraft.proto import rpc_pb2
from tests.differential.operations import Generator

WATCH = "/etcdserverpb.Watch/Watch"
STREAMS = 3
WAIT_S = 20.0
WATCHES_MAX = 60  # open at a time; then some are cancelled

Shown = tuple[str, bytes, int, int, int, bytes, int, bytes]
"""An event: type, key, create and mod revision, version, value, lease, previous pair."""


@dataclass
class Model:
    """What is known of one watch: its request and where its events begin."""

    request: rpc_pb2.WatchCreateRequest
    first_revision: int
    canceled: bool = False


class Stream:
    """One Watch stream to one server; its answers by watch, read by a thread."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self.events: dict[int, list[Shown]] = {}
        self.messages: dict[int, list[list[int]]] = {}
        self.controls: list[rpc_pb2.WatchResponse] = []
        self.ended = ""
        call = channel.stream_stream(WATCH, response_deserializer=rpc_pb2.WatchResponse.FromString)
        self._call = call(self._sent())
        threading.Thread(target=self._read, daemon=True).start()

    def _sent(self) -> Iterator[bytes]:
        while (request := self._requests.get()) is not None:
            yield request

    def send(self, request: rpc_pb2.WatchRequest) -> None:
        self._requests.put(request.SerializeToString())

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for response in self._call:
                with self._changed:
                    self._take(response)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            with self._changed:
                self.ended = f"{error.code()} {error.details()}"
                self._changed.notify_all()

    def _take(self, response: rpc_pb2.WatchResponse) -> None:
        if response.events:
            shown = [_shown(event) for event in response.events]
            self.events.setdefault(response.watch_id, []).extend(shown)
            revisions = sorted({event[3] for event in shown})
            self.messages.setdefault(response.watch_id, []).append(revisions)
        elif not _is_periodic(response):
            for name in ("cluster_id", "member_id", "raft_term"):
                response.header.ClearField(name)
            self.controls.append(response)

    def wait(self, ready: Callable[[], bool]) -> bool:
        """Whether it came to be `ready`, looked at after every message."""
        with self._changed:
            return self._changed.wait_for(lambda: ready() or bool(self.ended), WAIT_S) and ready()


@dataclass
class Side:
    """One server's watch streams."""

    channel: grpc.Channel
    streams: list[Stream] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.streams = [Stream(self.channel) for _ in range(STREAMS)]

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        self.channel.close()


class Watches:
    """The watches of both servers, in step."""

    def __init__(self, generator: Generator, original: str, ours: str) -> None:
        self.generator = generator
        self.random = generator.random
        self.sides = [Side(grpc.insecure_channel(endpoint)) for endpoint in (original, ours)]
        self.models: list[dict[int, Model]] = [{} for _ in range(STREAMS)]
        self.compared_events = 0
        self.created = 0
        self.master = Stream(self.sides[0].channel)
        self.master.send(
            rpc_pb2.WatchRequest(
                create_request=rpc_pb2.WatchCreateRequest(
                    key=b"\x00", range_end=b"\x00", start_revision=1
                )
            )
        )
        assert self.master.wait(lambda: bool(self.master.controls)), self.master.ended

    def close(self) -> None:
        self.master.close()
        for side in self.sides:
            side.close()

    # --- what is done --------------------------------------------------------------------------

    def act(self) -> str:
        """One random thing with watches; the difference that it showed, or nothing."""
        number = self.random.randrange(STREAMS)
        live = [id for id, model in self.models[number].items() if not model.canceled]
        kind = self.random.randrange(10)
        if kind == 0 and live:
            return self._cancel(number, self.random.choice(live))
        if kind == 1:
            return self._cancel_unknown(number)
        if kind == 2:
            return self._progress(number)
        if len(live) * STREAMS > WATCHES_MAX:
            return self._cancel(number, live[0])
        return self._create(number)

    def _create(self, number: int) -> str:
        random, known = self.random, self.generator.known
        key = random.choice((b"", self.generator._key()))
        request = rpc_pb2.WatchCreateRequest(key=key, range_end=self.generator._range_end(key))
        kind = random.randrange(10)
        if kind <= 2:
            request.start_revision = random.randint(
                min(known.compacted + 1, known.revision), known.revision
            )
        elif kind == 3:
            request.start_revision = known.revision + random.randrange(1, 30)
        elif kind == 4 and known.compacted > 1:
            request.start_revision = random.randint(1, known.compacted - 1)
        request.prev_kv = random.random() < 0.4
        if random.random() < 0.2:
            filters = [rpc_pb2.WatchCreateRequest.NOPUT, rpc_pb2.WatchCreateRequest.NODELETE]
            request.filters.extend(random.sample(filters, random.choice((1, 1, 2))))
        request.fragment = random.random() < 0.1
        request.progress_notify = random.random() < 0.1
        if random.random() < 0.1:
            request.watch_id = random.randrange(1, 40)
        compacted = 0 < request.start_revision < known.compacted
        if known.compacted <= request.start_revision <= known.revision:
            # Whether a watch has caught up can only be seen by an event that it must have.
            model = Model(request, request.start_revision)
            if not any(_matches(model, event) for event in self._history()):
                request.start_revision = 0
        answer, difference = self._control(number, rpc_pb2.WatchRequest(create_request=request), 1)
        if difference or answer is None:
            return difference
        if answer.canceled:
            return ""
        self.created += 1
        if compacted:
            # Created first, then cancelled when the server has looked.
            return self._await_controls(number, 1)[1]
        self.models[number][answer.watch_id] = Model(
            request, request.start_revision or answer.header.revision + 1
        )
        return ""

    def _cancel(self, number: int, id: int) -> str:
        difference = self._settle(number, id)
        if difference:
            return difference
        self.models[number][id].canceled = True
        request = rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=id))
        return self._control(number, request, 1)[1]

    def _cancel_unknown(self, number: int) -> str:
        request = rpc_pb2.WatchRequest(
            cancel_request=rpc_pb2.WatchCancelRequest(watch_id=1_000_000)
        )
        return self._control(number, request, 0)[1]

    def _progress(self, number: int) -> str:
        """Asked only where both answer.

        3.5.1 answers always; since 3.5.8 only a stream is answered that has watches, all of them
        with everything delivered, and none that waits for a future revision.
        """
        live = [model for model in self.models[number].values() if not model.canceled]
        revision = self.generator.known.revision
        if not live or any(model.request.start_revision > revision for model in live):
            return ""
        difference = self.settle()
        if difference:
            return difference
        request = rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())
        return self._control(number, request, 1)[1]

    def _control(
        self, number: int, request: rpc_pb2.WatchRequest, answers: int
    ) -> tuple[rpc_pb2.WatchResponse | None, str]:
        for side in self.sides:
            side.streams[number].send(request)
        answer, difference = self._await_controls(number, answers)
        return answer, difference and f"{request}{difference}"

    def _await_controls(
        self, number: int, answers: int
    ) -> tuple[rpc_pb2.WatchResponse | None, str]:
        if not answers:
            return None, ""
        left, right = (side.streams[number] for side in self.sides)
        for name, stream in (("original", left), ("ours", right)):
            if not stream.wait(lambda stream=stream: len(stream.controls) >= answers):  # type: ignore[misc]
                return None, f"no answer from the {name}: {stream.ended}"
        first, second = left.controls[:answers], right.controls[:answers]
        del left.controls[:answers], right.controls[:answers]
        if first != second:
            return None, f"--- original\n{first}\n--- ours\n{second}"
        return first[-1], ""

    # --- what must be there --------------------------------------------------------------------

    def settle(self) -> str:
        """Waits until every watch has its events; the first difference, or nothing."""
        for number, models in enumerate(self.models):
            for id, model in models.items():
                if not model.canceled:
                    difference = self._settle(number, id)
                    if difference:
                        return difference
        return ""

    def _history(self) -> list[Shown]:
        """All events up to the revision that is known, from the master watch."""
        revision = self.generator.known.revision
        master = self.master
        master.wait(lambda: bool(master.events.get(0)) and master.events[0][-1][3] >= revision)
        return master.events.get(0, [])

    def _settle(self, number: int, id: int) -> str:
        model = self.models[number][id]
        wanted = [event for event in self._history() if _matches(model, event)]
        left, right = (side.streams[number] for side in self.sides)
        for name, stream in (("original", left), ("ours", right)):
            if not stream.wait(lambda stream=stream: len(_of(stream, id)) >= len(wanted)):  # type: ignore[misc]
                return (
                    f"watch {id} of stream {number} has {len(_of(stream, id))} of {len(wanted)} "
                    f"events from the {name} ({stream.ended}), {self.generator.known}:\n"
                    f"{model.request}missing: {[event[:4] for event in wanted[-3:]]}"
                )
        # What came behind belongs to a revision that no answer has told yet.
        first, second = _of(left, id)[: len(wanted)], _of(right, id)[: len(wanted)]
        if first != second:
            at = next(
                (n for n, pair in enumerate(zip(first, second)) if pair[0] != pair[1]),
                min(len(first), len(second)),
            )
            return (
                f"watch {id}, event {at} of {len(first)}:\n{model.request}"
                f"--- original\n{first[at : at + 2]}\n--- ours\n{second[at : at + 2]}"
            )
        if not model.request.fragment:
            for revisions, following in zip(
                right.messages.get(id, []), right.messages.get(id, [])[1:], strict=False
            ):
                if revisions[-1] >= following[0]:
                    return f"watch {id}: revision {following[0]} comes in two messages"
        self.compared_events += len(first)
        return ""


def _is_periodic(response: rpc_pb2.WatchResponse) -> bool:
    """A progress notice that nobody asked for, which comes by the server's own clock."""
    return (
        response.watch_id >= 0
        and not response.created
        and not response.canceled
        and not response.compact_revision
    )


def _of(stream: Stream, id: int) -> list[Shown]:
    return stream.events.get(id, [])


def _matches(model: Model, event: Shown) -> bool:
    kind, key, _, revision, *_ = event
    request = model.request
    if revision < model.first_revision:
        return False
    if kind == "PUT" and rpc_pb2.WatchCreateRequest.NOPUT in request.filters:
        return False
    if kind == "DELETE" and rpc_pb2.WatchCreateRequest.NODELETE in request.filters:
        return False
    start, end = request.key or b"\x00", request.range_end
    if not end:
        return key == start
    return key >= start and (end == b"\x00" or key < end)


def _shown(event: object) -> Shown:
    kv, previous = event.kv, event.prev_kv  # type: ignore[attr-defined]
    return (
        "DELETE" if event.type else "PUT",  # type: ignore[attr-defined]
        kv.key,
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        kv.value,
        kv.lease,
        previous.SerializeToString(deterministic=True),
    )
