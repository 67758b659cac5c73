"""Lease: grant and revoke through the log; renewals, time to live and the list without it.

Only the leader knows deadlines. Renewals of one stream are answered in order: while one waits
(for a revocation, a checkpoint or apply), the stream's further requests are left with the client.

Source: etcd `server/etcdserver/api/v3rpc/lease.go`, `server/etcdserver/v3_server.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Final

from keyraft.auth import Identity
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import Router, ServerStream, StreamHandler, UnaryCall
from keyraft.lease import LIST_SLICE
from keyraft.mvcc import cost
from keyraft.mvcc.wire import field, varint
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from keyraft.service.guard import Guard
from keyraft.service.slicing import in_slices

KNOWN_RENEWALS_MAX: Final = 131_072  # requests remembered, about 200 bytes each
_RENEWAL_BYTES_MAX: Final = 11
LEASE_ID_MASK: Final = (1 << 63) - 1  # ids that the server picks are positive
NOT_PRIMARY: Final = "not a primary lessor"


class _Renewal:
    """What the answers to one LeaseKeepAliveRequest have in common."""

    __slots__ = ("field", "lease_id", "tail", "ttl_s")

    def __init__(self, lease_id: int) -> None:
        self.lease_id = lease_id
        self.field = b"\x10" + varint(lease_id)  # the answer's ID
        self.ttl_s = 0
        self.tail = self.field  # ID and, unless it is 0, the TTL

    def renewed(self, ttl_s: int) -> bytes:
        """The answer behind its header, kept for the next time."""
        self.ttl_s = ttl_s
        self.tail = self.field + b"\x18" + varint(ttl_s)
        return self.tail


class LeaseService:
    """Registered on a router; one per member."""

    def __init__(self, member: Member, guard: Guard) -> None:
        self.member = member
        self.guard = guard
        # Renewals come again and again: their bytes -> what does not change in the answer.
        self.known: dict[bytes, _Renewal] = {}

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.unary("/etcdserverpb.Lease/LeaseGrant", self.grant)
        router.unary("/etcdserverpb.Lease/LeaseRevoke", self.revoke)
        router.unary("/etcdserverpb.Lease/LeaseTimeToLive", self.time_to_live)
        router.unary("/etcdserverpb.Lease/LeaseLeases", self.leases)
        router.stream("/etcdserverpb.Lease/LeaseKeepAlive", self.keep_alive)

    def grant(self, call: UnaryCall, request: bytes) -> bytes | None:
        """LeaseGrantRequest -> LeaseGrantResponse."""
        self.guard.admit(call)
        member = self.member
        if not member.quota.allows(cost.LEASE_OVERHEAD_BYTES):
            member.raise_no_space()
            raise errors.NoSpaceError
        message = parse(rpc_pb2.LeaseGrantRequest, request)
        if not message.ID:
            while not message.ID:
                message.ID = member.next_id() & LEASE_ID_MASK
            request = message.SerializeToString()
        self.guard.check_user(call)
        self.guard.propose(call, internal_request.KIND_LEASE_GRANT, request)
        return None

    def revoke(self, call: UnaryCall, request: bytes) -> bytes | None:
        """LeaseRevokeRequest -> LeaseRevokeResponse."""
        self.guard.admit(call)
        parse(rpc_pb2.LeaseRevokeRequest, request)
        self.guard.check_user(call)
        self.guard.propose(call, internal_request.KIND_LEASE_REVOKE, request)
        return None

    def time_to_live(self, call: UnaryCall, request: bytes) -> bytes | None:
        """LeaseTimeToLiveRequest -> LeaseTimeToLiveResponse; TTL -1 for a lease that is not."""
        self.guard.admit(call)
        message = parse(rpc_pb2.LeaseTimeToLiveRequest, request)
        self.guard.check_user(call)
        member = self.member
        users = member.auth.revision
        if message.keys and member.auth.enabled:
            identity = self.guard.caller(call)
            if not member.auth.is_admin(identity):

                def checked(_: None) -> None:
                    self._ask(call, message, users)

                work = member.auth.lease_read_steps(identity, (message.ID,))
                return in_slices(member, call, work, checked)
        self._ask(call, message, users)
        return None

    def _ask(self, call: UnaryCall, message: rpc_pb2.LeaseTimeToLiveRequest, users: int) -> None:
        """Asks whoever knows. `users`: the auth revision at which permissions were looked at."""
        member = self.member

        def told(answer: rpc_pb2.LeaseTimeToLiveResponse | EtcdError | RawError) -> None:
            self._tell(call, message, users, answer)

        if member.leader_calls is not None and not member.leadership.leading:
            member.leader_calls.time_to_live(message.ID, message.keys, told)
        else:
            member.leasing.remaining(message.ID, message.keys, told)
        return None

    def _tell(
        self,
        call: UnaryCall,
        message: rpc_pb2.LeaseTimeToLiveRequest,
        users: int,
        answer: rpc_pb2.LeaseTimeToLiveResponse | EtcdError | RawError,
    ) -> None:
        """Answers the call. `users`: the auth revision at which its permissions were looked at."""
        member = self.member
        if isinstance(answer, errors.LeaseNotFoundError):
            answer = rpc_pb2.LeaseTimeToLiveResponse(ID=message.ID, TTL=-1)
        elif isinstance(answer, errors.NotLeaderError):
            answer = RawError(2, NOT_PRIMARY)
        if message.keys and member.auth.enabled and users != member.auth.revision:
            answer = errors.AuthOldRevisionError()
        if isinstance(answer, EtcdError | RawError):
            call.fail(answer.code, answer.text)
            return
        answer.ClearField("header")
        call.respond(member.header(member.store.revision) + answer.SerializeToString())

    def leases(self, call: UnaryCall, request: bytes) -> bytes | None:
        """LeaseLeasesRequest -> LeaseLeasesResponse, of this member's own knowledge."""
        self.guard.admit(call)
        parse(rpc_pb2.LeaseLeasesRequest, request)
        member = self.member
        identity: Identity | None = None
        if member.auth.enabled:
            identity = self.guard.identify(call)
            if identity is None:
                raise errors.UserEmptyError
        users = member.auth.revision
        header = member.header(member.store.revision)

        def finish(body: bytes) -> bytes:
            if identity is not None and users != member.auth.revision:
                raise errors.AuthOldRevisionError
            return header + body

        return in_slices(member, call, self._list(identity), finish)

    def _list(self, identity: Identity | None) -> Generator[None, None, bytes]:
        """All leases; root sees them, and who may read every key on every one of them."""
        member = self.member
        ids = yield from member.lessor.ids_steps()
        if identity is not None and not member.auth.is_admin(identity):
            yield from member.auth.lease_read_steps(identity, ids)
        out: list[bytes] = []
        for first in range(0, len(ids), LIST_SLICE):
            if first:
                yield
            out += [
                field(b"\x12", b"\x08" + varint(lease_id))
                for lease_id in ids[first : first + LIST_SLICE]
            ]
        return b"".join(out)

    def renewal(self, request: bytes) -> _Renewal:
        """The lease that a LeaseKeepAliveRequest names, and the answer's ID field."""
        found = _Renewal(parse(rpc_pb2.LeaseKeepAliveRequest, request).ID)
        if self.member.lessor.exists(found.lease_id) and len(request) <= _RENEWAL_BYTES_MAX:
            if len(self.known) >= KNOWN_RENEWALS_MAX:
                self.known.clear()
            self.known[request] = found
        return found

    def keep_alive(self, stream: ServerStream) -> StreamHandler:
        """LeaseKeepAliveRequests -> LeaseKeepAliveResponses; raises what the guard refuses."""
        self.guard.admit_stream(stream)
        return KeepAliveStream(self, stream)


class KeepAliveStream:
    """One LeaseKeepAlive stream."""

    def __init__(self, service: LeaseService, stream: ServerStream) -> None:
        self._service = service
        self._member = service.member
        self._known = service.known
        self._stream = stream
        self._paused = False
        self._waiting = False
        self._half_closed = False
        self._over = False
        self._take_back: Callable[[], None] | None = None

    # --- the transport's side -----------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """Renews one lease."""
        if not self._renew_at_once((message,)):
            self._renew(message)

    def on_messages(self, messages: list[bytes]) -> int:
        """Renews what can be renewed at once and answers it in one piece; else one lease."""
        taken = self._renew_at_once(messages)
        if not taken:
            self._renew(messages[0])
            return 1
        return taken

    def _renew_at_once(self, messages: Sequence[bytes]) -> int:
        """The common case, as many in a row as are of it; how many."""
        member = self._member
        now_s = member.loop.time()
        if not member.leasing.may_renew_at_once(now_s):
            return 0
        auth = member.auth
        caller: Identity | None = None
        if auth.enabled:
            try:
                caller = self._service.guard.identify(self._stream)
            except EtcdError:
                return 0  # and then refused, or postponed
            if caller is None:
                return 0
        known = self._known
        renew_at_once = member.lessor.renew_at_once
        head = member.header(member.store.revision)
        heads: dict[int, bytes] = {}  # gRPC's five bytes and the header, by the size of the rest
        out: list[bytes] = []
        for message in messages:
            renewal = known.get(message)
            if renewal is None:
                break
            if caller is not None and not auth.may_revoke(caller, renewal.lease_id):
                break
            ttl_s = renew_at_once(renewal.lease_id, now_s)
            if not ttl_s:
                break
            tail = renewal.tail if ttl_s == renewal.ttl_s else renewal.renewed(ttl_s)
            size = len(tail)
            framed = heads.get(size)
            if framed is None:
                framed = heads[size] = b"\0" + (len(head) + size).to_bytes(4, "big") + head
            out.append(framed)
            out.append(tail)
        if out:
            self._stream.send_framed(b"".join(out), len(out) // 2)
            if self._stream.writable <= 0:
                self._hold()
        return len(out) // 2

    def _renew(self, message: bytes) -> None:
        try:
            renewal = self._service.renewal(message)
            lease_id, field = renewal.lease_id, renewal.field
            self._check(lease_id)
        except errors.PostponedError:
            raise
        except (EtcdError, RawError) as refusal:
            self._finish(refusal.code, refusal.text)
            return
        member = self._member
        # The header is from before the renewal: a client must not see a revision at which the
        # lease was revoked together with the news that it lives.
        head = member.header(member.store.revision) + field
        self._waiting = True
        self._take_back = member.leasing.renew(
            lease_id, lambda outcome: self._renewed(head, outcome)
        )
        self._hold()

    def on_half_close(self) -> None:
        """No more renewals; those that wait are answered first."""
        self._half_closed = True
        if not self._waiting:
            self._finish(0, "")

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._end()

    def on_writable(self) -> None:
        """The client has read."""
        self._release()

    # --- the work -----------------------------------------------------------------------------

    def _check(self, lease_id: int) -> None:
        auth = self._service.member.auth
        if auth.enabled:
            identity = self._service.guard.identify(self._stream)
            if identity is None:
                raise errors.UserEmptyError
            auth.check_lease_revoke(identity, lease_id)

    def _renewed(self, head: bytes, outcome: int | EtcdError | RawError) -> None:
        self._waiting = False
        self._take_back = None
        if self._over:
            return
        if isinstance(outcome, int):
            self._stream.send(head + b"\x18" + varint(outcome))
        elif isinstance(outcome, errors.LeaseNotFoundError):
            self._stream.send(head)
        elif isinstance(outcome, errors.NotLeaderError):
            self._finish(2, NOT_PRIMARY)
        else:
            self._finish(outcome.code, outcome.text)
        if self._half_closed:
            self._finish(0, "")
        self._release()

    def _hold(self) -> None:
        if not self._paused and not self._over and (self._waiting or self._stream.writable <= 0):
            self._paused = True
            self._stream.pause_reading()

    def _release(self) -> None:
        if self._paused and not self._over and not self._waiting and self._stream.writable > 0:
            self._paused = False
            self._stream.resume_reading()

    def _finish(self, code: int, text: str) -> None:
        if not self._over:
            self._end()
            self._stream.finish(code, text)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            if self._take_back is not None:
                self._take_back()
                self._take_back = None
            self._service.guard.left(self._stream)
