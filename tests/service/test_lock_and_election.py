"""Lock and Election carried out by a member: whose lease ended while it waited, and late cleaning."""

from __future__ import annotations

import pytest

from keyraft.grpc import Router
from keyraft.proto import election_pb2, lock_pb2, rpc_pb2
from keyraft.server.apply import internal_request
from tests.server.harness import OneMember
from tests.service.calls import FakeCall, ask
from tests.service.served import served

EXPIRED = "mutex: session is expired"
NOT_LEADER = "election: not leader"


class Service:
    """A member, the two services and three leases."""

    def __init__(self) -> None:
        self.one = OneMember()
        self.one.run(2.0)
        self.router = Router()
        services = served(self.one.member)
        services.lock.register(self.router)
        services.election.register(self.router)
        for lease_id in (1, 2, 3):
            self.propose(
                internal_request.KIND_LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=600)
            )

    def propose(self, kind: int, request: object) -> None:
        self.one.propose(kind, request.SerializeToString())  # type: ignore[attr-defined]
        self.one.run(0.1)

    def revoke(self, lease_id: int) -> None:
        self.propose(internal_request.KIND_LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=lease_id))

    def delete(self, key: bytes) -> None:
        self.propose(internal_request.KIND_DELETE_RANGE, rpc_pb2.DeleteRangeRequest(key=key))

    def put(self, key: bytes, lease_id: int) -> None:
        self.propose(internal_request.KIND_PUT, rpc_pb2.PutRequest(key=key, lease=lease_id))

    def first(self, kind: str, lease_id: int) -> FakeCall:
        """Asks to be first, and lets it wait."""
        path = {"lock": "/v3lockpb.Lock/Lock", "election": "/v3electionpb.Election/Campaign"}[kind]
        route = self.router.find(path.encode())
        assert route is not None and route.handle is not None
        message = (
            lock_pb2.LockRequest(name=b"x", lease=lease_id)
            if kind == "lock"
            else election_pb2.CampaignRequest(name=b"x", lease=lease_id, value=b"v")
        )
        call = ask(route.handle, message.SerializeToString())
        self.one.run(0.1)
        return call

    def key(self, lease_id: int) -> rpc_pb2.RangeResponse:
        request = rpc_pb2.RangeRequest(key=b"x/%x" % lease_id).SerializeToString()
        return rpc_pb2.RangeResponse.FromString(self.one.member.store.range(request))


@pytest.mark.parametrize(("kind", "text"), [("lock", EXPIRED), ("election", NOT_LEADER)])
def test_who_lost_its_lease_while_it_waited_is_not_first(kind: str, text: str) -> None:
    service = Service()
    assert isinstance(service.first(kind, 1).answer, bytes)
    waiting, behind = service.first(kind, 2), service.first(kind, 3)
    assert waiting.answer is None and behind.answer is None
    service.revoke(2)
    service.revoke(1)
    assert waiting.answer == (2, text)
    assert isinstance(behind.answer, bytes)


@pytest.mark.parametrize(("kind", "text"), [("lock", EXPIRED), ("election", NOT_LEADER)])
def test_a_later_key_of_the_same_lease_is_not_believed(kind: str, text: str) -> None:
    service = Service()
    service.first(kind, 1)
    waiting = service.first(kind, 2)
    service.delete(b"x/2")
    service.put(b"x/2", 2)
    service.revoke(1)
    assert waiting.answer == (2, text)
    assert service.key(2).kvs, "it is somebody's, perhaps"


@pytest.mark.parametrize("kind", ["lock", "election"])
def test_who_gives_up_deletes_its_own_key_and_no_later_one(kind: str) -> None:
    service = Service()
    service.first(kind, 1)
    for replaced in (False, True):
        waiting = service.first(kind, 2)
        if replaced:
            service.delete(b"x/2")
            service.put(b"x/2", 2)
        assert waiting.on_cancel is not None
        waiting.on_cancel(waiting, 1)
        service.one.run(0.1)
        assert bool(service.key(2).kvs) == replaced


@pytest.mark.parametrize("kind", ["lock", "election"])
def test_who_gives_up_before_its_first_answer_leaves_no_key(kind: str) -> None:
    """The client goes while the transaction that makes its key is on its way through the log."""
    service = Service()
    service.first(kind, 1)
    run, service.one.run = service.one.run, lambda seconds=1.0: None  # type: ignore[method-assign]
    waiting = service.first(kind, 2)
    service.one.run = run  # type: ignore[method-assign]
    service.one.run(0.0)  # it is Raft's now
    assert waiting.answer is None and waiting.on_cancel is not None
    waiting.on_cancel(waiting, 1)
    service.one.run(0.5)
    assert waiting.answer == (1, "context canceled")
    assert not service.key(2).kvs
