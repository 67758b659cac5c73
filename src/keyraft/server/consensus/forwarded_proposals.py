"""Checks the proposals that a peer forwards, before they enter the log.

Every member carries out each proposal in the log, possibly again at each start. So one that cannot
be carried out must not get there. The member that took it from its client has checked it already;
here only malformed proposals are refused. DEVIATION: etcd's leader takes any bytes, and every
member panics when it applies them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf

from keyraft.base.errors import EtcdError, RawError
from keyraft.base.limits import GRPC_OVERHEAD_BYTES
from keyraft.base.version import VERSION
from keyraft.cluster import (
    MembershipDataError,
    VersionError,
    decode_context,
    parse_version,
)
from keyraft.mvcc import check_delete_range, check_put, check_range, check_txn, plain_put
from keyraft.proto import membership_pb2, raft_internal_pb2, rpc_pb2
from keyraft.raft import ConfChangeType, Entry, EntryType, PeerMessageError, codec
from keyraft.server.apply import internal_request, v2_requests

ENTRY_BYTES_MAX: Final = 64 << 20
"""Of one proposal, unless this member's own limit of a request is higher."""
_PUT: Final = internal_request.KIND_PUT
_PUT_TAG: Final = _PUT << 3 | 2
_TXN_OPS_MAX: Final = 1 << 20  # the real limit is a flag of the other member
_CONF_CHANGE: Final = EntryType.CONF_CHANGE.value

_MESSAGES: Final[dict[int, type[Protobuf]]] = {
    internal_request.KIND_RANGE: rpc_pb2.RangeRequest,
    internal_request.KIND_PUT: rpc_pb2.PutRequest,
    internal_request.KIND_DELETE_RANGE: rpc_pb2.DeleteRangeRequest,
    internal_request.KIND_TXN: rpc_pb2.TxnRequest,
    internal_request.KIND_COMPACTION: rpc_pb2.CompactionRequest,
    internal_request.KIND_LEASE_GRANT: rpc_pb2.LeaseGrantRequest,
    internal_request.KIND_LEASE_REVOKE: rpc_pb2.LeaseRevokeRequest,
    internal_request.KIND_ALARM: rpc_pb2.AlarmRequest,
    internal_request.KIND_LEASE_CHECKPOINT: rpc_pb2.LeaseCheckpointRequest,
    internal_request.KIND_AUTH_ENABLE: rpc_pb2.AuthEnableRequest,
    internal_request.KIND_AUTH_DISABLE: rpc_pb2.AuthDisableRequest,
    internal_request.KIND_AUTH_STATUS: rpc_pb2.AuthStatusRequest,
    internal_request.KIND_AUTHENTICATE: raft_internal_pb2.InternalAuthenticateRequest,
    internal_request.KIND_AUTH_USER_ADD: rpc_pb2.AuthUserAddRequest,
    internal_request.KIND_AUTH_USER_DELETE: rpc_pb2.AuthUserDeleteRequest,
    internal_request.KIND_AUTH_USER_GET: rpc_pb2.AuthUserGetRequest,
    internal_request.KIND_AUTH_USER_CHANGE_PASSWORD: rpc_pb2.AuthUserChangePasswordRequest,
    internal_request.KIND_AUTH_USER_GRANT_ROLE: rpc_pb2.AuthUserGrantRoleRequest,
    internal_request.KIND_AUTH_USER_REVOKE_ROLE: rpc_pb2.AuthUserRevokeRoleRequest,
    internal_request.KIND_AUTH_USER_LIST: rpc_pb2.AuthUserListRequest,
    internal_request.KIND_AUTH_ROLE_LIST: rpc_pb2.AuthRoleListRequest,
    internal_request.KIND_AUTH_ROLE_ADD: rpc_pb2.AuthRoleAddRequest,
    internal_request.KIND_AUTH_ROLE_DELETE: rpc_pb2.AuthRoleDeleteRequest,
    internal_request.KIND_AUTH_ROLE_GET: rpc_pb2.AuthRoleGetRequest,
    internal_request.KIND_AUTH_ROLE_GRANT_PERMISSION: rpc_pb2.AuthRoleGrantPermissionRequest,
    internal_request.KIND_AUTH_ROLE_REVOKE_PERMISSION: rpc_pb2.AuthRoleRevokePermissionRequest,
    internal_request.KIND_CLUSTER_VERSION_SET: membership_pb2.ClusterVersionSetRequest,
    internal_request.KIND_CLUSTER_MEMBER_ATTR_SET: membership_pb2.ClusterMemberAttrSetRequest,
    internal_request.KIND_DOWNGRADE_INFO_SET: membership_pb2.DowngradeInfoSetRequest,
    internal_request.KIND_DOWNGRADE_VERSION_TEST: rpc_pb2.DowngradeVersionTestRequest,
}


def check(entries: Sequence[Entry], request_bytes_max: int) -> None:
    """Raises PeerMessageError unless each entry is a proposal that can be carried out."""
    bytes_max = max(ENTRY_BYTES_MAX, request_bytes_max + GRPC_OVERHEAD_BYTES)
    for entry in entries:
        data = entry.data
        if not entry.type and len(data) <= bytes_max and _is_plain_put(data):
            continue  # the most frequent, complete
        why = _problem(entry, bytes_max)
        if why:
            raise PeerMessageError(f"raft: MsgProp: {why}")


def _is_plain_put(data: bytes) -> bool:
    """Whether an entry is one of ours with a put that `plain_put` knows: all its lengths fit.

    The same as to split it and to look at the request; for the short ones, without cutting it up.
    """
    try:
        length = data[1]
        at = 2
        if length > 127:
            high = data[2]
            if high > 127:  # 16 KiB and more
                parts = internal_request.split(data)
                return parts is not None and parts[0] == _PUT and plain_put(parts[1]) > 0
            length += (high << 7) - 128
            at = 3
        end = at + length
        value = at + 2 + data[at + 1]  # where its field begins
        size = data[value + 1]
        begin = value + 2
        if size > 127:
            size += (data[value + 2] << 7) - 128
            begin += 1
        return (
            data[0] == _PUT_TAG
            and data[at] == 0x0A
            and 3 <= value - at <= 129
            and data[value] == 0x12
            and 0 < size < 16384
            and begin + size == end
            and (begin == value + 2 or size > 127)
            and data[end] == 0xA2
            and data[end + 1] == 6
            and data[end + 2] == len(data) - end - 3
        )
    except IndexError:
        return False


def _problem(entry: Entry, bytes_max: int) -> str:
    data = entry.data
    if len(data) > bytes_max:
        return f"a proposal of {len(data)} bytes exceeds {bytes_max}"
    if entry.type == _CONF_CHANGE:
        return _change_problem(data)
    if entry.type:
        # Leaving a joint configuration is Raft's own matter, and its leader's.
        return "a change of the configuration that no member proposes"
    if not data:
        return "an empty proposal"
    try:
        v2 = internal_request.is_v2(data)
        return _v2_problem(v2) if v2 is not None else _request_problem(internal_request.parse(data))
    except (
        internal_request.MalformedEntryError,
        MembershipDataError,
        VersionError,
        DecodeError,
    ) as error:
        return f"a proposal that cannot be carried out: {error}"
    except (EtcdError, RawError) as refusal:
        return f"a proposal that cannot be carried out: {refusal.text}"


def _change_problem(data: bytes) -> str:
    try:
        change = codec.decode_conf_change(data)
        context = decode_context(change.context)
    except (codec.CodecError, MembershipDataError) as error:
        return f"a change of the configuration that cannot be made: {error}"
    removes = change.type == ConfChangeType.REMOVE_NODE
    if not change.node_id or (not removes and context.member.id != change.node_id):
        return f"a change of the configuration that names another member than {change.node_id:x}"
    return ""


def _v2_problem(data: bytes) -> str:
    """Members up to 3.5 publish their names so. Raises MembershipDataError."""
    known = v2_requests.translate(data)
    if known is None:
        return ""
    parsed = internal_request.Parsed()
    parsed.kind, parsed.request = known
    return _request_problem(parsed)


def _request_problem(parsed: internal_request.Parsed) -> str:
    """Raises DecodeError, VersionError, EtcdError, RawError."""
    kind = parsed.kind
    message = _MESSAGES.get(kind)
    if message is None:
        return "a proposal of an unknown kind"
    request = message.FromString(parsed.request)
    if isinstance(request, rpc_pb2.PutRequest):
        check_put(request)
    elif isinstance(request, rpc_pb2.RangeRequest):
        check_range(request)
    elif isinstance(request, rpc_pb2.DeleteRangeRequest):
        check_delete_range(request)
    elif isinstance(request, rpc_pb2.TxnRequest):
        check_txn(request, _TXN_OPS_MAX)
    elif isinstance(request, membership_pb2.ClusterVersionSetRequest):
        if parse_version(VERSION).without_patch.is_below(parse_version(request.ver).without_patch):
            return f"the cluster's version cannot become {request.ver}"
    elif isinstance(request, membership_pb2.DowngradeInfoSetRequest) and request.enabled:
        parse_version(request.ver)
    return ""
