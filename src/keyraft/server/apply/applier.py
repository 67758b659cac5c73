"""What each request in the log does; the same on every member.

A handler takes the request's bytes and returns the whole response, or raises its refusal. The
checks have etcd's order: a CORRUPT alarm refuses all requests on keys; a NOSPACE alarm those that
make the database grow; then permissions. When the quota is used up the write is still carried out,
and only the answer is an error (etcd `server/etcdserver/apply`: corrupt, capped, auth, quota,
backend).

The hot path is a put that Keyraft has proposed. It is split by hand; its stamp leads to its waiter,
and the bytes behind the id in it to its proposer. No message object is made.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from keyraft.auth import Identity
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.base.waiters import Waiter
from keyraft.cluster import MembershipDataError
from keyraft.mvcc import cost, plain_put
from keyraft.proto import rpc_pb2
from keyraft.raft import Entry
from keyraft.server.apply import internal_request, v2_requests
from keyraft.server.apply.queue import Work
from keyraft.server.apply.request_tally import RequestTally
from keyraft.server.apply.user_requests import UserRequests
from keyraft.server.upkeep import alarms

if TYPE_CHECKING:
    from keyraft.server.member import Member

Steps = Generator[None, None, bytes]
"""A request that takes several steps; the value is the response."""

Handler = Callable[[bytes], "bytes | Steps"]

_NO_EFFECT = frozenset(
    (
        internal_request.KIND_RANGE,
        internal_request.KIND_AUTH_USER_GET,
        internal_request.KIND_AUTH_ROLE_GET,
        internal_request.KIND_AUTH_STATUS,
        internal_request.KIND_DOWNGRADE_VERSION_TEST,
    )
)
_CLUSTER = frozenset(
    (
        internal_request.KIND_CLUSTER_VERSION_SET,
        internal_request.KIND_CLUSTER_MEMBER_ATTR_SET,
        internal_request.KIND_DOWNGRADE_INFO_SET,
    )
)
_PUT = internal_request.KIND_PUT
_ID_LOW_END = internal_request.ID_LOW_END
_KINDS_LOW = 16  # kinds below this are in a list, not in a dictionary


class Applier:
    """Applies normal entries to one member's state. Owned by the member's loop."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._store = member.store
        self._auth = member.auth
        self._check_write = member.auth.check_write
        self._alarms = member.alarms
        self._users = UserRequests(member.auth, member.network, member.logger)
        self._proposers: dict[bytes, Identity] = {}
        self._waiting_pop = member.waiting.pop
        self._encode_header = member.headers.encode
        self._tally = tally = RequestTally(_KINDS_LOW, member.counters, member.loop)
        self.slice_done = tally.slice_done
        self._counts = tally.counts
        self._failures = tally.failures
        self._began_s = tally.began_s
        self._handlers: dict[int, Handler] = {
            internal_request.KIND_RANGE: self._range,
            internal_request.KIND_PUT: self._put,
            internal_request.KIND_DELETE_RANGE: self._delete_range,
            internal_request.KIND_TXN: self._txn,
            internal_request.KIND_COMPACTION: self._compact,
            internal_request.KIND_LEASE_GRANT: self._lease_grant,
            internal_request.KIND_LEASE_REVOKE: self._lease_revoke,
            internal_request.KIND_LEASE_CHECKPOINT: self._lease_checkpoint,
            internal_request.KIND_ALARM: self._alarm,
        }
        self._low: list[Handler | None] = [self._handlers.get(kind) for kind in range(_KINDS_LOW)]

    # --- entries ------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> Work | None:
        """Applies one entry and answers its waiter, if it has one here.

        Returns the rest of the work if there is more than a millisecond of it.
        """
        data = entry.data
        if entry.type or not data:
            self._member.apply_other(entry)
            return None
        parts = internal_request.split(data)
        if parts is None:
            return self._apply_slowly(entry)
        kind, request, stamp = parts
        handler = self._low[kind] if kind < _KINDS_LOW else None
        identity = None
        if self._auth.enabled:
            # `proposer_part` without its call: of an entry in our layout, as most are.
            identity = self._proposers.get(stamp[_ID_LOW_END:])
            if identity is None or stamp[3] != 8 or not stamp[4] & stamp[5] & 0x80:
                identity = self._identity(stamp)
                if identity is None:
                    handler = None
        if handler is None:
            return self._apply_slowly(entry)
        self._counts[kind] += 1
        waiter = self._waiting_pop(stamp, None)
        try:
            if identity is None:
                result = handler(request)
            elif kind == _PUT and not self._alarms.any and (end := plain_put(request)):
                self._check_write(identity, request[2:end])  # as `_check`, without its call
                result = self._put(request, end)
            else:
                looking = self._check(kind, request, identity)
                if looking is not None:
                    steps = self._when_looked(looking, kind, request, identity)
                    return self._begin(steps, kind, stamp, waiter)
                result = handler(request)
            if type(result) is not bytes:  # without a call
                return self._begin(cast("Steps", result), kind, stamp, waiter)
        except (EtcdError, RawError) as refusal:
            self._failures[kind] += 1
            if waiter is not None:
                self._tally.refuse(kind, waiter, refusal)
            return None
        if waiter is not None:
            self._began_s[kind].append(waiter.began_s)
            waiter.respond(result)
        return None

    def _begin(self, steps: Steps, kind: int, stamp: bytes, waiter: Waiter | None) -> Work | None:
        """Does the first step and returns the rest, if any.

        Raises the refusal of the first step.
        """
        try:
            next(steps)
        except StopIteration as end:
            if waiter is not None:
                self._tally.respond(kind, waiter, end.value)
            return None
        if waiter is not None:
            self._member.waiting.add(stamp, waiter)  # its time may run out meanwhile
        return self._go_on(steps, kind, stamp)

    def _go_on(self, steps: Steps, kind: int, stamp: bytes) -> Work:
        try:
            result = yield from steps
        except (EtcdError, RawError) as refusal:
            if kind < _KINDS_LOW:
                self._failures[kind] += 1
            waiter = self._waiting_pop(stamp, None)
            if waiter is not None:
                self._tally.refuse(kind, waiter, refusal)
            return
        waiter = self._waiting_pop(stamp, None)
        if waiter is not None:
            self._tally.respond(kind, waiter, result)

    def _apply_v2(self, data: bytes, request: bytes) -> None:
        """A request of the v2 API; Keyraft's own have a stamp behind them.

        Raises MalformedEntryError, MembershipDataError.
        """
        known = v2_requests.translate(request)
        stamp = b"" if request is data else internal_request.parse(data).stamp
        waiter = self._waiting_pop(stamp, None)
        if known is not None:
            self._member.membership.apply_request(*known)
        if waiter is not None:
            waiter.respond(b"")

    def _apply_slowly(self, entry: Entry) -> Work | None:
        """Applies an entry of any origin, or one with a user's name."""
        try:
            v2 = internal_request.is_v2(entry.data)
            if v2 is not None:
                self._apply_v2(entry.data, v2)
                return None
            parsed = internal_request.parse(entry.data)
        except (internal_request.MalformedEntryError, MembershipDataError) as error:
            self._pass_over(entry, error)
            return None
        waiter = self._waiting_pop(parsed.stamp, None)
        try:
            result = self._carry_out(parsed, entry.index, waiter is not None)
            if not isinstance(result, bytes):
                return self._begin(result, parsed.kind, parsed.stamp, waiter)
        except MembershipDataError as error:
            self._pass_over(entry, error)
            result = b""
        except (EtcdError, RawError) as refusal:
            if waiter is not None:
                self._tally.refuse(parsed.kind, waiter, refusal)
            return None
        if waiter is not None:
            self._tally.respond(parsed.kind, waiter, result)
        return None

    def _pass_over(self, entry: Entry, error: Exception) -> None:
        """No member can carry this entry out, so it has no effect on any.

        DEVIATION: etcd panics, again at every start. One entry of a foreign or faulty member would
        end the whole cluster.
        """
        self._member.logger.error(
            "passed over an entry that cannot be carried out",
            entry_index=entry.index,
            entry_term=entry.term,
            error=str(error),
        )

    def _carry_out(
        self, parsed: internal_request.Parsed, index: int, is_awaited: bool
    ) -> bytes | Steps:
        """Carries out a parsed request; one without effect only if somebody waits for it."""
        kind = parsed.kind
        if kind in _CLUSTER:
            self._member.membership.apply_request(kind, parsed.request)
            return b""
        if kind == 0 or (not is_awaited and kind in _NO_EFFECT):
            return b""
        identity = None
        if self._auth.enabled:
            identity = Identity(parsed.username, parsed.auth_revision)
        handler = self._handlers.get(kind)
        if handler is None:
            body = self._users.apply(kind, parsed.request, identity, index, is_awaited)
            if not isinstance(body, bytes):
                return self._with_header(body)
            return self._member.header(self._store.revision) + body
        self._counts[kind] += 1
        if identity is not None:
            looking = self._check(kind, parsed.request, identity)
            if looking is not None:
                return self._when_looked(looking, kind, parsed.request, identity)
        return handler(parsed.request)

    def _identity(self, stamp: bytes) -> Identity | None:
        """The proposer of an entry in our own layout, now known; None if it needs full parsing."""
        part = internal_request.proposer_part(stamp)
        if part is None:
            return None
        try:
            parsed = internal_request.parse(stamp)
        except internal_request.MalformedEntryError:
            return None
        if len(self._proposers) >= internal_request.PROPOSERS_MAX:
            self._proposers.clear()
        identity = self._proposers[part] = Identity(parsed.username, parsed.auth_revision)
        return identity

    def _when_looked(self, looking: Work, kind: int, request: bytes, identity: Identity) -> Steps:
        """A request that is checked once all keys of its leases have been looked at."""
        yield from looking
        left = self._check(kind, request, identity)
        assert left is None, "the leases have been looked at"
        result = self._handlers[kind](request)
        if isinstance(result, bytes):
            return result
        return (yield from result)

    def _look(self, identity: Identity, lease_ids: Iterable[int]) -> Work | None:
        """The look at leases with many keys, if that takes more than a step."""
        auth = self._auth
        wanted = [lease_id for lease_id in lease_ids if auth.must_look(identity, lease_id)]
        if not wanted:
            return None

        def steps() -> Work:
            for lease_id in wanted:
                with suppress(EtcdError):  # the check finds the same, and what comes before it
                    yield from auth.lease_steps(identity, lease_id, True)

        return steps()

    def _check(self, kind: int, request: bytes, identity: Identity) -> Work | None:
        """Checks the proposer's permissions; alarms, which refuse everybody, come first.

        Returns what is to be looked at first, where that takes more than a step; then nothing has
        been checked.
        """
        auth = self._auth
        if self._member.alarms.any:
            self._refuse_for_alarm(kind, request)
        if kind == internal_request.KIND_PUT:
            end = plain_put(request)
            if end:
                auth.check_write(identity, request[2:end])
            else:
                put = parse(rpc_pb2.PutRequest, request)
                looking = self._look(identity, (put.lease,) if put.lease else ())
                if looking is not None:
                    return looking
                auth.check_put(identity, put)
        elif kind == internal_request.KIND_RANGE:
            wanted = parse(rpc_pb2.RangeRequest, request)
            auth.check_range(identity, wanted.key, wanted.range_end)
        elif kind == internal_request.KIND_DELETE_RANGE:
            auth.check_delete(identity, parse(rpc_pb2.DeleteRangeRequest, request))
        elif kind == internal_request.KIND_TXN:
            txn = parse(rpc_pb2.TxnRequest, request)
            looking = self._look(identity, set(_leases_of(txn)))
            if looking is not None:
                return looking
            auth.check_txn(identity, txn)
        elif kind == internal_request.KIND_LEASE_REVOKE:
            lease_id = parse(rpc_pb2.LeaseRevokeRequest, request).ID
            looking = self._look(identity, (lease_id,))
            if looking is not None:
                return looking
            auth.check_lease_revoke(identity, lease_id)
        return None

    def _refuse_for_alarm(self, kind: int, request: bytes) -> None:
        if kind in (internal_request.KIND_PUT, internal_request.KIND_LEASE_GRANT):
            self._refuse_growth()
        elif kind == internal_request.KIND_TXN:
            self._refuse_txn(request)
        elif kind not in (internal_request.KIND_ALARM, internal_request.KIND_LEASE_CHECKPOINT):
            self._refuse_corrupt()

    def slow(self, first_index: int, last_index: int, seconds: float) -> None:
        """Tells of entries that together took too long."""
        member = self._member
        member.counters.slow_apply += 1
        member.logger.warn(
            "apply request took too long",
            took=f"{seconds * 1000:.3f}ms",
            expected_duration=f"{member.settings.warning_apply_s * 1000:g}ms",
            first_index=first_index,
            last_index=last_index,
        )

    # --- keys ---------------------------------------------------------------------------------

    def _put(self, request: bytes, end: int = 0) -> bytes:
        """`end`: of the key's field, where `plain_put` has found it."""
        member = self._member
        store = self._store
        if member.alarms.any:
            self._refuse_growth()
        if len(request) >= member.quota.room:
            fits = member.quota.allows(cost.put_cost(parse(rpc_pb2.PutRequest, request)))
            body = store.put(request)
            if not fits:
                raise errors.NoSpaceError
        else:
            body = store.put(request, end)
        return self._encode_header(store.revision, member.leadership.term) + body

    def _range(self, request: bytes) -> Steps:
        self._refuse_corrupt()
        wanted = parse(rpc_pb2.RangeRequest, request)
        return self._with_header(self._store.range_steps(wanted))

    def _delete_range(self, request: bytes) -> Steps:
        self._refuse_corrupt()
        return self._with_header(self._store.delete_range_steps(request))

    def _with_header(self, steps: Steps) -> Steps:
        body = yield from steps
        return self._member.header(self._store.revision) + body

    def _txn(self, request: bytes) -> Steps:
        member = self._member
        fits = True
        if member.alarms.any:
            self._refuse_txn(request)
        if len(request) >= member.quota.room:
            fits = member.quota.allows_txn(parse(rpc_pb2.TxnRequest, request))
        steps = self._store.txn_steps(request)
        return self._with_header(steps) if fits else self._but_no_space(steps)

    def _but_no_space(self, steps: Steps) -> Steps:
        yield from steps
        raise errors.NoSpaceError

    def _compact(self, request: bytes) -> bytes:
        self._refuse_corrupt()
        wanted = parse(rpc_pb2.CompactionRequest, request)
        self._member.compactor.compact(wanted.revision)
        return self._member.header(self._store.revision)

    # --- leases -------------------------------------------------------------------------------

    def _lease_grant(self, request: bytes) -> bytes:
        member = self._member
        if member.alarms.any:
            self._refuse_growth()
        wanted = parse(rpc_pb2.LeaseGrantRequest, request)
        fits = member.quota.allows(cost.LEASE_OVERHEAD_BYTES)
        ttl_s = member.lessor.grant(wanted.ID, wanted.TTL, member.loop.time())
        if not fits:
            raise errors.NoSpaceError
        answer = rpc_pb2.LeaseGrantResponse(ID=wanted.ID, TTL=ttl_s)
        return member.header(self._store.revision) + answer.SerializeToString()

    def _lease_revoke(self, request: bytes) -> Steps:
        self._refuse_corrupt()
        lease_id = parse(rpc_pb2.LeaseRevokeRequest, request).ID
        keys = self._member.lessor.keys_to_revoke(lease_id)
        return self._revoke(lease_id, keys)

    def _revoke(self, lease_id: int, keys: set[bytes]) -> Steps:
        """Deletes the keys in one transaction (none without keys), then the lease."""
        yield from self._store.delete_keys_steps(keys)
        self._member.lessor.revoke(lease_id)
        return self._member.header(self._store.revision)

    def _lease_checkpoint(self, request: bytes) -> bytes:
        now_s = self._member.loop.time()
        for point in parse(rpc_pb2.LeaseCheckpointRequest, request).checkpoints:
            self._member.lessor.checkpoint(point.ID, point.remaining_TTL, now_s)
        return self._member.header(self._store.revision)

    # --- alarms -------------------------------------------------------------------------------

    def _alarm(self, request: bytes) -> bytes:
        member = self._member
        wanted = parse(rpc_pb2.AlarmRequest, request)
        response = member.alarms.apply(wanted)
        if wanted.action != alarms.GET and response.alarms:
            verb = "raised" if wanted.action == alarms.ACTIVATE else "disarmed"
            member.logger.warn(
                f"alarm {verb}",
                alarm=alarms.NAMES.get(wanted.alarm, str(wanted.alarm)),
                **{"from": f"{wanted.memberID:x}"},
            )
        return member.header(self._store.revision) + response.SerializeToString()

    def _refuse_txn(self, request: bytes) -> None:
        self._refuse_corrupt()
        if self._member.alarms.nospace:
            if cost.txn_cost(parse(rpc_pb2.TxnRequest, request)) > 0:
                raise errors.NoSpaceError

    def _refuse_growth(self) -> None:
        self._refuse_corrupt()
        if self._member.alarms.nospace:
            raise errors.NoSpaceError

    def _refuse_corrupt(self) -> None:
        if self._member.alarms.corrupt:
            raise errors.CorruptError


def _leases_of(txn: rpc_pb2.TxnRequest) -> Iterator[int]:
    """The leases that a transaction puts keys on."""
    for branch in (txn.success, txn.failure):
        for operation in branch:
            which = operation.WhichOneof("request")
            if which == "request_put" and operation.request_put.lease:
                yield operation.request_put.lease
            elif which == "request_txn":
                yield from _leases_of(operation.request_txn)
