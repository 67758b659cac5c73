from __future__ import annotations

from typing import Any

import pytest

from keyraft.proto import rpc_pb2
from keyraft.server import RaftEngine
from keyraft.server.engine.range_feeds import TURN_BYTES
from tests.server.harness import OneMember

from .calls import FakeCall, ask
from .served import served

EMPTY_KEY = (3, "etcdserver: key is not provided")
NO_LEADER = (14, "etcdserver: no leader")


class KV:
    """The service of one member in virtual time."""

    def __init__(self) -> None:
        self.one = OneMember()
        self.one.run(1.0)
        self.services = served(self.one.member)
        self.service = self.services.kv

    def call(self, name: str, request: Any, call: FakeCall | None = None) -> Any:
        answered = ask(getattr(self.service, name), request.SerializeToString(), call)
        if answered.answer is None:
            self.one.run(0.05)
        return answered.answer

    def put(self, key: bytes, value: bytes = b"v", **fields: Any) -> Any:
        return self.call("put", rpc_pb2.PutRequest(key=key, value=value, **fields))

    def range(self, **fields: Any) -> rpc_pb2.RangeResponse:
        answer = self.call("range", rpc_pb2.RangeRequest(**fields))
        assert isinstance(answer, bytes), answer
        return rpc_pb2.RangeResponse.FromString(answer)


@pytest.fixture
def kv() -> KV:
    return KV()


def test_a_put_is_read_back_with_full_headers(kv: KV) -> None:
    answer = rpc_pb2.PutResponse.FromString(kv.put(b"k", b"v"))
    settings = kv.one.settings
    assert (answer.header.cluster_id, answer.header.member_id) == (
        settings.cluster_id,
        settings.member_id,
    )
    assert (answer.header.revision, answer.header.raft_term) == (2, kv.one.member.leadership.term)
    found = kv.range(key=b"k")
    assert (found.kvs[0].value, found.count, found.header.revision) == (b"v", 1, 2)
    assert kv.range(key=b"k", serializable=True) == found


@pytest.mark.parametrize(
    ("name", "request_message", "refusal"),
    [
        ("put", rpc_pb2.PutRequest(value=b"v"), EMPTY_KEY),
        ("range", rpc_pb2.RangeRequest(), EMPTY_KEY),
        ("delete_range", rpc_pb2.DeleteRangeRequest(), EMPTY_KEY),
        (
            "put",
            rpc_pb2.PutRequest(key=b"k", value=b"v", ignore_value=True),
            (3, "etcdserver: value is provided"),
        ),
        (
            "put",
            rpc_pb2.PutRequest(key=b"k", value=b"v", ignore_lease=True, lease=3),
            (3, "etcdserver: lease is provided"),
        ),
        (
            "put",
            rpc_pb2.PutRequest(key=b"k", value=b"v", lease=3),
            (5, "etcdserver: requested lease not found"),
        ),
        (
            "put",
            rpc_pb2.PutRequest(key=b"k", ignore_value=True),
            (3, "etcdserver: key not found"),
        ),
        (
            "put",
            rpc_pb2.PutRequest(key=b"k", value=b"v" * 1_572_864),
            (3, "etcdserver: request is too large"),
        ),
        (
            "range",
            rpc_pb2.RangeRequest(key=b"k", revision=9),
            (11, "etcdserver: mvcc: required revision is a future revision"),
        ),
        (
            "compact",
            rpc_pb2.CompactionRequest(revision=9),
            (11, "etcdserver: mvcc: required revision is a future revision"),
        ),
    ],
)
def test_a_request_is_refused_with_etcds_code_and_text(
    kv: KV, name: str, request_message: Any, refusal: tuple[int, str]
) -> None:
    assert kv.call(name, request_message) == refusal


def test_bytes_that_are_no_message_are_refused_as_the_decoder_does(kv: KV) -> None:
    for handle in (kv.service.put, kv.service.range, kv.service.txn, kv.service.delete_range):
        answer = ask(handle, b"\xff\xff\xff").answer  # type: ignore[arg-type]
        assert isinstance(answer, tuple) and answer[0] == 13
        assert answer[1].startswith("grpc: error unmarshalling request")


def test_a_delete_tells_how_many_and_what(kv: KV) -> None:
    for key in (b"a1", b"a2", b"b"):
        kv.put(key)
    answer = kv.call(
        "delete_range", rpc_pb2.DeleteRangeRequest(key=b"a", range_end=b"b", prev_kv=True)
    )
    deleted = rpc_pb2.DeleteRangeResponse.FromString(answer)
    assert deleted.deleted == 2 and [one.key for one in deleted.prev_kvs] == [b"a1", b"a2"]
    assert deleted.header.revision == 5


def test_a_transaction_that_only_reads_makes_no_entry(kv: KV) -> None:
    kv.put(b"k")
    index = kv.one.member.applied_index
    read = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"k"))
    answer = kv.call("txn", rpc_pb2.TxnRequest(success=[read]))
    found = rpc_pb2.TxnResponse.FromString(answer)
    assert found.succeeded and found.responses[0].response_range.kvs[0].value == b"v"
    assert kv.one.member.applied_index == index
    put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"k", value=b"w"))
    written = rpc_pb2.TxnResponse.FromString(kv.call("txn", rpc_pb2.TxnRequest(success=[put])))
    assert written.header.revision == 3
    assert kv.one.member.applied_index == index + 1


def test_a_physical_compaction_answers_when_the_rows_are_gone(kv: KV) -> None:
    for number in range(50):
        kv.put(b"k", b"%d" % number)
    answer = kv.call("compact", rpc_pb2.CompactionRequest(revision=40, physical=True))
    if answer is None:
        kv.one.run(5.0)
    assert kv.one.member.store.compact_revision == 40
    assert not kv.one.member.store.compactions
    assert kv.call("compact", rpc_pb2.CompactionRequest(revision=40)) == (
        11,
        "etcdserver: mvcc: required revision has been compacted",
    )


def test_a_range_of_many_keys_gives_way_and_reads_one_revision(kv: KV) -> None:
    for number in range(3_000):
        kv.put(b"key/%05d" % number) if number % 100 == 0 else kv.one.put(
            b"key/%05d" % number, b"v"
        )
    kv.one.run(0.5)
    revision = kv.one.member.store.revision
    found = kv.range(key=b"key/", range_end=b"key0")
    assert len(found.kvs) == found.count == 3_000
    assert found.header.revision == revision


def test_the_quota_refuses_raises_the_alarm_and_lets_deletes_pass(kv: KV) -> None:
    kv.put(b"k")
    member = kv.one.member
    member.quota.bytes_max = 1
    member.quota.refresh()
    assert kv.put(b"k2") == (8, "etcdserver: mvcc: database space exceeded")
    kv.one.run(0.1)
    assert member.alarms.raised() == [(1, kv.one.settings.member_id)]
    answer = kv.call("delete_range", rpc_pb2.DeleteRangeRequest(key=b"k"))
    assert isinstance(answer, bytes)


def test_who_demands_a_leader_is_refused_without_one(kv: KV) -> None:
    kv.one.lose_leader()
    demanding = FakeCall({b"hasleader": b"true"})
    request = rpc_pb2.RangeRequest(key=b"k", serializable=True)
    assert kv.call("range", request, demanding) == NO_LEADER
    assert isinstance(kv.call("range", request), bytes)


def test_a_stream_that_demands_a_leader_ends_without_one_and_leaves_nothing_behind(kv: KV) -> None:
    member = kv.one.member
    service = kv.services.watch
    stream = FakeCall({b"hasleader": b"true"})
    stream.handler = service.open(stream)
    create = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"k"))
    stream.handler.on_message(create.SerializeToString())
    assert member.watches.statistics()["watchers"] == 1
    kv.one.lose_leader()
    kv.one.run(6 * member.settings.election_s)
    assert stream.finished == NO_LEADER
    assert member.watches.statistics()["watchers"] == member.watches.streams == 0


def test_client_versions_are_counted_and_must_be_text(kv: KV) -> None:
    request = rpc_pb2.RangeRequest(key=b"k")
    kv.call("range", request, FakeCall({b"client-api-version": b"3.5"}))
    kv.call("range", request)
    assert kv.services.guard.unary_versions[b"3.5"] == 1
    assert kv.services.guard.unary_versions[b"unknown"] == 1
    assert kv.call("range", request, FakeCall({b"client-api-version": b"\xff"})) == (
        3,
        "etcdserver: invalid client api version",
    )
    for number in range(2_000):
        kv.call("range", request, FakeCall({b"client-api-version": b"v%d" % number}))
    assert len(kv.services.guard.unary_versions) < 300


def test_a_range_stream_sends_everything_in_chunks_and_the_header_last(kv: KV) -> None:
    for number in range(100):
        kv.one.put(b"key/%03d" % number, b"v")
    kv.one.run(0.1)
    stream = FakeCall()
    handler = kv.service.range_stream(stream)
    request = rpc_pb2.RangeRequest(key=b"key/", range_end=b"key0", limit=70)
    handler.on_message(request.SerializeToString())
    kv.one.put(b"key/001", b"later")
    kv.one.run(1.0)
    parts = [rpc_pb2.RangeStreamResponse.FromString(m).range_response for m in stream.sent]
    assert stream.finished == (0, "")
    keys = [one.key for part in parts for one in part.kvs]
    assert keys == [b"key/%03d" % number for number in range(70)]
    assert len(parts[0].kvs) == 10
    assert all(not part.HasField("header") and not part.count for part in parts[:-1])
    assert (parts[-1].count, parts[-1].more, parts[-1].header.revision) == (100, True, 101)


def test_range_streams_take_turns_and_all_together_send_so_much_in_one(kv: KV) -> None:
    for number in range(20):
        kv.one.put(b"key/%03d" % number, b"v" * 300_000)
    kv.one.run(0.1)
    streams = [FakeCall(window=1 << 30) for _ in range(20)]
    engine = kv.services.engine
    assert isinstance(engine, RaftEngine)
    feeds = engine.keys._feeds
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString()
    for stream in streams:
        kv.service.range_stream(stream).on_message(request)
    sent = chunks = 0
    while not all(stream.finished for stream in streams):
        feeds._turn()
        now = sum(len(message) for stream in streams for message in stream.sent)
        largest = max(len(message) for stream in streams for message in stream.sent)
        assert sent <= now <= sent + TURN_BYTES + largest
        sent = now
        counts = [len(stream.sent) for stream in streams]
        assert max(counts) - min(counts) <= 1  # nobody gets two chunks before another's one
        chunks += 1
    assert {stream.finished for stream in streams} == {(0, "")}
    assert sent > 20 * 20 * 300_000


def test_a_chunk_of_large_values_ends_at_its_size(kv: KV) -> None:
    for number in range(20):
        kv.one.put(b"key/%03d" % number, b"v" * 1_000_000)
    kv.one.run(0.1)
    stream = FakeCall(window=1 << 30)
    handler = kv.service.range_stream(stream)
    handler.on_message(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString())
    kv.one.run(1.0)
    target = kv.one.member.settings.request_bytes_max
    assert max(map(len, stream.sent)) < 2 * target + 1_100_000
    parts = [rpc_pb2.RangeStreamResponse.FromString(m).range_response for m in stream.sent]
    assert [one.key for part in parts for one in part.kvs] == [
        b"key/%03d" % number for number in range(20)
    ]


def test_a_range_stream_waits_for_its_reader(kv: KV) -> None:
    for number in range(100):
        kv.one.put(b"key/%03d" % number, b"v" * 1_000)
    kv.one.run(0.1)
    stream = FakeCall(window=5_000)
    handler = kv.service.range_stream(stream)
    handler.on_message(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString())
    kv.one.run(1.0)
    assert stream.finished is None and sum(map(len, stream.sent)) < 20_000
    stream.window = 1 << 30
    handler.on_writable()
    kv.one.run(1.0)
    assert stream.finished == (0, "")
