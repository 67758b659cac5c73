"""What a member answers to other members beside Raft: members, versions, leases, hashes.

Paths, codes and texts are etcd's (`etcdhttp/peer.go`, `leasehttp`); the texts are the internal
wording, which differs from what clients see.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp import web
from google.protobuf.message import DecodeError

from keyraft.base import errors
from keyraft.cluster import format_id
from keyraft.peer.compat import http_error
from keyraft.proto import lease_pb2, rpc_pb2

LEASE_BODY_BYTES_MAX: Final = 64 * 1024
HASH_BODY_BYTES_MAX: Final = 64 * 1024
APPLY_WAIT_TEXT: Final = "waiting for node to catch up its applied index has timed out"
NOT_PRIMARY_TEXT: Final = "not a primary lessor"

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
class HashAnswer:
    """A member's hash of its keys up to a revision."""

    revision: int
    hash: int
    compact_revision: int
    hash_revision: int


class Local(Protocol):
    """The member behind the peer port; its refusals are errors of `base.errors`."""

    def members_json(self) -> list[dict[str, Any]]:
        """All members as etcd writes them in JSON."""

    def versions_json(self) -> dict[str, str]:
        """`etcdserver`, `etcdcluster` and `storage`."""

    async def promote(self, member_id: int, token: str | None) -> list[dict[str, Any]]:
        """Makes a learner a voter; only the leader can."""

    async def hash_kv(self, revision: int) -> HashAnswer:
        """The hash up to `revision`, 0 for the latest."""

    async def wait_applied(self) -> bool:
        """Waits up to a second for what is committed now to be applied; False if it was not."""

    async def renew(self, lease_id: int) -> int:
        """Renews as the primary lessor; seconds, or LeaseNotFoundError / NotLeaderError."""

    async def time_to_live(self, lease_id: int, keys: bool) -> rpc_pb2.LeaseTimeToLiveResponse:
        """What the primary lessor knows of a lease, or LeaseNotFoundError / NotLeaderError."""

    async def downgrade_enabled(self) -> bool:
        """Whether the cluster is on its way down a version, read linearizably."""


class AnswerHandlers:
    """The routes of the peer port outside `/raft`."""

    def __init__(self, local: Local, cluster_id: int) -> None:
        self._local = local
        self._cluster = {"X-Etcd-Cluster-ID": format_id(cluster_id)}

    def register(self, app: web.Application) -> None:
        """Adds the routes; everything else on the port is Go's plain 404."""
        app.router.add_route("*", "/members", self.members)
        app.router.add_route("*", "/members/promote/{id}", self.promote)
        app.router.add_route("*", "/members/hashkv", self.hash_kv)
        app.router.add_route("*", "/leases", self.renew)
        app.router.add_route("*", "/leases/internal", self.time_to_live)
        app.router.add_route("*", "/downgrade/enabled", self.downgrade_enabled)
        app.router.add_route("*", "/version", self.version)
        app.router.add_route("*", "/{rest:.*}", self.unknown)

    async def unknown(self, request: web.Request) -> web.Response:
        """Whatever clients look for here is not here."""
        return http_error(404, "404 page not found")

    async def version(self, request: web.Request) -> web.Response:
        """As on the client port."""
        if request.method != "GET":
            return http_error(405, "Method Not Allowed", {"Allow": "GET"})
        return web.Response(
            text=json.dumps(self._local.versions_json(), separators=(",", ":")),
            content_type="application/json",
        )

    async def members(self, request: web.Request) -> web.Response:
        """Who belongs to the cluster."""
        if request.method != "GET":
            return http_error(405, "Method Not Allowed", {"Allow": "GET"})
        return self._json(self._local.members_json())

    async def promote(self, request: web.Request) -> web.Response:
        """A follower passes on a client's wish."""
        if request.method != "POST":
            return http_error(405, "Method Not Allowed", {"Allow": "POST"})
        text = request.match_info["id"]
        if not text.isdecimal() or int(text) >= 1 << 64:
            return http_error(404, f"member {text} not found in cluster", self._cluster)
        try:
            members = await self._local.promote(int(text), request.headers.get("Authorization"))
        except errors.EtcdError as error:
            status, wording = _PROMOTE_ERRORS.get(type(error), (500, error.text))
            if status == 500:
                return web.json_response(
                    {"message": "Internal Server Error"}, status=500, headers=self._cluster
                )
            return http_error(status, wording, self._cluster)
        return self._json(members)

    async def hash_kv(self, request: web.Request) -> web.Response:
        """The corruption check asks for a hash."""
        if request.method != "GET":
            return http_error(405, "Method Not Allowed", {"Allow": "GET"})
        asked = request.headers.get("X-Etcd-Cluster-ID")
        if asked and asked != self._cluster["X-Etcd-Cluster-ID"]:
            return http_error(412, "cluster ID mismatch", self._cluster)
        body = await request.content.read(HASH_BODY_BYTES_MAX)
        try:
            content = json.loads(body)
            revision = int(content.get("revision", 0)) if isinstance(content, dict) else None
        except (ValueError, TypeError):
            revision = None
        if revision is None:
            return http_error(400, "error unmarshalling request", self._cluster)
        try:
            answer = await self._local.hash_kv(revision)
        except errors.EtcdError as error:
            return http_error(400, _HASH_ERRORS.get(type(error), error.text), self._cluster)
        return self._json(
            {
                "header": {"revision": answer.revision},
                "hash": answer.hash,
                "compact_revision": answer.compact_revision,
                "hash_revision": answer.hash_revision,
            },
            newline="",
        )

    async def renew(self, request: web.Request) -> web.Response:
        """A follower passes on a keep-alive."""
        body = await self._lease_body(request)
        if isinstance(body, web.Response):
            return body
        try:
            lease_id = rpc_pb2.LeaseKeepAliveRequest.FromString(body).ID
        except DecodeError:
            return http_error(400, "error unmarshalling request")
        if not await self._local.wait_applied():
            return http_error(408, APPLY_WAIT_TEXT)
        try:
            ttl_s = await self._local.renew(lease_id)
        except errors.LeaseNotFoundError:
            return http_error(404, "lease not found")
        except errors.EtcdError:
            return http_error(400, NOT_PRIMARY_TEXT)
        return self._protobuf(
            rpc_pb2.LeaseKeepAliveResponse(ID=lease_id, TTL=ttl_s).SerializeToString()
        )

    async def time_to_live(self, request: web.Request) -> web.Response:
        """A follower passes on a question."""
        body = await self._lease_body(request)
        if isinstance(body, web.Response):
            return body
        try:
            wanted = lease_pb2.LeaseInternalRequest.FromString(body).LeaseTimeToLiveRequest
        except DecodeError:
            return http_error(400, "error unmarshalling request")
        if not await self._local.wait_applied():
            return http_error(408, APPLY_WAIT_TEXT)
        try:
            answer = await self._local.time_to_live(wanted.ID, wanted.keys)
        except errors.LeaseNotFoundError:
            return http_error(404, "lease not found")
        except errors.EtcdError:
            return http_error(500, NOT_PRIMARY_TEXT)
        answer.header.SetInParent()
        return self._protobuf(
            lease_pb2.LeaseInternalResponse(LeaseTimeToLiveResponse=answer).SerializeToString()
        )

    async def downgrade_enabled(self, request: web.Request) -> web.Response:
        """A joining member asks which versions are welcome."""
        if request.method != "GET":
            return http_error(405, "Method Not Allowed", {"Allow": "GET"})
        try:
            enabled = await self._local.downgrade_enabled()
        except errors.EtcdError as error:
            return http_error(500, f"failed linearized read: {error.text}", self._cluster)
        return web.Response(
            text="true" if enabled else "false", content_type="text/plain", headers=self._cluster
        )

    async def _lease_body(self, request: web.Request) -> bytes | web.Response:
        if request.method != "POST":
            return http_error(405, "Method Not Allowed")
        body = b""
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > LEASE_BODY_BYTES_MAX:
                return http_error(413, "request body too large")
        return body

    def _json(self, content: object, newline: str = "\n") -> web.Response:
        return web.Response(
            text=json.dumps(content, separators=(",", ":"), ensure_ascii=False) + newline,
            content_type="application/json",
            headers=self._cluster,
        )

    def _protobuf(self, body: bytes) -> web.Response:
        return web.Response(body=body, content_type="application/protobuf")
