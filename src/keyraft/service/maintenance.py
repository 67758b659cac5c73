"""Maintenance: Status, Hash, HashKV, Alarm, Defragment, Snapshot, MoveLeader, Downgrade; Usage."""

from __future__ import annotations

from keyraft.base.parsing import parse
from keyraft.grpc import SERVER_STREAM, Router, ServerStream, StreamHandler, UnaryCall
from keyraft.proto import rpc_pb2
from keyraft.service.guard import Guard
from keyraft.service.ports import Upkeep
from keyraft.service.snapshot import SnapshotHandler


class MaintenanceService:
    """Registered on a router."""

    def __init__(self, upkeep: Upkeep, guard: Guard) -> None:
        self._upkeep = upkeep
        self._guard = guard

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        for name, handle in (
            ("Alarm", self.alarm),
            ("Status", self.status),
            ("Defragment", self.defragment),
            ("Hash", self.hash),
            ("HashKV", self.hash_kv),
            ("MoveLeader", self.move_leader),
            ("Downgrade", self.downgrade),
        ):
            router.unary(f"/etcdserverpb.Maintenance/{name}", handle)
        router.unary("/keyraftpb.Operations/Usage", self.usage)
        router.stream("/etcdserverpb.Maintenance/Snapshot", self.snapshot, SERVER_STREAM)

    def status(self, call: UnaryCall, request: bytes) -> bytes | None:
        """StatusRequest -> StatusResponse."""
        self._guard.admit(call, learner_may=True)
        self._guard.check_user(call)
        parse(rpc_pb2.StatusRequest, request)
        return self._upkeep.status(call)

    def alarm(self, call: UnaryCall, request: bytes) -> bytes | None:
        """AlarmRequest -> AlarmResponse."""
        self._guard.admit(call)
        message = parse(rpc_pb2.AlarmRequest, request)
        if message.action == rpc_pb2.AlarmRequest.GET:
            self._guard.check_user(call)
        else:
            self._guard.check_admin(call)
        self._upkeep.alarm(call, request)
        return None

    def _admit_admin(self, call: UnaryCall) -> None:
        self._guard.admit(call)
        self._guard.check_admin(call)

    def defragment(self, call: UnaryCall, request: bytes) -> bytes | None:
        """DefragmentRequest -> DefragmentResponse."""
        self._admit_admin(call)
        parse(rpc_pb2.DefragmentRequest, request)
        self._upkeep.defragment(call)
        return None

    def snapshot(self, stream: ServerStream) -> StreamHandler:
        """SnapshotRequest -> stream of SnapshotResponse."""
        self._guard.admit_stream(stream, learner_may=True)
        return SnapshotHandler(self._upkeep, self._guard, stream)

    def hash(self, call: UnaryCall, request: bytes) -> bytes | None:
        """HashRequest -> HashResponse: all buckets, for tests."""
        self._admit_admin(call)
        parse(rpc_pb2.HashRequest, request)
        self._upkeep.hash(call)
        return None

    def hash_kv(self, call: UnaryCall, request: bytes) -> bytes | None:
        """HashKVRequest -> HashKVResponse."""
        self._admit_admin(call)
        self._upkeep.hash_kv(call, parse(rpc_pb2.HashKVRequest, request).revision)
        return None

    def move_leader(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MoveLeaderRequest -> MoveLeaderResponse."""
        self._admit_admin(call)
        self._upkeep.move_leader(call, parse(rpc_pb2.MoveLeaderRequest, request).targetID)
        return None

    def downgrade(self, call: UnaryCall, request: bytes) -> bytes | None:
        """DowngradeRequest -> DowngradeResponse; the version in it is the cluster's."""
        self._admit_admin(call)
        self._upkeep.downgrade(call, parse(rpc_pb2.DowngradeRequest, request))
        return None

    def usage(self, call: UnaryCall, request: bytes) -> bytes | None:
        """UsageRequest -> UsageResponse; not etcd's."""
        from keyraft.proto import operations_pb2  # asked for seldom

        self._guard.admit(call, learner_may=True)
        self._guard.check_admin(call)
        self._upkeep.usage(call, parse(operations_pb2.UsageRequest, request))
        return None
