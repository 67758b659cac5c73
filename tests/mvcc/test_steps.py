"""Work in steps: sorting, deleting, transactions; who reads between two of them sees none of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.errors import CompactedError
from keyraft.mvcc import MemoryBackend, Store, check_txn, read
from keyraft.mvcc.hooks import Event
from keyraft.mvcc.index import Item
from keyraft.mvcc.sorting import RUN_SLICES, sort_steps
from keyraft.mvcc.wire import header
from keyraft.proto import rpc_pb2

R = TypeVar("R")
KEYS = 60


def gone_through(work: Generator[None, None, R]) -> tuple[int, R]:
    """How many times the work handed control back, and its value."""
    steps = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            return steps, end.value
        steps += 1


@given(
    numbers=st.lists(st.integers(0, 50), max_size=900),
    descending=st.booleans(),
    slice_keys=st.integers(1, 20),
)
def test_sorting_in_steps_is_sorting(numbers: list[int], descending: bool, slice_keys: int) -> None:
    items = list(enumerate(numbers))
    wanted = sorted(items, key=lambda item: item[1], reverse=descending)
    steps, found = gone_through(sort_steps(items, lambda item: item[1], descending, slice_keys))
    assert found == wanted
    assert steps > 0 or len(items) <= RUN_SLICES * slice_keys


@pytest.mark.parametrize("kind", ["random", "sorted", "one half alike", "all alike"])
def test_no_step_of_sorting_takes_much(kind: str) -> None:
    chance = random.Random(1)
    count = 30_000
    numbers = {
        "random": [chance.random() for _ in range(count)],
        "sorted": [float(n) for n in range(count)],
        "one half alike": [chance.choice([0.5, chance.random()]) for _ in range(count)],
        "all alike": [0.5] * count,
    }[kind]
    looked = 0
    most = 0

    def by(number: float) -> float:
        nonlocal looked
        looked += 1
        return number

    work = sort_steps(numbers, by, False, 100)
    while True:
        looked = 0
        try:
            next(work)
        except StopIteration as end:
            assert end.value == sorted(numbers)
            break
        most = max(most, looked)
    assert most <= 6_000  # of 30,000; a step costs what it looks at


def test_what_a_limit_leaves_over_is_freed_a_piece_a_step() -> None:
    store = Store(MemoryBackend())
    store.slice_keys = 8
    for number in range(1_000):
        put(store, b"k%04d" % number, b"v%04d" % (number * 7 % 1_000))
    request = rpc_pb2.RangeRequest(
        key=b"k", range_end=b"l", limit=3, sort_target="VALUE", sort_order="DESCEND"
    )
    out: list[Item] = []
    work = read.select_steps(store, request, store.revision, out)
    sizes = [len(out) for _ in work]
    assert [number for number, *_ in out] == [b"k0857", b"k0714", b"k0571"]
    assert max(sizes) == 1_000
    # Sorted, the keys are taken over from the front, then those behind the limit go.
    sorted_at = len(sizes) - sizes[::-1].index(1_000)
    moved = [a - b for a, b in itertools.pairwise([*sizes[sorted_at:], len(out)])]
    assert min(moved) == -read.FREED_SLICES * 8 and max(moved) == read.FREED_SLICES * 8


def put(store: Store, key: bytes, value: bytes, lease: int = 0) -> None:
    request = rpc_pb2.PutRequest(key=key, value=value, lease=lease)
    store.put(request.SerializeToString())


class Leases:
    """A lessor that knows every lease."""

    def exists(self, lease_id: int) -> bool:
        return True

    def attach(self, lease_id: int, key: bytes) -> None:
        """Nothing is asked of it."""

    def detach(self, lease_id: int, key: bytes) -> None:
        """Nothing is asked of it."""


def filled() -> Store:
    store = Store(MemoryBackend(), Leases())
    store.slice_keys = 7
    for number in range(KEYS):
        put(store, b"k%02d" % number, b"%02d" % (number * 37 % KEYS), lease=number % 3)
    return store


def view(store: Store) -> list[bytes]:
    """All ways of reading, at the store's present revision and at the one before."""
    answers = []
    for back in (0, 1):
        for fields in (
            {"key": b"k05"},
            {"key": b"k00", "range_end": b"l"},
            {"key": b"k00", "range_end": b"\0", "limit": 3},
            {"key": b"k00", "range_end": b"l", "count_only": True},
            {"key": b"k00", "range_end": b"l", "keys_only": True},
            {"key": b"k00", "range_end": b"l", "sort_order": 2, "sort_target": 4},
        ):
            request = rpc_pb2.RangeRequest(revision=store.revision - back, **fields)  # type: ignore[arg-type]
            answers.append(store.range(request.SerializeToString()))
            if not back:
                request.revision = 0
                answers.append(store.range(request.SerializeToString()))
                read = rpc_pb2.TxnRequest()
                read.success.add(request_range=request)
                read.compare.add(
                    key=b"k00", range_end=b"l", target=rpc_pb2.Compare.VALUE, value=b"v"
                )
                read.failure.add(request_range=request)
                answers.append(gone_through(store.read_txn_steps(read))[1])
            if not fields.get("sort_order"):
                answers += [m for m in store.range_stream(request, header, 100) if m]
    answers.append(store.hash_kv(store.revision).run().hash.to_bytes(8, "big"))
    answers.append(b"%r" % (store.kv_at(b"k05", store.revision),))
    answers.append(repr(store.events(b"", 10_000)).encode())
    return answers


def large() -> rpc_pb2.TxnRequest:
    """Deletes, puts what it deleted, and reads what it did."""
    txn = rpc_pb2.TxnRequest()
    txn.compare.add(key=b"k00", range_end=b"l", target=rpc_pb2.Compare.VALUE, result=3, value=b"x")
    txn.success.add(request_delete_range=rpc_pb2.DeleteRangeRequest(key=b"k00", range_end=b"k50"))
    txn.success.add(request_range=rpc_pb2.RangeRequest(key=b"k00", range_end=b"l"))
    txn.success.add(request_put=rpc_pb2.PutRequest(key=b"k55", value=b"new", prev_kv=True))
    txn.success.add(request_put=rpc_pb2.PutRequest(key=b"new", value=b"new"))
    txn.success.add(
        request_delete_range=rpc_pb2.DeleteRangeRequest(key=b"k56", range_end=b"l", prev_kv=True)
    )
    txn.success.add(request_range=rpc_pb2.RangeRequest(key=b"a", range_end=b"z", keys_only=True))
    return txn


def test_who_reads_between_two_steps_sees_what_was_before() -> None:
    store, at_once = filled(), filled()
    before = view(store)
    request = large().SerializeToString()
    work = store.txn_steps(request)
    looked = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            answer = end.value
            break
        if store.revision == at_once.revision:
            assert view(store) == before
            looked += 1
    at_once.slice_keys = 10_000
    assert answer == at_once.txn(request)
    assert looked > 10
    assert view(store) == view(at_once)
    store.check()
    found = rpc_pb2.TxnResponse.FromString(answer)
    assert found.succeeded and found.responses[0].response_delete_range.deleted == 50
    assert [kv.key for kv in found.responses[1].response_range.kvs] == [
        b"k%02d" % number for number in range(50, KEYS)
    ]
    assert len(found.responses[4].response_delete_range.prev_kvs) == 4
    assert found.responses[5].response_range.count == 7


def test_reading_in_steps_sees_one_revision_whatever_is_written_or_compacted() -> None:
    store = filled()
    everything = rpc_pb2.RangeRequest(key=b"k00", range_end=b"l", sort_order=1, sort_target=4)
    read = rpc_pb2.TxnRequest()
    read.compare.add(key=b"k00", range_end=b"l", target=rpc_pb2.Compare.MOD, result=3)
    for _ in range(3):
        read.success.add(request_range=everything)
    wanted = gone_through(store.read_txn_steps(read))[1]
    work = store.read_txn_steps(read)
    chance = random.Random(2)
    steps = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            assert end.value == wanted
            break
        steps += 1
        if chance.random() < 0.5:
            put(store, b"k%02d" % chance.randrange(KEYS + 5), b"later")
        else:
            store.delete_keys([b"k%02d" % chance.randrange(KEYS)])
        if store.revision > store.compact_revision:
            store.compact(store.revision)
        store.compactions.step()
    assert steps > 20 and store.statistics()["pins"] == 0
    dropped = store.read_txn_steps(read)
    next(dropped)
    dropped.close()
    assert store.statistics()["pins"] == 0
    read.success[0].request_range.revision = 1
    with pytest.raises(CompactedError):
        gone_through(store.read_txn_steps(read))


def test_many_events_are_told_in_portions_also_to_who_came_late() -> None:
    told: list[tuple[int, list[Event], bool]] = []

    def listen(revision: int, events: list[Event], more: bool = False) -> None:
        told.append((revision, events, more))

    small = filled()
    small.slice_keys = 10_000
    small.listen(listen)
    small.txn(large().SerializeToString())
    ((revision, wanted, more),) = told
    assert not more
    for come in range(12):
        told.clear()
        store = filled()
        work = store.txn_steps(large().SerializeToString())
        steps = 0
        while True:
            if steps == come:
                store.listen(listen)
            if next(work, "over") == "over":
                break
            steps += 1
        assert [event for _, events, _ in told for event in events] == wanted
        assert [more for _, _, more in told] == [True] * (len(told) - 1) + [False]
        assert {number for number, _, _ in told} == {revision}


def test_several_listeners_hear_the_same_in_their_order() -> None:
    store = filled()
    told: list[tuple[str, int, list[Event], bool]] = []

    class Ear:
        def __init__(self, name: str) -> None:
            self.name = name

        def hears(self, revision: int, events: list[Event], more: bool = False) -> None:
            told.append((self.name, revision, list(events), more))
            events.clear()  # they are its own

    def put() -> list[str]:
        told.clear()
        store.put(rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString())
        assert all(one[1:] == told[0][1:] and one[2] for one in told)
        return [name for name, *_ in told]

    first, second, third = map(Ear, "abc")
    store.listen(first.hears)
    assert store.listener == first.hears  # alone it is called itself
    store.listen(second.hears)
    store.listen(third.hears)
    assert put() == ["a", "b", "c"]
    told.clear()
    gone_through(store.txn_steps(large().SerializeToString()))
    heard = {name: [tuple(rest) for who, *rest in told if who == name] for name in "abc"}
    assert heard["a"] == heard["b"] == heard["c"] and len(heard["a"]) > 2
    store.leave(first.hears)
    assert put() == ["b", "c"]
    store.leave(third.hears)
    assert store.listener == second.hears
    store.leave(second.hears)
    assert store.listener is None and put() == []


def test_revoking_many_keys_is_one_revision_in_steps() -> None:
    store = filled()
    revision = store.revision
    steps, deleted = gone_through(store.delete_keys_steps({b"k%02d" % n for n in range(KEYS + 9)}))
    assert (deleted, store.revision) == (KEYS, revision + 1)
    assert steps >= KEYS // 7
    assert gone_through(store.delete_keys_steps([]))[1] == 0
    assert store.revision == revision + 1


def test_keys_only_answers_tell_the_lease_of_each_revision() -> None:
    backend = MemoryBackend()
    store = Store(backend, Leases())
    put(store, b"a", b"1", lease=5)
    put(store, b"a", b"2", lease=6)
    put(store, b"a", b"3")
    put(store, b"b", b"1", lease=7)
    backend.flush()
    for each in (store, Store(MemoryBackend(backend.disk), Leases())):  # restored without leases
        for at, lease in ((2, 5), (3, 6), (4, 0), (5, 0)):
            for fields in ({}, {"range_end": b"b"}):
                request = rpc_pb2.RangeRequest(key=b"a", keys_only=True, revision=at, **fields)
                answer = rpc_pb2.RangeResponse.FromString(each.range(request.SerializeToString()))
                assert [kv.lease for kv in answer.kvs] == [lease]
                assert [kv.value for kv in answer.kvs] == [b""]
        request = rpc_pb2.RangeRequest(key=b"a", range_end=b"c", keys_only=True)
        (streamed,) = each.range_stream(request, header, 1_000)
        found = rpc_pb2.RangeStreamResponse.FromString(streamed).range_response
        assert [kv.lease for kv in found.kvs] == [0, 7]


@pytest.mark.parametrize("before", [0, 1])
def test_a_key_deleted_to_the_end_and_put_in_one_transaction_stays(before: int) -> None:
    backend = MemoryBackend()
    store = Store(backend)
    put(store, b"a", b"old")
    put(store, b"b", b"old")
    txn = rpc_pb2.TxnRequest()
    txn.success.add(request_delete_range=rpc_pb2.DeleteRangeRequest(key=b"a", range_end=b"\0"))
    txn.success.add(request_put=rpc_pb2.PutRequest(key=b"a", value=b"new"))
    check_txn(txn)
    store.txn(txn.SerializeToString())
    revision = store.revision

    def found(each: Store) -> list[tuple[bytes, bytes, int, int, int]]:
        request = rpc_pb2.RangeRequest(key=b"a", range_end=b"c").SerializeToString()
        return [
            (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version)
            for kv in rpc_pb2.RangeResponse.FromString(each.range(request)).kvs
        ]

    wanted = [(b"a", b"new", revision, revision, 1)]
    assert found(store) == wanted
    for number in range(2):
        put(store, b"z", b"%d" % number)
        store.compact(revision - before if not number else store.revision)
        while store.compactions.step() is not None:
            pass
        assert found(store) == wanted
        backend.flush()
        again = Store(MemoryBackend(backend.disk))
        assert found(again) == wanted
        again.check()
