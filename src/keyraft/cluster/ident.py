"""Member and cluster identifiers, derived as etcd derives them.

Every member of a new cluster computes the same ids from the same flags, so nobody has to hand
them out. An id is the first eight bytes of a SHA-1, big-endian: a member's over its sorted peer
URLs, the token and (for a member added later) the decimal unix time; a cluster's over its
members' ids, sorted, eight bytes each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from keyraft.base.ids import ClusterID, MemberID


def member_id(peer_urls: Iterable[str], token: str, added_unix_s: int | None = None) -> MemberID:
    """The id of a member; `added_unix_s` only when it joins a running cluster."""
    text = "".join(sorted(peer_urls)) + token
    if added_unix_s is not None:
        text += str(added_unix_s)
    return MemberID(_first_eight(text.encode()))


def cluster_id(member_ids: Iterable[int]) -> ClusterID:
    """The id of a cluster that starts with these members."""
    return ClusterID(_first_eight(b"".join(id.to_bytes(8, "big") for id in sorted(member_ids))))


def format_id(id: int) -> str:
    """As ids are written in logs, paths and tools: lower-case hex without padding."""
    return f"{id:x}"


def _first_eight(data: bytes) -> int:
    return int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[:8], "big")
