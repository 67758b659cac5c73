"""Limits by prefix: what is counted equals what is there, whatever happens; what fits and what does not."""

from __future__ import annotations

import json
from random import Random

import pytest

from keyraft.base.errors import RawError
from keyraft.base.limits import PREFIX_LIMITS
from keyraft.mvcc import MemoryBackend, Store, restore
from keyraft.proto import rpc_pb2 as pb
from keyraft.server.upkeep.limits import (
    PENDING_S,
    PUT_BYTES,
    STEP_KEYS,
    MalformedLimitError,
    PrefixLimits,
    parse_limit,
)


class World:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.warned: list[dict[str, object]] = []
        self.store = Store(MemoryBackend())
        self.limits = PrefixLimits(
            self.store, lambda: self.now_s, lambda text, **fields: self.warned.append(fields)
        )

    def limit(self, prefix: bytes, **numbers: float) -> None:
        self.put(PREFIX_LIMITS + prefix, json.dumps(numbers).encode())
        self.limits.look()

    def count(self) -> None:
        while not self.limits.step():
            pass
        self.limits.check()

    def put(self, key: bytes, value: bytes = b"v") -> None:
        self.store.put(pb.PutRequest(key=key, value=value).SerializeToString())

    def delete(self, key: bytes, range_end: bytes = b"") -> None:
        request = pb.DeleteRangeRequest(key=key, range_end=range_end)
        self.store.delete_range(request.SerializeToString())

    def ask(self, *puts: tuple[bytes, int]) -> str:
        """What a request with these puts is told; it comes at once if it is let in."""
        try:
            self.limits.admit([list(puts)])
        except RawError as refusal:
            assert refusal.code == 8
            return refusal.text
        for key, size in puts:
            self.put(key, b"v" * (size - len(key)))
        return ""


TEXT = 'etcdserver: limit of prefix "a/" is reached: '


def test_keys_and_bytes_up_to_the_limit_and_deletions_make_room() -> None:
    world = World()
    world.put(b"a/1", b"v" * 100)
    world.limit(b"a/", keys=2, bytes=1_000)
    world.count()
    assert world.ask((b"a/2", 100)) == ""
    assert world.ask((b"a/3", 10)) == TEXT + "2 keys"
    assert world.ask((b"b/3", 10_000)) == ""
    assert world.ask((b"a/1", 2_000)) == TEXT + "1000 bytes"
    assert world.ask((b"a/1", 10)) == "", "smaller than it was"
    world.delete(b"a/2")
    assert world.ask((b"a/3", 10)) == ""
    world.limits.check()
    assert world.limits.limits[0].refused == 2
    world.limit(b"a/", keys=3)
    assert world.ask((b"a/4", 5_000)) == ""
    world.delete(PREFIX_LIMITS + b"a/")
    assert not world.limits.look() and world.store.listener is None
    assert world.ask((b"a/5", 5), (b"a/6", 5)) == ""


def test_what_is_under_way_counts_for_a_while() -> None:
    world = World()
    world.limit(b"a/", keys=1)
    world.count()
    world.limits.admit([[(b"a/1", 5)]])
    with pytest.raises(RawError, match="1 keys"):
        world.limits.admit([[(b"a/2", 5)]])
    world.now_s += PENDING_S
    world.limits.admit([[(b"a/2", 5)], []])
    world.put(b"a/2")
    assert world.limits.limits[0].pending_keys == 0


def test_the_rate_is_of_all_writes_and_comes_back_with_time() -> None:
    world = World()
    world.limit(b"a/", writes_per_second=2)
    assert [world.ask((b"a/%d" % n, 5)) for n in range(3)] == ["", "", TEXT + "2 writes per second"]
    world.now_s += 0.5
    assert world.ask((b"a/4", 5)) == "" and world.ask((b"a/5", 5)) != ""
    world.now_s += 10.0
    for number in range(3):  # asked of another member
        world.put(b"a/other%d" % number)
    world.delete(b"a/other0")
    assert world.ask((b"a/6", 5)) != ""
    world.now_s += 2.0
    assert world.ask((b"a/6", 5)) == ""
    world.limit(b"a/", writes_per_second=0)
    world.now_s += 10.0
    assert world.ask((b"a/7", 5)) == TEXT + "0 writes per second"


def test_nested_prefixes_all_count_and_a_transaction_costs_its_dearer_branch() -> None:
    world = World()
    world.limit(b"a/", keys=3)
    world.limit(b"a/b/", keys=1)
    world.count()
    cheap, dear = [(b"a/x", 5)], [(b"a/b/x", 5), (b"a/b/y", 5)]
    with pytest.raises(RawError, match='prefix "a/b/"'):
        world.limits.admit([cheap, dear])
    world.limits.admit([cheap, dear[:1]])
    assert [limit.pending_keys for limit in world.limits.limits] == [1, 1]


@pytest.mark.parametrize("seed", range(10))
def test_what_is_counted_is_what_is_there(seed: int) -> None:
    random = Random(seed)
    world = World()
    store = world.store
    keys = [b"%c/%c/%d" % (random.choice(b"ab"), random.choice(b"xy"), n) for n in range(60)]
    keys += [b"many/%d" % number for number in range(3 * STEP_KEYS)]
    for key in keys[60:]:
        world.put(key)
    under_way = None
    for _ in range(800):
        key, chance = random.choice(keys), random.random()
        if under_way is not None:
            if next(under_way, "done") == "done":
                under_way = None
        elif chance < 0.4:
            world.put(key, b"v" * random.randrange(300))
        elif chance < 0.5:
            world.delete(key)
        elif chance < 0.6:
            store.slice_keys = random.choice((3, 500))
            operations = [
                pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=b"c")),
                *(
                    pb.RequestOp(request_put=pb.PutRequest(key=one, value=b"1"))
                    for one in sorted(set(random.choices(keys, k=5)))
                    if not key <= one < b"c"
                ),
            ]
            under_way = store.txn_steps(pb.TxnRequest(success=operations).SerializeToString())
        elif chance < 0.63:
            world.limit(random.choice((b"", b"a/", b"b/x/", b"many/")), keys=10)
        elif chance < 0.65:
            world.delete(PREFIX_LIMITS + random.choice((b"", b"a/", b"b/x/")))
            world.limits.look()
        elif chance < 0.67:
            at = store.revision - random.randrange(5)
            if at > store.compact_revision:
                store.compact(at, lambda: None)
            while store.compactions.step() is not None:
                pass
        if random.random() < 0.3:
            world.limits.step()
    for _ in under_way or ():
        pass
    world.limits.look()
    world.count()
    assert all(limit.at is None for limit in world.limits.limits)


def test_a_leaders_database_is_counted_anew() -> None:
    world, other = World(), World()
    world.limit(b"a/", keys=5)
    world.put(b"a/old")
    world.count()
    other.limit(b"a/", keys=5)
    other.put(b"a/1")
    other.put(b"a/2")
    world.store.reset(other.store.backend, restore(other.store.backend, None))
    world.limits.look()
    world.count()
    assert world.limits.limits[0].used_keys == 2


def test_what_is_no_limit_is_told_and_passed_over() -> None:
    world = World()
    world.put(PREFIX_LIMITS + b"x", b"\xff")
    world.limit(b"a/", keys=0)
    world.count()
    assert [limit.prefix for limit in world.limits.limits] == [b"a/"]
    assert world.warned == [{"prefix": '"x"', "error": "it is no JSON"}]
    assert world.ask((b"a/1", 5)) == TEXT + "0 keys"
    for value in (
        b"[]", b"{}", b"1", b'{"keys":true}', b'{"keys":1.5}', b'{"keys":-1}', b'{"other":1}',
        b'{"writes_per_second":NaN}', b'{"bytes":1e99}', b'{"keys":' + b"9" * 40 + b"}", b"[" * 99_999,
    ):  # fmt: skip
        with pytest.raises(MalformedLimitError):
            parse_limit(value)
    assert PUT_BYTES > 17
