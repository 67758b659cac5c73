"""What a member asks others beside Raft: members of the cluster, the leader's leases, hashes.

Each question goes to one peer URL and has a time limit. A peer that cannot be reached, or an
invalid answer, raises `PeerRefusal`. An answer that carries an error of the error table raises that
error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.message import DecodeError

from keyraft.base import errors, http_status
from keyraft.base.log import Logger
from keyraft.cluster import format_id
from keyraft.net import Http1Client, HttpError, failure_reason
from keyraft.peer.api_handlers import (
    DATABASE_PATH,
    HASH_PATH,
    LEASE_INTERNAL_PATH,
    LEASE_PATH,
    MEMBERS_PATH,
    PROMOTE_PATH,
    HashKVAnswer,
)
from keyraft.peer.compat import PeerRefusal, parse_id, parse_json
from keyraft.proto import lease_pb2, rpc_pb2

MEMBERS_TIMEOUT_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 100 * 1024 * 1024  # a lease may hold many keys


class ClusterView:
    """What a member of an existing cluster says of it."""

    __slots__ = ("cluster_id", "members")

    def __init__(self, cluster_id: int, members: list[dict[str, Any]]) -> None:
        self.cluster_id = cluster_id
        self.members = members


class PeerApiClient:
    """Asks with a client that others may use, too."""

    def __init__(self, client: Http1Client, logger: Logger) -> None:
        self._client = client
        self._logger = logger

    async def cluster(
        self, peer_urls: Iterable[str], timeout_s: float = MEMBERS_TIMEOUT_S, tell: bool = True
    ) -> ClusterView:
        """Asks the sorted URLs in turn and takes the first answer.

        Raises PeerRefusal with etcd's text when none does, or when the answer has no members.
        `tell`: whether to log those that do not answer.
        """
        for url in sorted(peer_urls):
            address = url + MEMBERS_PATH
            try:
                status, headers, body = await self._ask("GET", url, MEMBERS_PATH, timeout_s)
                members = parse_json(body)
                cluster_id = parse_id(headers.get("x-etcd-cluster-id", ""))
                if cluster_id is None:
                    raise PeerRefusal("the answer has no cluster ID")
            except (PeerRefusal, ValueError) as error:
                if tell:
                    self._logger.warn(
                        "failed to get cluster response", address=address, error=str(error)
                    )
                continue
            if (
                status != http_status.OK
                or not isinstance(members, list)
                or not all(map(_is_member, members))
            ):
                self._logger.warn("failed to unmarshal cluster response", address=address)
                continue
            if not members:
                raise PeerRefusal("failed to get raft cluster member(s) from the given URLs")
            return ClusterView(cluster_id, members)
        raise PeerRefusal("could not retrieve cluster information from the given URLs")

    async def versions(self, peer_urls: Iterable[str], timeout_s: float) -> dict[str, str] | None:
        """What `/version` says at the first URL that answers; None when none does."""
        for url in peer_urls:
            try:
                _, _, body = await self._ask("GET", url, "/version", timeout_s)
                answer = parse_json(body)
            except (PeerRefusal, ValueError):
                continue
            if isinstance(answer, dict):
                return {str(key): str(value) for key, value in answer.items()}
        return None

    async def promote(
        self, peer_url: str, member_id: int, token: str | None, timeout_s: float
    ) -> list[dict[str, Any]]:
        """Asks the leader to make a learner a voter."""
        headers = {"Authorization": token} if token else {}
        status, _, body = await self._ask(
            "POST", peer_url, f"{PROMOTE_PATH}{member_id}", timeout_s, headers=headers
        )
        text = body.decode("utf-8", "replace")
        if status == http_status.OK:
            try:
                members = parse_json(text)
            except ValueError as error:
                raise PeerRefusal(f"member promote: {error}") from error
            if isinstance(members, list) and all(map(_is_member, members)):
                return members
        if status == http_status.NOT_FOUND:
            raise errors.MemberNotFoundError
        if status == http_status.REQUEST_TIMEOUT:
            raise errors.RequestTimeoutError
        if status == http_status.PRECONDITION_FAILED and errors.LearnerNotReadyError.text in text:
            raise errors.LearnerNotReadyError
        if status == http_status.PRECONDITION_FAILED:
            raise errors.MemberNotLearnerError
        raise PeerRefusal(f"member promote: unknown error({text})")

    async def renew(self, peer_url: str, lease_id: int, timeout_s: float) -> int:
        """Asks the leader to renew a lease; seconds, or LeaseNotFoundError."""
        request = rpc_pb2.LeaseKeepAliveRequest(ID=lease_id).SerializeToString()
        body = await self._ask_lease(peer_url, LEASE_PATH, request, timeout_s)
        try:
            return rpc_pb2.LeaseKeepAliveResponse.FromString(body).TTL
        except DecodeError as error:
            raise PeerRefusal(f"lease: {error}") from error

    async def time_to_live(
        self, peer_url: str, lease_id: int, keys: bool, timeout_s: float
    ) -> rpc_pb2.LeaseTimeToLiveResponse:
        """Asks the leader about a lease; LeaseNotFoundError when there is none."""
        wanted = rpc_pb2.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        request = lease_pb2.LeaseInternalRequest(LeaseTimeToLiveRequest=wanted)
        body = await self._ask_lease(
            peer_url, LEASE_INTERNAL_PATH, request.SerializeToString(), timeout_s
        )
        try:
            return lease_pb2.LeaseInternalResponse.FromString(body).LeaseTimeToLiveResponse
        except DecodeError as error:
            raise PeerRefusal(f"lease: {error}") from error

    async def hash_kv(
        self, peer_url: str, cluster_id: int, revision: int, timeout_s: float
    ) -> HashKVAnswer:
        """A peer's hash; CompactedError, FutureRevisionError, ClusterIDMismatchError."""
        status, _, body = await self._ask(
            "GET",
            peer_url,
            HASH_PATH,
            timeout_s,
            body=json.dumps({"revision": revision}).encode(),
            headers={
                "X-Etcd-Cluster-ID": format_id(cluster_id),
                "Content-Type": "application/json",
            },
        )
        text = body.decode("utf-8", "replace").strip()
        if status == http_status.PRECONDITION_FAILED:
            raise errors.ClusterIDMismatchError
        if status != http_status.OK:
            if text.endswith("future revision"):
                raise errors.FutureRevisionError
            if text.endswith("compacted"):
                raise errors.CompactedError
            raise PeerRefusal(text)
        try:
            answer = parse_json(text)
            return HashKVAnswer(
                revision=int(answer["header"]["revision"]),
                hash=int(answer["hash"]),
                compact_revision=int(answer["compact_revision"]),
                hash_revision=int(answer.get("hash_revision", 0)),
            )
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise PeerRefusal(f"hashkv: {error}") from error

    async def ask_database(
        self, peer_url: str, cluster_id: int, own: int, timeout_s: float
    ) -> None:
        """Has a member of ours send its database to this one."""
        status, _, body = await self._ask(
            "POST",
            peer_url,
            DATABASE_PATH,
            timeout_s,
            body=str(own).encode(),
            headers={"X-Etcd-Cluster-ID": format_id(cluster_id)},
        )
        if status != http_status.OK:
            raise PeerRefusal(body.decode("utf-8", "replace").strip())

    async def _ask_lease(self, url: str, path: str, request: bytes, timeout_s: float) -> bytes:
        status, _, body = await self._ask(
            "POST",
            url,
            path,
            timeout_s,
            body=request,
            headers={"Content-Type": "application/protobuf"},
        )
        if status == http_status.OK:
            return body
        if status == http_status.NOT_FOUND:
            raise errors.LeaseNotFoundError
        raise PeerRefusal(f"lease: unknown error({body.decode('utf-8', 'replace')})")

    async def _ask(
        self,
        method: str,
        url: str,
        path: str,
        timeout_s: float,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            answer = await self._client.request(
                method,
                url.rstrip("/"),
                path,
                body=body,
                headers=headers,
                timeout_s=timeout_s,
                answer_bytes_max=ANSWER_BYTES_MAX,
            )
        except (HttpError, OSError, TimeoutError) as error:
            raise PeerRefusal(failure_reason(error)) from error
        return answer.status, answer.headers, answer.body


def _is_member(value: object) -> bool:
    """Whether this is a member as etcd writes it."""
    if not isinstance(value, dict):
        return False
    own = value.get("id")
    texts = [value.get("name") or ""]
    for name in ("peerURLs", "clientURLs"):
        urls = value.get(name) or []
        if not isinstance(urls, list):
            return False
        texts += urls
    return type(own) is int and 0 <= own < 1 << 64 and all(isinstance(t, str) for t in texts)
