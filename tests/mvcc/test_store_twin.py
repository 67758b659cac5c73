"""The store against its dumb twin: any operations, any compaction, any restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keyraft.base.errors import EtcdError
from keyraft.mvcc import MemoryBackend, Store
from keyraft.mvcc import backend as b
from keyraft.mvcc.checkpoint import HEAD_BYTES, decode, encode
from keyraft.mvcc.revision import first_key, parse
from keyraft.proto import mvcc_pb2, rpc_pb2
from tests.support.examples import examples

from .twin import Twin, TwinKV

keys = st.sampled_from([b"a", b"aa", b"ab", b"b", b"b\x00", b"c", b"ca", b"d" * 130, b"\xff"])
ends = st.sampled_from([b"", b"", b"\x00", b"ab", b"b", b"c", b"zz", b"a"])
values = st.sampled_from([b"", b"1", b"2", b"v" * 127, b"w" * 128, b"x" * 300])


def bounds(end: bytes) -> tuple[bytes | None, bool]:
    return (None if end == b"\x00" else end), not end


def ask(store: Store, **fields: object) -> rpc_pb2.RangeResponse | str:
    request = rpc_pb2.RangeRequest(**fields)  # type: ignore[arg-type]
    try:
        return rpc_pb2.RangeResponse.FromString(store.range(request.SerializeToString()))
    except EtcdError as error:
        return error.text


def seen(kv: mvcc_pb2.KeyValue) -> tuple[bytes, int, int, int, bytes]:
    return kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value


def expected(kv: TwinKV, with_value: bool = True) -> tuple[bytes, int, int, int, bytes]:
    return kv.key, kv.created, kv.modified, kv.version, kv.value if with_value else b""


SORTS: dict[int, Callable[[Any], Any]] = {
    rpc_pb2.RangeRequest.KEY: lambda kv: kv.key,
    rpc_pb2.RangeRequest.VERSION: lambda kv: kv.version,
    rpc_pb2.RangeRequest.CREATE: lambda kv: kv.created,
    rpc_pb2.RangeRequest.MOD: lambda kv: kv.modified,
    rpc_pb2.RangeRequest.VALUE: lambda kv: kv.value,
}


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.backend = MemoryBackend(auto_settle=False)
        self.store = Store(self.backend, compaction_batch_rows=3)
        self.twin = Twin()
        self.events: list[tuple[int, bytes, bytes | None]] = []
        self.store.listen(self.listen)
        self.checkpoint: bytes | None = None
        self.checkpoint_revision = 0
        self.sealed: list[tuple[int, int, int]] = []
        self.durable = (1, -1, 0)
        self.backend.before_commit(self.seal)

    def seal(self) -> None:
        """Remembers what the twin was when a batch was sealed."""
        self.sealed.append((self.twin.revision, self.twin.compacted, len(self.twin.changes)))

    def settle(self, batches: int) -> None:
        self.backend.settle(batches)
        if batches:
            self.durable = self.sealed[batches - 1]
            del self.sealed[:batches]

    def listen(
        self, revision: int, events: list[tuple[bytes, bytes, bool]], more: bool = False
    ) -> None:
        for key, stored, tombstone in events:
            kv = mvcc_pb2.KeyValue.FromString(stored)
            assert kv.key == key and kv.mod_revision == revision
            assert not tombstone or kv == mvcc_pb2.KeyValue(key=key, mod_revision=revision)
            self.events.append((revision, key, None if tombstone else kv.value))

    @initialize()
    def nothing_there(self) -> None:
        assert self.store.revision == 1 and self.store.compact_revision == -1

    @rule(key=keys, value=values, prev=st.booleans())
    def put(self, key: bytes, value: bytes, prev: bool) -> None:
        before = self.twin.read(key, None, True)
        request = rpc_pb2.PutRequest(key=key, value=value, prev_kv=prev)
        body = rpc_pb2.PutResponse.FromString(self.store.put(request.SerializeToString()))
        if prev and before:
            assert seen(body.prev_kv) == expected(before[0])
        else:
            assert not body.HasField("prev_kv")
        self.twin.put(key, value)
        self.twin.end()

    @rule(key=keys, end=ends, prev=st.booleans())
    def delete(self, key: bytes, end: bytes, prev: bool) -> None:
        before = self.twin.read(key, *bounds(end))
        request = rpc_pb2.DeleteRangeRequest(key=key, range_end=end, prev_kv=prev)
        body = rpc_pb2.DeleteRangeResponse.FromString(
            self.store.delete_range(request.SerializeToString())
        )
        assert body.deleted == self.twin.delete(key, *bounds(end)) == len(before)
        self.twin.end()
        assert [seen(kv) for kv in body.prev_kvs] == [expected(kv) for kv in before if prev]

    @rule(ops=st.lists(st.tuples(keys, ends, values, st.booleans()), max_size=4))
    def several_at_once(self, ops: list[tuple[bytes, bytes, bytes, bool]]) -> None:
        request = rpc_pb2.TxnRequest()
        for key, end, value, put in ops:
            op = request.success.add()
            if put:
                op.request_put.key, op.request_put.value = key, value
                self.twin.put(key, value)
            else:
                op.request_delete_range.key, op.request_delete_range.range_end = key, end
                self.twin.delete(key, *bounds(end))
            look = request.success.add().request_range
            look.key, look.range_end = b"\x00", b"\x00"
        self.twin.end()
        body = rpc_pb2.TxnResponse.FromString(self.store.txn(request.SerializeToString()))
        assert body.succeeded and len(body.responses) == 2 * len(ops)
        if ops:
            last = body.responses[-1].response_range
            assert [seen(kv) for kv in last.kvs] == [
                expected(kv) for kv in self.twin.read(b"", None, False)
            ]
            assert last.header.revision == self.twin.revision

    @rule(back=st.integers(-1, 12))
    def compact(self, back: int) -> None:
        at = self.twin.revision - back
        want = got = ""
        try:
            self.twin.compact(at)
        except EtcdError as error:
            want = error.text
        try:
            self.store.compact(at)
        except EtcdError as error:
            got = error.text
        assert got == want

    @rule(slices=st.integers(1, 9))
    def work_on_compaction(self, slices: int) -> None:
        for _ in range(slices):
            self.store.compactions.step()

    @rule()
    def commit(self) -> None:
        self.backend.flush()

    @rule(batches=st.integers(1, 3))
    def disk_catches_up(self, batches: int) -> None:
        self.settle(min(batches, len(self.sealed)))

    @rule()
    def take_checkpoint(self) -> None:
        self.checkpoint = encode(self.store)
        self.checkpoint_revision = self.store.revision

    @rule(shortcut=st.booleans())
    def restart(self, shortcut: bool) -> None:
        self.backend.flush()
        self.settle(len(self.sealed))
        self.start(shortcut)

    @rule(shortcut=st.booleans())
    def crash(self, shortcut: bool) -> None:
        revision, compacted, changes = self.durable
        self.sealed.clear()
        self.twin.revision, self.twin.compacted = revision, compacted
        del self.twin.changes[changes:]
        self.events = [(r, k, v) for r, _, k, v in self.twin.changes]
        if self.checkpoint_revision > revision:
            self.checkpoint = None  # the database does not vouch for it yet
        self.start(shortcut)

    def start(self, shortcut: bool) -> None:
        self.backend = MemoryBackend(self.backend.crash(), auto_settle=False)
        self.backend.before_commit(self.seal)
        checkpoint = None
        if shortcut and self.checkpoint is not None:
            checkpoint = decode(self.checkpoint, self.checkpoint[:HEAD_BYTES])
            assert checkpoint is not None
        self.store = Store(self.backend, compaction_batch_rows=3, checkpoint=checkpoint)
        self.store.listen(self.listen)
        assert self.store.revision == self.twin.revision
        if self.twin.compacted == 0 and self.store.compact_revision == -1:
            # A scheduled revision of 0 says "none" (etcd too).
            self.twin.compacted = -1
            self.durable = (self.durable[0], -1, self.durable[2])
        assert self.store.compact_revision == self.twin.compacted

    @rule(
        key=keys,
        end=ends,
        back=st.integers(-1, 15),
        limit=st.integers(-1, 5),
        order=st.sampled_from([0, 1, 2]),
        by_field=st.sampled_from([0, 1, 2, 3, 4]),
        what=st.sampled_from(["all", "keys", "count"]),
        low=st.integers(0, 10),
        high=st.integers(0, 10),
        by=st.sampled_from(["", "", "mod", "create"]),
    )
    def read(
        self,
        key: bytes,
        end: bytes,
        back: int,
        limit: int,
        order: int,
        by_field: int,
        what: str,
        low: int,
        high: int,
        by: str,
    ) -> None:
        at = self.twin.revision - back
        fields = {
            "key": key,
            "range_end": end,
            "revision": at,
            "limit": limit,
            "sort_order": order,
            "sort_target": by_field,
            "keys_only": what == "keys",
            "count_only": what == "count",
        }
        if by:
            fields |= {f"min_{by}_revision": low, f"max_{by}_revision": high}
        got = ask(self.store, **fields)
        try:
            kvs = self.twin.read(key, *bounds(end), at)
        except EtcdError as error:
            assert got == error.text
            return
        assert isinstance(got, rpc_pb2.RangeResponse)
        assert got.count == len(kvs)
        if what == "count":
            assert not got.kvs and not got.more
            return
        if limit > 0 and order == 0 and not (by and (low or high)):
            kvs = kvs[: limit + 1]
        if by:
            kvs = [
                kv
                for kv in kvs
                for revision in [kv.modified if by == "mod" else kv.created]
                if revision >= low and (not high or revision <= high)
            ]
        kvs = sorted(kvs, key=SORTS[by_field], reverse=order == 2)
        more = limit > 0 and len(kvs) > limit
        if more:
            kvs = kvs[:limit]
        assert got.more == more
        assert [seen(kv) for kv in got.kvs] == [expected(kv, what == "all") for kv in kvs]

    @rule(back=st.integers(0, 15), rows=st.integers(1, 4))
    def past_events(self, back: int, rows: int) -> None:
        start = max(self.twin.revision - back, self.twin.compacted + 1, 1)
        got = []
        at = first_key(start)
        while at:
            revisions, at = self.store.events(at, rows)
            for revision, events in revisions:
                for key, stored, tombstone in events:
                    kv = mvcc_pb2.KeyValue.FromString(stored)
                    assert kv.mod_revision == revision
                    got.append((revision, key, None if tombstone else kv.value))
        assert got == [(r, k, v) for r, _, k, v in self.twin.changes if r >= start]

    @invariant()
    def sound(self) -> None:
        self.store.check()
        assert self.store.revision == self.twin.revision
        assert self.events == [(r, k, v) for r, _, k, v in self.twin.changes]

    def teardown(self) -> None:
        while self.store.compactions.step() is not None:
            pass
        compacted = self.twin.compacted
        rows = [parse(row) for row, _ in self.backend.range(b.KEY)]
        kept = {(kv.modified, kv.key) for kv in self.twin.state(compacted)}
        want = [
            (revision, sub, value is None)
            for revision, sub, key, value in self.twin.changes
            if revision > compacted
            or ((revision, key) in kept and value is not None)
            or (revision == compacted and value is None)
        ]
        one_each = {(r, k) for r, _, k, _ in self.twin.changes}
        if len(one_each) == len(self.twin.changes):
            assert rows == want


StoreMachine.TestCase.settings = examples(60, stateful_step_count=40)
TestStoreAgainstItsTwin = StoreMachine.TestCase
