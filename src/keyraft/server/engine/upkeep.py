"""Maintenance of this member: status, alarms, hashes, downgrades, snapshots.

Status is about this member only. Hash and HashKV scan in slices that leave the loop free. An alarm
request goes through the log, even to list alarms (etcd `api/v3rpc/maintenance.go`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.version import VERSION
from keyraft.base.waiters import Result
from keyraft.cluster import check_downgrade_target, parse_downgrade_target, short
from keyraft.grpc import UnaryCall
from keyraft.mvcc import KVHash
from keyraft.proto import membership_pb2, rpc_pb2
from keyraft.server.apply import internal_request
from keyraft.server.engine.slicing import when_readable
from keyraft.server.engine.snapshot_feeds import ClientSnapshot, OpenSnapshot, SnapshotOutput
from keyraft.server.upkeep.hashing import hash_buckets, hash_keys

if TYPE_CHECKING:
    from keyraft.mvcc import PrefixRows, UsageWalk
    from keyraft.proto import operations_pb2
    from keyraft.server.member import Member

USAGE_DEPTH: Final = 2
USAGE_TOP: Final = 20
USAGE_INTERVAL_MS: Final = 1_000
USAGE_INTERVAL_S_MAX: Final = 60.0
DISK_FULL: Final = "keyraft: the disk of this member is full"
_UNKNOWN: Final = 2
_UNIMPLEMENTED: Final = 12


class RaftUpkeep:
    """`service.ports.Upkeep` of one member."""

    def __init__(self, member: Member, open_snapshot: OpenSnapshot | None = None) -> None:
        """`open_snapshot` starts the export of the database; without it there are no snapshots."""
        self._member = member
        self._open_snapshot = open_snapshot
        self.on_defragment: Callable[[bool], None] | None = None
        """Told when a defragmentation begins (True) and when the last one has ended."""

    def _header(self) -> bytes:
        return self._member.header(self._member.store.revision)

    def status(self, call: UnaryCall) -> bytes | None:
        """See the port."""
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
        if member.space.disk.full:
            answer.errors.append(DISK_FULL)
        return self._header() + answer.SerializeToString()

    def alarm(self, call: UnaryCall, request: bytes) -> None:
        """See the port."""
        self._member.propose_for(internal_request.KIND_ALARM, call, request)

    def defragment(self, call: UnaryCall) -> None:
        """See the port. The answer has no header.

        DEVIATION: reads and writes go on meanwhile; the original answers nothing else.
        """
        member = self._member
        backend, logger = member.backend, member.logger
        logger.info("starting defragment")
        before = backend.size_bytes
        started_s = member.loop.time()
        member.counters.defrag_inflight += 1
        if self.on_defragment is not None:
            self.on_defragment(True)

        def done(undone: str | None) -> None:
            member.counters.defrag_inflight -= 1
            if self.on_defragment is not None and not member.counters.defrag_inflight:
                self.on_defragment(False)
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

    def snapshot(self, sink: SnapshotOutput) -> ClientSnapshot:
        """See the port."""
        if self._open_snapshot is None:
            raise RawError(_UNIMPLEMENTED, "this member's database cannot be exported")
        return ClientSnapshot(self._member, sink, self._open_snapshot)

    def hash(self, call: UnaryCall) -> None:
        """See the port."""
        header = self._header()

        def done(value: int) -> None:
            call.respond(header + rpc_pb2.HashResponse(hash=value).SerializeToString())

        hash_buckets(self._member, done, lambda: call.cancelled)

    def hash_kv(self, call: UnaryCall, revision: int) -> None:
        """See the port."""
        member = self._member
        header = self._header()

        def done(found: KVHash) -> None:
            answer = rpc_pb2.HashKVResponse(
                hash=found.hash,
                compact_revision=found.compact_revision,
                hash_revision=found.revision,
            )
            call.respond(header + answer.SerializeToString())

        hash_keys(
            member,
            revision,
            done,
            lambda refusal: call.fail(refusal.code, refusal.text),
            lambda: call.cancelled,
        )

    def usage(self, call: UnaryCall, request: operations_pb2.UsageRequest) -> None:
        """See the port."""
        from keyraft.proto import operations_pb2

        def told(prefix: bytes, group: PrefixRows) -> operations_pb2.PrefixUsage:
            return operations_pb2.PrefixUsage(
                prefix=prefix,
                keys=group.keys,
                bytes=group.bytes,
                history_bytes=group.history_bytes,
                revisions=group.revisions,
                writes_per_second=group.recent / seconds,
            )

        seconds = 1.0

        def found(walk: UsageWalk, took_s: float) -> None:
            nonlocal seconds
            seconds = max(took_s, 0.001)
            largest, others, total = walk.largest(request.top or USAGE_TOP)
            answer = operations_pb2.UsageResponse(
                prefixes=[told(prefix, group) for prefix, group in largest],
                others=told(b"", others),
                total=told(b"", total),
                seconds=took_s,
            )
            call.respond(self._header() + answer.SerializeToString())

        interval_s = min((request.interval_ms or USAGE_INTERVAL_MS) / 1000, USAGE_INTERVAL_S_MAX)
        self._member.space.usage.walk(
            request.prefix,
            request.depth or USAGE_DEPTH,
            interval_s,
            found,
            lambda: call.cancelled,
        )

    def move_leader(self, call: UnaryCall, member_id: int) -> None:
        """See the port. The answer has no header."""
        if not self._member.leadership.leading:
            raise errors.NotLeaderError

        def done(error: EtcdError | RawError | None) -> None:
            if error is None:
                call.respond(b"")
            else:
                call.fail(error.code, error.text)

        self._member.leadership_transfer.move(member_id, done)

    # --- downgrade ----------------------------------------------------------------------------

    def downgrade(self, call: UnaryCall, request: rpc_pb2.DowngradeRequest) -> None:
        """See the port; the version in the answer is the cluster's."""
        kinds = rpc_pb2.DowngradeRequest
        if request.action == kinds.CANCEL:
            when_readable(self._member, call, lambda: self._cancel_downgrade(call))
        elif request.action in (kinds.VALIDATE, kinds.ENABLE):
            parse_downgrade_target(request.version)
            enable = request.action == kinds.ENABLE
            when_readable(
                self._member, call, lambda: self._check_downgrade(call, request.version, enable)
            )
        else:
            raise RawError(_UNKNOWN, "etcdserver: unknown method")

    def _check_downgrade(self, call: UnaryCall, wanted: str, enable: bool) -> bytes | None:
        cluster = self._member.membership.cluster
        target = parse_downgrade_target(wanted)
        if cluster.version is None:
            raise errors.ClusterVersionUnavailableError
        check_downgrade_target(cluster.version, target)
        if cluster.downgrade.enabled:
            raise errors.DowngradeInProcessError
        if not enable:
            return self._version()
        request = membership_pb2.DowngradeInfoSetRequest(enabled=True, ver=str(target))
        self._propose_downgrade(call, request)
        return None

    def _cancel_downgrade(self, call: UnaryCall) -> bytes | None:
        cluster = self._member.membership.cluster
        if cluster.version is None:
            raise errors.ClusterVersionUnavailableError
        if not cluster.downgrade.enabled:
            # The original logs that there is no downgrade to cancel, and answers nevertheless.
            self._member.logger.warn(
                "failed to cancel downgrade", error=errors.NoInflightDowngradeError.text
            )
            return self._version()
        self._propose_downgrade(call, membership_pb2.DowngradeInfoSetRequest(enabled=False))
        return None

    def _propose_downgrade(
        self, call: UnaryCall, request: membership_pb2.DowngradeInfoSetRequest
    ) -> None:
        def done(result: Result) -> None:
            if isinstance(result, bytes):
                call.respond(self._version())
            else:
                call.fail(result.code, result.text)

        member = self._member
        kind, data = internal_request.KIND_DOWNGRADE_INFO_SET, request.SerializeToString()
        waiter = member.propose(kind, data, done)
        call.on_cancel = lambda _, code: member.give_up(waiter, code)

    def _version(self) -> bytes:
        version = self._member.membership.cluster.version
        assert version is not None, "checked before"
        answer = rpc_pb2.DowngradeResponse(version=short(version))
        return self._header() + answer.SerializeToString()
