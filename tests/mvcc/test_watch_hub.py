"""Watch guarantees: rules one by one, and a state machine of writers, stalls and compactions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keyraft.mvcc.hooks import Event, Listener
from keyraft.mvcc.revision import row_key
from keyraft.mvcc.watch import WatchHub
from keyraft.mvcc.watch_cohort import NODELETE, NOPUT, PREVIOUS
from keyraft.mvcc.watch_stream import WatchStream
from keyraft.mvcc.wire import deleted_key_value, key_value, varint
from keyraft.mvcc.wire import field as wire_field
from keyraft.proto import mvcc_pb2, rpc_pb2
from tests.support.examples import examples


class Past:
    """A store that keeps everything in a list, compacted or not."""

    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = -1
        self.listener: Listener | None = None
        self.log: list[tuple[int, list[Event]]] = []
        self.reads = 0

    def write(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        self.revision += 1
        events: list[Event] = []
        for key, value in changes:
            if value is None:
                events.append((key, deleted_key_value(key, self.revision), True))
            else:
                before = self.kv_at(key, self.revision - 1)
                old = None if before is None else mvcc_pb2.KeyValue.FromString(before)
                created = old.create_revision if old else self.revision
                version = old.version + 1 if old else 1
                kv = key_value(key, created, self.revision, version, value)
                events.append((key, kv, False))
        self.log.append((self.revision, events))
        if self.listener is not None:
            self.listener(self.revision, list(events))

    def listen(self, listener: Listener) -> None:
        assert self.listener is None
        self.listener = listener

    def leave(self, listener: Listener) -> None:
        assert self.listener == listener
        self.listener = None

    def events(self, at: bytes, rows: int) -> tuple[list[tuple[int, list[Event]]], bytes]:
        start = int.from_bytes(at[:8], "big")
        first = int.from_bytes(at[9:17], "big")
        assert start >= self.compact_revision, "read below the compacted revision"
        self.reads += 1
        found: list[tuple[int, list[Event]]] = []
        seen = 0
        for revision, events in self.log:
            if revision < start:
                continue
            left = list(enumerate(events))[first if revision == start else 0 :]
            for sub, event in left:
                if seen >= rows:
                    return found, row_key(revision, sub)
                if not found or found[-1][0] != revision:
                    found.append((revision, []))
                found[-1][1].append(event)
                seen += 1
        return found, b""

    def kv_at(self, key: bytes, revision: int) -> bytes | None:
        if revision < self.compact_revision:
            return None
        for past, events in reversed(self.log):
            if past <= revision:
                for name, kv, delete in reversed(events):
                    if name == key:
                        return None if delete else kv
        return None


class Client:
    """A sink that takes so many messages and then is full until it is read."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.queue: list[bytes] = []
        self.got: list[rpc_pb2.WatchResponse] = []
        self.stream: WatchStream | None = None
        self.full = False
        self.batches: list[int] = []
        self.shared: list[int] = []

    @property
    def writable(self) -> int:
        left = self.room - len(self.queue)
        self.full = self.full or left <= 0
        return left

    def send(self, message: bytes) -> None:
        self.queue.append(message)

    def send_framed(self, framed: bytes, count: int) -> None:
        self.batches.append(count)
        while framed:
            assert framed[:1] == b"\0"
            stop = 5 + int.from_bytes(framed[1:5], "big")
            self.queue.append(framed[5:stop])
            framed = framed[stop:]
            count -= 1
        assert count == 0

    def send_shared(self, head: bytes, pieces: Sequence[bytes]) -> None:
        self.shared += map(id, pieces)
        self.queue.append(head + b"".join(pieces))

    def read(self) -> list[rpc_pb2.WatchResponse]:
        """Takes what is queued; tells the stream if it had been full."""
        new = [rpc_pb2.WatchResponse.FromString(message) for message in self.queue]
        self.queue.clear()
        self.got += new
        if self.full:
            self.full = False
            assert self.stream is not None
            self.stream.on_writable()
        return new


@dataclass
class World:
    """A hub over a fake past."""

    message_bytes_max: int = 1 << 21
    pending_bytes_max: int = 1 << 26
    watchers_max: int = 1_000_000
    chunk_rows: int = 500
    pass_slice: int = 1_000
    past: Past = field(default_factory=Past)
    wakes: int = 0

    def __post_init__(self) -> None:
        self.hub = WatchHub(
            self.past,
            header,
            random.Random(1),
            self.wake,
            message_bytes_max=self.message_bytes_max,
            watchers_max=self.watchers_max,
            pending_bytes_max=self.pending_bytes_max,
            chunk_rows=self.chunk_rows,
            pass_slice=self.pass_slice,
        )

    def wake(self) -> None:
        self.wakes += 1

    def client(self, room: int = 1_000_000, bulk: bool = False) -> Client:
        """`bulk`: as the server's end of a stream is, which takes many messages at once."""
        client = Client(room)
        client.stream = WatchStream(self.hub, client, client if bulk else None)
        return client

    def put(self, *keys: bytes, value: bytes = b"v") -> None:
        self.past.write([(key, value) for key in keys])

    def delete(self, *keys: bytes) -> None:
        self.past.write([(key, None) for key in keys])

    def settle(self) -> None:
        while self.hub.deliver():
            pass
        self.hub.check()


def header(revision: int) -> bytes:
    body = b"\x08\x07" + (b"\x18" + varint(revision) if revision else b"")
    return wire_field(b"\x0a", body)


def names(responses: list[rpc_pb2.WatchResponse]) -> list[tuple[int, str]]:
    return [
        (event.kv.mod_revision, event.kv.key.decode())
        for response in responses
        for event in response.events
    ]


def test_created_comes_first_and_each_revision_in_one_message():
    world = World()
    client = world.client()
    assert client.stream
    client.stream.create(b"a", b"z")
    world.put(b"a")
    world.settle()
    world.put(b"b", b"c")
    world.settle()
    created, first, second = client.read()
    assert (created.created, created.watch_id, created.header.revision) == (True, 0, 1)
    assert (names([first]), first.header.revision) == ([(2, "a")], 2)
    assert (names([second]), second.header.revision) == ([(3, "b"), (3, "c")], 3)


def test_neighbours_of_one_stream_are_sent_to_together():
    world = World()
    clients = [world.client(bulk=True) for _ in range(3)]
    for client in clients:
        assert client.stream
        for _ in range(1_000):
            client.stream.create(b"a", b"")
        client.read()
    world.put(b"a")
    world.settle()
    for client in clients:
        got = client.read()
        assert [response.watch_id for response in got] == list(range(1_000))
        assert {tuple(names([response])) for response in got} == {((2, "a"),)}
        assert 1 < len(client.batches) < 20  # each fits a frame


def test_a_full_neighbour_is_left_out_of_a_batch():
    world = World()
    quick, slow = world.client(bulk=True), world.client(room=2, bulk=True)
    for client in (quick, slow, quick, slow, slow, slow, quick):
        assert client.stream
        client.stream.create(b"a", b"")
    quick.read(), slow.read()
    world.put(b"a")
    world.settle()
    assert len(quick.queue) == 3 and len(slow.queue) == 2
    assert world.hub.statistics()["slow_watchers"] == 2
    seen = slow.read()
    world.settle()
    seen += slow.read()
    world.settle()
    assert sorted(response.watch_id for response in seen) == [0, 1, 2, 3]


def test_large_payloads_are_cut_once_for_all():
    world = World()
    clients = [world.client(bulk=True) for _ in range(10)]
    for client in clients:
        assert client.stream
        client.stream.create(b"a", b"")
        client.read()
    world.put(b"a", value=b"x" * 100_000)
    world.settle()
    for client in clients:
        assert len(client.shared) == 7 and client.shared == clients[0].shared
        (response,) = client.read()
        assert response.events[0].kv.value == b"x" * 100_000


def test_what_comes_faster_than_it_is_sent_shares_a_message():
    world = World()
    client = world.client()
    assert client.stream
    client.stream.create(b"a", b"z")
    for _ in range(5):
        world.put(b"a")
    assert world.wakes == 1
    world.settle()
    _, only = client.read()
    assert names([only]) == [(revision, "a") for revision in range(2, 7)]
    assert only.header.revision == 6


def test_past_present_future_and_compacted_starts():
    world = World()
    for _ in range(9):
        world.put(b"a")  # revisions 2..10
    world.past.compact_revision = 5
    client = world.client()
    assert client.stream
    client.stream.create(b"a", b"", 5)  # exactly the compacted revision is fine
    client.stream.create(b"a", b"", 4)
    client.stream.create(b"a", b"", 0)
    client.stream.create(b"a", b"", 12)
    client.stream.create(b"a", b"", -1)
    world.settle()
    world.put(b"a")
    world.settle()
    world.put(b"a")
    world.settle()
    by_id: dict[int, list[rpc_pb2.WatchResponse]] = {}
    for response in client.read():
        by_id.setdefault(response.watch_id, []).append(response)
    assert [r for r, _ in names(by_id[0])] == list(range(5, 13))
    assert by_id[0][1].header.revision == 10
    gone = by_id[1][1]
    assert len(by_id[1]) == 2
    assert (gone.canceled, gone.compact_revision, gone.header.revision) == (True, 5, 0)
    assert gone.cancel_reason == ""
    assert [r for r, _ in names(by_id[2])] == [11, 12]
    assert [r for r, _ in names(by_id[3])] == [12]
    (refused,) = by_id[-1]
    assert refused.created and refused.canceled
    assert refused.cancel_reason == "etcdserver: mvcc: required revision has been compacted"


def test_ids_are_assigned_skipping_those_in_use():
    world = World()
    client = world.client()
    assert client.stream
    client.stream.create(b"a", b"", watch_id=1)
    client.stream.create(b"a", b"")
    client.stream.create(b"a", b"")
    client.stream.create(b"a", b"", watch_id=1)
    client.stream.create(b"b", b"a")
    client.stream.create(b"b", b"b")
    responses = client.read()
    assert [r.watch_id for r in responses] == [1, 0, 2, -1, -1, -1]
    assert responses[3].cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"
    assert responses[4].cancel_reason == "mvcc: watcher range is empty"
    assert responses[5].canceled and responses[5].created


def test_ranges_open_ranges_and_the_empty_key():
    world = World()
    client = world.client()
    assert client.stream
    client.stream.create(b"", b"\x00", watch_id=1)
    client.stream.create(b"b", b"\x00", watch_id=2)
    client.stream.create(b"b", b"c", watch_id=3)
    client.stream.create(b"", b"", watch_id=4)
    for key in (b"a", b"b", b"b1", b"c", b"\x00"):
        world.put(key)
    world.settle()
    got: dict[int, list[str]] = {}
    for response in client.read():
        got.setdefault(response.watch_id, []).extend(name for _, name in names([response]))
    assert got == {
        1: ["a", "b", "b1", "c", "\x00"],
        2: ["b", "b1", "c"],
        3: ["b", "b1"],
        4: ["\x00"],
    }


def test_filters_and_previous_values():
    world = World()
    client = world.client()
    assert client.stream
    client.stream.create(b"k", b"", watch_id=1, variant=NOPUT)
    client.stream.create(b"k", b"", watch_id=2, variant=NODELETE | PREVIOUS)
    client.stream.create(b"k", b"", watch_id=3, variant=NOPUT | NODELETE)
    client.stream.create(b"k", b"", watch_id=4, variant=PREVIOUS)
    world.put(b"k", value=b"1")
    world.put(b"k", value=b"2")
    world.delete(b"k")
    world.put(b"k", value=b"3")
    world.settle()
    got: dict[int, list[mvcc_pb2.Event]] = {}
    for response in client.read():
        got.setdefault(response.watch_id, []).extend(response.events)
    assert [event.kv.mod_revision for event in got[1]] == [4]
    assert [event.prev_kv.value for event in got[2]] == [b"", b"1", b""]
    assert got[3] == []
    assert [event.HasField("prev_kv") for event in got[4]] == [False, True, True, False]
    assert [event.type for event in got[4]] == [0, 0, 1, 0]
    deleted = got[4][2]
    assert (deleted.kv.key, deleted.kv.mod_revision, deleted.kv.create_revision) == (b"k", 4, 0)
    assert deleted.prev_kv.value == b"2"


def test_an_event_is_encoded_once_for_all():
    world = World()
    clients = [world.client() for _ in range(50)]
    for client in clients:
        assert client.stream
        client.stream.create(b"k", b"")
        client.read()
    world.put(b"k")
    world.settle()
    messages = {id(client.queue[0]) for client in clients}
    assert len(messages) == 1


def test_cancel_ends_the_events_and_is_answered_once():
    world = World()
    client = world.client()
    assert client.stream
    client.stream.create(b"k", b"")
    client.stream.create(b"k", b"")
    world.put(b"k")
    client.stream.cancel(0)
    client.stream.cancel(0)
    client.stream.cancel(7)
    world.settle()
    responses = client.read()
    assert [(r.watch_id, r.canceled, len(r.events)) for r in responses[2:]] == [
        (0, True, 0),
        (1, False, 1),
    ]


def test_progress_only_when_all_are_synced_and_after_their_events():
    world = World()
    client = world.client(room=3)
    assert client.stream
    client.stream.progress()
    assert client.read() == []
    client.stream.create(b"k", b"")
    client.stream.create(b"j", b"")
    client.read()
    world.put(b"k")
    client.stream.progress()  # the event is still on its way
    event, progress = client.read()
    assert names([event]) == [(2, "k")]
    assert (progress.watch_id, progress.header.revision, len(progress.events)) == (-1, 2, 0)
    world.settle()
    assert client.read() == []
    client.stream.create(b"k", b"", 1)
    client.read()
    client.stream.progress()  # one has the past before it
    assert client.read() == []
    world.settle()
    client.stream.progress()
    assert [r.watch_id for r in client.read()] == [2, -1]


def test_progress_waits_for_a_start_in_the_future():
    world = World()
    client = world.client()
    assert client.stream
    client.stream.create(b"k", b"", 5)
    client.read()
    client.stream.progress()
    assert client.read() == []
    for _ in range(4):
        world.put(b"x")
    client.stream.progress()
    assert [r.header.revision for r in client.read()] == [5]


def test_notifications_go_to_those_that_asked_and_heard_nothing():
    world = World()
    client = world.client()
    assert client.stream
    client.stream.create(b"k", b"", notify=True)
    client.stream.create(b"j", b"", notify=True)
    client.stream.create(b"k", b"")
    world.put(b"k")
    world.settle()
    client.read()
    assert client.stream.notifying
    client.stream.tick()
    assert [(r.watch_id, r.header.revision) for r in client.read()] == [(1, 2)]
    client.stream.tick()
    assert [r.watch_id for r in client.read()] == [0, 1]


def test_a_full_stream_holds_nothing_back_but_itself():
    world = World()
    slow, quick = world.client(room=2), world.client()
    for client in (slow, quick):
        assert client.stream
        client.stream.create(b"k", b"")
    for _ in range(100):
        world.put(b"k")
        world.settle()
    assert len(slow.queue) == 2
    assert world.hub.statistics()["pending_bytes"] == 0
    assert world.hub.statistics()["slow_watchers"] == 1
    assert len(names(quick.read())) == 100
    while slow.read():
        world.settle()
    assert [revision for revision, _ in names(slow.got)] == list(range(2, 102))
    assert world.hub.statistics()["slow_watchers"] == 0


def test_a_hundred_laggards_share_one_reading():
    world = World()
    for _ in range(2000):
        world.put(b"k")
    clients = [world.client() for _ in range(100)]
    for client in clients:
        assert client.stream
        client.stream.create(b"k", b"", 1)
    world.settle()
    assert world.past.reads == 9  # portions of 16 rows, 32, 64, up to 500
    for client in clients:
        assert [revision for revision, _ in names(client.read())] == list(range(2, 2002))


def test_a_stalled_watcher_is_told_when_its_events_are_compacted():
    world = World()
    client = world.client(room=1)
    assert client.stream
    client.stream.create(b"k", b"")
    for _ in range(5):
        world.put(b"k")
    world.settle()
    world.past.compact_revision = 4
    client.read()
    world.settle()
    (gone,) = client.read()
    assert (gone.canceled, gone.compact_revision) == (True, 4)
    client.stream.progress()
    assert client.read() == []
    client.stream.create(b"j", b"")
    client.read()
    client.stream.progress()  # the dead one does not stand in the way
    assert [r.watch_id for r in client.read()] == [-1]
    client.stream.cancel(0)
    assert [(r.watch_id, r.canceled) for r in client.read()] == [(0, True)]


def test_fragments_stay_below_the_limit_and_say_so():
    world = World(message_bytes_max=1000)
    client = world.client()
    assert client.stream
    client.stream.create(b"k", b"l", fragment=True)
    world.put(*[f"k{i}".encode() for i in range(20)], value=b"x" * 100)
    world.settle()
    responses = client.read()[1:]
    assert len(responses) > 1
    assert [r.fragment for r in responses] == [True] * (len(responses) - 1) + [False]
    assert all(r.ByteSize() < 1000 for r in responses)
    assert [name for _, name in names(responses)] == [f"k{i}" for i in range(20)]
    world.put(b"k", value=b"x" * 5000)  # one event is never cut
    world.settle()
    (large,) = client.read()
    assert not large.fragment


def test_messages_hold_whole_revisions_up_to_a_size():
    world = World()
    client = world.client()
    assert client.stream
    client.stream.create(b"k", b"l")
    for _ in range(10):
        world.put(b"k1", b"k2", value=b"x" * 200_000)
    world.settle()
    responses = client.read()[1:]
    assert 4 <= len(responses) <= 5
    seen = [{revision for revision, _ in names([response])} for response in responses]
    assert sum(map(len, seen)) == 10  # no revision in two messages


def test_a_cohort_over_the_bound_falls_behind_as_a_whole():
    world = World(pending_bytes_max=10_000)
    client = world.client()
    assert client.stream
    client.stream.create(b"k", b"")
    for _ in range(50):
        world.put(b"k", value=b"x" * 1000)
        assert world.hub.statistics()["pending_bytes"] <= 10_000
    world.settle()
    assert [revision for revision, _ in names(client.read())] == list(range(2, 52))


def test_a_new_database_loses_nobody():
    world = World()
    idle, busy, behind = world.client(), world.client(), world.client()
    assert idle.stream and busy.stream and behind.stream
    idle.stream.create(b"i", b"")
    busy.stream.create(b"k", b"")
    for _ in range(10):
        world.put(b"k")
    behind.stream.create(b"k", b"", 3)
    world.hub.deliver(1)
    world.hub.suspend()
    for _ in range(3):  # what the snapshot has in advance
        world.past.revision += 1
        kv = key_value(b"k", 2, world.past.revision, 9, b"n")
        world.past.log.append((world.past.revision, [(b"k", kv, False)]))
    world.past.compact_revision = 2
    world.settle()
    world.put(b"i")
    world.settle()
    assert [revision for revision, _ in names(busy.read())] == list(range(2, 15))
    assert [revision for revision, _ in names(behind.read())] == list(range(3, 15))
    assert names(idle.read()) == [(15, "i")]


def test_progress_in_the_middle_of_a_fan_out_repeats_nothing():
    world = World()
    clients = [world.client() for _ in range(6)]
    for client in clients:
        assert client.stream
        client.stream.create(b"k", b"")
        client.read()
    world.put(b"k")
    world.hub.deliver(3)  # two have it
    world.put(b"k")
    for client in clients:
        assert client.stream
        client.stream.progress()
    world.settle()
    for client in clients:
        responses = client.read()
        assert [revision for revision, _ in names(responses)] == [2, 3]
        assert responses[-1].watch_id == -1


def test_a_new_database_stops_what_a_pass_was_sending():
    world = World(chunk_rows=3)
    clients = [world.client() for _ in range(6)]
    for _ in range(9):
        world.put(b"k")
    for client in clients:
        assert client.stream
        client.stream.create(b"k", b"", 2)
        client.read()
    world.hub.deliver(8)  # some have the first chunk
    world.hub.suspend()
    world.settle()
    for client in clients:
        assert [revision for revision, _ in names(client.read())] == list(range(2, 11))


def test_a_pass_that_a_compaction_overtakes_ends_only_those_behind_it():
    world = World(chunk_rows=2)
    early, late = world.client(), world.client()
    assert early.stream and late.stream
    for _ in range(9):
        world.put(b"k")  # 2..10
    early.stream.create(b"k", b"", 2)
    late.stream.create(b"k", b"", 6)
    world.hub.deliver(3)
    world.past.compact_revision = 6
    world.settle()
    assert early.read()[-1].compact_revision == 6
    assert [revision for revision, _ in names(late.read())] == list(range(6, 11))


def test_watchers_are_limited():
    world = World(watchers_max=2)
    client = world.client()
    assert client.stream
    for _ in range(3):
        client.stream.create(b"k", b"")
    responses = client.read()
    assert [r.canceled for r in responses] == [False, False, True]
    assert responses[2].cancel_reason == "etcdserver: too many requests"
    client.stream.close()
    assert world.hub.statistics()["watchers"] == 0
    world.client()
    assert world.hub.streams == 1


def test_without_watchers_the_store_is_not_listened_to():
    world = World()
    client = world.client()
    assert client.stream
    assert world.past.listener is None
    client.stream.create(b"k", b"")
    assert world.past.listener is not None
    client.stream.close()
    assert world.past.listener is None


@pytest.mark.parametrize("room", [1, 3, 1000])
def test_the_same_calls_do_the_same(room: int):
    def run() -> list[list[bytes]]:
        world = World()
        clients = [world.client(room) for _ in range(5)]
        sent: list[list[bytes]] = []
        for step in range(60):
            client = clients[step % 5]
            assert client.stream
            client.stream.create(b"%d" % (step % 3), b"9", step // 2)
            world.put(b"%d" % (step % 7))
            world.hub.deliver(7)
            sent.append(list(client.queue))
            client.read()
        return sent

    assert run() == run()


KEYS = [b"a", b"b", b"ba", b"c", b"d"]
RANGES = [(b"a", b""), (b"b", b"c"), (b"b", b"\x00"), (b"", b"\x00"), (b"d", b""), (b"a", b"bb")]


@dataclass
class Asked:
    """What a watcher was promised."""

    key: bytes
    end: bytes
    start: int
    variant: int
    fragment: bool
    got: list[mvcc_pb2.Event] = field(default_factory=list)
    over: bool = False  # cancelled by the client
    gone: bool = False  # ended by compaction

    def wants(self, event: Event) -> bool:
        key, _, delete = event
        low = self.key or b"\x00"
        if not self.end:
            inside = key == low
        else:
            inside = key >= low and (self.end == b"\x00" or key < self.end)
        return inside and not self.variant & (NODELETE if delete else NOPUT)


class Guarantees(RuleBasedStateMachine):
    """Whatever happens: ordered, unique, complete, a revision never split but by fragments."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            message_bytes_max=160, pending_bytes_max=4_000, chunk_rows=3, pass_slice=2
        )
        self.clients = [self.world.client(room) for room in (1, 3, 1_000_000)]
        self.clients += [self.world.client(room, bulk=True) for room in (3, 1_000_000)]
        self.asked: list[dict[int, Asked]] = [{} for _ in self.clients]
        self.order: list[list[Asked]] = [[] for _ in self.clients]  # creations not yet answered

    which = st.integers(0, 4)

    @initialize(
        keys=st.lists(st.sampled_from(KEYS), max_size=12),
        whats=st.lists(st.sampled_from(RANGES), max_size=6),
    )
    def populate(self, keys: list[bytes], whats: list[tuple[bytes, bytes]]) -> None:
        self.write_much(keys)
        for number, what in enumerate(whats):
            self.create(number % 5, what, -number, number % 2 == 0, 0, False)

    @rule(
        keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True),
        value=st.sampled_from([None, b"", b"v" * 50]),
    )
    def write(self, keys: list[bytes], value: bytes | None) -> None:
        self.world.past.write([(key, value) for key in keys])

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=5, max_size=20))
    def write_much(self, keys: list[bytes]) -> None:
        for key in keys:
            self.world.past.write([(key, b"w")])

    @rule(
        which=which,
        what=st.sampled_from(RANGES),
        offset=st.integers(-12, 4),
        now=st.booleans(),
        variant=st.integers(0, 7),
        fragment=st.booleans(),
    )
    def create(
        self,
        which: int,
        what: tuple[bytes, bytes],
        offset: int,
        now: bool,
        variant: int,
        fragment: bool,
    ) -> None:
        if len(self.clients[which].queue) > 20:
            return  # a service stops reading requests long before
        current = self.world.past.revision
        start = 0 if now else max(1, current + offset)
        asked = Asked(*what, start or current + 1, variant, fragment)
        self.order[which].append(asked)
        stream = self.clients[which].stream
        assert stream
        stream.create(*what, start, variant=variant, fragment=fragment)

    @rule(which=which, number=st.integers(0, 20))
    def cancel(self, which: int, number: int) -> None:
        live = [i for i, asked in self.asked[which].items() if not asked.over]
        if live:
            stream = self.clients[which].stream
            assert stream
            self.take(which)
            chosen = live[number % len(live)]
            self.asked[which][chosen].over = True
            stream.cancel(chosen)

    @rule(budget=st.integers(1, 5))
    def deliver(self, budget: int) -> None:
        self.world.hub.deliver(budget)

    @rule(which=which)
    def read(self, which: int) -> None:
        self.take(which)

    @rule(which=which)
    def ask_progress(self, which: int) -> None:
        stream = self.clients[which].stream
        assert stream
        stream.progress()

    @rule(back=st.integers(0, 6))
    def compact(self, back: int) -> None:
        past = self.world.past
        past.compact_revision = max(past.compact_revision, past.revision - back)

    @rule()
    def new_database(self) -> None:
        self.world.hub.suspend()

    @rule()
    def settle(self) -> None:
        self.finish()

    def teardown(self) -> None:
        self.finish()

    def finish(self) -> None:
        for _ in range(10_000):
            more = self.world.hub.deliver()
            read = [self.take(which) for which in range(5)]
            if not more and not any(read):
                break
        assert self.world.hub.statistics()["slow_watchers"] == 0
        for table in self.asked:
            for asked in table.values():
                if not asked.over and not asked.gone:
                    assert len(asked.got) == len(self.expected(asked)), asked

    def expected(self, asked: Asked) -> list[tuple[int, Event]]:
        return [
            (revision, event)
            for revision, events in self.world.past.log
            if revision >= asked.start
            for event in events
            if asked.wants(event)
        ]

    def take(self, which: int) -> int:
        responses = self.clients[which].read()
        open_id = None
        for response in responses:
            if response.created:
                asked = self.order[which].pop(0)
                self.asked[which][response.watch_id] = asked
                continue
            if response.watch_id == -1:
                self.told(which, response.header.revision)
                continue
            asked = self.asked[which][response.watch_id]
            if response.canceled:
                if response.compact_revision:
                    asked.gone = True
                    assert asked.start < response.compact_revision
                continue
            assert not asked.over and not asked.gone, "an event after the end"
            assert response.events, "an empty message"
            if asked.got:
                again = asked.got[-1].kv.mod_revision == response.events[0].kv.mod_revision
                assert not again or open_id == response.watch_id, "a revision was split"
            asked.got.extend(response.events)
            assert response.header.revision >= asked.got[-1].kv.mod_revision
            assert not response.fragment or asked.fragment
            open_id = response.watch_id if response.fragment else None
        return len(responses)

    def told(self, which: int, revision: int) -> None:
        """Progress promises that everything up to `revision` has been sent."""
        for asked in self.asked[which].values():
            if not asked.over and not asked.gone:
                due = [r for r, _ in self.expected(asked) if r <= revision]
                assert len(asked.got) >= len(due)

    @invariant()
    def as_promised(self) -> None:
        self.world.hub.check()
        assert self.world.hub.pending_bytes <= 4_000
        for table in self.asked:
            for asked in table.values():
                for event, (revision, true) in zip(asked.got, self.expected(asked)):
                    assert event.kv.mod_revision == revision
                    assert event.kv.key == true[0]
                    assert event.kv.SerializeToString() == true[1]
                    assert event.type == int(true[2])
                    if event.HasField("prev_kv"):
                        assert asked.variant & PREVIOUS
                        assert event.prev_kv.mod_revision < revision
                assert len(asked.got) <= len(self.expected(asked))


TestGuarantees = Guarantees.TestCase
TestGuarantees.settings = examples(50, stateful_step_count=40)


class LongGuarantees(Guarantees):
    """The same for much longer."""


TestLongGuarantees = pytest.mark.soak(LongGuarantees.TestCase)
TestLongGuarantees.settings = examples(3_000, stateful_step_count=80)


def test_a_revision_told_in_portions_is_one_message_and_no_promise_comes_before():
    world = World()
    client, other = world.client(), world.client()
    assert client.stream and other.stream
    client.stream.create(b"k", b"l", 0)
    other.stream.create(b"k1", b"", 0)
    world.put(b"k1")
    world.settle()
    hub = world.hub
    changes = [(b"k%d" % n, b"v") for n in range(5)]
    world.past.listener = None
    world.past.write(changes)
    revision, events = world.past.log[-1]
    hub.on_events(revision, [], True)
    for number, event in enumerate(events):
        late = world.client()
        assert late.stream
        late.stream.create(b"k", b"l", revision if number % 2 else 0)
        while hub.deliver():
            pass
        for each in (client, other):
            assert each.stream is not None
            each.stream.progress()
            each.read()
            assert [response.header.revision for response in each.got if response.events] == [2]
            assert all(response.events or response.created for response in each.got)
        hub.on_events(revision, [event], number < len(events) - 1)
        hub.check()
    world.settle()
    for each in (client, other):
        each.read()
    assert [len(response.events) for response in client.got if response.events] == [1, 5]
    assert [len(response.events) for response in other.got if response.events] == [1, 1]
    client.stream.progress()
    client.read()
    assert client.got[-1].header.revision == revision and not client.got[-1].events
