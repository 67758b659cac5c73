"""The gRPC services, registered on a router."""

from keyraft.service.cluster import ClusterService
from keyraft.service.guard import Guard
from keyraft.service.health import HealthService
from keyraft.service.kv import KVService
from keyraft.service.lease import LeaseService
from keyraft.service.maintenance import MaintenanceService
from keyraft.service.watch import WatchService

__all__ = [
    "ClusterService",
    "Guard",
    "HealthService",
    "KVService",
    "LeaseService",
    "MaintenanceService",
    "WatchService",
]
