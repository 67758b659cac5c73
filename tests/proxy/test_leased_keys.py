"""What a proxy owns under a leasing prefix, step by step."""

from __future__ import annotations

import pytest

from keyraft.proto import rpc_pb2
from keyraft.proxy.grpcproxy import leased_keys
from keyraft.proxy.grpcproxy.leased_keys import BACKOFF_S, FRESH_S, LeasedKeys, Owned, holds

KEY = b"k"


class Scene:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.keys = LeasedKeys(lambda: self.now_s)

    def take(self, key: bytes = KEY, created: int = 5, value: bytes = b"v") -> None:
        assert self.keys.may_take(key)
        self.keys.ask(key)
        self.keys.taken(key, Owned(created, answer(key, value, created - 1), created))
        self.keys.check()

    def value(self, **request: int) -> bytes | None:
        """b"" for a key that is not there or is not told."""
        found = self.keys.get(rpc_pb2.RangeRequest(key=KEY, **request))
        return None if found is None else b"".join(kv.value for kv in found.kvs)


def answer(key: bytes, value: bytes, revision: int, lease: int = 0) -> rpc_pb2.RangeResponse:
    kv = {"key": key, "value": value, "mod_revision": revision, "create_revision": 3}
    return rpc_pb2.RangeResponse(kvs=[{**kv, "lease": lease}], count=1)


def test_nothing_is_believed_long_after_the_clusters_last_answer() -> None:
    scene = Scene()
    assert not scene.keys.fresh
    scene.keys.answered(rpc_pb2.ResponseHeader(revision=7), anonymous=False)
    assert not scene.keys.fresh
    scene.keys.answered(rpc_pb2.ResponseHeader(revision=6), anonymous=True)
    assert scene.keys.fresh and scene.keys.header.revision == 7
    scene.now_s += FRESH_S
    assert not scene.keys.fresh


def test_while_a_write_is_under_way_nothing_is_told_and_nothing_taken() -> None:
    scene = Scene()
    scene.take()
    for written in ((KEY, b""), (b"a", b"z"), (b"a", b"\0")):
        scene.keys.begin([written])
        assert scene.value() is None and not scene.keys.may_take(b"k")
        scene.keys.end([written])
        assert scene.value() == b"v"
    scene.keys.begin([(b"other", b""), (b"l", b"z"), (b"a", b"k")])
    assert scene.value() == b"v" and not scene.keys.may_take(b"m")


def test_what_another_wants_is_given_up_even_while_it_is_being_taken() -> None:
    scene = Scene()
    scene.take(created=5)
    scene.keys.wanted(KEY, 5)  # of an earlier leasing key
    assert scene.value() == b"v"
    scene.keys.wanted(KEY, 6)
    assert scene.value() is None and not scene.keys.may_take(KEY)
    scene.now_s += BACKOFF_S + 0.1
    scene.keys.ask(KEY)
    assert scene.keys.asking([(b"a", b"z")]) and scene.keys.asking([(KEY, b"")])
    assert not scene.keys.asking([(b"l", b"z"), (b"x", b"")])
    scene.keys.wanted(KEY, 9)
    scene.keys.taken(KEY, Owned(8, answer(KEY, b"w", 2), 8))
    assert scene.value() is None and not scene.keys.asking([(KEY, b"")])
    scene.keys.ask(KEY)
    scene.keys.clear()  # the lease is lost meanwhile
    scene.keys.taken(KEY, Owned(12, answer(KEY, b"w", 2), 12))
    assert scene.value() is None
    scene.keys.check()


def test_writes_that_end_in_another_order_leave_the_latest() -> None:
    scene = Scene()
    scene.take(created=5)
    assert scene.keys.update(KEY, answer(KEY, b"second", 8), 8)
    assert scene.keys.update(KEY, answer(KEY, b"first", 7), 7)
    assert scene.value() == b"second"
    assert scene.keys.update(KEY, rpc_pb2.RangeResponse(), 9)
    assert scene.value() == b""
    assert not scene.keys.update(KEY, answer(KEY, b"dies", 10, lease=3), 10)
    scene.keys.check()


def test_conditions_of_a_read_are_looked_at() -> None:
    scene = Scene()
    scene.take(created=5)
    for told in ({}, {"min_mod_revision": 4}, {"max_mod_revision": 4}, {"max_create_revision": 3}):
        assert scene.value(**told) == b"v", told
    for not_told in (
        {"min_mod_revision": 5},
        {"max_mod_revision": 3},
        {"min_create_revision": 4},
        {"max_create_revision": 2},
        {"count_only": 1},
        {"keys_only": 1},
    ):
        assert scene.value(**not_told) == b"", not_told


def test_what_is_owned_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leased_keys, "OWNED_MAX", 3)
    monkeypatch.setattr(leased_keys, "OWNED_BYTES_MAX", 10_000)
    scene = Scene()
    for number in range(3):
        scene.take(b"%d" % number)
    assert not scene.keys.may_take(b"3")
    scene.keys.drop(b"0")
    scene.take(b"3", value=b"v" * 20_000)
    scene.keys.drop(b"1")
    assert not scene.keys.may_take(b"4")
    for _ in range(20):
        scene.keys.drop(b"3")
        scene.now_s += BACKOFF_S + 1
        scene.take(b"3")
    assert scene.keys.within([(b"2", b""), (b"3", b"9")]) == [b"3"]


def test_ranges_hold_keys() -> None:
    assert holds((b"a", b""), b"a") and not holds((b"a", b""), b"b")
    assert holds((b"a", b"c"), b"b") and not holds((b"a", b"c"), b"c")
    assert holds((b"b", b"\0"), b"z") and not holds((b"b", b"\0"), b"a")
