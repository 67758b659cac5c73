"""The quota's rule, and a member that takes writes again once its users have made room."""

from __future__ import annotations

import pytest

from keyraft.base.errors import NoSpaceError
from keyraft.base.log import NullLogger
from keyraft.mvcc.cost import txn_cost
from keyraft.proto import rpc_pb2
from keyraft.server.apply import internal_request
from keyraft.server.upkeep.alarms import NOSPACE, activation
from keyraft.server.upkeep.quota import Quota
from tests.server.harness import OneMember


class ListLogger(NullLogger):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def warn(self, message: str, **fields: object) -> None:
        self.messages.append(message)


class Database:
    """So many bytes of data in a file that only grows."""

    def __init__(self, used: int) -> None:
        self.size_in_use_bytes = used
        self.size_bytes = 10 * used


def test_what_counts_is_the_data_as_of_the_last_look():
    database = Database(1_000)
    quota = Quota(2_000, database)
    assert quota.allows(999) and not quota.allows(1_000)
    assert quota.room == 2_000 - 1_000 - 256
    database.size_in_use_bytes = 100
    assert not quota.allows(1_000)
    quota.refresh()
    assert quota.allows(1_899) and not quota.allows(1_900)
    assert quota.remaining() == 1_900


def test_none_and_the_default():
    assert Quota(-1, Database(1 << 50)).allows(1 << 60)
    assert Quota(0, Database(1)).bytes_max == 2 << 30


def test_a_transaction_costs_its_dearer_branch_nested_ones_included():
    txn = rpc_pb2.TxnRequest()
    txn.success.add(request_range=rpc_pb2.RangeRequest(key=b"k"))
    assert txn_cost(txn) == 0
    assert Quota(1, Database(5)).allows_txn(txn)
    nested = rpc_pb2.TxnRequest()
    nested.failure.add(request_put=rpc_pb2.PutRequest(key=b"kk", value=b"vvv"))
    txn.success.add(request_txn=nested)
    txn.failure.add(request_delete_range=rpc_pb2.DeleteRangeRequest(key=b"k"))
    assert txn_cost(txn) == 256 + 5
    assert not Quota(1, Database(5)).allows_txn(txn)


def full(cluster: OneMember) -> None:
    """Its database has no room, and the alarm is raised."""
    member = cluster.member
    for number in range(20):
        cluster.put(b"k%d" % number, b"v" * 1_000)
    cluster.run(0.2)
    member.backend.flush()
    member.quota.bytes_max = member.backend.size_in_use_bytes + 500
    cluster.run(0.2)
    assert not member.quota.allows(1_000)
    member.space.raise_alarm()
    cluster.run(0.1)
    assert member.alarms.nospace


def make_room(cluster: OneMember) -> None:
    delete = rpc_pb2.DeleteRangeRequest(key=b"k", range_end=b"l").SerializeToString()
    cluster.propose(internal_request.KIND_DELETE_RANGE, delete)
    cluster.run(0.1)
    revision = cluster.member.store.revision
    compact = rpc_pb2.CompactionRequest(revision=revision).SerializeToString()
    cluster.propose(internal_request.KIND_COMPACTION, compact)
    cluster.run(1.0)
    cluster.member.backend.flush()
    cluster.run(2.0)


def test_after_nospace_deletes_pass_and_room_made_is_room():
    cluster = OneMember()
    cluster.run(2.0)
    member = cluster.member
    full(cluster)
    refused = cluster.put(b"x", b"v")
    cluster.run(2.0)
    assert not isinstance(refused.results[0], bytes)
    assert member.alarms.nospace  # it stays while there is no room
    make_room(cluster)
    assert member.quota.allows(10_000)
    assert not member.alarms.raised()  # and nobody has asked for its end
    taken = cluster.put(b"x", b"v")
    cluster.run(0.1)
    assert isinstance(taken.results[0], bytes)


def test_an_operator_may_keep_the_alarm_to_himself():
    cluster = OneMember(nospace_auto_disarm=False)
    cluster.run(2.0)
    full(cluster)
    make_room(cluster)
    assert cluster.member.alarms.nospace and cluster.member.quota.allows(10_000)


def test_an_alarm_that_somebody_else_raised_is_his_to_disarm():
    cluster = OneMember()
    cluster.run(2.0)
    request = activation(NOSPACE, cluster.member.settings.member_id)
    cluster.propose(internal_request.KIND_ALARM, request)
    cluster.run(5.0)
    assert cluster.member.alarms.nospace


def test_a_large_value_that_does_not_fit_makes_no_alarm_come_and_go():
    cluster = OneMember()
    cluster.run(2.0)
    member = cluster.member
    member.quota.bytes_max = member.backend.size_in_use_bytes + 200_000
    with pytest.raises(NoSpaceError):
        member.quota.check(300_000)
    cluster.run(5.0)
    assert member.alarms.nospace


def test_a_database_that_is_nearly_full_is_told_of_once():
    lines = ListLogger()
    cluster = OneMember(logger=lines)
    cluster.run(2.0)
    member = cluster.member
    said = "the database is nearly full"
    cluster.put(b"k", b"v" * 10_000)
    cluster.run(0.2)
    member.backend.flush()
    used = member.backend.size_in_use_bytes
    member.quota.bytes_max = 2 * used
    cluster.run(1.0)
    assert said not in lines.messages
    member.quota.bytes_max = int(1.2 * used)
    cluster.run(1.0)
    assert lines.messages.count(said) == 1
    member.quota.bytes_max = 2 * used
    cluster.run(1.0)
    member.quota.bytes_max = int(1.2 * used)
    cluster.run(1.0)
    assert lines.messages.count(said) == 2
