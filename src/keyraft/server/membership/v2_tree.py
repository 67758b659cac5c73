"""Membership as the tree of the v2 API, which snapshot files carry for members up to 3.6.

It is also read: up to 3.5 the tree, and not the database, is where members keep it.

`/0/members/ID/raftAttributes` and `/attributes`, `/0/removed_members/ID`, `/0/version`, and the
empty roots of the old API. The JSON is that of etcd's `v2store` at rest. Its event queue must have
its full length, or an old member would write behind its end (etcd
`server/etcdserver/api/v2store/event_queue.go`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from keyraft.base.ids import ClusterID, MemberID
from keyraft.cluster import (
    MemberRecord,
    MembershipDataError,
    RaftCluster,
    Version,
    VersionError,
    decode_member,
    format_id,
    parse_version,
)
from keyraft.mvcc import MemoryBackend
from keyraft.mvcc.memory import empty_disk

_NEVER: Final = "0001-01-01T00:00:00Z"
_EVENTS: Final = 1_000  # capacity of the old event history
_STATISTICS: Final = (
    "getsSuccess",
    "getsFail",
    "setsSuccess",
    "setsFail",
    "deleteSuccess",
    "deleteFail",
    "updateSuccess",
    "updateFail",
    "createSuccess",
    "createFail",
    "compareAndSwapSuccess",
    "compareAndSwapFail",
    "compareAndDeleteSuccess",
    "compareAndDeleteFail",
    "expireCount",
    "watchers",
)


@dataclass(frozen=True, slots=True)
class Told:
    """The content of a tree."""

    members: tuple[MemberRecord, ...]
    removed: frozenset[int]
    version: Version | None


class _Tree:
    """Builds nodes with increasing indexes, as if they had been set one after another."""

    def __init__(self) -> None:
        self.index = 0
        self.root = self._node("/")

    def _node(self, path: str, value: str = "", directory: bool = True) -> dict[str, Any]:
        return {
            "Path": path,
            "CreatedIndex": self.index,
            "ModifiedIndex": self.index,
            "ExpireTime": _NEVER,
            "Value": value,
            "Children": {} if directory else None,
        }

    def add(self, path: str, value: str | None = None) -> None:
        """A value, or an empty directory, with the directories above it."""
        node = self.root
        names = path.strip("/").split("/")
        self.index += 1
        for depth, name in enumerate(names):
            leaf = depth == len(names) - 1 and value is not None
            children = node["Children"]
            if name not in children:
                at = "/" + "/".join(names[: depth + 1])
                children[name] = self._node(at, value or "" if leaf else "", not leaf)
            node = children[name]


def encode(cluster: RaftCluster) -> bytes:
    """The whole tree."""
    tree = _Tree()
    tree.add("/0")
    tree.add("/1")
    for member in cluster.members:
        base = f"/0/members/{format_id(member.id)}"
        raft: dict[str, object] = {"peerURLs": list(member.peer_urls)}
        if member.is_learner:
            raft["isLearner"] = True
        tree.add(f"{base}/raftAttributes", _json(raft))
        if member.is_started:
            told = {"name": member.name, "clientURLs": list(member.client_urls)}
            tree.add(f"{base}/attributes", _json(told))
    for gone in sorted(cluster.removed):
        tree.add(f"/0/removed_members/{format_id(gone)}", "{}")
    if cluster.version is not None:
        tree.add("/0/version", str(cluster.version))
    queue = {"Events": [None] * _EVENTS, "Size": 0, "Front": 0, "Back": 0, "Capacity": _EVENTS}
    store = {
        "Root": tree.root,
        "WatcherHub": {
            "EventHistory": {"Queue": queue, "StartIndex": tree.index, "LastIndex": tree.index}
        },
        "CurrentIndex": tree.index,
        "Stats": dict.fromkeys(_STATISTICS, 0),
        "CurrentVersion": 2,
    }
    return _json(store).encode()


def encode_rows(rows: Mapping[bytes, dict[bytes, bytes]]) -> bytes:
    """The tree of a database, from its buckets `members`, `members_removed` and `cluster`.

    Raises MembershipDataError, VersionError.
    """
    nobody = MemberID(0)
    cluster = RaftCluster(ClusterID(0), nobody, MemoryBackend({**empty_disk(), **rows}))
    cluster.load()
    return encode(cluster)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def decode(data: bytes) -> Told:
    """Reads a tree of any implementation; raises MembershipDataError."""
    try:
        root = json.loads(data)["Root"]
        top = _children(_children(root).get("0"))
        members = []
        for name, node in _children(top.get("members")).items():
            parts = _children(node)
            fields = json.loads(parts["raftAttributes"]["Value"])
            if "attributes" in parts:
                fields |= json.loads(parts["attributes"]["Value"])
            fields.pop("id", None)
            members.append(decode_member(json.dumps(fields).encode(), MemberID(int(name, 16))))
        removed = frozenset(int(name, 16) for name in _children(top.get("removed_members")))
        version = top.get("version")
        agreed = parse_version(version["Value"]) if version else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, VersionError) as error:
        raise MembershipDataError(f"the tree in a snapshot cannot be read: {error!r}") from None
    return Told(tuple(members), removed, agreed)


def _children(node: Any) -> dict[str, Any]:
    children = (node or {}).get("Children") or {}
    if not isinstance(children, dict):
        raise TypeError("no directory")
    return children
