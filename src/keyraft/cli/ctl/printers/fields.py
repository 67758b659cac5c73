"""One `"Name" : value` line for each field."""

from __future__ import annotations

from typing import Any

from keyraft.base.gotext import format_bool, quote
from keyraft.cli.ctl.printers.base import EndpointHealth, Printer, line
from keyraft.proto import auth_pb2, mvcc_pb2, rpc_pb2


class FieldsPrinter(Printer):
    """`--write-out fields`; `--hex` writes ids in hexadecimal."""

    form = "fields"

    def _id(self, value: int) -> str:
        return f"{value:x}" if self.is_hex else str(value)

    def _lease(self, value: int) -> str:
        return f"{value:016x}" if self.is_hex else str(value)

    def header(self, header: rpc_pb2.ResponseHeader) -> None:
        """The lines that every answer begins with."""
        line(f'"ClusterID" : {self._id(header.cluster_id)}')
        line(f'"MemberID" : {self._id(header.member_id)}')
        if header.revision > 0:
            line(f'"Revision" : {header.revision}')
        line(f'"RaftTerm" : {header.raft_term}')

    def kv(self, prefix: str, kv: mvcc_pb2.KeyValue) -> None:
        """The lines of a pair."""
        line(f'"{prefix}Key" : {quote(kv.key)}')
        line(f'"{prefix}CreateRevision" : {kv.create_revision}')
        line(f'"{prefix}ModRevision" : {kv.mod_revision}')
        line(f'"{prefix}Version" : {kv.version}')
        line(f'"{prefix}Value" : {quote(kv.value)}')
        line(f'"{prefix}Lease" : {self._lease(kv.lease)}')

    def get(self, response: rpc_pb2.RangeResponse) -> None:
        self.header(response.header)
        for kv in response.kvs:
            self.kv("", kv)
        line(f'"More" : {format_bool(response.more)}')
        line(f'"Count" : {response.count}')

    def put(self, response: rpc_pb2.PutResponse) -> None:
        self.header(response.header)
        if response.HasField("prev_kv"):
            self.kv("Prev", response.prev_kv)

    def delete(self, response: rpc_pb2.DeleteRangeResponse) -> None:
        self.header(response.header)
        line(f'"Deleted" : {response.deleted}')
        for kv in response.prev_kvs:
            self.kv("Prev", kv)

    def txn(self, response: rpc_pb2.TxnResponse) -> None:
        self.header(response.header)
        line(f'"Succeeded" : {format_bool(response.succeeded)}')
        for part in response.responses:
            match part.WhichOneof("response"):
                case "response_delete_range":
                    self.delete(part.response_delete_range)
                case "response_put":
                    self.put(part.response_put)
                case "response_range":
                    self.get(part.response_range)
                case _:
                    line('"Unknown" : ""')

    def watch(self, response: rpc_pb2.WatchResponse) -> None:
        self.header(response.header)
        for event in response.events:
            line('"Type" : ' + ("DELETE" if event.type == mvcc_pb2.Event.DELETE else "PUT"))
            if event.HasField("prev_kv"):
                self.kv("Prev", event.prev_kv)
            self.kv("", event.kv)

    def lease_grant(self, response: rpc_pb2.LeaseGrantResponse) -> None:
        self.header(response.header)
        line(f'"ID" : {self._lease(response.ID)}')
        line(f'"TTL" : {response.TTL}')

    def lease_revoke(self, lease_id: int, response: rpc_pb2.LeaseRevokeResponse) -> None:
        self.header(response.header)

    def lease_keep_alive(self, response: rpc_pb2.LeaseKeepAliveResponse) -> None:
        self.header(response.header)
        line(f'"ID" : {self._lease(response.ID)}')
        line(f'"TTL" : {response.TTL}')

    def lease_time_to_live(self, response: rpc_pb2.LeaseTimeToLiveResponse, keys: bool) -> None:
        self.header(response.header)
        line(f'"ID" : {self._lease(response.ID)}')
        line(f'"TTL" : {response.TTL}')
        line(f'"GrantedTTL" : {response.grantedTTL}')
        for key in response.keys:
            line(f'"Key" : {quote(key)}')

    def leases(self, response: rpc_pb2.LeaseLeasesResponse) -> None:
        self.header(response.header)
        for lease in response.leases:
            line(f'"ID" : {self._lease(lease.ID)}')

    def members(self, response: rpc_pb2.MemberListResponse) -> None:
        self.header(response.header)
        for member in response.members:
            line(f'"ID" : {self._id(member.ID)}')
            line(f'"Name" : {quote(member.name)}')
            for url in member.peerURLs:
                line(f'"PeerURL" : {quote(url)}')
            for url in member.clientURLs:
                line(f'"ClientURL" : {quote(url)}')
            line(f'"IsLearner" : {format_bool(member.isLearner)}')
            line()

    def health(self, found: list[EndpointHealth]) -> None:
        for one in found:
            line(f'"Endpoint" : {quote(one.endpoint)}')
            line(f'"Health" : {format_bool(one.healthy)}')
            line(f'"Took" : {one.took}')
            line(f'"Error" : {one.error}')
            line()

    def status(self, found: list[tuple[str, rpc_pb2.StatusResponse]]) -> None:
        for endpoint, one in found:
            self.header(one.header)
            line(f'"Version" : {quote(one.version)}')
            line(f'"StorageVersion" : {quote(one.storageVersion)}')
            line(f'"DBSize" : {one.dbSize}')
            line(f'"DBSizeInUse" : {one.dbSizeInUse}')
            line(f'"DBSizeQuota" : {one.dbSizeQuota}')
            line(f'"Leader" : {one.leader}')
            line(f'"IsLearner" : {format_bool(one.isLearner)}')
            line(f'"RaftIndex" : {one.raftIndex}')
            line(f'"RaftTerm" : {one.raftTerm}')
            line(f'"RaftAppliedIndex" : {one.raftAppliedIndex}')
            line(f'"Errors" : [{" ".join(one.errors)}]')
            line(f'"Endpoint" : {quote(endpoint)}')
            line(f'"DowngradeTargetVersion" : {quote(one.downgradeInfo.targetVersion)}')
            line(f'"DowngradeEnabled" : {format_bool(one.downgradeInfo.enabled)}')
            line()

    def hash_kv(self, found: list[tuple[str, rpc_pb2.HashKVResponse]]) -> None:
        for endpoint, one in found:
            self.header(one.header)
            line(f'"Endpoint" : {quote(endpoint)}')
            line(f'"Hash" : {one.hash}')
            line(f'"HashRevision" : {one.hash_revision}')
            line()

    def alarms(self, response: rpc_pb2.AlarmResponse) -> None:
        self.header(response.header)
        for alarm in response.alarms:
            line(f'"MemberID" : {self._id(alarm.memberID)}')
            line(f'"AlarmType" : {rpc_pb2.AlarmType.Name(alarm.alarm)}')
            line()

    def said(self, sentence: str, response: Any) -> None:
        self.header(response.header)

    def role(self, name: str, response: rpc_pb2.AuthRoleGetResponse) -> None:
        self.header(response.header)
        for permission in response.perm:
            line(f'"PermType" :  {auth_pb2.Permission.Type.Name(permission.permType)}')
            line(f'"Key" : {quote(permission.key)}')
            line(f'"RangeEnd" : {quote(permission.range_end)}')

    def roles(self, response: rpc_pb2.AuthRoleListResponse) -> None:
        self.header(response.header)
        line('"Roles" :' + "".join(f" {quote(role)}" for role in response.roles))
