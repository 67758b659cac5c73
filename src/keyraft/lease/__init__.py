"""Leases: keys that live as long as a client renews their lease.

Pure: the caller hands in the time (monotonic seconds) and the database.
"""

from keyraft.lease.duequeue import DueQueue
from keyraft.lease.lessor import (
    CHECKPOINT_BATCH_LEASES,
    CHECKPOINT_INTERVAL_S,
    LIST_SLICE,
    NO_LEASE,
    PROMOTED_EXPIRIES_PER_S,
    PROMOTION_SLICE_LEASES,
    REVOKE_RATE_PER_S,
    SCAN_INTERVAL_S,
    TTL_MAX_S,
    Lessor,
    NotPrimaryError,
    min_ttl_s,
)
from keyraft.lease.record import Leases

__all__ = [
    "CHECKPOINT_BATCH_LEASES",
    "CHECKPOINT_INTERVAL_S",
    "LIST_SLICE",
    "NO_LEASE",
    "PROMOTED_EXPIRIES_PER_S",
    "PROMOTION_SLICE_LEASES",
    "REVOKE_RATE_PER_S",
    "SCAN_INTERVAL_S",
    "TTL_MAX_S",
    "DueQueue",
    "Leases",
    "Lessor",
    "NotPrimaryError",
    "min_ttl_s",
]
