"""A row without a value, as `snapshot restore --bump-revision` leaves, is met everywhere rows are.

etcd reads it as a KeyValue of the empty key, which no client can name.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from keyraft.base.errors import CompactedError
from keyraft.mvcc import MemoryBackend, Store, checkpoint
from keyraft.mvcc.backend import KEY, META, META_SCHEDULED_COMPACT
from keyraft.mvcc.revision import first_key, row_key
from keyraft.proto import rpc_pb2

EVERYTHING = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString()


def reopened(store: Store, **more: object) -> Store:
    """The same rows, read anew."""
    store.backend.flush()
    assert isinstance(store.backend, MemoryBackend)
    return Store(MemoryBackend(store.backend.crash()), **more)  # type: ignore[arg-type]


def settle(store: Store) -> None:
    while store.compactions.step() is not None:
        pass


def keys(store: Store) -> list[bytes]:
    answer = rpc_pb2.RangeResponse.FromString(store.range(EVERYTHING))
    assert answer.count == len(answer.kvs)
    return [kv.key for kv in answer.kvs]


def bumped(revisions: Iterable[int], mark_compacted: bool = True) -> Store:
    """Three keys, one of them deleted, and behind them what the restores have left."""
    store = Store(MemoryBackend())
    for key in (b"a", b"b", b"c"):
        store.put_key(key, b"1")
        store.end()
    store.delete_keys([b"b"])
    for main in revisions:
        store.backend.put(KEY, row_key(main, 0), b"")
        if mark_compacted:
            store.backend.put(META, META_SCHEDULED_COMPACT, row_key(main, 0))
    return reopened(store)


@pytest.mark.parametrize("revisions", [(1000,), (1000, 2000)])
def test_a_store_opens_compacts_and_hashes(revisions: tuple[int, ...]) -> None:
    store = bumped(revisions)
    assert store.revision == revisions[-1]
    settle(store)
    assert store.compact_revision == store.revision
    assert keys(store) == [b"a", b"c"]
    with pytest.raises(CompactedError):
        store.range(rpc_pb2.RangeRequest(key=b"a", revision=5).SerializeToString())
    store.put_key(b"d", b"1")
    store.end()
    store.check()
    before = store.hash_kv(store.revision).run()
    again = reopened(store)
    assert keys(again) == [b"a", b"c", b"d"]
    assert again.hash_kv(again.revision).run().hash == before.hash
    again.compact(again.revision)
    settle(again)
    again.check()
    assert keys(reopened(again)) == [b"a", b"c", b"d"]
    assert dict(again.backend.range(KEY))[row_key(revisions[-1], 0)] == b""


def test_its_event_is_nobodys() -> None:
    store = bumped((1000,), mark_compacted=False)
    found, after = store.events(first_key(2), 1000)
    assert after == b""
    assert found[-1] == (1000, [(b"", b"", False)])
    assert [key for _, events in found[:-1] for key, _, _ in events] == [b"a", b"b", b"c", b"b"]


def test_a_checkpoint_holds_it() -> None:
    store = bumped((1000,))
    settle(store)
    data = checkpoint.encode(store)
    shortcut = checkpoint.decode(data, data[: checkpoint.HEAD_BYTES])
    again = reopened(store, checkpoint=shortcut)
    assert keys(again) == [b"a", b"c"]
    assert again.revision == 1000
    again.check()
