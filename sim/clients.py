"""Clients of the simulated cluster, and the history of what they saw.

Each client does one thing at a time, with a deadline: put, put of two keys at once, delete,
deletion of all before a key that is put, compare-and-swap, linearizable get of one key or of all,
which takes its time. It calls, times out and tries again as etcd's Go client does
(`sim.callers`), so a write that a member answers too early, or in the wrong words, is made twice.
An answer that does not come in time, or that is an error after the request has left, is an unknown
outcome. A client whose outcome is unknown goes on under a new number, because the old operation
may still happen.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from keyraft.base.errors import NoSpaceError
from keyraft.proto import rpc_pb2
from sim.callers import Caller, CallOutcome
from sim.cluster import SimCluster
from sim.linearizability import NEVER, Operation

PATIENCE_S: Final = 3.0
DEADLINES_S: Final = (0.006, 0.015, 0.015, 0.1, PATIENCE_S, PATIENCE_S, PATIENCE_S, PATIENCE_S)
KEYS: Final = ("a", "b", "c")
BEHIND_ALL: Final = "d"


class SimClient:
    """One client; `stop` lets it finish what it does."""

    def __init__(self, cluster: SimCluster, number: int, history: list[Operation]) -> None:
        self._cluster = cluster
        self._chance = Random(cluster.chance.randrange(0, 1 << 30))
        self._caller = Caller(cluster, self._chance)
        self._number = number
        self._history = history
        self._values = 0
        self._seen_mod: dict[str, int] = {}
        self.stopped = False
        self.done = 0
        cluster.loop.call_later(self._chance.random(), self._next)

    @property
    def repeated(self) -> int:
        """Attempts but the first of each call."""
        return self._caller.repeated

    def stop(self) -> None:
        """Begins nothing new."""
        self.stopped = True

    def _later(self) -> None:
        self._cluster.loop.call_later(0.005 + self._chance.random() * 0.15, self._next)

    def _next(self) -> None:
        if self.stopped:
            return
        call = self._choose()
        operation = Operation(self._number, self._cluster.loop.time(), NEVER, call)
        self._history.append(operation)
        method, request, decode = self._request(call)

        def ended(outcome: CallOutcome) -> None:
            if not outcome.code:
                operation.output = decode(outcome.reply)
                operation.return_s = self._cluster.loop.time()
                self._learn(call, operation.output)
                self.done += 1
            elif outcome.text == NoSpaceError.text:
                self._history.remove(operation)  # a full disk takes nothing of it
            elif outcome.sent:
                self._number += 1000
                if call[0] in ("get", "all"):
                    self._history.remove(operation)  # a read that nobody saw says nothing
            else:
                self._history.remove(operation)  # nobody has heard of it
            self._later()

        # What an unknown deletion did is looked for, not told by the log: there should be few.
        deadline_s = PATIENCE_S if call[0] == "delete" else self._chance.choice(DEADLINES_S)
        self._caller.call(method, request, deadline_s, ended)

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

    def _request(self, call: tuple[Any, ...]) -> tuple[str, bytes, Callable[[bytes], Any]]:
        """The method, the request, and what makes an output of its reply."""
        key = call[1].encode()
        if call[0] == "get":

            def get_answer(body: bytes) -> Any:
                answer = rpc_pb2.RangeResponse.FromString(body)
                revision = answer.header.revision
                if not answer.kvs:
                    return ("kv", revision, None, 0, 0)
                kv = answer.kvs[0]
                return ("kv", revision, kv.value.decode(), kv.mod_revision, kv.version)

            return "Range", rpc_pb2.RangeRequest(key=key).SerializeToString(), get_answer
        if call[0] == "put":
            put = rpc_pb2.PutRequest(key=key, value=call[2].encode())

            def put_answer(body: bytes) -> Any:
                return ("rev", rpc_pb2.PutResponse.FromString(body).header.revision)

            return "Put", put.SerializeToString(), put_answer
        if call[0] == "delete":
            delete = rpc_pb2.DeleteRangeRequest(key=key)

            def delete_answer(body: bytes) -> Any:
                answer = rpc_pb2.DeleteRangeResponse.FromString(body)
                return ("rev", answer.header.revision, answer.deleted)

            return "DeleteRange", delete.SerializeToString(), delete_answer
        if call[0] == "all":
            everything = rpc_pb2.RangeRequest(key=b"\0", range_end=key)
            twice = rpc_pb2.TxnRequest()
            for _ in range(2):
                twice.success.add(request_range=everything)
            return "Txn", twice.SerializeToString(), _all_answer
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

            return "Txn", txn.SerializeToString(), pair_answer
        txn = rpc_pb2.TxnRequest(
            compare=[rpc_pb2.Compare(key=key, target=rpc_pb2.Compare.MOD, mod_revision=call[2])],
            success=[
                rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=call[3].encode()))
            ],
        )

        def txn_answer(body: bytes) -> Any:
            answer = rpc_pb2.TxnResponse.FromString(body)
            return ("rev", answer.header.revision, answer.succeeded)

        return "Txn", txn.SerializeToString(), txn_answer


def _all_answer(body: bytes) -> Any:
    """All keys, read twice in one transaction, in the slices of large reads."""
    answer = rpc_pb2.TxnResponse.FromString(body)
    once, again = (response.response_range for response in answer.responses)
    assert once == again, f"a transaction reads {once}, then {again}"
    found = tuple(
        (kv.key.decode(), kv.value.decode(), kv.mod_revision, kv.version) for kv in once.kvs
    )
    return ("all", answer.header.revision, found)
