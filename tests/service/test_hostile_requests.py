"""Whatever a client sends is answered or refused; nothing else may happen to the member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from keyraft.proto import rpc_pb2
from tests.server.harness import OneMember
from tests.support.examples import examples

from .calls import FakeCall, ask
from .served import served

INT64 = st.one_of(
    st.integers(-3, 12), st.sampled_from([-(1 << 63), (1 << 63) - 1, 1 << 31, -(1 << 31)])
)
ENUM = st.one_of(st.integers(-1, 6), st.sampled_from([-(1 << 31), (1 << 31) - 1]))
KEY = st.one_of(st.sampled_from([b"", b"\0", b"a", b"b", b"\xff"]), st.binary(max_size=4))
RANGES = st.builds(
    rpc_pb2.RangeRequest,
    key=KEY,
    range_end=KEY,
    limit=INT64,
    revision=INT64,
    sort_order=ENUM,
    sort_target=ENUM,
    serializable=st.booleans(),
    keys_only=st.booleans(),
    count_only=st.booleans(),
    min_mod_revision=INT64,
    max_create_revision=INT64,
)
PUTS = st.builds(
    rpc_pb2.PutRequest,
    key=KEY,
    value=KEY,
    lease=INT64,
    prev_kv=st.booleans(),
    ignore_value=st.booleans(),
    ignore_lease=st.booleans(),
)
DELETES = st.builds(rpc_pb2.DeleteRangeRequest, key=KEY, range_end=KEY, prev_kv=st.booleans())
COMPARES = st.builds(
    rpc_pb2.Compare,
    result=ENUM,
    target=ENUM,
    key=KEY,
    range_end=KEY,
    version=INT64,
)
OPS = st.one_of(
    st.builds(rpc_pb2.RequestOp, request_range=RANGES),
    st.builds(rpc_pb2.RequestOp, request_put=PUTS),
    st.builds(rpc_pb2.RequestOp, request_delete_range=DELETES),
    st.just(rpc_pb2.RequestOp()),
)
TXNS = st.builds(
    rpc_pb2.TxnRequest,
    compare=st.lists(COMPARES, max_size=3),
    success=st.lists(OPS, max_size=4),
    failure=st.lists(OPS, max_size=4),
)
COMPACTIONS = st.builds(rpc_pb2.CompactionRequest, revision=INT64, physical=st.booleans())
ALARMS = st.builds(
    rpc_pb2.AlarmRequest,
    action=ENUM,
    memberID=st.integers(0, 3),
    alarm=st.sampled_from([0, 3, 77, -1]),  # none that would refuse the requests behind it
)


class Handlers:
    """One member for all examples: what a request leaves behind may not hurt the next one."""

    def __init__(self) -> None:
        self.one = OneMember()
        self.one.run(1.0)
        services = served(self.one.member)
        kv, maintenance, cluster = services.kv, services.maintenance, services.cluster
        self.typed: dict[str, tuple[Callable[..., Any], st.SearchStrategy[Any]]] = {
            "range": (kv.range, RANGES),
            "put": (kv.put, PUTS),
            "delete": (kv.delete_range, DELETES),
            "txn": (kv.txn, TXNS),
            "compact": (kv.compact, COMPACTIONS),
            "alarm": (maintenance.alarm, ALARMS),
        }
        self.all: list[Callable[..., Any]] = [
            *(handle for handle, _ in self.typed.values()),
            maintenance.status,
            maintenance.hash,
            maintenance.hash_kv,
            maintenance.defragment,
            maintenance.move_leader,
            maintenance.downgrade,
            cluster.member_list,
            cluster.member_add,
            cluster.member_update,
            cluster.member_promote,
        ]

    def send(self, handle: Callable[..., Any], request: bytes) -> FakeCall:
        call = ask(handle, request)
        if call.answer is None:
            self.one.run(0.1)
        assert call.answer is not None, "no answer"
        return call


HANDLERS = Handlers()


@examples(300, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_strange_values_are_answered_or_refused(data: st.DataObject) -> None:
    handle, requests = HANDLERS.typed[data.draw(st.sampled_from(sorted(HANDLERS.typed)))]
    HANDLERS.send(handle, data.draw(requests).SerializeToString())
    store = HANDLERS.one.member.store
    assert store.compact_revision <= store.revision


@examples(300, suppress_health_check=list(HealthCheck))
@given(st.integers(0, len(HANDLERS.all) - 1), st.binary(max_size=40))
def test_bytes_that_are_no_request_are_answered_or_refused(number: int, request: bytes) -> None:
    HANDLERS.send(HANDLERS.all[number], request)
    assert HANDLERS.one.member.leadership.leading
