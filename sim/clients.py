"""Clients of the simulated cluster, and the history of what they saw.

Each client does one thing at a time at a member of its choice: put, put of two keys at once,
delete, deletion of all before a key that is put, compare-and-swap, linearizable get of one key or
of all, which takes its time. An answer that does not come within `PATIENCE_S`, or that is an error after the
request has left, is an unknown outcome. A client whose outcome is unknown goes on under a new
number, because the old operation may still happen.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from keyraft.base.errors import EtcdError, RawError
from keyraft.proto import rpc_pb2
from keyraft.server import Member, Result, wire
from sim.cluster import SimCluster
from sim.linearizability import NEVER, Operation
from sim.node import Node

PATIENCE_S: Final = 3.0
KEYS: Final = ("a", "b", "c")
BEHIND_ALL: Final = "d"


class SimClient:
    """One client; `stop` lets it finish what it does."""

    def __init__(self, cluster: SimCluster, number: int, history: list[Operation]) -> None:
        self._cluster = cluster
        self._chance = Random(cluster.chance.randrange(0, 1 << 30))
        self._number = number
        self._history = history
        self._attempt = 0
        self._values = 0
        self._seen_mod: dict[str, int] = {}
        self.stopped = False
        self.done = 0
        cluster.loop.call_later(self._chance.random(), self._next)

    def stop(self) -> None:
        """Begins nothing new."""
        self.stopped = True

    def _later(self) -> None:
        self._cluster.loop.call_later(0.005 + self._chance.random() * 0.15, self._next)

    def _next(self) -> None:
        if self.stopped:
            return
        # Also those that are paused: the request waits for them, and its client for three seconds.
        nodes = [node for node in self._cluster.nodes.values() if node.member is not None]
        if not nodes:
            self._later()
            return
        node = self._chance.choice(nodes)
        call = self._choose()
        operation = Operation(self._number, self._cluster.loop.time(), NEVER, call)
        self._attempt += 1
        attempt = self._attempt

        def answered(output: Any) -> None:
            if attempt != self._attempt:
                return
            self._attempt += 1
            operation.output = output
            operation.return_s = self._cluster.loop.time()
            self._learn(call, output)
            self.done += 1
            self._later()

        def unknown() -> None:
            if attempt != self._attempt:
                return
            self._attempt += 1
            self._number += 1000
            if call[0] in ("get", "all"):
                self._history.remove(operation)  # a read that nobody saw says nothing
            self._later()

        member = node.member
        assert member is not None
        self._history.append(operation)

        def arrives() -> None:
            try:
                self._send(node, member, call, answered, unknown)
            except (EtcdError, RawError):
                if attempt == self._attempt:
                    self._history.remove(operation)  # refused at the door: it never happened
                    self._attempt += 1
                    self._later()

        node.later(arrives)
        self._cluster.loop.call_later(PATIENCE_S, unknown)

    def _choose(self) -> tuple[Any, ...]:
        key = self._chance.choice(KEYS)
        kind = self._chance.random()
        self._values += 1
        value = f"{self._number}-{self._values}"
        if kind < 0.4:
            return ("get", key)
        if kind < 0.65:
            return ("put", key, value)
        if kind < 0.69:
            return ("pair", "a", "b", value)
        if kind < 0.73:
            return ("wipe", "", KEYS[-1], value)
        if kind < 0.76:
            return ("all", BEHIND_ALL)
        if kind < 0.8:
            return ("delete", key)
        return ("cas", key, self._seen_mod.get(key, 0), value)

    def _learn(self, call: tuple[Any, ...], output: Any) -> None:
        if call[0] == "get":
            self._seen_mod[call[1]] = output[3]

    def _send(
        self,
        node: Node,
        member: Member,
        call: tuple[Any, ...],
        answered: Callable[[Any], None],
        unknown: Callable[[], None],
    ) -> None:
        key = call[1].encode()
        if call[0] == "get":

            def ready(error: EtcdError | None) -> None:
                if error is not None or node.member is not member:
                    unknown()
                    return
                request = rpc_pb2.RangeRequest(key=key).SerializeToString()
                answer = rpc_pb2.RangeResponse.FromString(member.store.range(request))
                revision = member.store.revision
                if answer.kvs:
                    kv = answer.kvs[0]
                    answered(("kv", revision, kv.value.decode(), kv.mod_revision, kv.version))
                else:
                    answered(("kv", revision, None, 0, 0))

            member.read_index(ready)
            return
        if call[0] == "all":
            member.read_index(lambda error: self._read_all(node, member, error, answered, unknown))
            return
        kind, request, decode = self._write(call, key)

        def done(result: Result) -> None:
            if isinstance(result, bytes) and node.member is member:
                answered(decode(result))
            else:
                unknown()

        member.propose(kind, request, done)

    def _read_all(
        self,
        node: Node,
        member: Member,
        error: EtcdError | None,
        answered: Callable[[Any], None],
        unknown: Callable[[], None],
    ) -> None:
        """Reads all keys twice in one transaction, in the slices of large reads."""
        if error is not None or node.member is not member:
            unknown()
            return
        everything = rpc_pb2.RangeRequest(key=b"\0", range_end=BEHIND_ALL.encode())
        request = rpc_pb2.TxnRequest()
        for _ in range(2):
            request.success.add(request_range=everything)
        revision = member.store.revision
        work = member.store.read_txn_steps(request)

        def step() -> bool:
            try:
                next(work)
            except StopIteration as end:
                responses = rpc_pb2.TxnResponse.FromString(end.value).responses
                once, again = (response.response_range for response in responses)
                assert once == again, f"a transaction reads {once}, then {again}"
                found = tuple(
                    (kv.key.decode(), kv.value.decode(), kv.mod_revision, kv.version)
                    for kv in once.kvs
                )
                answered(("all", revision, found))
                return True
            return False

        if not step():  # the first step decides of which revision all is
            member.slices.add(step)

    def _write(
        self, call: tuple[Any, ...], key: bytes
    ) -> tuple[int, bytes, Callable[[bytes], Any]]:
        if call[0] == "put":
            put = rpc_pb2.PutRequest(key=key, value=call[2].encode())

            def put_answer(body: bytes) -> Any:
                return ("rev", rpc_pb2.PutResponse.FromString(body).header.revision)

            return wire.KIND_PUT, put.SerializeToString(), put_answer
        if call[0] == "delete":
            delete = rpc_pb2.DeleteRangeRequest(key=key)

            def delete_answer(body: bytes) -> Any:
                answer = rpc_pb2.DeleteRangeResponse.FromString(body)
                return ("rev", answer.header.revision, answer.deleted)

            return wire.KIND_DELETE_RANGE, delete.SerializeToString(), delete_answer
        if call[0] in ("pair", "wipe"):
            txn = rpc_pb2.TxnRequest()
            if call[0] == "wipe":
                before = rpc_pb2.DeleteRangeRequest(key=b"\0", range_end=call[2].encode())
                txn.success.add(request_delete_range=before)
            for name in call[1:3]:
                if name:
                    request = rpc_pb2.PutRequest(key=name.encode(), value=call[3].encode())
                    txn.success.add(request_put=request)

            def pair_answer(body: bytes) -> Any:
                return ("rev", rpc_pb2.TxnResponse.FromString(body).header.revision)

            return wire.KIND_TXN, txn.SerializeToString(), pair_answer
        txn = rpc_pb2.TxnRequest(
            compare=[rpc_pb2.Compare(key=key, target=rpc_pb2.Compare.MOD, mod_revision=call[2])],
            success=[
                rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=call[3].encode()))
            ],
        )

        def txn_answer(body: bytes) -> Any:
            answer = rpc_pb2.TxnResponse.FromString(body)
            return ("rev", answer.header.revision, answer.succeeded)

        return wire.KIND_TXN, txn.SerializeToString(), txn_answer
