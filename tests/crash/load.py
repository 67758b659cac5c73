"""Writers whose every acknowledgement is remembered, and the check after a restart.

Each writer owns its keys and has one request under way, so at a crash it is in doubt about one
request at most. A group write is a transaction that sets all keys of a group to one value; seen
half it would show keys that differ. Remembered are acknowledged facts only, so the check needs
no model of the server:

- every acknowledged write is there, or a later one of the same writer is;
- a request in doubt has happened whole or not at all;
- the store's revision is at least every revision ever seen;
- what was read at a revision reads the same at that revision for good.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import grpc

from keyraft.proto import rpc_pb2

KV = "/etcdserverpb.KV/"
GROUP_KEYS = 4
CALL_TIMEOUT_S = 30.0
VALUE_BYTES_MAX = 600


@dataclass
class Fact:
    """What a key holds: value None when deleted; the revision that made it so."""

    value: bytes | None
    revision: int


@dataclass
class Writer:
    """One writer: its keys' acknowledged state, and the request that is under way."""

    number: int
    facts: dict[bytes, Fact] = field(default_factory=dict)
    pending: dict[bytes, bytes | None] | None = None
    sequence: int = 0

    @property
    def keys(self) -> list[bytes]:
        """Single keys, and the group whose keys are only ever written together."""
        return [b"w/%03d/%d" % (self.number, key) for key in range(3)]

    @property
    def group(self) -> list[bytes]:
        return [b"g/%03d/%d" % (self.number, key) for key in range(GROUP_KEYS)]


class Store:
    """Raw calls to one member."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(endpoint)
        self.put = self._stub("Put", rpc_pb2.PutRequest, rpc_pb2.PutResponse)
        self.range = self._stub("Range", rpc_pb2.RangeRequest, rpc_pb2.RangeResponse)
        self.txn = self._stub("Txn", rpc_pb2.TxnRequest, rpc_pb2.TxnResponse)
        self.delete = self._stub(
            "DeleteRange", rpc_pb2.DeleteRangeRequest, rpc_pb2.DeleteRangeResponse
        )

    def _stub(self, name: str, request: type, response: type) -> grpc.UnaryUnaryMultiCallable:
        return self._channel.unary_unary(
            KV + name,
            request_serializer=request.SerializeToString,  # type: ignore[attr-defined]
            response_deserializer=response.FromString,  # type: ignore[attr-defined]
        )

    def close(self) -> None:
        self._channel.close()


class Load:
    """Writers over many crashes; `samples` are facts about the past."""

    def __init__(self, seed: int, writers: int) -> None:
        self.random = Random(seed)
        self.writers = [Writer(number) for number in range(writers)]
        self.revision = 0
        self.acknowledged = 0
        self.samples: list[tuple[bytes, int, bytes]] = []
        self._lock = threading.Lock()

    def run(self, endpoint: str, acknowledgements: int, crash: Callable[[], None]) -> None:
        """Writes until so many answers have come, then calls `crash` with requests under way."""
        store = Store(endpoint)
        left = [acknowledgements]
        enough = threading.Event()
        crashed = threading.Event()
        idle = threading.Semaphore(0)

        def issue(writer: Writer) -> None:
            with self._lock:
                if crashed.is_set():
                    idle.release()
                    return
                future = self._issue(store, writer)
            future.add_done_callback(lambda done: answered(writer, done))

        def answered(writer: Writer, done: grpc.Future) -> None:
            if done.exception() is not None:
                idle.release()  # in doubt: `pending` stays for the check
                enough.set()
                return
            with self._lock:
                self._acknowledge(writer, done.result().header.revision)
                left[0] -= 1
                if left[0] <= 0:
                    enough.set()
            issue(writer)

        for writer in self.writers:
            issue(writer)
        assert enough.wait(CALL_TIMEOUT_S), "no answers"
        crash()
        crashed.set()
        for _ in self.writers:
            assert idle.acquire(timeout=CALL_TIMEOUT_S), "a request never ended"
        store.close()

    def _issue(self, store: Store, writer: Writer) -> grpc.Future:
        writer.sequence += 1
        value = b"%d/%d/" % (writer.number, writer.sequence)
        value += b"x" * self.random.randrange(VALUE_BYTES_MAX)
        kind = self.random.randrange(10)
        if kind < 6:
            key = self.random.choice(writer.keys)
            writer.pending = {key: value}
            return store.put.future(
                rpc_pb2.PutRequest(key=key, value=value), timeout=CALL_TIMEOUT_S
            )
        if kind < 7:
            key = self.random.choice(writer.keys)
            writer.pending = {key: None}
            return store.delete.future(rpc_pb2.DeleteRangeRequest(key=key), timeout=CALL_TIMEOUT_S)
        writer.pending = dict.fromkeys(writer.group, value)
        txn = rpc_pb2.TxnRequest()
        for key in writer.group:
            txn.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=key, value=value))
        return store.txn.future(txn, timeout=CALL_TIMEOUT_S)

    def _acknowledge(self, writer: Writer, revision: int) -> None:
        assert writer.pending is not None
        self.acknowledged += 1
        self.revision = max(self.revision, revision)
        for key, value in writer.pending.items():
            writer.facts[key] = Fact(value, revision)
            if value is not None and self.random.random() < 0.05:
                self.samples.append((key, revision, value))
        writer.pending = None

    def check(self, endpoint: str) -> None:
        """Every fact against the store; what was in doubt is settled by what is there."""
        store = Store(endpoint)
        try:
            everything = store.range(
                rpc_pb2.RangeRequest(key=b"\x00", range_end=b"\x00"), timeout=CALL_TIMEOUT_S
            )
            now = everything.header.revision
            assert now >= self.revision, f"revision fell from {self.revision} to {now}"
            self.revision = now
            found = {pair.key: (pair.value, pair.mod_revision) for pair in everything.kvs}
            for writer in self.writers:
                self._check_writer(writer, found)
            for key, revision, value in self._some(self.samples, 40):
                past = store.range(
                    rpc_pb2.RangeRequest(key=key, revision=revision), timeout=CALL_TIMEOUT_S
                )
                assert [pair.value for pair in past.kvs] == [value], (key, revision)
        finally:
            store.close()

    def _check_writer(self, writer: Writer, found: dict[bytes, tuple[bytes, int]]) -> None:
        group = [found.get(key) for key in writer.group]
        assert len(set(group)) == 1, f"half a transaction: {group}"
        pending = writer.pending or {}
        for key in (*writer.keys, *writer.group):
            fact = writer.facts.get(key)
            value, revision = found.get(key, (None, 0))
            if fact is None and key not in pending:
                assert value is None, f"{key!r}: nobody wrote {value!r}"
            elif fact is not None and value == fact.value:
                assert value is None or revision == fact.revision, (key, revision, fact)
            else:
                acknowledged = fact.value if fact is not None else None
                assert key in pending or value == acknowledged, (
                    f"{key!r}: acknowledged {fact}, found {value!r} at {revision}"
                )
                assert value in (acknowledged, pending.get(key)), f"{key!r}: foreign {value!r}"
            if key in pending and value is None:
                writer.facts.pop(key, None)
            elif value is not None:
                writer.facts[key] = Fact(value, revision)
        writer.pending = None

    def _some(
        self, samples: Sequence[tuple[bytes, int, bytes]], count: int
    ) -> Sequence[tuple[bytes, int, bytes]]:
        return samples if len(samples) <= count else self.random.sample(samples, count)
