"""The ResponseHeader that opens every response, encoded once per revision and term.

Reads between two writes have one revision and get the same bytes. A put mostly changes only the two
low varint groups of the revision, so the rest is kept (etcd `api/v3rpc/header.go`).
"""

from __future__ import annotations

from keyraft.base.varints import LOW, LOW_BITS, LOW_MASK
from keyraft.base.varints import encode_varint as varint


class HeaderEncoder:
    """Encodes field 1 (`header`) of any response."""

    __slots__ = ("_cached", "_head", "_high", "_ids", "_revision", "_tail", "_term")

    def __init__(self, cluster_id: int, member_id: int) -> None:
        self._ids = b"\x08" + varint(cluster_id) + b"\x10" + varint(member_id)
        self._term = 0
        self._revision = -1
        self._high = -1
        self._head = b""
        self._tail = b""
        self._cached = b""

    def encode(self, revision: int, term: int) -> bytes:
        """Tag, length and body; zero fields are left out as proto3 does."""
        if revision == self._revision and term == self._term:
            return self._cached
        high = revision >> LOW_BITS
        if high != self._high or term != self._term:
            self._high = high
            self._term = term
            suffix = b"\x20" + varint(term) if term else b""
            self._tail = varint(high) + suffix
            size = len(self._ids) + 3 + len(self._tail)
            self._head = b"\x0a" + varint(size) + self._ids + b"\x18"
        self._revision = revision
        if high:
            self._cached = self._head + LOW[revision & LOW_MASK] + self._tail
        else:
            body = self._ids
            if revision:
                body += b"\x18" + varint(revision)
            if term:
                body += b"\x20" + varint(term)
            self._cached = b"\x0a" + varint(len(body)) + body
        return self._cached
