"""Limits by prefix at the doors of one member: methods that put ask them first (docs/LIMITS.md).

While there are limits, the routes of those methods have other handlers; without any they have their own,
so nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from keyraft.base.parsing import parse
from keyraft.gateway import COUNTER, GAUGE, Family
from keyraft.grpc import HandleUnary, Route, Router, UnaryCall
from keyraft.mvcc import plain_put
from keyraft.proto import election_pb2, lock_pb2, rpc_pb2
from keyraft.server import Member
from keyraft.server.upkeep.limits import PrefixLimits
from keyraft.service import Guard

LOOK_S: Final = 1.0
REST_S: Final = 0.004  # between two steps of a walk
PUTS_MAX: Final = 10_000  # of one request; above, only the limit on operations is asked
LEASE_DIGITS: Final = 17  # of a lock's key, behind its name

Puts = list[tuple[bytes, int]]
Branches = Callable[[bytes], list[Puts]]


class LimitDoors:
    """Looks once a second; `families` is a source of metrics."""

    def __init__(self, member: Member, router: Router, guard: Guard) -> None:
        self._member = member
        self._guard = guard
        self.limits = PrefixLimits(member.store, member.loop.time, member.logger.warn)
        self._doors: list[tuple[Route, HandleUnary, HandleUnary]] = []
        for path, branches in (
            ("/etcdserverpb.KV/Put", _put),
            ("/etcdserverpb.KV/Txn", _txn),
            ("/v3lockpb.Lock/Lock", _lock),
            ("/v3electionpb.Election/Campaign", _campaign),
            ("/v3electionpb.Election/Proclaim", _proclaim),
        ):
            route = router.find(path.encode())
            assert route is not None and route.handle is not None, path
            self._doors.append((route, route.handle, self._limited(route.handle, branches)))
        self._look()

    def families(self) -> Iterator[Family]:
        """Of each limit; none without."""
        gauges = {
            name: Family(f"keyraft_limit_{name}", GAUGE, text)
            for name, text in (
                ("bytes", "Bytes that may be under a prefix."),
                ("used_bytes", "Bytes of present revisions under it."),
                ("keys", "Keys that may be under a prefix."),
                ("used_keys", "Keys under it."),
                ("writes_per_second", "Writes a second that a prefix may have."),
                ("counted", "Whether what is under a prefix has been counted."),
            )
        }
        refused = Family("keyraft_limit_refused_total", COUNTER, "Requests refused by a limit.")
        for limit in self.limits.limits:
            prefix = limit.prefix.decode("utf-8", "backslashreplace")
            for name, value in (
                ("bytes", limit.bytes_max),
                ("used_bytes", limit.used_bytes),
                ("keys", limit.keys_max),
                ("used_keys", limit.used_keys),
                ("writes_per_second", limit.rate),
                ("counted", limit.at is None),
            ):
                if value is not None:
                    gauges[name].add(value, prefix=prefix)
            refused.add(limit.refused, prefix=prefix)
        yield from gauges.values()
        yield refused

    def _look(self) -> None:
        member = self._member
        if member.stopped:
            return
        on = self.limits.look()
        for route, own, limited in self._doors:
            # Whoever else has taken the door gives it back, and a later look finds it.
            if route.handle is (own if on else limited):
                route.handle = limited if on else own
        if on:
            self._count()
        member.loop.call_later(LOOK_S, self._look)

    def _count(self) -> None:
        if not self._member.stopped and not self.limits.step():
            self._member.loop.call_later(REST_S, self._count)

    def _limited(self, own: HandleUnary, branches: Branches) -> HandleUnary:
        guard, auth = self._guard, self._member.auth

        def handle(call: UnaryCall, request: bytes) -> bytes | None:
            puts = branches(request)
            if any(puts) and max(map(len, puts)) <= PUTS_MAX:
                if guard.rules.enabled:
                    # Who may not write must not use up what others may.
                    identity = guard.identify(call)
                    if identity is None:
                        return own(call, request)
                    for branch in puts:
                        for key, _ in branch:
                            auth.check_write(identity, key)
                self.limits.admit(puts)
            return own(call, request)

        return handle


def _put(request: bytes) -> list[Puts]:
    end = plain_put(request)
    if end:
        return [[(request[2:end], len(request))]]
    message = parse(rpc_pb2.PutRequest, request)
    return [[(message.key, len(message.key) + len(message.value))]]


def _txn(request: bytes) -> list[Puts]:
    message = parse(rpc_pb2.TxnRequest, request)
    return [_puts(message.success), _puts(message.failure)]


def _puts(operations: Iterable[rpc_pb2.RequestOp]) -> Puts:
    found: Puts = []
    for operation in operations:
        which = operation.WhichOneof("request")
        if which == "request_put":
            put = operation.request_put
            found.append((put.key, len(put.key) + len(put.value)))
        elif which == "request_txn":
            inner = operation.request_txn
            branches = _puts(inner.success), _puts(inner.failure)
            weights = [sum(size for _, size in branch) for branch in branches]
            found += branches[weights[0] < weights[1]]
    return found


def _lock(request: bytes) -> list[Puts]:
    name = parse(lock_pb2.LockRequest, request).name
    return [[(name + b"/", len(name) + LEASE_DIGITS)]]


def _campaign(request: bytes) -> list[Puts]:
    message = parse(election_pb2.CampaignRequest, request)
    size = len(message.name) + LEASE_DIGITS + len(message.value)
    return [[(message.name + b"/", size)]]


def _proclaim(request: bytes) -> list[Puts]:
    message = parse(election_pb2.ProclaimRequest, request)
    key = message.leader.key
    return [[(key, len(key) + len(message.value))]]
