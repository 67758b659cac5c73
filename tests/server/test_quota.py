"""The quota's rule, and a member that takes writes again once its users have made room."""

from __future__ import annotations

from keyraft.mvcc.cost import txn_cost
from keyraft.proto import rpc_pb2
from keyraft.server.apply import internal_request
from keyraft.server.upkeep.quota import Quota
from tests.server.harness import OneMember


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


def test_after_nospace_deletes_pass_and_room_made_is_room():
    cluster = OneMember()
    cluster.run(2.0)
    member = cluster.member
    for number in range(20):
        cluster.put(b"k%d" % number, b"v" * 1_000)
    cluster.run(0.2)
    member.backend.flush()
    member.quota.bytes_max = member.backend.size_in_use_bytes + 500
    cluster.run(0.2)
    assert not member.quota.allows(1_000)
    member.raise_no_space()
    cluster.run(0.1)
    refused = cluster.put(b"x", b"v")
    delete = rpc_pb2.DeleteRangeRequest(key=b"k", range_end=b"l").SerializeToString()
    deleted = cluster.propose(internal_request.KIND_DELETE_RANGE, delete)
    cluster.run(0.1)
    assert not isinstance(refused.results[0], bytes)
    assert isinstance(deleted.results[0], bytes)
    revision = member.store.revision
    compact = rpc_pb2.CompactionRequest(revision=revision).SerializeToString()
    cluster.propose(internal_request.KIND_COMPACTION, compact)
    disarm = rpc_pb2.AlarmRequest(
        action=rpc_pb2.AlarmRequest.DEACTIVATE,
        memberID=member.settings.member_id,
        alarm=rpc_pb2.NOSPACE,
    )
    cluster.propose(internal_request.KIND_ALARM, disarm.SerializeToString())
    cluster.run(1.0)
    member.backend.flush()
    cluster.run(0.2)
    assert member.quota.allows(10_000)
    taken = cluster.put(b"x", b"v")
    cluster.run(0.1)
    assert isinstance(taken.results[0], bytes)
