"""Holders of leases: they hang keys on them, renew them for a while, then let go.

Whatever a holder was told is a promise: the lease stands for its TTL from the moment of the call
that was answered, by the fastest clock in the cluster. `sim.witness` judges each end of a lease;
the ends go into the clients' history as deletions that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from keyraft.base.errors import BY_TEXT, EtcdError, LeaseNotFoundError, RawError
from keyraft.base.waiters import Result
from keyraft.proto import rpc_pb2
from sim.callers import Caller, CallOutcome
from sim.cluster import SimCluster
from sim.linearizability import NEVER, Operation

PATIENCE_S: Final = 3.0
TTLS_S: Final = (2, 3, 6)
LEASED_KEYS: Final = 3
Done = Callable[[Result], None]
NUMBERS: Final = 5_000_000  # their operations are told apart from other clients' by number


class LeaseHolder:
    """One holder: one lease at a time, one operation at a time."""

    def __init__(self, cluster: SimCluster, number: int, history: list[Operation]) -> None:
        self._cluster = cluster
        self._chance = Random(cluster.chance.randrange(0, 1 << 30))
        self._caller = Caller(cluster, self._chance)
        self._number = NUMBERS + number
        self._history = history
        self._values = 0
        self._attempt = 0
        self._lease = 0
        self._ttl_s = 0
        self._renewals = 0
        self.stopped = False
        self.renewed = 0
        cluster.loop.call_later(self._chance.random(), self._next)

    def stop(self) -> None:
        """Begins nothing new; the lease is left to run out."""
        self.stopped = True

    # --- one step after another ---------------------------------------------------------------

    def _next(self) -> None:
        if self.stopped:
            return
        if not self._lease:
            self._grant()
        elif self._renewals <= 0:
            self._let_go()
        elif self._chance.random() < 0.4:
            self._put()
        else:
            self._renew()

    def _later(self, seconds: float = 0.0) -> None:
        pause_s = seconds or 0.02 + self._chance.random() * 0.4
        self._cluster.loop.call_later(pause_s, self._next)

    def _begin(self) -> int:
        """A new attempt; after the patience it counts as of unknown outcome."""
        self._attempt += 1
        attempt = self._attempt

        def late() -> None:
            if self._ends(attempt):
                self._later()

        self._cluster.loop.call_later(PATIENCE_S, late)
        return attempt

    def _ends(self, attempt: int) -> bool:
        """Whether this attempt is still waited for; it is over now."""
        if attempt != self._attempt:
            return False
        self._attempt += 1
        return True

    def _promised(self, lease: int, ttl_s: int, call_s: float) -> None:
        cluster = self._cluster
        rate = max(node.habits.rate for node in cluster.nodes.values())
        cluster.witness.promise(lease, call_s + ttl_s / rate - cluster.lease_slack_s)

    def _grant(self) -> None:
        lease = self._chance.randrange(1, 1 << 40)
        ttl_s = self._chance.choice(TTLS_S)
        call_s = self._cluster.loop.time()
        attempt = self._begin()

        def done(result: Result) -> None:
            if not isinstance(result, bytes):
                return
            answer = rpc_pb2.LeaseGrantResponse.FromString(result)
            self._promised(lease, answer.TTL, call_s)
            if self._ends(attempt):
                self._lease, self._ttl_s = lease, answer.TTL
                self._renewals = self._chance.randrange(1, 12)
                self._later()

        request = rpc_pb2.LeaseGrantRequest(ID=lease, TTL=ttl_s).SerializeToString()
        self._call("LeaseGrant", request, done)

    def _renew(self) -> None:
        """Asks whoever says that it leads; several may."""
        self._renewals -= 1
        nodes = self._cluster.nodes.values()
        leading = [
            node for node in nodes if node.member is not None and node.member.leadership.leading
        ]
        if not leading:
            self._later()
            return
        node = self._chance.choice(leading)
        member = node.member
        assert member is not None, "it runs"
        lease = self._lease
        call_s = self._cluster.loop.time()
        attempt = self._begin()

        def done(outcome: int | EtcdError | RawError) -> None:
            if node.member is not member:
                return
            if isinstance(outcome, int):
                self.renewed += 1
                self._promised(lease, outcome, call_s)
            elif isinstance(outcome, LeaseNotFoundError):
                gone = self._cluster.witness.revoked.get(lease)
                assert gone is not None, f"lease {lease:x} is said to be gone and is not"
                if lease == self._lease:
                    self._lease = 0
            if self._ends(attempt):
                self._later(0.1 + self._chance.random() * self._ttl_s / 3)

        node.later(member.leasing.renew, lease, done)

    def _put(self) -> None:
        self._values += 1
        key = f"l{self._chance.randrange(LEASED_KEYS)}"
        value = f"{self._number}-{self._values}"
        operation = Operation(self._number, self._cluster.loop.time(), NEVER, ("put", key, value))
        self._history.append(operation)
        attempt = self._begin()
        lease = self._lease

        def done(result: Result) -> None:
            if isinstance(result, bytes):
                if attempt == self._attempt:
                    answer = rpc_pb2.PutResponse.FromString(result)
                    operation.output = ("rev", answer.header.revision)
                    operation.return_s = self._cluster.loop.time()
            elif isinstance(result, LeaseNotFoundError):
                assert lease in self._cluster.witness.revoked, f"lease {lease:x} is not gone"
                if lease == self._lease:
                    self._lease = 0
            if self._ends(attempt):
                self._later()

        request = rpc_pb2.PutRequest(key=key.encode(), value=value.encode(), lease=lease)
        self._call("Put", request.SerializeToString(), done)

    def _let_go(self) -> None:
        """Half of the leases are revoked, the others run out."""
        lease, self._lease = self._lease, 0
        if self._chance.random() < 0.5:
            self._later(self._ttl_s * self._chance.random() * 2)
            return
        promise = self._cluster.witness.promises.get(lease)
        if promise is not None:
            promise.given_up = True
        attempt = self._begin()

        def done(result: Result) -> None:
            if self._ends(attempt):
                self._later()

        request = rpc_pb2.LeaseRevokeRequest(ID=lease).SerializeToString()
        self._call("LeaseRevoke", request, done)

    def _call(self, method: str, request: bytes, done: Done) -> None:
        def ended(outcome: CallOutcome) -> None:
            if not outcome.code:
                done(outcome.reply)
            else:
                kind = BY_TEXT.get(outcome.text)
                done(kind() if kind is not None else RawError(outcome.code, outcome.text))

        self._caller.call(method, request, PATIENCE_S, ended)


def expiries(cluster: SimCluster) -> list[Operation]:
    """What the ends of leases did to the keys, as operations of a client of their own each."""
    found = []
    for number, revoked in enumerate(cluster.witness.revoked.values()):
        expiry = revoked.expiry
        if expiry.keys:
            found.append(
                Operation(
                    -1 - number,
                    0.0,
                    revoked.at_s,
                    ("expire", expiry.keys),
                    ("rev", expiry.revision),
                )
            )
    return found
