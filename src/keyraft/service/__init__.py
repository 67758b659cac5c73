"""The gRPC services, registered on a router. What they ask for is in `ports`."""

from keyraft.base.clock import Loop, Random
from keyraft.grpc import Router
from keyraft.service.auth import AuthService
from keyraft.service.cluster import ClusterService
from keyraft.service.election import ElectionService
from keyraft.service.guard import Guard
from keyraft.service.health import HealthService
from keyraft.service.kv import KVService
from keyraft.service.lease import LeaseService
from keyraft.service.lock import LockService
from keyraft.service.maintenance import MaintenanceService
from keyraft.service.ports import Engine
from keyraft.service.recipe import Means
from keyraft.service.watch import WatchService

__all__ = [
    "AuthService",
    "ClusterService",
    "ElectionService",
    "Engine",
    "Guard",
    "HealthService",
    "KVService",
    "LeaseService",
    "LockService",
    "MaintenanceService",
    "Means",
    "WatchService",
    "guard_of",
    "register",
]


def guard_of(engine: Engine, loop: Loop) -> Guard:
    """The interceptors of an engine's services."""
    return Guard(engine.standing, engine.users, loop)


def register(router: Router, engine: Engine, guard: Guard, chance: Random) -> None:
    """Makes all services of etcd's callable, and ours."""
    means = Means(engine.keys, engine.watching, engine.leases, guard)
    KVService(engine.keys, guard).register(router)
    WatchService(engine.watching, guard, chance).register(router)
    LeaseService(engine.leases, guard).register(router)
    ClusterService(engine.members, guard).register(router)
    MaintenanceService(engine.upkeep, guard).register(router)
    AuthService(engine.users, guard).register(router)
    LockService(means).register(router)
    ElectionService(means).register(router)
