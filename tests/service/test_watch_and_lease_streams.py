"""Watch and KeepAlive streams over a member in virtual time, with a transport made of lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from keyraft.base.errors import NoSpaceError
from keyraft.grpc import StreamHandler
from keyraft.grpc.route import BatchHandler
from keyraft.proto import rpc_pb2
from keyraft.server.apply import internal_request
from tests.server.harness import OneMember
from tests.service.served import served


class Transport:
    """The server's end of a stream or call, as a service sees it."""

    began_s = 0.0
    cancelled = False
    deadline_s: float | None = None
    peer = "127.0.0.1:1"
    common_name: str | None = None

    def __init__(self, room: int = 1_000) -> None:
        self.metadata: Mapping[bytes, bytes] = {}
        self.on_cancel = None
        self.room = room
        self.sent: list[bytes] = []
        self.ended: tuple[int, str] | None = None
        self.paused = False

    @property
    def writable(self) -> int:
        return self.room - len(self.sent)

    def send(self, message: bytes) -> None:
        assert self.ended is None, "sent after the end"
        self.sent.append(message)

    respond = send

    def send_framed(self, framed: bytes, count: int) -> None:
        while framed:
            assert framed[:1] == b"\0"
            stop = 5 + int.from_bytes(framed[1:5], "big")
            self.send(framed[5:stop])
            framed = framed[stop:]
            count -= 1
        assert count == 0

    def finish(self, code: int = 0, text: str = "") -> None:
        self.ended = (code, text)

    fail = finish

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def watched(self) -> list[rpc_pb2.WatchResponse]:
        """What was sent since the last look."""
        taken, self.sent = self.sent, []
        return [rpc_pb2.WatchResponse.FromString(message) for message in taken]

    def kept(self) -> list[tuple[int, int]]:
        """(lease, TTL) of the renewals answered since the last look."""
        taken, self.sent = self.sent, []
        answers = [rpc_pb2.LeaseKeepAliveResponse.FromString(message) for message in taken]
        assert all(answer.header.revision for answer in answers)
        return [(answer.ID, answer.TTL) for answer in answers]


class Services:
    """A leading member and its services."""

    def __init__(self) -> None:
        self.cluster = OneMember()
        self.cluster.run(2.0)
        member = self.cluster.member
        services = served(member)
        self.watch, self.lease = services.watch, services.lease

    def watching(self, room: int = 1_000) -> tuple[Transport, StreamHandler]:
        stream = Transport(room)
        return stream, self.watch.open(stream)

    def grant(self, lease_id: int, ttl_s: int) -> None:
        request = rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=ttl_s).SerializeToString()
        self.cluster.propose(internal_request.KIND_LEASE_GRANT, request)
        self.cluster.run(0.1)


def create(key: bytes, **fields: object) -> bytes:
    request = rpc_pb2.WatchCreateRequest(key=key, **fields)  # type: ignore[arg-type]
    return rpc_pb2.WatchRequest(create_request=request).SerializeToString()


def cancel(watch_id: int) -> bytes:
    request = rpc_pb2.WatchCancelRequest(watch_id=watch_id)
    return rpc_pb2.WatchRequest(cancel_request=request).SerializeToString()


def renewal(lease_id: int) -> bytes:
    return rpc_pb2.LeaseKeepAliveRequest(ID=lease_id).SerializeToString()


def test_a_watch_from_creation_to_cancellation():
    services = Services()
    stream, handler = services.watching()
    handler.on_message(create(b"k"))
    handler.on_message(rpc_pb2.WatchRequest().SerializeToString())  # nothing asked: passed over
    services.cluster.put(b"k", b"1")
    services.cluster.run(0.1)
    handler.on_message(cancel(0))
    services.cluster.put(b"k", b"2")
    services.cluster.run(0.1)
    created, event, canceled = stream.watched()
    assert created.created and canceled.canceled
    assert event.events[0].kv.value == b"1"
    handler.on_half_close()
    assert stream.ended is None  # the client may stop asking and still listen
    handler.on_cancel(1)
    assert services.cluster.member.watches.statistics()["streams"] == 0


def test_a_full_stream_is_not_read_until_it_has_room():
    services = Services()
    stream, handler = services.watching(room=2)
    handler.on_message(create(b"k"))
    assert not stream.paused
    handler.on_message(create(b"j"))
    assert stream.paused
    services.cluster.put(b"k", b"1")
    services.cluster.run(0.1)
    assert len(stream.watched()) == 2
    handler.on_writable()
    assert not stream.paused
    services.cluster.run(0.1)
    assert [len(response.events) for response in stream.watched()] == [1]


def test_bytes_that_are_no_message_end_the_stream():
    services = Services()
    stream, handler = services.watching()
    handler.on_message(create(b"k"))
    handler.on_message(b"\x0f\xff")
    assert stream.ended is not None
    assert stream.ended[0] == 13
    assert services.cluster.member.watches.statistics()["watchers"] == 0


@pytest.mark.slow
def test_progress_notifications_come_at_their_interval():
    services = Services()
    stream, handler = services.watching()
    handler.on_message(create(b"k", progress_notify=True))
    stream.watched()
    services.cluster.run(599.0)
    assert stream.watched() == []
    services.cluster.run(62.0)
    assert [response.watch_id for response in stream.watched()] == [0]
    handler.on_message(cancel(0))
    stream.watched()
    services.cluster.run(1400.0)
    assert stream.watched() == []


def test_renewals_are_answered_in_order_and_an_unknown_lease_has_no_time():
    services = Services()
    services.grant(5, 10)
    services.grant(-6, 20)
    stream = Transport()
    handler = cast("BatchHandler", services.lease.keep_alive(stream))
    for lease_id in (5, -6, 99, 5, 5):
        handler.on_message(renewal(lease_id))
    assert stream.kept() == [(5, 10), (-6, 20), (99, 0), (5, 10), (5, 10)]
    handler.on_half_close()
    assert stream.ended == (0, "")


def test_renewals_that_come_at_once_are_answered_as_one_by_one():
    services = Services()
    leases = [5, -6, 300, 70_000]
    for lease_id in leases:
        services.grant(lease_id, 10 + lease_id % 7)
    wanted = [(lease_id, 10 + lease_id % 7) for lease_id in leases]
    stream = Transport()
    handler = cast("BatchHandler", services.lease.keep_alive(stream))
    requests = [renewal(lease_id) for lease_id in [*leases, 99, *leases, 5]]
    for _ in range(2):  # the first time none is known
        rest, calls = list(requests), 0
        while rest:
            rest = rest[handler.on_messages(rest) :]
            calls += 1
        assert stream.kept() == [*wanted, (99, 0), *wanted, wanted[0]]
    assert calls == 3
    revoke = rpc_pb2.LeaseRevokeRequest(ID=5).SerializeToString()
    services.cluster.propose(internal_request.KIND_LEASE_REVOKE, revoke)
    services.cluster.run(0.1)
    assert handler.on_messages([renewal(5), renewal(5)]) == 1
    assert stream.kept() == [(5, 0)]
    services.grant(5, 40)
    assert handler.on_messages([renewal(5), renewal(5)]) == 2
    assert stream.kept() == [(5, 40), (5, 40)]


def test_a_full_stream_takes_no_more_renewals():
    services = Services()
    services.grant(5, 10)
    stream = Transport(room=3)
    handler = cast("BatchHandler", services.lease.keep_alive(stream))
    handler.on_message(renewal(5))
    assert handler.on_messages([renewal(5)] * 2) == 2
    assert stream.paused
    stream.sent.clear()
    handler.on_writable()
    assert not stream.paused


def test_a_renewal_that_waits_holds_the_stream_and_is_answered_before_its_end():
    services = Services()
    services.grant(5, 10)
    stream = Transport()
    handler = cast("BatchHandler", services.lease.keep_alive(stream))
    lessor = services.cluster.member.lessor
    while lessor.running(5, services.cluster.loop.time()):
        services.cluster.run(0.01)
    handler.on_message(renewal(5))
    assert stream.paused and stream.sent == []
    handler.on_half_close()
    assert stream.ended is None
    services.cluster.run(1.0)
    assert stream.kept() == [(5, 0)]
    assert stream.ended == (0, "")


def test_a_client_that_goes_while_its_renewal_waits_leaves_nothing_behind():
    services = Services()
    services.grant(5, 10)
    stream = Transport()
    handler = cast("BatchHandler", services.lease.keep_alive(stream))
    lessor = services.cluster.member.lessor
    while lessor.running(5, services.cluster.loop.time()):
        services.cluster.run(0.01)
    handler.on_message(renewal(5))
    assert lessor.statistics()["waiters"] == 1
    handler.on_cancel(1)
    assert lessor.statistics()["waiters"] == 0


def test_time_to_live_and_the_list():
    services = Services()
    services.grant(5, 100)
    services.grant(6, 50)
    request = rpc_pb2.PutRequest(key=b"k", value=b"v", lease=5).SerializeToString()
    services.cluster.propose(internal_request.KIND_PUT, request)
    services.cluster.run(0.5)

    def ask(lease_id: int, keys: bool) -> rpc_pb2.LeaseTimeToLiveResponse:
        message = rpc_pb2.LeaseTimeToLiveRequest(ID=lease_id, keys=keys).SerializeToString()
        call = Transport()
        # One that is not known is looked for behind a read index, and answered then.
        answer = services.lease.time_to_live(call, message) or call.sent[0]
        return rpc_pb2.LeaseTimeToLiveResponse.FromString(answer)

    first = ask(5, True)
    assert (first.TTL, first.grantedTTL, list(first.keys)) == (99, 100, [b"k"])
    assert list(ask(5, False).keys) == []
    unknown = ask(77, True)
    assert (unknown.TTL, unknown.grantedTTL, unknown.ID) == (-1, 0, 77)
    listed = services.lease.leases(Transport(), b"")
    assert listed is not None
    leases = rpc_pb2.LeaseLeasesResponse.FromString(listed).leases
    assert [lease.ID for lease in leases] == [6, 5]


def test_a_grant_without_an_id_gets_one_and_a_full_database_refuses():
    services = Services()
    call = Transport()
    request = rpc_pb2.LeaseGrantRequest(TTL=60).SerializeToString()
    assert services.lease.grant(call, request) is None
    services.cluster.run(0.1)
    granted = rpc_pb2.LeaseGrantResponse.FromString(call.sent[0])
    assert granted.ID > 0 and granted.TTL == 60
    quota = services.cluster.member.quota
    quota.bytes_max = 1
    with pytest.raises(NoSpaceError):
        services.lease.grant(Transport(), request)
    services.cluster.run(0.5)
    assert services.cluster.member.alarms.nospace  # raised through the log
