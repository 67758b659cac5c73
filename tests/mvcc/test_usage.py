"""What is stored under which prefix: one walk, against counting every row by hand."""

from __future__ import annotations

from random import Random

import pytest

from keyraft.mvcc import MemoryBackend, Store, UsageWalk, restore
from keyraft.mvcc.backend import KEY
from keyraft.mvcc.usage import GROUPS_MAX, STEP_ROWS, PrefixRows, group_of
from keyraft.proto import mvcc_pb2
from keyraft.proto import rpc_pb2 as pb


def put(store: Store, key: bytes, value: bytes = b"v") -> None:
    store.put(pb.PutRequest(key=key, value=value).SerializeToString())


def walked(store: Store, prefix: bytes = b"", depth: int = 2) -> UsageWalk:
    walk = UsageWalk(store, prefix, depth)
    while not walk.step():
        walk.check()
    walk.go_on()
    while not walk.step():
        walk.check()
    return walk


def numbers(rows: PrefixRows) -> tuple[int, int, int, int]:
    return rows.keys, rows.bytes, rows.history_bytes, rows.revisions


def by_hand(store: Store, depth: int) -> dict[bytes, tuple[int, int, int, int]]:
    """Every row looked at without the index: the last of a key is what it is now."""
    rows = [
        (row, mvcc_pb2.KeyValue.FromString(stored).key, len(row) + len(stored))
        for row, stored in store.backend.range(KEY)
    ]
    newest = {key: row for row, key, _ in rows}
    found: dict[bytes, list[int]] = {}
    for row, key, size in rows:
        group = found.setdefault(group_of(key, depth), [0, 0, 0, 0])
        present = newest[key] == row and len(row) == 17
        group[0] += present
        group[1 if present else 2] += size
        group[3] += 1
    return {name: (a, b, c, d) for name, (a, b, c, d) in found.items()}


@pytest.mark.parametrize(
    ("key", "depth", "group"),
    [
        (b"/registry/pods/ns/x", 2, b"/registry/pods/"),
        (b"/registry/pods/ns/x", 1, b"/registry/"),
        (b"a/b", 2, b"a/"),
        (b"a", 1, b""),
        (b"/a", 1, b"/"),
        (b"a//b/c", 2, b"a//"),
        (b"\xff\0/x", 1, b"\xff\0/"),
    ],
)
def test_the_prefix_of_a_key(key: bytes, depth: int, group: bytes) -> None:
    assert group_of(key, depth) == group


@pytest.mark.parametrize("seed", range(8))
def test_a_walk_counts_what_is_there(seed: int) -> None:
    random = Random(seed)
    store = Store(MemoryBackend())
    keys = [b"%c/%c/%d" % (random.choice(b"ab"), random.choice(b"xy"), n) for n in range(40)]
    for _ in range(600):
        key = random.choice(keys)
        chance = random.random()
        if chance < 0.7:
            put(store, key, b"v" * random.randrange(200))
        elif chance < 0.9:
            store.delete_range(pb.DeleteRangeRequest(key=key).SerializeToString())
        else:
            operations = [
                pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"a", range_end=b"b")),
                pb.RequestOp(request_put=pb.PutRequest(key=b"new/x/y", value=b"1")),
            ]
            store.txn(pb.TxnRequest(success=operations).SerializeToString())
    if seed % 2:
        store.compact(store.revision - random.randrange(300), lambda: None)
        while store.compactions.step() is not None:
            pass
    walk = walked(store)
    assert {name: numbers(group) for name, group in walk.groups.items()} == by_hand(store, 2)
    largest, others, total = walk.largest(2)
    sizes = [group.size for _, group in largest]
    assert sizes == sorted(sizes, reverse=True) and len(largest) == 2
    assert total.revisions == sum(group.revisions for group in walk.groups.values())
    assert others.revisions == total.revisions - sum(group.revisions for _, group in largest)
    assert total.keys == len(store.index.live)
    only = walked(store, b"a/")
    assert {name: numbers(group) for name, group in only.groups.items()} == {
        name: found for name, found in by_hand(store, 2).items() if name.startswith(b"a/")
    }


def test_what_is_written_meanwhile_makes_the_rate() -> None:
    store = Store(MemoryBackend())
    for number in range(3 * STEP_ROWS):
        put(store, b"old/%d" % number)
    walk = UsageWalk(store, b"", 1)
    assert not walk.step()
    for number in range(7):
        put(store, b"new/%d" % number)
    while not walk.step():
        pass
    assert b"new/" not in walk.groups
    walk.go_on()
    while not walk.step():
        pass
    assert (walk.groups[b"new/"].recent, walk.groups[b"old/"].recent) == (7, 0)


def test_a_step_takes_few_large_values() -> None:
    store = Store(MemoryBackend())
    for number in range(20):
        put(store, b"k%d" % number, b"v" * 200_000)
    walk = UsageWalk(store, b"", 1)
    steps = 1
    while not walk.step():
        steps += 1
    assert steps >= 5


def test_many_prefixes_are_put_together_the_small_ones_first() -> None:
    store = Store(MemoryBackend())
    put(store, b"large/x", b"v" * 10_000)
    for number in range(GROUPS_MAX + 10):
        put(store, b"%d/x" % number)
    walk = walked(store, depth=1)
    largest, others, total = walk.largest(1)
    assert largest[0][0] == b"large/"
    assert total.keys == GROUPS_MAX + 11 and others.keys == GROUPS_MAX + 10


def test_a_database_that_is_replaced_is_walked_anew() -> None:
    store = Store(MemoryBackend())
    for number in range(2 * STEP_ROWS):
        put(store, b"old/%d" % number)
    walk = UsageWalk(store, b"", 1)
    walk.step()
    other = Store(MemoryBackend())
    put(other, b"new/x")

    store.reset(other.backend, restore(other.backend, None))
    while not walk.step():
        pass
    assert list(walk.groups) == [b"new/"]
