"""What its client has given up before it could be proposed is never carried out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.message import Message

from keyraft.grpc import status
from keyraft.proto import auth_pb2, election_pb2, lock_pb2, raft_internal_pb2, rpc_pb2
from keyraft.raft import Entry, EntryType
from keyraft.server import Member
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.twin import Twin
from sim.witnessed import Habits
from tests.service.calls import FakeCall, ask

pytestmark = pytest.mark.sim

OF_ITSELF = (
    internal_request.KIND_CLUSTER_MEMBER_ATTR_SET,
    internal_request.KIND_CLUSTER_VERSION_SET,
)
DEADLINE, CANCELLED = status.DEADLINE_EXCEEDED, status.CANCELLED

PUT = rpc_pb2.PutRequest(key=b"k", value=b"v")
WRITES: dict[str, Message] = {
    "KV/Put": PUT,
    "KV/DeleteRange": rpc_pb2.DeleteRangeRequest(key=b"k"),
    "KV/Txn": rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_put=PUT)]),
    "KV/Compact": rpc_pb2.CompactionRequest(revision=1),
    "KV/Compact physical": rpc_pb2.CompactionRequest(revision=1, physical=True),
    "Lease/LeaseGrant": rpc_pb2.LeaseGrantRequest(TTL=60),
    "Lease/LeaseRevoke": rpc_pb2.LeaseRevokeRequest(ID=7),
    "Maintenance/Alarm": rpc_pb2.AlarmRequest(),
    "Maintenance/Downgrade": rpc_pb2.DowngradeRequest(
        action=rpc_pb2.DowngradeRequest.ENABLE, version="3.6.0"
    ),
    "Cluster/MemberAdd": rpc_pb2.MemberAddRequest(peerURLs=["http://m9:2380"], isLearner=True),
    "Cluster/MemberRemove": rpc_pb2.MemberRemoveRequest(),  # of one that follows, too
    "Cluster/MemberUpdate": rpc_pb2.MemberUpdateRequest(peerURLs=["http://m9:2380"]),
    "Auth/UserAdd": rpc_pb2.AuthUserAddRequest(name="u", password="p"),
    "Auth/UserAdd without password": rpc_pb2.AuthUserAddRequest(
        name="v",
        options={"no_password": True},  # type: ignore[arg-type]  # protobuf takes it
    ),
    "Auth/UserDelete": rpc_pb2.AuthUserDeleteRequest(name="u"),
    "Auth/UserChangePassword": rpc_pb2.AuthUserChangePasswordRequest(name="root", password="q"),
    "Auth/UserGrantRole": rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"),
    "Auth/RoleAdd": rpc_pb2.AuthRoleAddRequest(name="r"),
    "Auth/RoleGrantPermission": rpc_pb2.AuthRoleGrantPermissionRequest(name="root"),
    "Auth/AuthEnable": rpc_pb2.AuthEnableRequest(),
    "Auth/AuthDisable": rpc_pb2.AuthDisableRequest(),
    "Auth/Authenticate": rpc_pb2.AuthenticateRequest(name="root", password="p"),
    "v3lockpb.Lock/Lock": lock_pb2.LockRequest(name=b"l"),
    "v3lockpb.Lock/Unlock": lock_pb2.UnlockRequest(key=b"l"),
    "v3electionpb.Election/Campaign": election_pb2.CampaignRequest(name=b"e", value=b"v"),
    "v3electionpb.Election/Proclaim": election_pb2.ProclaimRequest(
        leader=election_pb2.LeaderKey(key=b"e/1"), value=b"v"
    ),
    "v3electionpb.Election/Resign": election_pb2.ResignRequest(
        leader=election_pb2.LeaderKey(key=b"e/1")
    ),
}


class Blind(Twin):
    """The usual one knows no more requests than the usual clients make."""

    def apply(self, data: bytes) -> None:
        """Nothing is compared."""


class Cut:
    """A member that was cut off until it knew of no leader, and everything that is committed."""

    def __init__(self, users: bool = False) -> None:
        self.cluster = cluster = SimCluster(3, 1, lambda _: Habits(strict_reconfig=False))
        assert cluster.run_until(cluster.agreed)
        self.entries: list[Entry] = []
        cluster.run(6.0)
        self.follower = next(
            node for node in cluster.nodes.values() if node is not cluster.leader()
        )
        self.third = next(
            node.id
            for node in cluster.nodes.values()
            if node not in (cluster.leader(), self.follower)
        )
        cluster.witness.twin = Blind()
        self._prepare(users)
        cluster.network.partition(
            [[self.follower.id], [n for n in cluster.nodes if n != self.follower.id]]
        )
        assert cluster.run_until(lambda: not self.member.leadership.leader)
        honest = cluster.witness.applies

        def applies(member_id: int, entry: Entry) -> None:
            honest(member_id, entry)
            if member_id == self.follower.id:
                self.entries.append(entry)

        cluster.witness.applies = applies  # type: ignore[method-assign]  # looks on

    @property
    def member(self) -> Member:
        assert self.follower.member is not None
        return self.follower.member

    def _prepare(self, users: bool) -> None:
        """A user with a password, who is asked for with `users` only."""
        for path, request in (
            ("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="root")),
            ("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="root", password="p")),
            ("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")),
            ("Auth/AuthEnable", rpc_pb2.AuthEnableRequest()),
        )[: 4 if users else 3]:
            call = self.ask(path, request)
            assert self.cluster.run_until(lambda call=call: call.answer is not None)  # type: ignore[misc]  # mypy sees no default
            assert isinstance(call.answer, bytes), call.answer

    def ask(self, name: str, request: Message) -> FakeCall:
        service = name.split()[0]
        path = f"/{service}" if service.startswith("v3") else f"/etcdserverpb.{service}"
        route = self.follower.router.find(path.encode())
        assert route is not None and route.handle is not None, path
        if isinstance(request, rpc_pb2.MemberRemoveRequest | rpc_pb2.MemberUpdateRequest):
            request.ID = self.third
        return ask(route.handle, request.SerializeToString())  # type: ignore[arg-type]  # a fake is a call

    def give_up(self, call: FakeCall, code: int) -> None:
        """As the transport tells a handler that its client has gone."""
        call.cancelled = True
        if call.on_cancel is not None:
            call.on_cancel(call, code)

    def proposed(self) -> Iterator[object]:
        """What clients' requests were carried out since, once all is whole again."""
        self.cluster.network.heal()
        assert self.cluster.run_until(self.cluster.agreed)
        self.cluster.run(12.0)
        for entry in self.entries:
            if entry.type != EntryType.NORMAL:
                yield entry
            elif entry.data and internal_request.parse(entry.data).kind not in OF_ITSELF:
                yield raft_internal_pb2.InternalRaftRequest.FromString(entry.data)


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("code", [DEADLINE, CANCELLED])
def test_what_a_leaderless_member_was_asked_in_vain_is_never_proposed(name: str, code: int) -> None:
    cut = Cut(users="Authenticate" in name)
    call = cut.ask(name, WRITES[name])
    assert call.answer is None, "it waits for a leader"
    cut.cluster.run(0.2 if code == DEADLINE else 0.0)  # when passwords are hashed, or before
    cut.give_up(call, code)
    assert list(cut.proposed()) == []
    assert len(cut.member.waiting) == 0 and cut.member.raft.queued == 0


@pytest.mark.parametrize("name", WRITES)
def test_what_is_still_waited_for_is_proposed_when_there_is_a_leader(name: str) -> None:
    cut = Cut(users="Authenticate" in name)
    call = cut.ask(name, WRITES[name])
    cut.cluster.run(0.2)
    assert call.answer is None
    assert len(list(cut.proposed())) >= 1, call.answer


def test_a_grant_that_is_two_proposals_is_withdrawn_whole() -> None:
    cut = Cut()
    cut.cluster.network.heal()
    assert cut.cluster.run_until(cut.cluster.agreed)

    def granted(range_end: bytes) -> FakeCall:
        perm = auth_pb2.Permission(
            permType=auth_pb2.Permission.READWRITE, key=b"a", range_end=range_end
        )
        request = rpc_pb2.AuthRoleGrantPermissionRequest(name="root", perm=perm)
        return cut.ask("Auth/RoleGrantPermission", request)

    for range_end in (b"c", b"b"):  # granted again, the second is revoked first
        call = granted(range_end)
        assert cut.cluster.run_until(lambda call=call: call.answer is not None)  # type: ignore[misc]  # mypy sees no default
    cut.entries.clear()
    held: list[object] = []
    cut.member.read_index = held.append  # type: ignore[assignment, method-assign]  # a quorum that answers later
    call = granted(b"b")
    others = [ident for ident in cut.cluster.nodes if ident != cut.follower.id]
    cut.cluster.network.partition([[cut.follower.id], others])
    assert cut.cluster.run_until(lambda: not cut.member.leadership.leader)
    (ready,) = held
    assert callable(ready)
    ready(None)
    assert cut.member.raft.queued == 2
    cut.give_up(call, DEADLINE)
    assert cut.member.raft.queued == 0
    assert list(cut.proposed()) == []


def test_a_deadline_of_what_was_proposed_is_told_by_a_code_that_nobody_repeats() -> None:
    cluster = SimCluster(3, 1)
    assert cluster.run_until(cluster.agreed)
    cluster.run(6.0)
    leader = cluster.leader()
    assert leader is not None and leader.member is not None
    route = leader.router.find(b"/etcdserverpb.KV/Put")
    assert route is not None and route.handle is not None
    cluster.network.partition(
        [[leader.id], [ident for ident in cluster.nodes if ident != leader.id]]
    )
    call = ask(route.handle, PUT.SerializeToString())  # type: ignore[arg-type]  # a fake is a call
    cluster.run(0.1)
    failed = leader.member.counters.proposals_failed
    call.cancelled = True
    assert call.on_cancel is not None
    call.on_cancel(call, DEADLINE)
    assert call.answer is not None and call.answer[0] == status.UNAVAILABLE
    assert str(call.answer[1]).startswith("etcdserver: request timed out")
    assert leader.member.counters.proposals_failed == failed + 1
    assert len(leader.member.waiting) == 0
