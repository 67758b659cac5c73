"""The gRPC services, registered on a router."""

from keyraft.service.auth import AuthService
from keyraft.service.cluster import ClusterService
from keyraft.service.election import ElectionService
from keyraft.service.guard import Guard
from keyraft.service.health import HealthService
from keyraft.service.kv import KVService
from keyraft.service.lease import LeaseService
from keyraft.service.lock import LockService
from keyraft.service.maintenance import MaintenanceService
from keyraft.service.watch import WatchService

__all__ = [
    "AuthService",
    "ClusterService",
    "ElectionService",
    "Guard",
    "HealthService",
    "KVService",
    "LeaseService",
    "LockService",
    "MaintenanceService",
    "WatchService",
]
