"""Every method, by everybody: what each is answered while users are asked who they are.

The requests change nothing that the answers of later ones depend on: they are refused, or they do
the same again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import grpc
from google.protobuf.message import Message

from keyraft.proto import election_pb2, lock_pb2, rpc_pb2
from tests.auth.calls import Client, found_users
from tests.auth.users import AUTH
from tests.differential.operations import KV, LEASE, MAINTENANCE

CLUSTER: Final = "/etcdserverpb.Cluster/"
LOCK: Final = "/v3lockpb.Lock/"
ELECTION: Final = "/v3electionpb.Election/"
WATCH: Final = "/etcdserverpb.Watch/"

CALLERS: Final = ("nobody", "alice", "root", "stranger", "empty")
"""alice has a/ and reads b; the last two show tokens that are none."""

A_LEASE: Final = 0x7701  # with a/leased on it
B_LEASE: Final = 0x7702  # with d on it
NO_LEASE: Final = 0x7703
CALL_TIMEOUT_S: Final = 30.0

Case = tuple[str, Message]


def _key(key: bytes, end: bytes = b"") -> dict[str, bytes]:
    return {"key": key, "range_end": end}


def prepare(client: Client) -> None:
    """Users, tokens, and what the cases ask about."""
    found_users(client)
    for user in ("root", "alice"):
        client.log_in(user)
    client.tokens["empty"] = ""
    for lease, key in ((A_LEASE, b"a/leased"), (B_LEASE, b"d")):
        request = rpc_pb2.LeaseGrantRequest(ID=lease, TTL=6_000)
        client.do(LEASE + "LeaseGrant", request, "root")
        client.do(KV + "Put", rpc_pb2.PutRequest(key=key, lease=lease), "root")
    for key in (b"a/q/led/x", b"c/led/x"):
        client.do(KV + "Put", rpc_pb2.PutRequest(key=key), "root")


def cases() -> Iterator[Case]:
    """Methods with their requests."""
    for key, end in ((b"a/x", b""), (b"a/", b"a0"), (b"b", b""), (b"c", b""), (b"\0", b"\0")):
        yield KV + "Range", rpc_pb2.RangeRequest(**_key(key, end))
        yield KV + "Range", rpc_pb2.RangeRequest(**_key(key, end), serializable=True)
        yield WATCH + "Watch", _watch(key, end)
        yield KV + "Txn", rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(**_key(key, end))])
    yield WATCH + "Watch", _watch(b"b", b"\0")
    yield WATCH + "Watch", _watch(b"", b"")
    for key in (b"a/x", b"b", b"c"):
        yield KV + "Put", rpc_pb2.PutRequest(key=key, value=b"same")
        yield KV + "Put", rpc_pb2.PutRequest(key=key, value=b"same", prev_kv=True)
        yield KV + "Put", rpc_pb2.PutRequest(key=key, value=b"same", lease=NO_LEASE)
        yield KV + "DeleteRange", rpc_pb2.DeleteRangeRequest(key=key + b"/nosuch")
    yield KV + "Put", rpc_pb2.PutRequest(key=b"a/leased", value=b"same", lease=A_LEASE)
    yield KV + "Put", rpc_pb2.PutRequest(key=b"a/other", value=b"same", lease=B_LEASE)
    yield KV + "DeleteRange", rpc_pb2.DeleteRangeRequest(**_key(b"a/y", b"a/z"))
    yield KV + "DeleteRange", rpc_pb2.DeleteRangeRequest(**_key(b"a/y", b"b"), prev_kv=True)
    yield KV + "Compact", rpc_pb2.CompactionRequest(revision=1_000_000)
    yield LEASE + "LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=A_LEASE, TTL=6_000)
    yield LEASE + "LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=NO_LEASE)
    for lease in (A_LEASE, B_LEASE, NO_LEASE):
        for keys in (False, True):
            request = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=keys)
            yield LEASE + "LeaseTimeToLive", request
        yield LEASE + "LeaseKeepAlive", rpc_pb2.LeaseKeepAliveRequest(ID=lease)
    yield LEASE + "LeaseLeases", rpc_pb2.LeaseLeasesRequest()
    yield CLUSTER + "MemberList", rpc_pb2.MemberListRequest()
    yield CLUSTER + "MemberAdd", rpc_pb2.MemberAddRequest(peerURLs=["no url"])
    yield CLUSTER + "MemberRemove", rpc_pb2.MemberRemoveRequest(ID=5)
    yield CLUSTER + "MemberUpdate", rpc_pb2.MemberUpdateRequest(ID=5, peerURLs=["http://a:1"])
    yield CLUSTER + "MemberPromote", rpc_pb2.MemberPromoteRequest(ID=5)
    yield MAINTENANCE + "Alarm", rpc_pb2.AlarmRequest()
    yield (
        MAINTENANCE + "Alarm",
        rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.DEACTIVATE, alarm=rpc_pb2.NOSPACE),
    )
    yield MAINTENANCE + "Status", rpc_pb2.StatusRequest()
    yield MAINTENANCE + "Defragment", rpc_pb2.DefragmentRequest()
    yield MAINTENANCE + "Hash", rpc_pb2.HashRequest()
    yield MAINTENANCE + "HashKV", rpc_pb2.HashKVRequest()
    yield MAINTENANCE + "Snapshot", rpc_pb2.SnapshotRequest()
    yield MAINTENANCE + "MoveLeader", rpc_pb2.MoveLeaderRequest(targetID=5)
    yield MAINTENANCE + "Downgrade", rpc_pb2.DowngradeRequest(version="x")
    for key in (b"a/q", b"c"):
        yield LOCK + "Lock", lock_pb2.LockRequest(name=key + b"/lock", lease=A_LEASE)
        yield LOCK + "Unlock", lock_pb2.UnlockRequest(key=key + b"/nosuch")
        yield (
            ELECTION + "Campaign",
            election_pb2.CampaignRequest(name=key + b"/camp", lease=A_LEASE),
        )
        yield ELECTION + "Leader", election_pb2.LeaderRequest(name=key + b"/none")
        yield ELECTION + "Observe", election_pb2.LeaderRequest(name=key + b"/led")
        leader = election_pb2.LeaderKey(name=key, key=key + b"/nosuch", rev=3, lease=A_LEASE)
        yield ELECTION + "Proclaim", election_pb2.ProclaimRequest(leader=leader)
        yield ELECTION + "Resign", election_pb2.ResignRequest(leader=leader)
    yield AUTH + "AuthEnable", rpc_pb2.AuthEnableRequest()
    yield AUTH + "AuthStatus", rpc_pb2.AuthStatusRequest()
    yield AUTH + "UserAdd", rpc_pb2.AuthUserAddRequest(name="alice", password="x")
    yield AUTH + "UserDelete", rpc_pb2.AuthUserDeleteRequest(name="nosuch")
    yield AUTH + "UserChangePassword", rpc_pb2.AuthUserChangePasswordRequest(name="nosuch")
    yield AUTH + "UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="alice", role="r")
    yield AUTH + "UserRevokeRole", rpc_pb2.AuthUserRevokeRoleRequest(name="alice", role="x")
    yield AUTH + "UserList", rpc_pb2.AuthUserListRequest()
    yield AUTH + "RoleAdd", rpc_pb2.AuthRoleAddRequest(name="r")
    yield AUTH + "RoleDelete", rpc_pb2.AuthRoleDeleteRequest(role="nosuch")
    yield AUTH + "RoleList", rpc_pb2.AuthRoleListRequest()
    yield AUTH + "RoleGrantPermission", rpc_pb2.AuthRoleGrantPermissionRequest(name="r")
    yield AUTH + "RoleRevokePermission", rpc_pb2.AuthRoleRevokePermissionRequest(role="r")
    for name in ("alice", "root", "nosuch"):
        yield AUTH + "UserGet", rpc_pb2.AuthUserGetRequest(name=name)
        yield AUTH + "Authenticate", rpc_pb2.AuthenticateRequest(name=name, password="wrong")
    for name in ("r", "root", "nosuch"):
        yield AUTH + "RoleGet", rpc_pb2.AuthRoleGetRequest(role=name)


def _watch(key: bytes, end: bytes) -> rpc_pb2.WatchRequest:
    return rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(**_key(key, end)))


def outcome(channel: grpc.Channel, case: Case, token: str | None) -> str:
    """ok, the refusal, or what a watch says; of a stream the first message counts."""
    method, request = case
    metadata = [] if token is None else [("token", token)]
    data = request.SerializeToString()
    try:
        if method.endswith(("/Watch", "/LeaseKeepAlive")):
            call = channel.stream_stream(method)(
                iter([data]), timeout=CALL_TIMEOUT_S, metadata=metadata
            )
            return _first(method, next(call))
        if method.endswith(("/Snapshot", "/Observe")):
            call = channel.unary_stream(method)(data, timeout=CALL_TIMEOUT_S, metadata=metadata)
            next(call)
            call.cancel()
        else:
            channel.unary_unary(method)(data, timeout=CALL_TIMEOUT_S, metadata=metadata)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    except StopIteration:
        return "ended"
    return "ok"


def _first(method: str, response: bytes) -> str:
    if method.endswith("/LeaseKeepAlive"):
        return "ok" if rpc_pb2.LeaseKeepAliveResponse.FromString(response).TTL else "no lease"
    created = rpc_pb2.WatchResponse.FromString(response)
    return f"canceled: {created.cancel_reason}" if created.canceled else "ok"
