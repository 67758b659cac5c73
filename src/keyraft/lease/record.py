"""What a lessor holds of one lease."""

from __future__ import annotations

import itertools
from math import inf
from typing import Final


class LeaseRecord:
    """One lease; changed by the lessor only. Times in monotonic seconds."""

    __slots__ = (
        "attached",
        "checkpoint_due_s",
        "expiry_s",
        "id",
        "keys",
        "number",
        "remaining_ttl_s",
        "retry_s",
        "ttl_s",
    )

    def __init__(self, lease_id: int, ttl_s: int, remaining_ttl_s: int) -> None:
        self.id = lease_id
        self.ttl_s = ttl_s  # as granted
        self.remaining_ttl_s = remaining_ttl_s  # as checkpointed; 0: no checkpoint stands
        self.expiry_s = inf  # inf on a follower
        self.retry_s = 0.0  # not handed out for revocation again before this
        self.checkpoint_due_s: float | None = None  # None: not in the checkpoint queue
        self.keys: dict[bytes, None] | None = (
            None  # in the order of attachment; made with the first
        )
        self.attached = 0  # how many keys were ever attached
        self.number = next(_numbers)  # unique among all leases of this process

    def attach(self, key: bytes) -> None:
        """Attaches a key that is not on it."""
        self.attached += 1
        if self.keys is None:
            self.keys = {key: None}
        else:
            self.keys[key] = None


_numbers: Final = itertools.count(1)


Leases = dict[int, LeaseRecord]
