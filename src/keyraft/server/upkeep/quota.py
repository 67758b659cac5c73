"""How large the database may become, and whether there is room for what a request would add.

It is checked twice: before a proposal, where a refusal raises NOSPACE for this member, and at
apply, where only the answer is an error. The cost of requests is in `mvcc.cost`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from keyraft.base.errors import NoSpaceError
from keyraft.base.limits import QUOTA_BACKEND_BYTES
from keyraft.mvcc.cost import PUT_OVERHEAD_BYTES, txn_cost
from keyraft.proto import rpc_pb2

UNLIMITED_BYTES: Final = 1 << 62


class Sized(Protocol):
    """A database with a size."""

    @property
    def size_in_use_bytes(self) -> int:
        """Bytes that hold data; freed pages are reused before the database grows."""


def _nothing() -> None:
    """Raises no alarm."""


class Quota:
    """The quota of one member. `quota_bytes` 0 means the default, negative no quota.

    DEVIATION: the data counts, not the file. Freed pages are reused, so after deletes and a
    compaction a member accepts writes again without a defragmentation.

    A put whose encoded request has at most `room` bytes needs no further check. `room` is at most
    one heartbeat old, and too large by no more than what was written since. `raise_alarm` is called
    for each proposal that is refused. While `disk_full` (`disk_room`) proposals are refused without
    an alarm, and what is applied is answered as it is.
    """

    __slots__ = ("_backend", "_raise_alarm", "_used_bytes", "bytes_max", "disk_full", "room")

    def __init__(
        self, quota_bytes: int, backend: Sized, raise_alarm: Callable[[], None] = _nothing
    ) -> None:
        self._backend = backend
        self._raise_alarm = raise_alarm
        self.bytes_max = quota_bytes or QUOTA_BACKEND_BYTES
        self.room = 0
        self._used_bytes = 0
        self.disk_full = False
        self.refresh()

    def refresh(self) -> None:
        """Reads the database's size."""
        self._used_bytes = self._backend.size_in_use_bytes
        if self.disk_full:
            self.room = -1
        elif self.bytes_max < 0:
            self.room = UNLIMITED_BYTES
        else:
            self.room = self.bytes_max - self._used_bytes - PUT_OVERHEAD_BYTES

    def allows(self, cost: int) -> bool:
        """Whether there is room for `cost` more bytes."""
        return self.bytes_max < 0 or self._used_bytes + cost < self.bytes_max

    def check(self, cost: int) -> None:
        """Before a proposal: raises NoSpaceError and the alarm if `cost` bytes do not fit."""
        if self.disk_full:
            raise NoSpaceError
        if not self.allows(cost):
            self._raise_alarm()
            raise NoSpaceError

    def allows_txn(self, request: rpc_pb2.TxnRequest) -> bool:
        """A transaction that puts nothing costs nothing and always passes."""
        cost = txn_cost(request)
        return cost == 0 or self.allows(cost)

    @property
    def used(self) -> float:
        """What part of the quota is in use; 0 without a quota."""
        return self._used_bytes / self.bytes_max if self.bytes_max > 0 else 0.0

    def remaining(self) -> int:
        """Bytes left; negative when over."""
        return self.bytes_max - self._used_bytes
