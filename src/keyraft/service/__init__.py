"""The gRPC services, registered on a router."""

from keyraft.service.cluster import ClusterService
from keyraft.service.guard import Guard
from keyraft.service.health import HealthService
from keyraft.service.kv import KVService
from keyraft.service.maintenance import MaintenanceService

__all__ = ["ClusterService", "Guard", "HealthService", "KVService", "MaintenanceService"]
