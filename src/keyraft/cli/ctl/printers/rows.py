"""The rows that the simple and the table form share."""

from __future__ import annotations

from keyraft.base.gotext import format_bool
from keyraft.base.sizes import size
from keyraft.cli.ctl.printers.base import EndpointHealth
from keyraft.proto import rpc_pb2

MEMBER_HEADER = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"]
HEALTH_HEADER = ["endpoint", "health", "took", "error"]
HASH_HEADER = ["endpoint", "hash", "hash_revision"]
STATUS_HEADER = [
    "endpoint",
    "ID",
    "version",
    "storage version",
    "db size",
    "in use",
    "percentage not in use",
    "quota",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
    "downgrade target version",
    "downgrade enabled",
]


def members(response: rpc_pb2.MemberListResponse) -> list[list[str]]:
    """One row a member; one that never started has no name yet."""
    return [
        [
            f"{member.ID:x}",
            "started" if member.name else "unstarted",
            member.name,
            ",".join(member.peerURLs),
            ",".join(member.clientURLs),
            format_bool(member.isLearner),
        ]
        for member in response.members
    ]


def health(found: list[EndpointHealth]) -> list[list[str]]:
    """One row an endpoint."""
    return [[one.endpoint, format_bool(one.healthy), one.took, one.error] for one in found]


def hash_kv(found: list[tuple[str, rpc_pb2.HashKVResponse]]) -> list[list[str]]:
    """One row an endpoint."""
    return [[endpoint, str(one.hash), str(one.hash_revision)] for endpoint, one in found]


def status(found: list[tuple[str, rpc_pb2.StatusResponse]]) -> list[list[str]]:
    """One row an endpoint."""
    return [
        [
            endpoint,
            f"{one.header.member_id:x}",
            one.version,
            one.storageVersion,
            size(one.dbSize),
            size(one.dbSizeInUse),
            f"{100 - one.dbSizeInUse * 100 // one.dbSize if one.dbSize else 0}%",
            size(one.dbSizeQuota),
            format_bool(one.leader == one.header.member_id),
            format_bool(one.isLearner),
            str(one.raftTerm),
            str(one.raftIndex),
            str(one.raftAppliedIndex),
            ", ".join(one.errors),
            one.downgradeInfo.targetVersion,
            format_bool(one.downgradeInfo.enabled),
        ]
        for endpoint, one in found
    ]
