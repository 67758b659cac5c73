"""The leases: grant and revoke through the log; renewals, time to live and the list without it.

Only the leader knows deadlines, so a follower asks the leader (`leader_calls`).

Source: etcd `server/etcdserver/api/v3rpc/lease.go`, `server/etcdserver/v3_server.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from keyraft.auth import NOBODY, Identity
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.base.waiters import Waiter
from keyraft.grpc import ServerStream
from keyraft.lease import LIST_SLICE
from keyraft.mvcc.wire import field, varint
from keyraft.proto import rpc_pb2
from keyraft.server.apply import internal_request
from keyraft.server.engine.slicing import in_slices

if TYPE_CHECKING:
    from keyraft.server.engine.keys import Who
    from keyraft.server.member import Member

KNOWN_RENEWALS_MAX: Final = 131_072  # requests remembered, about 200 bytes each
_RENEWAL_BYTES_MAX: Final = 11
LEASE_ID_MASK: Final = (1 << 63) - 1  # ids that the server picks are positive
NOT_PRIMARY: Final = "not a primary lessor"
_UNKNOWN: Final = 2

Renewed = Callable[[bytes | EtcdError | RawError], None]
Remaining = rpc_pb2.LeaseTimeToLiveResponse | EtcdError | RawError


class _Renewal:
    """The parts that all answers to one LeaseKeepAliveRequest share."""

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


class RaftLeases:
    """`service.ports.Leases` of one member."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._auth = member.auth
        # Renewals repeat. Request bytes -> the constant parts of the answer.
        self._known: dict[bytes, _Renewal] = {}
        self.space = member.quota
        self.revoke = partial(member.propose_for, internal_request.KIND_LEASE_REVOKE)
        self.withdraw = member.withdraw

    def grant(
        self, waiter: Waiter, request: rpc_pb2.LeaseGrantRequest, caller: Identity | None = None
    ) -> None:
        """See the port."""
        member = self._member
        while not request.ID:
            request.ID = member.next_id() & LEASE_ID_MASK
        kind = internal_request.KIND_LEASE_GRANT
        member.propose_for(kind, waiter, request.SerializeToString(), caller)

    # --- what is known of leases --------------------------------------------------------------

    def time_to_live(
        self, waiter: Waiter, request: rpc_pb2.LeaseTimeToLiveRequest, who: Who | None = None
    ) -> bytes | None:
        """See the port. A caller that asks for the keys must be allowed to read all of them."""
        auth = self._auth
        users = auth.revision
        if request.keys and auth.enabled:
            identity = (who() if who is not None else None) or NOBODY
            if not auth.is_admin(identity):

                def checked(_: None) -> None:
                    self._ask(waiter, request, users)

                work = auth.lease_read_steps(identity, (request.ID,))
                return in_slices(self._member, waiter, work, checked)
        self._ask(waiter, request, users)
        return None

    def _ask(self, waiter: Waiter, request: rpc_pb2.LeaseTimeToLiveRequest, users: int) -> None:
        """Asks the lessor that knows.

        `users`: the auth revision at which permissions were checked.
        """
        member = self._member

        def told(answer: Remaining) -> None:
            self._tell(waiter, request, users, answer)

        if member.leader_calls is not None and not member.leadership.leading:
            member.leader_calls.time_to_live(request.ID, request.keys, told)
        else:
            member.leasing.remaining(request.ID, request.keys, told)

    def _tell(
        self,
        waiter: Waiter,
        request: rpc_pb2.LeaseTimeToLiveRequest,
        users: int,
        answer: Remaining,
    ) -> None:
        auth = self._auth
        if isinstance(answer, errors.LeaseNotFoundError):
            answer = rpc_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=-1)
        elif isinstance(answer, errors.NotLeaderError):
            answer = RawError(_UNKNOWN, NOT_PRIMARY)
        if request.keys and auth.enabled and users != auth.revision:
            answer = errors.AuthOldRevisionError()
        if isinstance(answer, EtcdError | RawError):
            waiter.fail(answer.code, answer.text)
            return
        answer.ClearField("header")
        waiter.respond(self._header() + answer.SerializeToString())

    def list(self, waiter: Waiter, who: Who | None = None) -> bytes | None:
        """See the port: as this member knows them."""
        auth = self._auth
        identity: Identity | None = None
        if auth.enabled:
            identity = who() if who is not None else None
            if identity is None:
                raise errors.UserEmptyError
        users = auth.revision
        header = self._header()

        def finish(body: bytes) -> bytes:
            if identity is not None and users != auth.revision:
                raise errors.AuthOldRevisionError
            return header + body

        return in_slices(self._member, waiter, self._list(identity), finish)

    def _list(self, identity: Identity | None) -> Generator[None, None, bytes]:
        """All leases; allowed for root, and for users who may read every key of every lease."""
        ids = yield from self._member.lessor.ids_steps()
        if identity is not None and not self._auth.is_admin(identity):
            yield from self._auth.lease_read_steps(identity, ids)
        out: list[bytes] = []
        for first in range(0, len(ids), LIST_SLICE):
            if first:
                yield
            out += [
                field(b"\x12", b"\x08" + varint(lease_id))
                for lease_id in ids[first : first + LIST_SLICE]
            ]
        return b"".join(out)

    def _header(self) -> bytes:
        member = self._member
        return member.header(member.store.revision)

    # --- renewals -----------------------------------------------------------------------------

    def renew_at_once(
        self, stream: ServerStream, requests: Sequence[bytes], who: Who | None = None
    ) -> int:
        """See the port: for known, running leases without a checkpoint, on a sure leader."""
        member = self._member
        now_s = member.loop.time()
        if not member.leasing.may_renew_at_once(now_s):
            return 0
        auth = self._auth
        caller: Identity | None = None
        if auth.enabled:
            try:
                caller = who() if who is not None else None
            except EtcdError:
                return 0  # `renew` then refuses or postpones it
            if caller is None:
                return 0
        known = self._known
        renew_at_once = member.lessor.renew_at_once
        head = member.header(member.store.revision)
        heads: dict[int, bytes] = {}  # gRPC's five bytes and the header, by the size of the rest
        out: list[bytes] = []
        for request in requests:
            renewal = known.get(request)
            if renewal is None:
                break
            if caller is not None and not auth.may_renew(caller, renewal.lease_id):
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
            stream.send_framed(b"".join(out), len(out) // 2)
        return len(out) // 2

    def _renew_when_looked(
        self,
        request: bytes,
        done: Renewed,
        who: Who | None,
        identity: Identity,
        lease_id: int,
    ) -> Callable[[], None]:
        """As `renew`, once the keys of the lease have been looked at; returns what gives it up."""
        member = self._member
        given_up = False
        take_back: Callable[[], None] | None = None
        work = self._auth.lease_steps(identity, lease_id, True)

        def step() -> bool:
            nonlocal take_back
            if given_up or member.stopped:
                work.close()
                return True
            try:
                next(work)
                return False
            except (StopIteration, EtcdError):
                pass  # `renew` finds the same
            try:
                take_back = self.renew(request, done, who)
            except (EtcdError, RawError) as refusal:
                done(refusal)
            return True

        def give_up() -> None:
            nonlocal given_up
            given_up = True
            if take_back is not None:
                take_back()

        member.slices.add(step)
        return give_up

    def renew(
        self, request: bytes, done: Renewed, who: Who | None = None
    ) -> Callable[[], None] | None:
        """See the port."""
        renewal = self._renewal(request)
        lease_id = renewal.lease_id
        auth = self._auth
        if auth.enabled:
            identity = who() if who is not None else None
            if identity is None:
                raise errors.UserEmptyError
            if auth.must_look(identity, lease_id):
                return self._renew_when_looked(request, done, who, identity, lease_id)
            auth.check_renewal(identity, lease_id)
        # The header is from before the renewal. Otherwise a client could get the answer that the
        # lease lives with a revision at which it was revoked.
        head = self._header() + renewal.field

        def renewed(outcome: int | EtcdError | RawError) -> None:
            if isinstance(outcome, int):
                done(head + b"\x18" + varint(outcome))
            elif isinstance(outcome, errors.LeaseNotFoundError):
                done(head)
            elif isinstance(outcome, errors.NotLeaderError):
                done(RawError(_UNKNOWN, NOT_PRIMARY))
            else:
                done(outcome)

        return self._member.leasing.renew(lease_id, renewed)

    def _renewal(self, request: bytes) -> _Renewal:
        """The lease that a LeaseKeepAliveRequest names, and the answer's ID field."""
        found = _Renewal(parse(rpc_pb2.LeaseKeepAliveRequest, request).ID)
        if self._member.lessor.exists(found.lease_id) and len(request) <= _RENEWAL_BYTES_MAX:
            if len(self._known) >= KNOWN_RENEWALS_MAX:
                self._known.clear()
            self._known[request] = found
        return found
