"""A compaction leaves the hash that HashKV gave before it, and removes in slices what it must."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.errors import CompactedError
from keyraft.mvcc import MemoryBackend, Store
from keyraft.mvcc import backend as b
from keyraft.mvcc.hash import HASH_ROWS, HASHES_KEPT
from keyraft.mvcc.index import Entry
from keyraft.mvcc.revision import parse
from keyraft.proto import rpc_pb2
from tests.support.examples import examples


def change(store: Store, r: random.Random, count: int) -> None:
    for _ in range(count):
        key = b"%d" % r.randrange(8)
        if r.random() < 0.3:
            store.delete_keys([key])
        else:
            store.put_key(key, b"%d" % r.randrange(100))
            store.end()


def finish(store: Store) -> list[float]:
    delays = []
    while (delay := store.compactions.step()) is not None:
        delays.append(delay)
    return delays


@examples(60)
@given(seed=st.integers(0, 1 << 32), rounds=st.integers(1, 14))
def test_the_stored_hash_is_the_one_before_the_compaction(seed: int, rounds: int) -> None:
    r = random.Random(seed)
    store = Store(MemoryBackend(), compaction_batch_rows=5)
    # One key lives on: with none at all, and a tombstone at the very revision, etcd's two ways of
    # choosing what a compaction keeps differ, and so do its hashes.
    store.put_key(b"anchor", b"")
    store.end()
    stored: list[tuple[int, int, int]] = []
    for _ in range(rounds):
        change(store, r, r.randrange(1, 15))
        low = max(store.compact_revision + 1, 1)
        if low > store.revision:
            continue
        at = r.randint(low, store.revision)
        before = store.hash_kv(at).run()
        store.compact(at)
        finish(store)
        stored.append((at, before.hash, before.compact_revision))
        again = store.hash_kv(at).run()
        assert (at, again.hash, again.compact_revision) == stored[-1]
        store.check()
    kept = [(h.revision, h.hash, h.compact_revision) for h in store.hashes.hashes]
    assert kept == stored[-HASHES_KEPT:]


def test_a_hash_that_missed_rows_is_not_stored() -> None:
    store = Store(MemoryBackend(), compaction_batch_rows=2)
    change(store, random.Random(1), 60)
    store.compact(10)
    store.compactions.step()
    store.compact(20)  # the first one has not finished
    finish(store)
    assert [h.revision for h in store.hashes.hashes] == [10]
    store.compact(30)
    store.compactions.step()
    store.backend.flush()
    again = Store(store.backend, compaction_batch_rows=2)
    assert again.compactions and again.compact_revision == 30
    finish(again)
    assert again.hashes.hashes == []
    kept = [parse(row)[:2] for row, _ in again.backend.range(b.KEY) if parse(row)[0] <= 30]
    assert len(kept) <= 8 and set(kept) <= {
        found[:2] for key in again.index.entries if (found := again.index.get(key, 30))
    } | {(30, 0)}


def test_batches_pause_and_slices_do_not() -> None:
    store = Store(MemoryBackend(), compaction_batch_rows=1200, compaction_sleep_s=0.5)
    for number in range(3000):
        store.put_key(b"%d" % (number % 100), b"v")
        store.end()
    store.compact(store.revision)
    assert finish(store) == [0.0, 0.0, 0.5, 0.0, 0.0, 0.5, 0.0]
    assert len(list(store.backend.range(b.KEY))) == 100


def test_a_hash_under_way_holds_compactions_back_and_no_longer() -> None:
    store = Store(MemoryBackend())
    change(store, random.Random(2), 2000)
    want = store.hash_kv(0).run().hash
    at = store.revision
    job = store.hash_kv(0)
    assert not job.step()
    done: list[int] = []
    store.compact(at, lambda: done.append(1))
    change(store, random.Random(3), 50)
    for _ in range(10):
        assert store.compactions.step() == store.compactions.sleep_s
    assert job.run().hash == want
    finish(store)
    assert done == [1]
    with pytest.raises(CompactedError):
        store.hash_kv(at - 1)
    abandoned = store.hash_kv(0)
    store.compact(store.revision)
    abandoned.close()
    finish(store)
    assert not store.compactions and store.statistics()["pins"] == 0


def test_a_large_range_reads_its_revision_whatever_is_compacted_meanwhile() -> None:
    store = Store(MemoryBackend())
    for number in range(1500):
        store.put_key(b"%04d" % number, b"old")
        store.end()
    request = rpc_pb2.RangeRequest(key=b"\x00", range_end=b"\x00")
    work = store.range_steps(request)
    next(work)
    for number in range(1500):
        store.put_key(b"%04d" % number, b"new")
        store.end()
    store.compact(store.revision)
    assert store.compactions.step() == store.compactions.sleep_s
    while True:
        try:
            next(work)
        except StopIteration as finished:
            body: bytes = finished.value
            break
    response = rpc_pb2.RangeResponse.FromString(body)
    assert len(response.kvs) == 1500 and {kv.value for kv in response.kvs} == {b"old"}
    finish(store)
    dropped = store.range_steps(request)
    next(dropped)
    dropped.close()
    assert store.statistics()["pins"] == 0


def test_whether_a_hash_keeps_any_key_is_found_in_steps() -> None:
    """Where all keys are dead, all of them are looked at; each step looks at few."""
    store = Store(MemoryBackend())
    count = 3 * HASH_ROWS
    for number in range(count):
        store.put_key(b"%05d" % number, b"v")
    store.end()
    store.compact(store.revision)
    finish(store)
    store.delete_keys([b"%05d" % number for number in range(count)])
    wanted = store.hash_kv(0).run()
    job = store.hash_kv(0)
    looks: list[int] = []
    get = store.index.entries

    class Counted(dict[bytes, Entry]):
        def __getitem__(self, key: bytes) -> Entry:
            looks[-1] += 1
            return super().__getitem__(key)

    store.index.entries = Counted(get)
    over = False
    while not over:
        looks.append(0)
        over = job.step()
    assert job.result is not None and job.result.hash == wanted.hash
    assert sum(looks) == count and max(looks) == HASH_ROWS
