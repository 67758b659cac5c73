from __future__ import annotations

import pytest

from keyraft.base import errors
from keyraft.mvcc.backend import META, META_CONSISTENT_INDEX
from keyraft.proto import rpc_pb2
from keyraft.raft import Entry
from keyraft.server.apply import internal_request
from keyraft.server.apply.queue import Work

from .harness import OneMember


@pytest.fixture
def one() -> OneMember:
    found = OneMember()
    found.run(1.0)
    return found


def test_a_sole_voter_elects_itself_publishes_and_sets_the_cluster_version(one: OneMember) -> None:
    member = one.member
    assert member.leadership.leading and member.leadership.leader == one.settings.member_id
    assert member.publisher.published and member.leadership.in_service and member.readable
    cluster = member.membership.cluster
    assert str(cluster.version) == "3.7.0"
    assert cluster.members[0].client_urls == ("http://127.0.0.1:2379",)
    assert member.membership.storage_version == "3.7.0"


def test_a_put_is_answered_after_its_sync_and_not_before(one: OneMember) -> None:
    syncs = one.log.syncs
    answers = one.put(b"k", b"v")
    one.run(0.001)
    assert answers.results == [] and one.get(b"k") is None
    one.run(0.01)
    (result,) = answers.results
    assert isinstance(result, bytes)
    assert rpc_pb2.PutResponse.FromString(result).header.revision == 2
    assert one.get(b"k") == b"v"
    assert one.log.syncs == syncs + 1


def test_all_proposals_of_a_turn_share_one_sync_and_keep_their_order(one: OneMember) -> None:
    syncs = one.log.syncs
    answers = [one.put(b"k%d" % (n % 7), b"%d" % n) for n in range(500)]
    one.run(0.05)
    assert one.log.syncs == syncs + 1
    revisions = [
        rpc_pb2.PutResponse.FromString(a.results[0]).header.revision  # type: ignore[arg-type]
        for a in answers
    ]
    assert revisions == list(range(2, 502))


def test_proposals_made_during_a_sync_form_the_next_batch(one: OneMember) -> None:
    syncs = one.log.syncs
    first = [one.put(b"a", b"%d" % n) for n in range(10)]
    one.run(0.001)
    second = [one.put(b"b", b"%d" % n) for n in range(10)]
    one.run(0.0015)
    assert all(a.results for a in first) and not any(a.results for a in second)
    one.run(0.01)
    assert all(a.results for a in second)
    assert one.log.syncs == syncs + 2


def test_a_refusal_at_apply_is_the_answer(one: OneMember) -> None:
    request = rpc_pb2.PutRequest(key=b"k", value=b"v", lease=99).SerializeToString()
    answers = one.propose(internal_request.KIND_PUT, request)
    one.run(0.1)
    (refusal,) = answers.results
    assert isinstance(refusal, errors.LeaseNotFoundError)


def test_what_was_acknowledged_survives_a_crash_and_nothing_is_applied_twice(
    one: OneMember,
) -> None:
    answers = one.put(b"k", b"1")
    one.run(0.1)
    one.backend.flush()
    later = [one.put(b"k", b"%d" % n) for n in range(2, 6)]
    one.run(0.1)
    assert answers.results and all(a.results for a in later)
    revision = one.member.store.revision
    one.crash()
    one.start()
    one.run(1.0)
    assert one.get(b"k") == b"5"
    assert one.member.store.revision == revision
    one.member.store.check()


def test_what_was_not_synced_is_not_acknowledged_and_may_be_lost(one: OneMember) -> None:
    answers = one.put(b"k", b"v")
    one.run(0.001)
    one.crash()
    one.start()
    one.run(1.0)
    assert one.get(b"k") is None
    assert all(not isinstance(result, bytes) for result in answers.results)


def test_the_consistent_index_is_in_the_batch_with_the_writes(one: OneMember) -> None:
    one.put(b"k", b"v")
    one.run(0.1)
    one.backend.flush()
    stored = one.disk[META][META_CONSISTENT_INDEX]
    assert int.from_bytes(stored, "big") == one.member.applied_index


def test_a_stuck_disk_times_out_what_waits(one: OneMember) -> None:
    one.log.stuck = True
    answers = one.put(b"k", b"v")
    one.run(6.9)
    assert answers.results == []
    one.run(0.4)
    (refusal,) = answers.results
    assert isinstance(refusal, errors.RequestTimeoutError)
    assert one.member.counters.proposals_failed == 1
    assert len(one.member.waiting) == 0


def test_a_request_above_the_limit_is_refused_at_once(one: OneMember) -> None:
    with pytest.raises(errors.RequestTooLargeError):
        one.put(b"k", b"v" * one.settings.request_bytes_max)


def test_too_many_unapplied_entries_refuse_new_requests(one: OneMember) -> None:
    one.member.committed_index += 5_001
    one.unsound = True
    with pytest.raises(errors.TooManyRequestsError):
        one.put(b"k", b"v")


def test_a_stopped_member_answers_everybody(one: OneMember) -> None:
    answers = one.put(b"k", b"v")
    reads: list[object] = []
    done: list[bool] = []
    one.member.stop(lambda: done.append(True))
    one.member.read_index(reads.append)
    one.run(0.1)
    assert isinstance(answers.results[0], errors.StoppedError)
    assert isinstance(reads[0], errors.StoppedError)
    assert done == [True]
    with pytest.raises(errors.StoppedError):
        one.put(b"k", b"v")


def test_a_read_waits_until_what_is_committed_is_applied(one: OneMember) -> None:
    reads: list[object] = []
    one.member.read_index(reads.append)
    assert reads == [None]
    one.member.committed_index += 1
    one.member.read_index(reads.append)
    assert reads == [None]
    one.put(b"k", b"v")
    one.run(0.1)
    assert reads == [None, None]


def test_before_the_first_commit_of_its_term_a_leader_answers_no_read() -> None:
    one = OneMember()
    reads: list[object] = []
    one.member.read_index(reads.append)
    assert not one.member.readable
    one.run(0.0005)
    assert reads == []
    one.run(2.0)
    assert reads == [None]


@pytest.mark.slow
def test_snapshots_shorten_the_log_and_a_restart_begins_there() -> None:
    one = OneMember(snapshot_count=100)
    one.run(1.0)
    for n in range(1_500):
        one.put(b"k", b"%d" % n)
        if n % 50 == 0:
            one.run(0.01)
    one.run(1.0)
    assert one.log.snapshot.index > 1_000
    assert one.log.snapshot.conf_state.voters == [one.settings.member_id]
    assert one.member.raft.node.raft.log.storage.first_index() > 1
    one.crash()
    one.start()
    one.run(1.0)
    assert one.get(b"k") == b"1499"
    assert one.member.leadership.leading


def test_the_apply_queue_gives_way_after_a_slice(one: OneMember) -> None:
    ran: list[int] = []
    queue = one.member.queue
    real = queue._apply

    def slow(entry: Entry) -> Work | None:
        one.loop._now_s += 0.0005  # each entry takes half a millisecond of virtual time
        return real(entry)

    queue._apply = slow
    for n in range(200):
        one.put(b"k%d" % n, b"v")

    def look() -> None:
        ran.append(len(queue))
        one.loop.call_later(0.001, look)

    look()
    one.run(1.0)
    assert max(ran) > 0  # others ran while entries still waited
    assert one.member.store.revision == 201


def test_alarms_refuse_from_the_same_entry_on(one: OneMember) -> None:
    alarm = rpc_pb2.AlarmRequest(
        action=rpc_pb2.AlarmRequest.ACTIVATE,
        memberID=one.settings.member_id,
        alarm=rpc_pb2.NOSPACE,
    )
    before = one.put(b"a", b"1")
    raised = one.propose(internal_request.KIND_ALARM, alarm.SerializeToString())
    after = one.put(b"a", b"2")
    delete = one.propose(
        internal_request.KIND_DELETE_RANGE, rpc_pb2.DeleteRangeRequest(key=b"a").SerializeToString()
    )
    one.run(0.1)
    assert isinstance(before.results[0], bytes)
    assert isinstance(raised.results[0], bytes)
    assert isinstance(after.results[0], errors.NoSpaceError)
    assert isinstance(delete.results[0], bytes)
    alarm.action = rpc_pb2.AlarmRequest.DEACTIVATE
    one.propose(internal_request.KIND_ALARM, alarm.SerializeToString())
    again = one.put(b"a", b"3")
    one.run(0.1)
    assert isinstance(again.results[0], bytes)


def test_nothing_is_applied_while_the_database_cannot_keep_up(one: OneMember) -> None:
    lagging = [True]
    one.member.queue._overloaded = lambda: lagging[0]
    answers = one.put(b"k", b"v")
    one.run(1.0)
    assert answers.results == [] and one.get(b"k") is None
    assert not one.member.readable
    lagging[0] = False
    one.run(0.1)
    assert len(answers.results) == 1 and one.get(b"k") == b"v"
