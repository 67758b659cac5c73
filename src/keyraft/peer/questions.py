"""What a member asks others beside Raft: who belongs to the cluster, the leader's leases, hashes.

Each question goes to one peer URL and has a time limit. A peer that cannot be reached or answers
nonsense raises `PeerRefusal`; an answer that means an error of the table raises that error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import aiohttp
from google.protobuf.message import DecodeError

from keyraft.base import errors
from keyraft.base.log import Logger
from keyraft.cluster import format_id
from keyraft.peer.answers import HashAnswer
from keyraft.peer.compat import PeerRefusal
from keyraft.proto import lease_pb2, rpc_pb2

MEMBERS_TIMEOUT_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 100 * 1024 * 1024  # a lease may hold many keys


class ClusterView:
    """What a member of an existing cluster says of it."""

    __slots__ = ("cluster_id", "members")

    def __init__(self, cluster_id: int, members: list[dict[str, Any]]) -> None:
        self.cluster_id = cluster_id
        self.members = members


class Questions:
    """Asks over one client session; owned by whoever owns the session."""

    def __init__(self, session: aiohttp.ClientSession, logger: Logger) -> None:
        self._session = session
        self._logger = logger

    async def cluster(
        self, peer_urls: Iterable[str], timeout_s: float = MEMBERS_TIMEOUT_S, tell: bool = True
    ) -> ClusterView:
        """Asks the sorted URLs in turn; the first that answers decides.

        Raises PeerRefusal with etcd's text when none does, or when the answer has no members.
        `tell`: whether the operator hears of those that do not answer.
        """
        for url in sorted(peer_urls):
            address = f"{url}/members"
            try:
                status, headers, body = await self._ask("GET", address, timeout_s)
                members = json.loads(body)
                cluster_id = int(headers.get("X-Etcd-Cluster-ID", ""), 16)
            except (PeerRefusal, ValueError) as error:
                if tell:
                    self._logger.warn(
                        "failed to get cluster response", address=address, error=str(error)
                    )
                continue
            if status != 200 or not isinstance(members, list):
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
                _, _, body = await self._ask("GET", f"{url}/version", timeout_s)
                answer = json.loads(body)
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
            "POST", f"{peer_url}/members/promote/{member_id}", timeout_s, headers=headers
        )
        text = body.decode("utf-8", "replace")
        if status == 200:
            members = json.loads(text)
            if isinstance(members, list):
                return members
        if status == 404:
            raise errors.MemberNotFoundError
        if status == 408:
            raise errors.RequestTimeoutError
        if status == 412 and errors.LearnerNotReadyError.text in text:
            raise errors.LearnerNotReadyError
        if status == 412:
            raise errors.MemberNotLearnerError
        raise PeerRefusal(f"member promote: unknown error({text})")

    async def renew(self, peer_url: str, lease_id: int, timeout_s: float) -> int:
        """Asks the leader to renew a lease; seconds, or LeaseNotFoundError."""
        request = rpc_pb2.LeaseKeepAliveRequest(ID=lease_id).SerializeToString()
        body = await self._ask_lease(f"{peer_url}/leases", request, timeout_s)
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
            f"{peer_url}/leases/internal", request.SerializeToString(), timeout_s
        )
        try:
            return lease_pb2.LeaseInternalResponse.FromString(body).LeaseTimeToLiveResponse
        except DecodeError as error:
            raise PeerRefusal(f"lease: {error}") from error

    async def hash_kv(
        self, peer_url: str, cluster_id: int, revision: int, timeout_s: float
    ) -> HashAnswer:
        """A peer's hash; CompactedError, FutureRevisionError, ClusterIDMismatchError."""
        status, _, body = await self._ask(
            "GET",
            f"{peer_url}/members/hashkv",
            timeout_s,
            body=json.dumps({"revision": revision}).encode(),
            headers={
                "X-Etcd-Cluster-ID": format_id(cluster_id),
                "Content-Type": "application/json",
            },
        )
        text = body.decode("utf-8", "replace").strip()
        if status == 412:
            raise errors.ClusterIDMismatchError
        if status != 200:
            if text.endswith("future revision"):
                raise errors.FutureRevisionError
            if text.endswith("compacted"):
                raise errors.CompactedError
            raise PeerRefusal(text)
        try:
            answer = json.loads(text)
            return HashAnswer(
                revision=int(answer["header"]["revision"]),
                hash=int(answer["hash"]),
                compact_revision=int(answer["compact_revision"]),
                hash_revision=int(answer.get("hash_revision", 0)),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise PeerRefusal(f"hashkv: {error}") from error

    async def _ask_lease(self, address: str, request: bytes, timeout_s: float) -> bytes:
        status, _, body = await self._ask(
            "POST",
            address,
            timeout_s,
            body=request,
            headers={"Content-Type": "application/protobuf"},
        )
        if status == 200:
            return body
        if status == 404:
            raise errors.LeaseNotFoundError
        raise PeerRefusal(f"lease: unknown error({body.decode('utf-8', 'replace')})")

    async def _ask(
        self,
        method: str,
        address: str,
        timeout_s: float,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            async with self._session.request(
                method,
                address,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                answer = b""
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > ANSWER_BYTES_MAX:
                        raise PeerRefusal(f"response body exceeds {ANSWER_BYTES_MAX} bytes limit")
                return response.status, response.headers, answer
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise PeerRefusal(str(error) or type(error).__name__) from error
