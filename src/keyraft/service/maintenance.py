"""Maintenance: Status, Hash, HashKV, Alarm, Defragment, Snapshot, MoveLeader, Downgrade.

Status answers about this member alone; Hash and HashKV scan in slices that leave the loop free;
Alarm goes through the log, even to list (etcd `api/v3rpc/maintenance.go`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.base.version import VERSION
from keyraft.base.waiters import Result
from keyraft.cluster import check_downgrade_target, parse_downgrade_target, short
from keyraft.grpc import SERVER_STREAM, Router, ServerStream, StreamHandler, UnaryCall
from keyraft.mvcc import KVHash
from keyraft.proto import membership_pb2, rpc_pb2
from keyraft.server import Member, hash_buckets, hash_keys
from keyraft.server.apply import internal_request
from keyraft.service.guard import Guard
from keyraft.service.snapshot import OpenSnapshot, SnapshotHandler

_UNKNOWN: Final = 2
_UNIMPLEMENTED: Final = 12


class MaintenanceService:
    """Registered on a router; one per member."""

    def __init__(
        self, member: Member, guard: Guard, open_snapshot: OpenSnapshot | None = None
    ) -> None:
        """`open_snapshot` starts the export of the database; without it there are no snapshots."""
        self._member = member
        self._guard = guard
        self._open_snapshot = open_snapshot

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
        router.stream("/etcdserverpb.Maintenance/Snapshot", self.snapshot, SERVER_STREAM)

    def _header(self) -> bytes:
        return self._member.header(self._member.store.revision)

    def status(self, call: UnaryCall, request: bytes) -> bytes | None:
        """StatusRequest -> StatusResponse."""
        self._guard.admit(call, learner_may=True)
        self._guard.check_user(call)
        parse(rpc_pb2.StatusRequest, request)
        member = self._member
        membership = member.membership
        downgrade = membership.cluster.downgrade
        answer = rpc_pb2.StatusResponse(
            version=VERSION,
            dbSize=member.backend.size_bytes,
            dbSizeInUse=member.backend.size_in_use_bytes,
            leader=member.leadership.leader,
            raftIndex=member.committed_index,
            raftAppliedIndex=member.applied_index,
            raftTerm=member.leadership.term,
            isLearner=membership.is_learner,
            storageVersion=membership.storage_version,
            dbSizeQuota=member.quota.bytes_max,
            downgradeInfo=rpc_pb2.DowngradeInfo(
                enabled=downgrade.enabled, targetVersion=downgrade.target
            ),
        )
        if not member.leadership.leader:
            answer.errors.append(errors.NoLeaderError.text)
        answer.errors.extend(member.alarms.texts())
        return self._header() + answer.SerializeToString()

    def alarm(self, call: UnaryCall, request: bytes) -> bytes | None:
        """AlarmRequest -> AlarmResponse."""
        self._guard.admit(call)
        message = parse(rpc_pb2.AlarmRequest, request)
        if message.action == rpc_pb2.AlarmRequest.GET:
            self._guard.check_user(call)
        else:
            self._guard.check_admin(call)
        self._member.propose_for(call, internal_request.KIND_ALARM, request)
        return None

    def defragment(self, call: UnaryCall, request: bytes) -> bytes | None:
        """DefragmentRequest -> DefragmentResponse, which has no header.

        DEVIATION: reads and writes go on meanwhile; the original answers nothing else.
        """
        self._guard.admit(call)
        self._guard.check_admin(call)
        parse(rpc_pb2.DefragmentRequest, request)
        member = self._member
        backend, logger = member.backend, member.logger
        logger.info("starting defragment")
        before = backend.size_bytes
        started_s = member.loop.time()
        member.counters.defrag_inflight += 1

        def done(undone: str | None) -> None:
            member.counters.defrag_inflight -= 1
            member.counters.defrag_s.observe(member.loop.time() - started_s)
            if undone is not None:
                logger.warn("failed to defragment", error=undone)
                call.fail(_UNKNOWN, undone)
                return
            logger.info(
                "finished defragment",
                size_before_bytes=before,
                size_bytes=backend.size_bytes,
                size_in_use_bytes=backend.size_in_use_bytes,
            )
            call.respond(b"")

        backend.defragment(done)
        return None

    def snapshot(self, stream: ServerStream) -> StreamHandler:
        """SnapshotRequest -> stream of SnapshotResponse."""
        if self._open_snapshot is None:
            raise RawError(_UNIMPLEMENTED, "this member's database cannot be exported")
        self._guard.admit_stream(stream, learner_may=True)
        return SnapshotHandler(self._member, self._guard, stream, self._open_snapshot)

    def hash(self, call: UnaryCall, request: bytes) -> bytes | None:
        """HashRequest -> HashResponse: all buckets, for tests."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        parse(rpc_pb2.HashRequest, request)
        header = self._header()

        def done(value: int) -> None:
            call.respond(header + rpc_pb2.HashResponse(hash=value).SerializeToString())

        hash_buckets(self._member, done, lambda: call.cancelled)
        return None

    def hash_kv(self, call: UnaryCall, request: bytes) -> bytes | None:
        """HashKVRequest -> HashKVResponse."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        message = parse(rpc_pb2.HashKVRequest, request)
        member = self._member
        revision = member.store.revision

        def done(found: KVHash) -> None:
            answer = rpc_pb2.HashKVResponse(
                hash=found.hash,
                compact_revision=found.compact_revision,
                hash_revision=found.revision,
            )
            call.respond(member.header(revision) + answer.SerializeToString())

        hash_keys(
            member,
            message.revision,
            done,
            lambda refusal: call.fail(refusal.code, refusal.text),
            lambda: call.cancelled,
        )
        return None

    def move_leader(self, call: UnaryCall, request: bytes) -> bytes | None:
        """MoveLeaderRequest -> MoveLeaderResponse, which has no header."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        message = parse(rpc_pb2.MoveLeaderRequest, request)
        if not self._member.leadership.leading:
            raise errors.NotLeaderError

        def done(error: EtcdError | RawError | None) -> None:
            if error is None:
                call.respond(b"")
            else:
                call.fail(error.code, error.text)

        self._member.leadership_transfer.move(message.targetID, done)
        return None

    # --- downgrade ----------------------------------------------------------------------------

    def downgrade(self, call: UnaryCall, request: bytes) -> bytes | None:
        """DowngradeRequest -> DowngradeResponse; the version in it is the cluster's."""
        self._guard.admit(call)
        self._guard.check_admin(call)
        message = parse(rpc_pb2.DowngradeRequest, request)
        kinds = rpc_pb2.DowngradeRequest
        if message.action == kinds.CANCEL:
            self._read_first(call, lambda: self._cancel_downgrade(call))
        elif message.action in (kinds.VALIDATE, kinds.ENABLE):
            parse_downgrade_target(message.version)
            enable = message.action == kinds.ENABLE
            self._read_first(call, lambda: self._check_downgrade(call, message.version, enable))
        else:
            raise RawError(_UNKNOWN, "etcdserver: unknown method")
        return None

    def _read_first(self, call: UnaryCall, work: Callable[[], None]) -> None:
        def ready(error: EtcdError | None) -> None:
            if call.cancelled:
                return
            if error is not None:
                call.fail(error.code, error.text)
                return
            try:
                work()
            except (EtcdError, RawError) as refusal:
                call.fail(refusal.code, refusal.text)

        self._member.read_index(ready)

    def _check_downgrade(self, call: UnaryCall, wanted: str, enable: bool) -> None:
        cluster = self._member.membership.cluster
        target = parse_downgrade_target(wanted)
        if cluster.version is None:
            raise errors.ClusterVersionUnavailableError
        check_downgrade_target(cluster.version, target)
        if cluster.downgrade.enabled:
            raise errors.DowngradeInProcessError
        if not enable:
            self._tell_version(call)
            return
        request = membership_pb2.DowngradeInfoSetRequest(enabled=True, ver=str(target))
        self._propose_downgrade(call, request)

    def _cancel_downgrade(self, call: UnaryCall) -> None:
        cluster = self._member.membership.cluster
        if cluster.version is None:
            raise errors.ClusterVersionUnavailableError
        if not cluster.downgrade.enabled:
            # The original logs that there is none to cancel and answers all the same.
            self._member.logger.warn(
                "failed to cancel downgrade", error=errors.NoInflightDowngradeError.text
            )
            self._tell_version(call)
            return
        self._propose_downgrade(call, membership_pb2.DowngradeInfoSetRequest(enabled=False))

    def _propose_downgrade(
        self, call: UnaryCall, request: membership_pb2.DowngradeInfoSetRequest
    ) -> None:
        def done(result: Result) -> None:
            if isinstance(result, bytes):
                self._tell_version(call)
            else:
                call.fail(result.code, result.text)

        member = self._member
        kind, data = internal_request.KIND_DOWNGRADE_INFO_SET, request.SerializeToString()
        waiter = member.propose(kind, data, done)
        call.on_cancel = lambda _, code: member.give_up(waiter, code)

    def _tell_version(self, call: UnaryCall) -> None:
        version = self._member.membership.cluster.version
        assert version is not None, "checked before"
        answer = rpc_pb2.DowngradeResponse(version=short(version))
        call.respond(self._header() + answer.SerializeToString())
