"""The services over a member, without a transport."""

from __future__ import annotations

from random import Random
from typing import Any

from keyraft.base.clock import Loop
from keyraft.server import Member, RaftEngine
from keyraft.service import (
    AuthService,
    ClusterService,
    ElectionService,
    Engine,
    KVService,
    LeaseService,
    LockService,
    MaintenanceService,
    Means,
    WatchService,
    guard_of,
)


class Services:
    """Those of an engine."""

    def __init__(self, engine: Engine, loop: Loop) -> None:
        self.engine = engine
        self.guard = guard = guard_of(engine, loop)
        means = Means(engine.keys, engine.watching, engine.leases, guard)
        self.kv = KVService(engine.keys, guard)
        self.watch = WatchService(engine.watching, guard, Random(1))
        self.lease = LeaseService(engine.leases, guard)
        self.cluster = ClusterService(engine.members, guard)
        self.maintenance = MaintenanceService(engine.upkeep, guard)
        self.auth = AuthService(engine.users, guard)
        self.lock = LockService(means)
        self.election = ElectionService(means)


def served(member: Member, open_snapshot: Any = None) -> Services:
    """Those of a member."""
    return Services(RaftEngine(member, open_snapshot), member.loop)
