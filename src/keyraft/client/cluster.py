"""The members of the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from keyraft.client.calls import Calls
from keyraft.proto.lazy import rpc_pb2

MEMBER_ADD: Final = b"/etcdserverpb.Cluster/MemberAdd"
MEMBER_REMOVE: Final = b"/etcdserverpb.Cluster/MemberRemove"
MEMBER_UPDATE: Final = b"/etcdserverpb.Cluster/MemberUpdate"
MEMBER_LIST: Final = b"/etcdserverpb.Cluster/MemberList"
MEMBER_PROMOTE: Final = b"/etcdserverpb.Cluster/MemberPromote"


class Cluster:
    """The cluster calls of a client."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def members(
        self, *, linearizable: bool = True, timeout_s: float | None = None
    ) -> rpc_pb2.MemberListResponse:
        """All members; not `linearizable`: as the asked member knows them."""
        request = rpc_pb2.MemberListRequest(linearizable=linearizable)
        return rpc_pb2.MemberListResponse.FromString(
            await self._calls.read(MEMBER_LIST, request.SerializeToString(), timeout_s)
        )

    async def add(
        self, peer_urls: Iterable[str], *, learner: bool = False, timeout_s: float | None = None
    ) -> rpc_pb2.MemberAddResponse:
        """Adds a member that will be reached at `peer_urls`; its name comes when it starts."""
        request = rpc_pb2.MemberAddRequest(peerURLs=peer_urls, isLearner=learner)
        return rpc_pb2.MemberAddResponse.FromString(
            await self._calls.write(MEMBER_ADD, request.SerializeToString(), timeout_s)
        )

    async def remove(
        self, member_id: int, *, timeout_s: float | None = None
    ) -> rpc_pb2.MemberRemoveResponse:
        """Removes a member for good."""
        request = rpc_pb2.MemberRemoveRequest(ID=member_id)
        return rpc_pb2.MemberRemoveResponse.FromString(
            await self._calls.write(MEMBER_REMOVE, request.SerializeToString(), timeout_s)
        )

    async def update(
        self, member_id: int, peer_urls: Iterable[str], *, timeout_s: float | None = None
    ) -> rpc_pb2.MemberUpdateResponse:
        """Changes where a member is reached by its peers."""
        request = rpc_pb2.MemberUpdateRequest(ID=member_id, peerURLs=peer_urls)
        return rpc_pb2.MemberUpdateResponse.FromString(
            await self._calls.write(MEMBER_UPDATE, request.SerializeToString(), timeout_s)
        )

    async def promote(
        self, member_id: int, *, timeout_s: float | None = None
    ) -> rpc_pb2.MemberPromoteResponse:
        """Makes a learner a voter; LearnerNotReadyError until it has caught up."""
        request = rpc_pb2.MemberPromoteRequest(ID=member_id)
        return rpc_pb2.MemberPromoteResponse.FromString(
            await self._calls.write(MEMBER_PROMOTE, request.SerializeToString(), timeout_s)
        )
