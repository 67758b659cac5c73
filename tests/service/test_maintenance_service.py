from __future__ import annotations

from typing import Any

import pytest

from keyraft.base.log import NullLogger
from keyraft.mvcc import hash_all
from keyraft.proto import health_pb2, rpc_pb2
from keyraft.server.engine.upkeep import RaftUpkeep
from keyraft.service import HealthService
from tests.server.harness import OneMember

from .calls import FakeCall, ask
from .served import served


@pytest.fixture
def one() -> OneMember:
    found = OneMember()
    found.run(1.0)
    return found


def call(one: OneMember, handle: Any, request: Any, patience_s: float = 0.1) -> Any:
    answered = ask(handle, request.SerializeToString())
    if answered.answer is None:
        one.run(patience_s)
    return answered.answer


def test_status_is_true(one: OneMember) -> None:
    service = served(one.member).maintenance
    one.put(b"k", b"v")
    one.run(0.2)
    answer = call(one, service.status, rpc_pb2.StatusRequest())
    found = rpc_pb2.StatusResponse.FromString(answer)
    member = one.member
    assert found.version == "3.7.1" and found.storageVersion == "3.7.0"
    assert found.leader == found.header.member_id == one.settings.member_id
    assert found.raftIndex == found.raftAppliedIndex == member.applied_index
    assert found.raftTerm == member.leadership.term and found.dbSizeQuota == 2_147_483_648
    assert not found.errors and not found.isLearner and not found.downgradeInfo.enabled


def test_alarms_are_listed_raised_and_disarmed_through_the_log(one: OneMember) -> None:
    service = served(one.member).maintenance
    own = one.settings.member_id
    alarm = rpc_pb2.AlarmRequest(action=1, memberID=own, alarm=1)
    raised = rpc_pb2.AlarmResponse.FromString(call(one, service.alarm, alarm))
    assert [(a.memberID, a.alarm) for a in raised.alarms] == [(own, 1)]
    listed = rpc_pb2.AlarmResponse.FromString(call(one, service.alarm, rpc_pb2.AlarmRequest()))
    assert [(a.memberID, a.alarm) for a in listed.alarms] == [(own, 1)]
    status = rpc_pb2.StatusResponse.FromString(call(one, service.status, rpc_pb2.StatusRequest()))
    assert list(status.errors) == [f"memberID:{own} alarm:NOSPACE "]
    alarm.action = 2  # type: ignore[assignment]  # protobuf takes numbers
    call(one, service.alarm, alarm)
    assert one.member.alarms.raised() == []


def test_hash_kv_tells_what_it_covers(one: OneMember) -> None:
    service = served(one.member).maintenance
    for number in range(20):
        one.put(b"k%d" % number, b"v")
    one.run(0.2)
    found = rpc_pb2.HashKVResponse.FromString(call(one, service.hash_kv, rpc_pb2.HashKVRequest()))
    assert (found.compact_revision, found.hash_revision, found.header.revision) == (-1, 21, 21)
    older = rpc_pb2.HashKVResponse.FromString(
        call(one, service.hash_kv, rpc_pb2.HashKVRequest(revision=11))
    )
    assert older.hash_revision == 11 and older.hash != found.hash
    assert call(one, service.hash_kv, rpc_pb2.HashKVRequest(revision=99)) == (
        11,
        "etcdserver: mvcc: required revision is a future revision",
    )


def test_hash_covers_everything_and_writes_wait_for_it(one: OneMember) -> None:
    service = served(one.member).maintenance
    for number in range(1_500):
        one.put(b"k%d" % number, b"v")
    one.run(0.5)
    expected = hash_all(one.member.backend)
    loop = one.loop
    real_time = loop.time
    loop.time = lambda: real_time() + next(ticks)  # type: ignore[method-assign]
    ticks = iter(n * 0.004 for n in range(1_000_000))
    answered = ask(service.hash, rpc_pb2.HashRequest().SerializeToString())
    assert answered.answer is None
    written = one.put(b"later", b"v")
    loop.time = real_time  # type: ignore[method-assign]
    one.run(1.0)
    assert isinstance(answered.answer, bytes)
    assert rpc_pb2.HashResponse.FromString(answered.answer).hash == expected
    assert len(written.results) == 1 and one.get(b"later") == b"v"


@pytest.mark.parametrize(
    ("action", "version", "expected"),
    [
        (0, "3.6", "3.7"),
        (0, "3.6.0", "3.7"),
        (1, "3.6.0", "3.7"),
        (2, "", "3.7"),
        (0, "", (3, "etcdserver: wrong downgrade target version format")),
        (0, "x", (3, "etcdserver: wrong downgrade target version format")),
        (0, "3.5.0", (3, "etcdserver: invalid downgrade target version")),
        (7, "3.6", (2, "etcdserver: unknown method")),
    ],
)
def test_a_downgrade_is_validated_enabled_and_cancelled(
    one: OneMember, action: int, version: str, expected: Any
) -> None:
    service = served(one.member).maintenance
    request = rpc_pb2.DowngradeRequest(version=version)
    request.action = action  # type: ignore[assignment]  # an enum's number, also unknown ones
    answer = call(one, service.downgrade, request)
    if isinstance(answer, bytes):
        answer = rpc_pb2.DowngradeResponse.FromString(answer).version
    assert answer == expected
    assert one.member.membership.cluster.downgrade.enabled == (action == 1)


def test_leadership_moves_to_oneself_at_once_and_to_strangers_never(one: OneMember) -> None:
    service = served(one.member).maintenance
    own = one.settings.member_id
    assert call(one, service.move_leader, rpc_pb2.MoveLeaderRequest(targetID=own)) == b""
    assert call(one, service.move_leader, rpc_pb2.MoveLeaderRequest(targetID=7)) == (
        9,
        "etcdserver: bad leader transferee",
    )


def test_members_are_listed_without_a_revision(one: OneMember) -> None:
    service = served(one.member).cluster
    answer = call(one, service.member_list, rpc_pb2.MemberListRequest(linearizable=True))
    found = rpc_pb2.MemberListResponse.FromString(answer)
    assert [member.name for member in found.members] == ["m1"]
    assert found.header.revision == 0 and found.header.raft_term == one.member.leadership.term


def test_a_learner_is_added_and_removed_and_its_id_never_returns(one: OneMember) -> None:
    service = served(one.member).cluster
    request = rpc_pb2.MemberAddRequest(peerURLs=["http://127.0.0.1:9"], isLearner=True)
    added = rpc_pb2.MemberAddResponse.FromString(call(one, service.member_add, request))
    assert added.member.isLearner and len(added.members) == 2
    request.peerURLs[:] = ["http://127.0.0.1:10"]
    assert call(one, service.member_add, request) == (
        9,
        "etcdserver: too many learner members in cluster",
    )
    remove = rpc_pb2.MemberRemoveRequest(ID=added.member.ID)
    removed = rpc_pb2.MemberRemoveResponse.FromString(call(one, service.member_remove, remove))
    assert len(removed.members) == 1
    assert call(one, service.member_remove, remove) == (5, "etcdserver: member not found")
    assert one.member.readable, "a learner must not cost the sole voter its reads"


class TokenCalls:
    """Stands for the way to the leader."""

    def __init__(self) -> None:
        self.tokens: list[str | None] = []

    def promote(self, member_id: int, token: str | None, done: Any) -> Any:
        self.tokens.append(token)
        done(None)
        return lambda: None


@pytest.mark.parametrize("token", [b"simple.7", b"", b"\xff\xfe", "Schlüssel".encode()])
def test_a_follower_tells_the_leader_a_callers_token_whatever_its_bytes(
    one: OneMember, token: bytes
) -> None:
    calls = one.member.leader_calls = TokenCalls()  # type: ignore[assignment]  # one of its verbs
    one.lose_leader()
    request = rpc_pb2.MemberPromoteRequest(ID=5).SerializeToString()
    call = FakeCall({b"token": token} if token else {})
    ask(served(one.member).cluster.member_promote, request, call)
    assert isinstance(call.answer, bytes)
    sent = [text and text.encode("utf-8", "surrogateescape") for text in calls.tokens]  # type: ignore[attr-defined]
    assert sent == [token or None]


def test_the_same_urls_are_known_by_their_id_for_a_second(one: OneMember) -> None:
    service = served(one.member).cluster
    request = rpc_pb2.MemberAddRequest(peerURLs=["http://127.0.0.1:9"], isLearner=True)
    one.run(1.0 - one.member.wall_clock() % 1.0)
    rpc_pb2.MemberAddResponse.FromString(call(one, service.member_add, request))
    again = call(one, service.member_add, request)
    assert again == (9, "etcdserver: member ID already exist")
    one.run(1.0)
    later = call(one, service.member_add, request)
    assert later == (9, "etcdserver: Peer URLs already exists")


@pytest.mark.parametrize("urls", [[], ["ftp://x:1"], ["http://x"]])
def test_a_member_with_bad_urls_is_refused(one: OneMember, urls: list[str]) -> None:
    service = served(one.member).cluster
    assert call(one, service.member_add, rpc_pb2.MemberAddRequest(peerURLs=urls)) == (
        3,
        "etcdserver: given member URLs are invalid",
    )


def test_health_can_be_not_serving_while_a_defragmentation_runs(one: OneMember) -> None:
    health, told = HealthService(), list[bool]()
    health.serving = True
    member = served(one.member)

    def paused(under_way: bool) -> None:
        health.pause(NullLogger(), "defrag is active", under_way)
        told.append(health.serving)

    upkeep = member.engine.upkeep
    assert isinstance(upkeep, RaftUpkeep)
    upkeep.on_defragment = paused
    assert call(one, member.maintenance.defragment, rpc_pb2.DefragmentRequest()) == b""
    assert told == [False, True]
    paused(True)
    health.stop()
    paused(False)
    assert not health.serving  # a member that ends does not serve again


def test_health_is_checked_and_watched() -> None:
    service = HealthService()
    kinds = health_pb2.HealthCheckResponse
    request = health_pb2.HealthCheckRequest()
    stream = FakeCall()
    handler = service.watch(stream)
    handler.on_message(request.SerializeToString())
    service.serving = True
    answer = ask(service.check, request.SerializeToString()).answer
    assert kinds.FromString(answer).status == kinds.SERVING  # type: ignore[arg-type]
    handler.on_cancel(1)
    service.serving = False
    states = [kinds.FromString(message).status for message in stream.sent]
    assert states == [kinds.NOT_SERVING, kinds.SERVING]
    stranger = health_pb2.HealthCheckRequest(service="x").SerializeToString()
    assert ask(service.check, stranger).answer == (5, "unknown service")
