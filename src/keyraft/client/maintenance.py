"""Calls for operators: status, alarms, defragmentation, hashes, snapshots.

A call about one member takes its `endpoint` and uses a connection of its own, because the client's
other connections may lead to any member.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from keyraft.client import endpoint as endpoints
from keyraft.client.calls import Calls
from keyraft.proto.lazy import rpc_pb2

if TYPE_CHECKING:
    from keyraft.proto import operations_pb2

ALARM: Final = b"/etcdserverpb.Maintenance/Alarm"
STATUS: Final = b"/etcdserverpb.Maintenance/Status"
DEFRAGMENT: Final = b"/etcdserverpb.Maintenance/Defragment"
HASH: Final = b"/etcdserverpb.Maintenance/Hash"
HASH_KV: Final = b"/etcdserverpb.Maintenance/HashKV"
SNAPSHOT: Final = b"/etcdserverpb.Maintenance/Snapshot"
MOVE_LEADER: Final = b"/etcdserverpb.Maintenance/MoveLeader"
DOWNGRADE: Final = b"/etcdserverpb.Maintenance/Downgrade"
USAGE: Final = b"/keyraftpb.Operations/Usage"


class Maintenance:
    """The maintenance calls of a client."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def _on(
        self, endpoint: str | None, method: bytes, request: bytes, timeout_s: float | None
    ) -> bytes:
        if endpoint is None:
            return await self._calls.read(method, request, timeout_s)
        return await self._calls.on_endpoint(endpoints.parse(endpoint), method, request, timeout_s)

    async def status(
        self, endpoint: str | None = None, *, timeout_s: float | None = None
    ) -> rpc_pb2.StatusResponse:
        """The status of a member: version, sizes in bytes, leader, term, indexes, errors."""
        return rpc_pb2.StatusResponse.FromString(await self._on(endpoint, STATUS, b"", timeout_s))

    async def usage(
        self,
        endpoint: str | None = None,
        *,
        prefix: bytes = b"",
        depth: int = 0,
        top: int = 0,
        interval_s: float = 1.0,
        timeout_s: float | None = None,
    ) -> operations_pb2.UsageResponse:
        """Keys, bytes and rates by prefix, of a Keyraft member (docs/USAGE.md)."""
        from keyraft.proto import operations_pb2

        request = operations_pb2.UsageRequest(
            prefix=prefix, depth=depth, top=top, interval_ms=round(interval_s * 1000)
        )
        answer = await self._on(endpoint, USAGE, request.SerializeToString(), timeout_s)
        return operations_pb2.UsageResponse.FromString(answer)

    async def alarms(self, *, timeout_s: float | None = None) -> rpc_pb2.AlarmResponse:
        """The alarms that are raised."""
        return await self._alarm(rpc_pb2.AlarmRequest(), timeout_s)

    async def disarm(
        self,
        member_id: int = 0,
        alarm: rpc_pb2.AlarmType | None = None,
        *,
        timeout_s: float | None = None,
    ) -> rpc_pb2.AlarmResponse:
        """Disarms one alarm, or all of them without arguments; the answer lists those disarmed.

        As with etcd's own client, the answer for all alarms has no header.
        """
        if member_id or alarm:
            return await self._disarm(member_id, alarm or rpc_pb2.AlarmType.NONE, timeout_s)
        raised = await self.alarms(timeout_s=timeout_s)
        taken = rpc_pb2.AlarmResponse()
        for one in raised.alarms:
            answer = await self._disarm(one.memberID, one.alarm, timeout_s)
            taken.alarms.extend(answer.alarms)
        return taken

    async def _disarm(
        self, member_id: int, alarm: rpc_pb2.AlarmType, timeout_s: float | None
    ) -> rpc_pb2.AlarmResponse:
        request = rpc_pb2.AlarmRequest(
            action=rpc_pb2.AlarmRequest.DEACTIVATE, memberID=member_id, alarm=alarm
        )
        return await self._alarm(request, timeout_s)

    async def _alarm(
        self, request: rpc_pb2.AlarmRequest, timeout_s: float | None
    ) -> rpc_pb2.AlarmResponse:
        return rpc_pb2.AlarmResponse.FromString(
            await self._calls.read(ALARM, request.SerializeToString(), timeout_s)
        )

    async def defragment(
        self, endpoint: str, *, timeout_s: float | None = None
    ) -> rpc_pb2.DefragmentResponse:
        """Rewrites the database of one member without free pages."""
        return rpc_pb2.DefragmentResponse.FromString(
            await self._on(endpoint, DEFRAGMENT, b"", timeout_s)
        )

    async def hash(
        self, endpoint: str | None = None, *, timeout_s: float | None = None
    ) -> rpc_pb2.HashResponse:
        """The hash over a member's whole database; members may differ even when nothing changes."""
        return rpc_pb2.HashResponse.FromString(await self._on(endpoint, HASH, b"", timeout_s))

    async def hash_kv(
        self, endpoint: str | None = None, revision: int = 0, *, timeout_s: float | None = None
    ) -> rpc_pb2.HashKVResponse:
        """The hash over all revisions up to `revision` (0: newest); equal on all members."""
        request = rpc_pb2.HashKVRequest(revision=revision).SerializeToString()
        return rpc_pb2.HashKVResponse.FromString(
            await self._on(endpoint, HASH_KV, request, timeout_s)
        )

    async def move_leader(
        self, target_id: int, endpoint: str | None = None, *, timeout_s: float | None = None
    ) -> rpc_pb2.MoveLeaderResponse:
        """Transfers the leadership; `endpoint` must be the leader's."""
        request = rpc_pb2.MoveLeaderRequest(targetID=target_id).SerializeToString()
        return rpc_pb2.MoveLeaderResponse.FromString(
            await self._on(endpoint, MOVE_LEADER, request, timeout_s)
        )

    async def downgrade(
        self,
        action: rpc_pb2.DowngradeRequest.DowngradeAction,
        version: str = "",
        *,
        timeout_s: float | None = None,
    ) -> rpc_pb2.DowngradeResponse:
        """Validates, enables or cancels a downgrade to `version` (MAJOR.MINOR)."""
        request = rpc_pb2.DowngradeRequest(action=action, version=version)
        return rpc_pb2.DowngradeResponse.FromString(
            await self._calls.write(DOWNGRADE, request.SerializeToString(), timeout_s)
        )

    async def snapshot(self) -> AsyncIterator[rpc_pb2.SnapshotResponse]:
        """The database in pieces, the last 32 bytes being the SHA-256 of what was before.

        `remaining_bytes` tells how much is still to come. It is not repeated once it has begun.
        """
        async for message in self._calls.server_stream(SNAPSHOT, b""):
            yield rpc_pb2.SnapshotResponse.FromString(message)
