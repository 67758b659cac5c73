"""What a member answers to other members beside Raft: members, versions, leases, hashes.

Paths, codes and texts are etcd's (`etcdhttp/peer.go`, `leasehttp`); the texts are the internal
wording, which differs from what clients see.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError

from keyraft.base import errors, http_status
from keyraft.cluster import format_id
from keyraft.peer.compat import parse_json
from keyraft.peer.exchange import PeerReply, PeerRequest, Routes, http_error, json_error
from keyraft.proto import lease_pb2, rpc_pb2

LEASE_BODY_BYTES_MAX: Final = 64 * 1024
HASH_BODY_BYTES_MAX: Final = 64 * 1024
APPLY_WAIT_TEXT: Final = "waiting for node to catch up its applied index has timed out"
NOT_PRIMARY_TEXT: Final = "not a primary lessor"
MEMBERS_PATH: Final = "/members"
PROMOTE_PATH: Final = "/members/promote/"
HASH_PATH: Final = "/members/hashkv"
DATABASE_PATH: Final = "/members/database"  # of Keyraft
LEASE_PATH: Final = "/leases"
LEASE_INTERNAL_PATH: Final = "/leases/internal"
_MEMBER_ID: Final = re.compile("[0-9]{1,20}")

_PROMOTE_ERRORS: Final[dict[type[errors.EtcdError], tuple[int, str]]] = {
    errors.MemberNotFoundError: (404, "membership: ID not found"),
    errors.MemberNotLearnerError: (412, "membership: can only promote a learner member"),
    errors.LearnerNotReadyError: (412, errors.LearnerNotReadyError.text),
}
_HASH_ERRORS: Final[dict[type[errors.EtcdError], str]] = {
    errors.FutureRevisionError: "mvcc: required revision is a future revision",
    errors.CompactedError: "mvcc: required revision has been compacted",
}


@dataclass(frozen=True, slots=True)
class HashKVAnswer:
    """A member's hash of its keys up to a revision."""

    revision: int
    hash: int
    compact_revision: int
    hash_revision: int


class LocalMember(Protocol):
    """The member behind the peer port; it raises errors of `base.errors`."""

    def members_json(self) -> list[dict[str, Any]]:
        """All members as etcd writes them in JSON."""

    def versions_json(self) -> dict[str, str]:
        """`etcdserver`, `etcdcluster` and `storage`."""

    async def promote(self, member_id: int, token: str | None) -> list[dict[str, Any]]:
        """Makes a learner a voter; only the leader can."""

    async def hash_kv(self, revision: int) -> HashKVAnswer:
        """The hash up to `revision`, 0 for the latest."""

    def send_database(self, member_id: int) -> str:
        """Sends this member's database to another one, which rebuilds its own; "", or why not."""

    async def wait_applied(self) -> bool:
        """Waits up to a second for what is committed now to be applied; False if it was not."""

    async def renew(self, lease_id: int) -> int:
        """Renews as the primary lessor; seconds, or LeaseNotFoundError / NotLeaderError."""

    async def time_to_live(self, lease_id: int, keys: bool) -> rpc_pb2.LeaseTimeToLiveResponse:
        """What the primary lessor knows of a lease, or LeaseNotFoundError / NotLeaderError."""

    async def downgrade_enabled(self) -> bool:
        """Whether the cluster is on its way down a version, read linearizably."""


class ApiHandlers:
    """The routes of the peer port outside `/raft`."""

    def __init__(self, local: LocalMember, cluster_id: int) -> None:
        self._local = local
        self._cluster = {"X-Etcd-Cluster-ID": format_id(cluster_id)}

    def register(self, routes: Routes) -> None:
        """Adds the routes; everything else on the port is Go's plain 404."""
        routes.add(MEMBERS_PATH, self.members)
        routes.add(PROMOTE_PATH, self.promote)
        routes.add(HASH_PATH, self.hash_kv)
        routes.add(DATABASE_PATH, self.database)
        routes.add(LEASE_PATH, self.renew)
        routes.add(LEASE_INTERNAL_PATH, self.time_to_live)
        routes.add("/downgrade/enabled", self.downgrade_enabled)
        routes.add("/version", self.version)

    async def version(self, request: PeerRequest) -> PeerReply:
        """As on the client port."""
        if request.method != "GET":
            return http_error(
                http_status.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "GET"}
            )
        text = json.dumps(self._local.versions_json(), separators=(",", ":"))
        return PeerReply(http_status.OK, text, content_type="application/json")

    async def members(self, request: PeerRequest) -> PeerReply:
        """Who belongs to the cluster."""
        if request.method != "GET":
            return http_error(
                http_status.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "GET"}
            )
        return self._json(self._local.members_json())

    async def promote(self, request: PeerRequest) -> PeerReply:
        """A follower forwards a client's request to promote a learner."""
        if request.method != "POST":
            return http_error(
                http_status.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "POST"}
            )
        text = request.path.removeprefix(PROMOTE_PATH)
        if not _MEMBER_ID.fullmatch(text) or int(text) >= 1 << 64:
            return http_error(
                http_status.NOT_FOUND, f"member {text} not found in cluster", self._cluster
            )
        try:
            members = await self._local.promote(int(text), request.headers.get("authorization"))
        except errors.EtcdError as error:
            status, wording = _PROMOTE_ERRORS.get(type(error), (500, error.text))
            if status == http_status.INTERNAL_SERVER_ERROR:
                return json_error(
                    http_status.INTERNAL_SERVER_ERROR, "Internal Server Error", self._cluster
                )
            return http_error(status, wording, self._cluster)
        return self._json(members)

    async def hash_kv(self, request: PeerRequest) -> PeerReply:
        """Another member's corruption check asks for a hash."""
        if request.method != "GET":
            return http_error(
                http_status.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "GET"}
            )
        asked = request.headers.get("x-etcd-cluster-id")
        if asked and asked != self._cluster["X-Etcd-Cluster-ID"]:
            return http_error(http_status.PRECONDITION_FAILED, "cluster ID mismatch", self._cluster)
        body = await request.body.read_whole(HASH_BODY_BYTES_MAX)
        if body is None:
            return http_error(
                http_status.CONTENT_TOO_LARGE, "request body too large", self._cluster
            )
        revision = _revision(body)
        if revision is None:
            return http_error(http_status.BAD_REQUEST, "error unmarshalling request", self._cluster)
        try:
            answer = await self._local.hash_kv(revision)
        except errors.EtcdError as error:
            return http_error(
                http_status.BAD_REQUEST, _HASH_ERRORS.get(type(error), error.text), self._cluster
            )
        return self._json(
            {
                "header": {"revision": answer.revision},
                "hash": answer.hash,
                "compact_revision": answer.compact_revision,
                "hash_revision": answer.hash_revision,
            },
            newline="",
        )

    async def database(self, request: PeerRequest) -> PeerReply:
        """Another member asks for this member's database (`server.upkeep.rebuild`)."""
        if request.method != "POST":
            return http_error(
                http_status.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "POST"}
            )
        if request.headers.get("x-etcd-cluster-id") != self._cluster["X-Etcd-Cluster-ID"]:
            return http_error(http_status.PRECONDITION_FAILED, "cluster ID mismatch", self._cluster)
        body = await request.body.read_whole(HASH_BODY_BYTES_MAX)
        text = (body or b"").decode("ascii", "replace")
        if not _MEMBER_ID.fullmatch(text) or int(text) >= 1 << 64:
            return http_error(http_status.BAD_REQUEST, "no member's ID", self._cluster)
        refusal = self._local.send_database(int(text))
        if refusal:
            return http_error(http_status.SERVICE_UNAVAILABLE, refusal, self._cluster)
        return self._json({}, newline="")

    async def renew(self, request: PeerRequest) -> PeerReply:
        """A follower forwards a keep-alive."""
        body = await self._lease_body(request)
        if isinstance(body, PeerReply):
            return body
        try:
            lease_id = rpc_pb2.LeaseKeepAliveRequest.FromString(body).ID
        except DecodeError:
            return http_error(http_status.BAD_REQUEST, "error unmarshalling request")
        if not await self._local.wait_applied():
            return http_error(http_status.REQUEST_TIMEOUT, APPLY_WAIT_TEXT)
        try:
            ttl_s = await self._local.renew(lease_id)
        except errors.LeaseNotFoundError:
            return http_error(http_status.NOT_FOUND, "lease not found")
        except errors.EtcdError:
            return http_error(http_status.BAD_REQUEST, NOT_PRIMARY_TEXT)
        return self._protobuf(
            rpc_pb2.LeaseKeepAliveResponse(ID=lease_id, TTL=ttl_s).SerializeToString()
        )

    async def time_to_live(self, request: PeerRequest) -> PeerReply:
        """A follower forwards a request for the time to live."""
        body = await self._lease_body(request)
        if isinstance(body, PeerReply):
            return body
        try:
            wanted = lease_pb2.LeaseInternalRequest.FromString(body).LeaseTimeToLiveRequest
        except DecodeError:
            return http_error(http_status.BAD_REQUEST, "error unmarshalling request")
        if not await self._local.wait_applied():
            return http_error(http_status.REQUEST_TIMEOUT, APPLY_WAIT_TEXT)
        try:
            answer = await self._local.time_to_live(wanted.ID, wanted.keys)
        except errors.LeaseNotFoundError:
            return http_error(http_status.NOT_FOUND, "lease not found")
        except errors.EtcdError:
            return http_error(http_status.INTERNAL_SERVER_ERROR, NOT_PRIMARY_TEXT)
        answer.header.SetInParent()
        return self._protobuf(
            lease_pb2.LeaseInternalResponse(LeaseTimeToLiveResponse=answer).SerializeToString()
        )

    async def downgrade_enabled(self, request: PeerRequest) -> PeerReply:
        """A joining member asks whether a downgrade is enabled, to know which versions may join."""
        if request.method != "GET":
            return http_error(
                http_status.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "GET"}
            )
        try:
            enabled = await self._local.downgrade_enabled()
        except errors.EtcdError as error:
            return http_error(
                http_status.INTERNAL_SERVER_ERROR,
                f"failed linearized read: {error.text}",
                self._cluster,
            )
        return PeerReply(
            http_status.OK, "true" if enabled else "false", self._cluster, "text/plain"
        )

    async def _lease_body(self, request: PeerRequest) -> bytes | PeerReply:
        if request.method != "POST":
            return http_error(http_status.METHOD_NOT_ALLOWED, "Method Not Allowed")
        body = await request.body.read_whole(LEASE_BODY_BYTES_MAX)
        return (
            http_error(http_status.CONTENT_TOO_LARGE, "request body too large")
            if body is None
            else body
        )

    def _json(self, content: object, newline: str = "\n") -> PeerReply:
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False) + newline
        return PeerReply(http_status.OK, text, self._cluster, "application/json")

    def _protobuf(self, body: bytes) -> PeerReply:
        return PeerReply(http_status.OK, body, content_type="application/protobuf")


def _revision(body: bytes) -> int | None:
    """The revision in a request for a hash; None for what Go's `json.Unmarshal` refuses."""
    try:
        content = parse_json(body)
    except ValueError:
        return None
    if content is None:
        return 0
    if not isinstance(content, dict):
        return None
    revision = content.get("revision")
    if revision is None:
        return 0
    if type(revision) is not int or not -(1 << 63) <= revision < 1 << 63:
        return None
    return revision
