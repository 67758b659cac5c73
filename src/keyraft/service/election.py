"""Election: campaign, proclaim, observe, resign. The oldest key under `name/` is the leader's.

Source: etcd `client/v3/concurrency/election.go`, `api/v3election/election.go`.
"""

from __future__ import annotations

from typing import Final

from keyraft.base import codes
from keyraft.base.errors import EtcdError, PostponedError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import SERVER_STREAM, Router, ServerStream, StreamHandler, UnaryCall, status
from keyraft.proto import election_pb2, mvcc_pb2, rpc_pb2
from keyraft.service.lock import start
from keyraft.service.recipe import (
    Driver,
    Gone,
    LocalWatch,
    Means,
    Recipe,
    Resume,
    delete_created,
    expect,
    first_created,
    next_response,
    prefix_end,
    range_,
    session,
    still_there,
    txn,
    wait_deletes,
    with_header,
)

NO_LEADER: Final = "election: no leader"
NOT_LEADER: Final = "election: not leader"
NO_LEADER_FIELD: Final = '"leader" field must be provided'


class ElectionService:
    """Registered on a router."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._guard = means.guard

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.unary("/v3electionpb.Election/Campaign", self.campaign)
        router.unary("/v3electionpb.Election/Proclaim", self.proclaim)
        router.unary("/v3electionpb.Election/Leader", self.leader)
        router.unary("/v3electionpb.Election/Resign", self.resign)
        router.stream("/v3electionpb.Election/Observe", self.observe, kind=SERVER_STREAM)

    def _driver(self, call: UnaryCall) -> Driver:
        self._guard.admit(call)
        return Driver(self._means, call)

    def campaign(self, call: UnaryCall, request: bytes) -> bytes | None:
        """CampaignRequest -> CampaignResponse, once elected."""
        message = parse(election_pb2.CampaignRequest, request)
        driver = self._driver(call)
        start(driver, _campaign(driver, message), call)
        return None

    def proclaim(self, call: UnaryCall, request: bytes) -> bytes | None:
        """ProclaimRequest -> ProclaimResponse: the leader's new value."""
        message = parse(election_pb2.ProclaimRequest, request)
        driver = self._driver(call)
        if not message.HasField("leader"):
            raise RawError(status.UNKNOWN, NO_LEADER_FIELD)
        start(driver, _proclaim(driver, message), call)
        return None

    def leader(self, call: UnaryCall, request: bytes) -> bytes | None:
        """LeaderRequest -> LeaderResponse."""
        message = parse(election_pb2.LeaderRequest, request)
        driver = self._driver(call)
        start(driver, _leader(message.name + b"/"), call)
        return None

    def resign(self, call: UnaryCall, request: bytes) -> bytes | None:
        """ResignRequest -> ResignResponse; also when the key is not the leader's any more."""
        message = parse(election_pb2.ResignRequest, request)
        driver = self._driver(call)
        if not message.HasField("leader"):
            raise RawError(status.UNKNOWN, NO_LEADER_FIELD)
        start(driver, _resign(driver, message.leader), call)
        return None

    def observe(self, stream: ServerStream) -> StreamHandler:
        """LeaderRequest -> a LeaderResponse for each leader and each of its values."""
        self._guard.admit_stream(stream)
        return _Observer(self._means, stream)


class _Observer:
    """One Observe call."""

    def __init__(self, means: Means, stream: ServerStream) -> None:
        self._means = means
        self._guard = means.guard
        self._stream = stream
        self._driver: Driver | None = None
        self._room: Resume | None = None
        self._over = False

    def on_message(self, message: bytes) -> None:
        """The one request."""
        try:
            request = parse(election_pb2.LeaderRequest, message)
            driver = self._driver = Driver(self._means, self._stream)
        except PostponedError:
            raise
        except (EtcdError, RawError) as refusal:
            self._done(RawError(refusal.code, refusal.text))
            return
        driver.run(_observe(driver, request.name + b"/", self), self._done)

    def on_half_close(self) -> None:
        """Expected."""

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._over = True
        self._guard.left(self._stream)
        if self._driver is not None:
            self._driver.cancel(code)
        self.on_writable()

    def on_writable(self) -> None:
        """The client has read."""
        if self._room is not None:
            room, self._room = self._room, None
            room(None)

    def wait_for_room(self, driver: Driver, resume: Resume) -> None:
        """The operation that waits until the stream takes another message."""
        if self._stream.writable > 0 or self._over:
            resume(None)
        else:
            self._room = resume

    def tell(self, header: rpc_pb2.ResponseHeader, kv: mvcc_pb2.KeyValue) -> None:
        """Sends who leads."""
        self._stream.send(with_header(election_pb2.LeaderResponse(kv=kv), header))

    def _done(self, value: RawError | None) -> None:
        """As in the original, an observation that fails ends without an error."""
        if not self._over:
            self._over = True
            self._guard.left(self._stream)
            self._stream.finish(codes.OK, "")


def _campaign(driver: Driver, request: election_pb2.CampaignRequest) -> Recipe[bytes]:
    lease_id = yield from session(request.lease)
    prefix = request.name + b"/"
    key = prefix + f"{lease_id:x}".encode()
    stand = rpc_pb2.TxnRequest()
    stand.compare.add(target=rpc_pb2.Compare.CREATE, key=key, create_revision=0)
    put = rpc_pb2.PutRequest(key=key, value=request.value, lease=lease_id)
    stand.success.add(request_put=put)
    stand.failure.add(request_range=rpc_pb2.RangeRequest(key=key))
    stood = expect((yield txn(stand)), rpc_pb2.TxnResponse)
    leader = election_pb2.LeaderKey(
        name=request.name, key=key, rev=stood.header.revision, lease=lease_id
    )
    try:
        if not stood.succeeded:
            found = stood.responses[0].response_range.kvs[0]
            leader.rev = found.create_revision
            if found.value != request.value:
                try:
                    yield from _put_value(leader, request.value)
                except (EtcdError, RawError):
                    yield delete_created(leader.key, leader.rev)
                    raise
        yield from wait_deletes(driver, prefix, leader.rev - 1)
        # DEVIATION: the original does not check whether the candidate's key survived the wait.
        if (yield from still_there(key, leader.rev)) is None:
            raise RawError(status.UNKNOWN, NOT_LEADER)
    except Gone:
        yield delete_created(leader.key, leader.rev)
        raise
    return with_header(election_pb2.CampaignResponse(leader=leader), stood.header)


def _check(leader: election_pb2.LeaderKey) -> None:
    if not leader.key:
        raise RawError(status.UNKNOWN, "etcdserver: key is not provided")


def _put_value(leader: election_pb2.LeaderKey, value: bytes) -> Recipe[rpc_pb2.ResponseHeader]:
    _check(leader)
    request = rpc_pb2.TxnRequest()
    request.compare.add(target=rpc_pb2.Compare.CREATE, key=leader.key, create_revision=leader.rev)
    put = rpc_pb2.PutRequest(key=leader.key, value=value, lease=leader.lease)
    request.success.add(request_put=put)
    answer = expect((yield txn(request)), rpc_pb2.TxnResponse)
    if not answer.succeeded:
        raise RawError(status.UNKNOWN, NOT_LEADER)
    return answer.header


def _proclaim(driver: Driver, request: election_pb2.ProclaimRequest) -> Recipe[bytes]:
    leader = request.leader
    leader.lease = yield from session(leader.lease)
    header = yield from _put_value(leader, request.value)
    return with_header(election_pb2.ProclaimResponse(), header)


def _resign(driver: Driver, leader: election_pb2.LeaderKey) -> Recipe[bytes]:
    yield from session(leader.lease)
    _check(leader)
    answer = expect((yield delete_created(leader.key, leader.rev)), rpc_pb2.TxnResponse)
    return with_header(election_pb2.ResignResponse(), answer.header)


def _leader(prefix: bytes) -> Recipe[bytes]:
    answer = expect((yield range_(first_created(prefix))), rpc_pb2.RangeResponse)
    if not answer.kvs:
        raise RawError(status.UNKNOWN, NO_LEADER)
    return with_header(election_pb2.LeaderResponse(kv=answer.kvs[0]), answer.header)


def _observe(driver: Driver, prefix: bytes, observer: _Observer) -> Recipe[None]:
    """Every leader in turn, the current one first."""
    while True:
        answer = expect((yield range_(first_created(prefix))), rpc_pb2.RangeResponse)
        header = answer.header
        if answer.kvs:
            kv = answer.kvs[0]
        else:
            kv = yield from _first_put(driver, prefix, header)
        observer.tell(header, kv)
        yield from _follow(driver, kv.key, header.revision + 1, observer)


def _first_put(
    driver: Driver, prefix: bytes, header: rpc_pb2.ResponseHeader
) -> Recipe[mvcc_pb2.KeyValue]:
    """Waits for a first candidate; sets the header's revision to that of its put."""
    end = prefix_end(prefix)
    watch = LocalWatch(driver, prefix, end, header.revision)
    try:
        while True:
            response = yield from next_response(watch)
            for event in response.events:
                if event.type == mvcc_pb2.Event.PUT:
                    header.revision = event.kv.mod_revision
                    return event.kv
    finally:
        watch.close()


def _follow(driver: Driver, key: bytes, revision: int, observer: _Observer) -> Recipe[None]:
    """Sends a leader's values until its key is deleted."""
    watch = LocalWatch(driver, key, b"", revision)
    try:
        while True:
            response = yield from next_response(watch)
            for event in response.events:
                if event.type == mvcc_pb2.Event.DELETE:
                    return
                yield observer.wait_for_room
                observer.tell(response.header, event.kv)
    finally:
        watch.close()
