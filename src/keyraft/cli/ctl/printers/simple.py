"""Lines for people and pipes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keyraft.base.gotext import format_bool
from keyraft.cli.ctl.printers import rows
from keyraft.cli.ctl.printers.base import EndpointHealth, Printer, complain, line, text
from keyraft.client.requests import FROM_KEY, prefix_end
from keyraft.proto import auth_pb2, mvcc_pb2, rpc_pb2


def hexed(value: bytes) -> str:
    """Every byte as \\xNN."""
    return "".join(f"\\x{byte:02x}" for byte in value)


class SimplePrinter(Printer):
    """`--write-out simple`; `value_only` leaves the keys out."""

    form = "simple"

    def __init__(self, is_hex: bool) -> None:
        super().__init__(is_hex)
        self.value_only = False

    def kv(self, kv: mvcc_pb2.KeyValue) -> str:
        """A pair as two lines."""
        show = hexed if self.is_hex else text
        return f"{show(kv.value)}\n" if self.value_only else f"{show(kv.key)}\n{show(kv.value)}\n"

    def _lines(self, first: str, kvs: Iterable[mvcc_pb2.KeyValue]) -> str:
        return first + "".join(map(self.kv, kvs))

    def _get(self, response: rpc_pb2.RangeResponse) -> str:
        return self._lines("", response.kvs)

    def _put(self, response: rpc_pb2.PutResponse) -> str:
        return self._lines("OK\n", [response.prev_kv] if response.HasField("prev_kv") else [])

    def _delete(self, response: rpc_pb2.DeleteRangeResponse) -> str:
        return self._lines(f"{response.deleted}\n", response.prev_kvs)

    def get(self, response: rpc_pb2.RangeResponse) -> None:
        _out(self._get(response))

    def put(self, response: rpc_pb2.PutResponse) -> None:
        _out(self._put(response))

    def delete(self, response: rpc_pb2.DeleteRangeResponse) -> None:
        _out(self._delete(response))

    def txn(self, response: rpc_pb2.TxnResponse) -> None:
        out = "SUCCESS\n" if response.succeeded else "FAILURE\n"
        for part in response.responses:
            out += "\n"
            match part.WhichOneof("response"):
                case "response_delete_range":
                    out += self._delete(part.response_delete_range)
                case "response_put":
                    out += self._put(part.response_put)
                case "response_range":
                    out += self._get(part.response_range)
                case _:
                    out += "unexpected response\n"
        _out(out)

    def watch(self, response: rpc_pb2.WatchResponse) -> None:
        out = ""
        for event in response.events:
            out += "DELETE\n" if event.type == mvcc_pb2.Event.DELETE else "PUT\n"
            if event.HasField("prev_kv"):
                out += self.kv(event.prev_kv)
            out += self.kv(event.kv)
        _out(out)

    def lease_grant(self, response: rpc_pb2.LeaseGrantResponse) -> None:
        line(f"lease {response.ID:016x} granted with TTL({response.TTL}s)")

    def lease_revoke(self, lease_id: int, response: rpc_pb2.LeaseRevokeResponse) -> None:
        line(f"lease {lease_id:016x} revoked")

    def lease_keep_alive(self, response: rpc_pb2.LeaseKeepAliveResponse) -> None:
        line(f"lease {response.ID:016x} keepalived with TTL({response.TTL})")

    def lease_time_to_live(self, response: rpc_pb2.LeaseTimeToLiveResponse, keys: bool) -> None:
        if response.grantedTTL == 0 and response.TTL == -1:
            line(f"lease {response.ID:016x} already expired")
            return
        out = (
            f"lease {response.ID:016x} granted with TTL({response.grantedTTL}s),"
            f" remaining({response.TTL}s)"
        )
        if keys:
            out += f", attached keys([{' '.join(map(text, response.keys))}])"
        line(out)

    def leases(self, response: rpc_pb2.LeaseLeasesResponse) -> None:
        line(f"found {len(response.leases)} leases")
        for lease in response.leases:
            line(f"{lease.ID:016x}")

    def alarms(self, response: rpc_pb2.AlarmResponse) -> None:
        for alarm in response.alarms:
            name = rpc_pb2.AlarmType.Name(alarm.alarm)
            line(f"memberID:{alarm.memberID} alarm:{name} ")

    def member_add(self, response: rpc_pb2.MemberAddResponse) -> None:
        learner = " as learner " if response.member.isLearner else " "
        line(
            f"Member {response.member.ID:16x} added{learner}"
            f"to cluster {response.header.cluster_id:16x}"
        )

    def member_remove(self, member_id: int, response: rpc_pb2.MemberRemoveResponse) -> None:
        line(f"Member {member_id:16x} removed from cluster {response.header.cluster_id:16x}")

    def member_update(self, member_id: int, response: rpc_pb2.MemberUpdateResponse) -> None:
        line(f"Member {member_id:16x} updated in cluster {response.header.cluster_id:16x}")

    def member_promote(self, member_id: int, response: rpc_pb2.MemberPromoteResponse) -> None:
        line(f"Member {member_id:16x} promoted in cluster {response.header.cluster_id:16x}")

    def members(self, response: rpc_pb2.MemberListResponse) -> None:
        _rows(rows.members(response))

    def health(self, found: list[EndpointHealth]) -> None:
        for one in found:
            if one.error:
                complain(f"{one.endpoint} is unhealthy: failed to commit proposal: {one.error}")
            else:
                line(
                    f"{one.endpoint} is healthy: successfully committed proposal: took = {one.took}"
                )

    def status(self, found: list[tuple[str, rpc_pb2.StatusResponse]]) -> None:
        _rows(rows.status(found))

    def hash_kv(self, found: list[tuple[str, rpc_pb2.HashKVResponse]]) -> None:
        _rows(rows.hash_kv(found))

    def move_leader(self, leader: int, target: int, response: rpc_pb2.MoveLeaderResponse) -> None:
        line(f"Leadership transferred from {leader:x} to {target:x}")

    def downgrade(self, action: str, response: rpc_pb2.DowngradeResponse) -> None:
        line(f"Downgrade {action} success, cluster version {response.version}")

    def said(self, sentence: str, response: Any) -> None:
        line(sentence)

    def role(self, name: str, response: rpc_pb2.AuthRoleGetResponse) -> None:
        out = f"Role {name}\n"
        if name == "root" and not response.perm:
            _out(out + "KV Read:\n\t[, <open ended>\nKV Write:\n\t[, <open ended>\n")
            return
        for title, kind in (
            ("KV Read:", auth_pb2.Permission.READ),
            ("KV Write:", auth_pb2.Permission.WRITE),
        ):
            out += title + "\n"
            for permission in response.perm:
                if permission.permType in (kind, auth_pb2.Permission.READWRITE):
                    out += f"\t{permission_text(permission)}\n"
        _out(out)

    def roles(self, response: rpc_pb2.AuthRoleListResponse) -> None:
        for name in response.roles:
            line(name)

    def user(self, name: str, response: rpc_pb2.AuthUserGetResponse) -> None:
        line(f"User: {name}")
        line("Roles:" + "".join(f" {role}" for role in response.roles))

    def users(self, response: rpc_pb2.AuthUserListResponse) -> None:
        for name in response.users:
            line(name)

    def auth_status(self, response: rpc_pb2.AuthStatusResponse) -> None:
        line(f"Authentication Status: {format_bool(response.enabled)}")
        line(f"AuthRevision: {response.authRevision}")


def permission_text(permission: auth_pb2.Permission) -> str:
    """A key, or a range in interval notation."""
    key, end = permission.key, permission.range_end
    if not end:
        return text(key)
    out = f"[{text(key)}, <open ended>" if end == FROM_KEY else f"[{text(key)}, {text(end)})"
    return out + (f" (prefix {text(key)})" if key and prefix_end(key) == end else "")


def _out(out: str) -> None:
    if out:
        line(out[:-1])


def _rows(found: list[list[str]]) -> None:
    for row in found:
        line(", ".join(row))
