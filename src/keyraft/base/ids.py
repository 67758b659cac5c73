"""Integers with a domain: the identifiers of Raft, the store and the cluster."""

from __future__ import annotations

from typing import NewType

Term = NewType("Term", int)
Index = NewType("Index", int)
Revision = NewType("Revision", int)
LeaseID = NewType("LeaseID", int)
MemberID = NewType("MemberID", int)
ClusterID = NewType("ClusterID", int)
WatchID = NewType("WatchID", int)

UINT64_MAX = (1 << 64) - 1
INT64_MAX = (1 << 63) - 1


class RequestIDGenerator:
    """Makes request ids that are unique among members, and among the lives of one member.

    64 bits: the low 16 bits of the member's id, 40 bits of the milliseconds of its start, and a
    counter of 8 bits that carries into the time (etcd `pkg/idutil`).
    """

    __slots__ = ("_prefix", "_suffix")

    def __init__(self, member_id: int, start_unix_s: float) -> None:
        self._prefix = (member_id & 0xFFFF) << 48
        self._suffix = (int(start_unix_s * 1000) & ((1 << 40) - 1)) << 8

    def next(self) -> int:
        """The next id, never zero."""
        self._suffix += 1
        return self._prefix | (self._suffix & ((1 << 48) - 1))
