"""What holds of all leases, in memory, in the database, and between leases and keys: the list is at
the head of `lessor`."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

from keyraft.base.invariants import AT_ONCE, CHECK_SLICE, Checks, hold, whole
from keyraft.lease.record import LeaseRecord
from keyraft.mvcc.backend import LEASE, Backend
from keyraft.proto import lease_pb2

LeaseOf = Callable[[bytes], int]
"""Which lease the store has a key on; 0 for none."""


class LessorState(Protocol):
    """What is looked at of a `Lessor`."""

    _backend: Backend
    _dated: list[LeaseRecord]
    _leases: dict[int, LeaseRecord]
    _min_ttl_s: int
    _undated: list[LeaseRecord]

    @property
    def primary(self) -> bool:
        """Whether deadlines are kept here."""


def whole_lessor(lessor: LessorState, lease_of: LeaseOf | None) -> None:
    """Everything at once. Raises InvariantError."""
    hung = [key for lease in lessor._leases.values() for key in lease.keys or ()]
    hold(len(hung) == len(set(hung)), "a key hangs on one lease", len(hung))
    whole(lessor_steps(lessor, lease_of, AT_ONCE))


def lessor_steps(lessor: LessorState, lease_of: LeaseOf | None, size: int = CHECK_SLICE) -> Checks:
    """The same in steps, lease by lease."""
    leases = lessor._leases
    left = size
    for lease in list(leases.values()):
        if left <= 0:
            yield
            left = size
        left -= 1
        if leases.get(lease.id) is not lease:
            continue
        _check_lease(lessor, lease)
        for key in list(lease.keys or ()) if lease_of is not None else ():
            if left <= 0:
                yield
                left = size
            left -= 1
            if lease_of is not None and lease.keys is not None and key in lease.keys:
                hold(lease_of(key) == lease.id, "a key is on its lease", key, lease.id)
    yield
    more, at = True, b""
    while more:
        rows = list(lessor._backend.range(LEASE, at, None, size))
        more = len(rows) == size
        for row, _ in rows:
            lease_id = int.from_bytes(row, "big", signed=True)
            hold(lease_id in leases, "a stored lease is in memory", lease_id)
            at = row + b"\0"
        yield


def _check_lease(lessor: LessorState, lease: LeaseRecord) -> None:
    primary, dated = lessor.primary, lease.expiry_s < inf
    hold(primary or not lessor._undated, "a follower hands out no deadlines", lease.id)
    hold(not primary or not lessor._dated, "a primary forgets no deadlines", lease.id)
    if not lessor._undated and not lessor._dated:
        hold(dated == primary, "a primary's leases have deadlines", lease.id, primary)
    stored = lessor._backend.get(LEASE, lease.id.to_bytes(8, "big", signed=True))
    hold(stored is not None, "a lease is stored", lease.id)
    record = lease_pb2.Lease.FromString(stored or b"")
    found = (record.ID, max(record.TTL, lessor._min_ttl_s), record.RemainingTTL)
    held = (lease.id, lease.ttl_s, lease.remaining_ttl_s)
    hold(found == held, "bucket and memory agree", found, held)
