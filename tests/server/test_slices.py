"""Entries that take many turns of the loop: what goes on meanwhile, what waits, what a crash leaves."""

from __future__ import annotations

import pytest

from keyraft.mvcc.backend import META, META_CONSISTENT_INDEX
from keyraft.proto import rpc_pb2
from keyraft.raft import Snapshot, SnapshotMeta
from keyraft.server import hash_buckets
from keyraft.server.apply import internal_request

from .harness import Answers, OneMember

KEYS = 300
BEFORE = KEYS + 1  # the revision


@pytest.fixture
def one() -> OneMember:
    """A member with many keys, which does one step of ten keys in a turn."""
    one = OneMember()
    one.run(1.0)
    for number in range(KEYS):
        one.put(b"k%03d" % number, b"v")
    one.run(1.0)
    one.backend.flush()
    slow(one)
    return one


def slow(one: OneMember) -> None:
    one.member.store.slice_keys = 10
    one.member.queue.steps_max = 1
    one.member.slices.steps_max = 1


def delete_all(one: OneMember) -> Answers:
    request = rpc_pb2.DeleteRangeRequest(key=b"k", range_end=b"l")
    return one.propose(internal_request.KIND_DELETE_RANGE, request.SerializeToString())


def until_amid(one: OneMember) -> None:
    """Runs until an entry is under way and has changed something."""
    store = one.member.store
    for _ in range(100_000):
        if store.pending_revision != store.revision:
            return
        one.loop.run_until(one.loop.time() + 10.0, turn())
    raise AssertionError("no entry takes more than a turn")


def turn() -> object:
    """A condition that holds when one call has run."""
    calls = iter((False, True))
    return lambda: next(calls)


def count(one: OneMember) -> int:
    request = rpc_pb2.RangeRequest(key=b"k", range_end=b"l", count_only=True)
    answer = one.member.store.range(request.SerializeToString())
    return rpc_pb2.RangeResponse.FromString(answer).count


def test_others_go_on_and_see_what_was_before(one: OneMember) -> None:
    deleted = delete_all(one)
    behind = one.put(b"k000", b"again")
    until_amid(one)
    turns = 0
    while one.member.store.revision == BEFORE and not deleted.results:
        assert count(one) == KEYS and one.get(b"k000") == b"v"
        assert not behind.results and not one.member.readable
        turns += 1
        one.loop.run_until(one.loop.time() + 10.0, turn())
    assert turns >= KEYS // 10 - 2
    one.run(1.0)
    answer = rpc_pb2.DeleteRangeResponse.FromString(deleted.results[0])  # type: ignore[arg-type]
    assert (answer.deleted, answer.header.revision) == (KEYS, BEFORE + 1)
    assert len(behind.results) == 1 and one.get(b"k000") == b"again" and count(one) == 1
    one.member.store.check()


@pytest.mark.parametrize("turns", [0, 3, 20])
def test_a_crash_amid_an_entry_loses_the_whole_of_it_and_the_log_has_it(
    one: OneMember, turns: int
) -> None:
    delete_all(one)
    until_amid(one)
    for _ in range(turns):
        one.loop.run_until(one.loop.time() + 10.0, turn())
    applied = one.member.applied_index
    flushed: list[bool] = []
    one.backend.flush(lambda: flushed.append(True))  # as a compaction would, or a snapshot
    assert not flushed
    one.crash()
    stored = one.disk[META][META_CONSISTENT_INDEX]
    assert int.from_bytes(stored, "big") <= applied
    one.start()
    assert one.member.store.revision == BEFORE
    slow(one)
    one.run(1.0)
    assert one.member.store.revision == BEFORE + 1 and count(one) == 0
    one.member.store.check()


def test_a_batch_that_was_wanted_amid_an_entry_is_sealed_behind_it(one: OneMember) -> None:
    delete_all(one)
    until_amid(one)
    flushed: list[int] = []
    one.backend.flush(lambda: flushed.append(one.member.applied_index))
    applied = one.member.applied_index
    one.run(1.0)
    assert flushed == [applied + 1]
    one.crash()
    one.start()
    assert one.member.store.revision == BEFORE + 1 and count(one) == 0


def test_the_hash_of_all_waits_for_the_entry_and_the_next_entry_for_the_hash(
    one: OneMember,
) -> None:
    hashes: list[tuple[int, int]] = []

    def hashed(value: int) -> None:
        hashes.append((value, one.member.store.revision))

    delete_all(one)
    until_amid(one)
    hash_buckets(one.member, hashed, lambda: False)
    after = one.put(b"z", b"1")
    one.run(1.0)
    hash_buckets(one.member, hashed, lambda: False)
    one.run(1.0)
    assert [revision for _, revision in hashes] == [BEFORE + 1, BEFORE + 2]
    assert len(after.results) == 1


def test_a_member_that_stops_amid_an_entry_leaves_it_to_its_next_life(one: OneMember) -> None:
    deleted = delete_all(one)
    until_amid(one)
    one.member.stop(lambda: None)
    one.run(1.0)
    assert deleted.results and not isinstance(deleted.results[0], bytes)
    assert one.member.store.revision == BEFORE
    one.crash()
    one.start()
    one.run(1.0)
    assert one.member.store.revision == BEFORE + 1 and count(one) == 0


def test_a_lease_is_there_until_the_last_of_its_keys_is_gone(one: OneMember) -> None:
    grant = rpc_pb2.LeaseGrantRequest(ID=7, TTL=600).SerializeToString()
    one.propose(internal_request.KIND_LEASE_GRANT, grant)
    for number in range(100):
        request = rpc_pb2.PutRequest(key=b"l%03d" % number, value=b"v", lease=7)
        one.propose(internal_request.KIND_PUT, request.SerializeToString())
    one.run(1.0)
    revision = one.member.store.revision
    revoke = rpc_pb2.LeaseRevokeRequest(ID=7).SerializeToString()
    revoked = one.propose(internal_request.KIND_LEASE_REVOKE, revoke)
    until_amid(one)
    assert one.member.lessor.exists(7)
    one.run(1.0)
    assert isinstance(revoked.results[0], bytes) and not one.member.lessor.exists(7)
    assert one.member.store.revision == revision + 1
    assert one.get(b"l000") is None
    one.member.lessor.check()


def test_a_snapshot_waits_for_the_entry_under_way_and_takes_the_place_of_the_next(
    one: OneMember,
) -> None:
    deleted = delete_all(one)
    behind = one.put(b"behind", b"v")
    until_amid(one)
    member = one.member
    ready: list[int] = []
    member.before_snapshot(lambda: ready.append(member.store.revision))
    assert not ready
    one.run(1.0)
    assert ready == [BEFORE + 1] and deleted.results and not behind.results
    index = member.applied_index + 1
    meta = SnapshotMeta(member.membership.state, index, member.leadership.term)
    one.unsound = True  # the database stays what it was
    member.snapshot_installed(Snapshot(b"", meta))
    one.run(1.0)
    assert member.applied_index == index and one.get(b"behind") is None
    member.store.check()
