"""A live member, killed again and again: what its watchers were promised they must have got.

Writers put, delete and transact; watchers stall, break off and resume behind the last revision
that they saw; old revisions are compacted; the member is killed with SIGKILL under load. Then the
history, read back before each compaction, judges every watcher (`sim.watches`).
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from keyraft.proto import mvcc_pb2, rpc_pb2
from sim.watches import Event, EventBatch, check_watch
from tests.support.server import OURS, Server

KEYS = [f"{side}/{number}" for side in "ab" for number in range(6)]
ROUNDS = 3
WRITES_PER_ROUND = 400
WAIT_S = 60.0


def event_of(event: mvcc_pb2.Event) -> Event:
    deleted = event.type == mvcc_pb2.Event.DELETE
    value = None if deleted else event.kv.value.decode()
    return Event(event.kv.mod_revision, event.kv.key.decode(), value)


def prefix_end(prefix: str) -> bytes:
    return prefix.encode()[:-1] + bytes((ord(prefix[-1]) + 1,)) if prefix else b"\0"


@contextlib.contextmanager
def channel_to(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.endpoint) as channel:
        yield channel


def watch(
    channel: grpc.Channel, prefix: str, start: int, ended: threading.Event
) -> Iterator[rpc_pb2.WatchResponse]:
    """The responses of one watch; the request side stays open until `ended`."""
    create = rpc_pb2.WatchCreateRequest(
        key=prefix.encode() or b"\0", range_end=prefix_end(prefix), start_revision=start
    )

    def requests() -> Iterator[bytes]:
        yield rpc_pb2.WatchRequest(create_request=create).SerializeToString()
        ended.wait()

    call = channel.stream_stream("/etcdserverpb.Watch/Watch")(requests())
    try:
        for message in call:
            yield rpc_pb2.WatchResponse.FromString(message)
    finally:
        ended.set()
        call.cancel()


@dataclass
class Watching:
    """One watcher over all its connections."""

    prefix: str
    seed: int
    first: int = 2
    batches: list[EventBatch] = field(default_factory=list)
    breaks: int = 0
    seen: int = 1  # the last revision that it was told of

    def follow(self, server: Server, until: threading.Event, goal: list[int]) -> None:
        """Watches, breaks off, resumes, until it has seen the goal set once `until` is."""
        chance = random.Random(self.seed)
        while not (until.is_set() and self.seen >= goal[0]):
            ended = threading.Event()
            with contextlib.suppress(grpc.RpcError), channel_to(server) as channel:
                for number, response in enumerate(
                    watch(channel, self.prefix, self.seen + 1, ended)
                ):
                    assert not response.canceled, response
                    if response.events:
                        events = [event_of(event) for event in response.events]
                        self.batches.append(EventBatch(events, response.fragment))
                        self.seen = events[-1].revision
                    if until.is_set() and self.seen >= goal[0]:
                        return
                    if number and chance.random() < 0.02:
                        break
            self.breaks += 1


class World:
    """The member, its writers and what is known of its history."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.truth: list[Event] = []
        self.acknowledged: dict[int, set[tuple[str, str | None]]] = {}
        self.revision = 1

    def write(self, channel: grpc.Channel) -> None:
        """One acknowledged transaction, or none when the member has just been killed."""
        count = self.random.choice((1, 1, 1, 2, 3))
        changes: dict[str, str | None] = {}
        txn = rpc_pb2.TxnRequest()
        for key in self.random.sample(KEYS, count):
            if self.random.random() < 0.2:
                delete = rpc_pb2.DeleteRangeRequest(key=key.encode())
                txn.success.add(request_delete_range=delete)
            else:
                value = str(self.random.getrandbits(40))
                changes[key] = value
                put = rpc_pb2.PutRequest(key=key.encode(), value=value.encode())
                txn.success.add(request_put=put)
        call = channel.unary_unary("/etcdserverpb.KV/Txn")
        answer = rpc_pb2.TxnResponse.FromString(call(txn.SerializeToString(), timeout=WAIT_S))
        revision = answer.header.revision
        assert revision >= self.revision, "the revision fell"
        self.revision = revision
        if changes:
            self.acknowledged[revision] = set(changes.items())

    def read_history(self) -> None:
        """Everything up to the current revision, by watches of the past."""
        with channel_to(self.server) as channel:
            self.write_last(channel)
            known = self.truth[-1].revision if self.truth else 1
            ended = threading.Event()
            for response in watch(channel, "", known + 1, ended):
                assert not response.canceled, response
                self.truth += [event_of(event) for event in response.events]
                if self.truth and self.truth[-1].revision >= self.revision:
                    break

    def write_last(self, channel: grpc.Channel) -> None:
        """A put that every watcher must see in the end."""
        for key in ("a/end", "b/end"):
            request = rpc_pb2.PutRequest(key=key.encode(), value=b"end").SerializeToString()
            call = channel.unary_unary("/etcdserverpb.KV/Put")
            answer = call(request, timeout=WAIT_S, wait_for_ready=True)
            self.revision = rpc_pb2.PutResponse.FromString(answer).header.revision
            self.acknowledged[self.revision] = {(key, "end")}

    def compact(self, revision: int) -> None:
        with channel_to(self.server) as channel:
            request = rpc_pb2.CompactionRequest(revision=revision).SerializeToString()
            channel.unary_unary("/etcdserverpb.KV/Compact")(request, timeout=WAIT_S)


@pytest.mark.real
@pytest.mark.parametrize("seed", [1])
def test_watchers_get_what_they_were_promised_over_kills(seed: int, tmp_path: Path) -> None:
    server = Server(OURS, tmp_path / "data").start()
    world = World(server, seed)
    watchings = [Watching(prefix, seed * 10 + n) for n, prefix in enumerate(("", "a/", "b/", "a/"))]
    over, goal = threading.Event(), [0]
    threads = [threading.Thread(target=w.follow, args=(server, over, goal)) for w in watchings]
    for thread in threads:
        thread.start()
    try:
        for round_number in range(ROUNDS):
            killer = threading.Timer(0.2 + world.random.random(), server.kill)
            killer.start()
            with channel_to(server) as channel, contextlib.suppress(grpc.RpcError):
                for _ in range(WRITES_PER_ROUND):
                    world.write(channel)
            killer.join()
            server.start()
            world.read_history()
            if round_number % 2:
                world.compact(min(watching.seen for watching in watchings))
        # Each watcher is through when it has seen the last put under its own prefix.
        goal[0] = world.revision - 1
        over.set()
        with channel_to(server) as channel:
            world.write_last(channel)
        for thread in threads:
            thread.join(WAIT_S)
        assert not any(thread.is_alive() for thread in threads), "a watcher never got its events"
        world.read_history()
    finally:
        over.set()
        server.kill()
    for revision, changes in world.acknowledged.items():
        true = {(event.key, event.value) for event in world.truth if event.revision == revision}
        assert changes <= true, f"acknowledged at {revision}: {changes}, in the history: {true}"
    for watching in watchings:
        check_watch(world.truth, watching.batches, 2, goal[0], watching.prefix)
    assert sum(watching.breaks for watching in watchings) > ROUNDS
    assert len(world.truth) > ROUNDS * 50
