"""The leader's work for leases: revoke what has run out, checkpoint what is long, renew.

Revocations and checkpoints go through the log like a client's requests. Both are looked for every
half second, and no more than 500 leases are revoked each time, so that ten thousand leases that
run out together do not crowd out the puts (etcd `lessor.runLoop`, `revokeExpiredLeases`).

A leader that was paused, or whose disk was, may have been deposed and not know it, while its
successor renews the leases. So nothing is revoked or renewed on the word of a clock that stood
still, or of a member whose Raft already follows somebody else: the first asks a quorum, the second
refuses. A revocation that was proposed and waits is not passed on to a successor.
DEVIATION: etcd looks at the clock only (`ensureLeadership`), its successor may be handed the
revocations of a leader whose disk stood still, and a leader that is cut off says for a second or
two that leases granted elsewhere do not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.waiters import Result
from keyraft.lease import CHECKPOINT_BATCH_LEASES, SCAN_INTERVAL_S, NotPrimaryError
from keyraft.proto import rpc_pb2
from keyraft.server.apply.internal_request import KIND_LEASE_CHECKPOINT, KIND_LEASE_REVOKE

if TYPE_CHECKING:
    from keyraft.server.member import Member

FRESH_TICKS: Final = 3  # heartbeats since the last tick; more, and the clock stood still (etcd)
STEADY_ELECTIONS: Final = 2  # election timeouts after which Raft would have given up by itself
CHECKPOINT_BATCHES_MAX: Final = 500  # of a scan (etcd `leaseCheckpointRate` / 2)

Renewed = Callable[["int | EtcdError | RawError"], None]
"""Gets the TTL in seconds, or the refusal; LeaseNotFoundError when the lease is gone."""


Told = Callable[["rpc_pb2.LeaseTimeToLiveResponse | EtcdError | RawError"], None]
"""Gets the answer without its header, or the refusal; LeaseNotFoundError when the lease is gone."""


class Leasing:
    """Owned by the member's loop. `expired_total` counts leases revoked because they ran out."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.expired_total = 0
        self._turn = 0  # counts promotions and demotions: each ends what is left of the one before

    def start(self) -> None:
        """Begins to look for leases that have run out."""
        self._member.loop.call_later(SCAN_INTERVAL_S, self._scan)

    def promote(self) -> None:
        """This member leads: all leases get their deadlines, in slices, once those of an earlier
        time as leader are forgotten."""
        if self._member.lessor.primary:
            self.demote()
        self._turn += 1
        self._promote_when_forgotten(self._turn)

    def demote(self) -> None:
        """This member leads no longer: deadlines are forgotten, in slices."""
        self._turn += 1
        self._member.lessor.demote()
        self._member.loop.call_soon(self._demote_on, self._turn)

    def _demote_on(self, turn: int) -> None:
        member = self._member
        if turn == self._turn and not member.stopped and member.lessor.demotion_step():
            member.loop.call_soon(self._demote_on, turn)

    def _promote_when_forgotten(self, turn: int) -> None:
        member = self._member
        if turn != self._turn or member.stopped:
            return
        if member.lessor.demotion_step():
            member.loop.call_soon(self._promote_when_forgotten, turn)
            return
        member.lessor.promote(member.loop.time(), member.settings.election_s)
        member.loop.call_soon(self._promote_on, turn)

    def _promote_on(self, turn: int) -> None:
        member = self._member
        if turn != self._turn or member.stopped:
            return
        if member.lessor.promotion_step(member.loop.time()):
            member.loop.call_soon(self._promote_on, turn)

    # --- the clock ----------------------------------------------------------------------------

    def _scan(self) -> None:
        member = self._member
        if member.stopped:
            return
        member.loop.call_later(SCAN_INTERVAL_S, self._scan)
        if not self._leads():
            return
        now_s = member.loop.time()
        if not self._fresh(now_s):
            member.read_index(self._asked)
            return
        self._revoke_expired(now_s)

    def _asked(self, error: EtcdError | RawError | None) -> None:
        """A quorum has answered, or nobody has."""
        if error is None and self._leads():
            self._member.stood_still_s = -inf
            self._revoke_expired(self._member.loop.time())

    def _leads(self) -> bool:
        """Whether this member has the deadlines, and Raft has not deposed it meanwhile."""
        member = self._member
        return member.lessor.primary and member.raft.leads(member.leadership.term)

    def _fresh(self, now_s: float) -> bool:
        """Whether the loop has run all the time, so that Raft knows what its leadership is worth.

        The first tick after a pause does not make it so, but a quorum's answer or time for
        check-quorum.
        """
        member = self._member
        settings = member.settings
        return (
            now_s - member.ticked_s <= FRESH_TICKS * settings.heartbeat_s
            and now_s - member.stood_still_s >= STEADY_ELECTIONS * settings.election_s
        )

    def _revoke_expired(self, now_s: float) -> None:
        member = self._member
        for lease_id in member.lessor.expired(now_s):
            request = rpc_pb2.LeaseRevokeRequest(ID=lease_id).SerializeToString()
            self._propose(KIND_LEASE_REVOKE, request, self._revoked)
        self._checkpoint(CHECKPOINT_BATCHES_MAX)

    def _checkpoint(self, batches: int) -> None:
        """Proposes checkpoints of what is due, a batch a turn."""
        member = self._member
        if member.stopped or not self._leads():
            return
        due = member.lessor.due_checkpoints(member.loop.time())
        if due:
            self._propose(KIND_LEASE_CHECKPOINT, _checkpoints(due), _ignore)
        if len(due) >= CHECKPOINT_BATCH_LEASES and batches > 1:
            member.loop.call_soon(self._checkpoint, batches - 1)

    def _revoked(self, result: Result) -> None:
        if isinstance(result, bytes):
            self.expired_total += 1
        else:
            self._member.logger.warn("failed to revoke lease", error=result.text)

    def _propose(self, kind: int, request: bytes, done: Callable[[Result], None]) -> None:
        """As root, for this is nobody's request; what is refused is tried again by a later scan."""
        member = self._member
        try:
            member.propose_leading(kind, request, done, member.auth.own())
        except EtcdError as refusal:
            done(refusal)

    # --- telling ------------------------------------------------------------------------------

    def remaining(self, lease_id: int, keys: bool, done: Told) -> None:
        """Tells what is left of a lease, at once or later. NotLeaderError: ask the leader.

        That a lease is gone must be true of the cluster, not of a leader that was cut off, so
        a quorum is asked first then.
        """
        member = self._member
        if self.may_renew_at_once(member.loop.time()) and member.lessor.exists(lease_id):
            self._tell_remaining(lease_id, keys, done)
            return

        def asked(error: EtcdError | RawError | None) -> None:
            if error is not None:
                done(error)
            else:
                self._tell_remaining(lease_id, keys, done)

        member.read_index(asked)

    def _tell_remaining(self, lease_id: int, keys: bool, done: Told) -> None:
        member = self._member
        lessor = member.lessor
        try:
            ttl_s, granted_s = lessor.time_to_live(lease_id, member.loop.time())
        except NotPrimaryError:
            done(errors.NotLeaderError())
            return
        except errors.LeaseNotFoundError as refusal:
            done(refusal)
            return
        answer = rpc_pb2.LeaseTimeToLiveResponse(ID=lease_id, TTL=ttl_s, grantedTTL=granted_s)
        if not keys:
            done(answer)
            return

        def list_keys() -> None:
            work = lessor.keys_steps(lease_id)

            def step() -> bool:
                try:
                    next(work)
                except StopIteration as end:
                    answer.keys.extend(end.value)
                    done(answer)
                    return True
                return False

            over = step()  # takes what it is going to sort
            member.queue.release()
            if not over:
                member.slices.add(step)

        # Not while a transaction has taken only some of its keys off.
        member.queue.hold(list_keys)

    # --- renewing -----------------------------------------------------------------------------

    def renew(self, lease_id: int, done: Renewed) -> Callable[[], None] | None:
        """Renews a lease, or asks the leader to; `done` is called at once or later.

        Returns what takes back a renewal that has to wait, or None when there is nothing to take
        back. A lease not known is looked for once more behind a read index; one
        that has run out waits for its revocation; one with a checkpoint has it taken back first.
        NotLeaderError: ask the leader.
        """
        member = self._member
        lessor = member.lessor
        if not lessor.primary:
            if member.leader_calls is not None and not member.leadership.leading:
                return member.leader_calls.renew(lease_id, done)
            done(errors.NotLeaderError())
            return None
        if not self._leads():
            done(errors.NotLeaderError())
            return None
        if not self._fresh(member.loop.time()):
            member.read_index(lambda error: self._renew_sure(lease_id, done, error))
            return None
        return self._renew_leading(lease_id, done)

    def may_renew_at_once(self, now_s: float) -> bool:
        """Whether `lessor.renew_at_once` may be asked now; else `renew` has more to do."""
        member = self._member
        return member.raft.leads(member.leadership.term) and self._fresh(now_s)

    def _renew_sure(self, lease_id: int, done: Renewed, error: EtcdError | RawError | None) -> None:
        """A quorum has answered that this member leads, or nobody has."""
        if error is not None or not self._leads():
            done(errors.NotLeaderError())
        else:
            self._member.stood_still_s = -inf
            self._renew_leading(lease_id, done)

    def _renew_leading(self, lease_id: int, done: Renewed) -> Callable[[], None] | None:
        if self._member.lessor.exists(lease_id):
            return self._renew(lease_id, done)
        # That a lease is gone must be true of the cluster, not of a leader that was cut off.
        self._member.read_index(lambda error: self._renew_found(lease_id, done, error))
        return None

    def _renew_found(
        self, lease_id: int, done: Renewed, error: EtcdError | RawError | None
    ) -> None:
        """Everything that was committed when the renewal came is applied, or cannot be."""
        if error is not None:
            done(error)
        elif not self._leads():
            done(errors.NotLeaderError())
        elif not self._member.lessor.exists(lease_id):
            done(errors.LeaseNotFoundError())
        else:
            self._renew(lease_id, done)

    def _renew(self, lease_id: int, done: Renewed) -> Callable[[], None] | None:
        member = self._member
        lessor = member.lessor
        if lessor.checkpointed(lease_id):

            def cleared(result: Result) -> None:
                if isinstance(result, bytes):
                    self._renew_now(lease_id, done)
                else:
                    done(result)

            if lessor.running(lease_id, member.loop.time()):
                self._propose(KIND_LEASE_CHECKPOINT, _checkpoints([(lease_id, 0)]), cleared)
                return None
        return self._renew_now(lease_id, done)

    def _renew_now(self, lease_id: int, done: Renewed) -> Callable[[], None] | None:
        lessor = self._member.lessor
        if not self._leads():
            done(errors.NotLeaderError())
            return None
        try:
            ttl_s = lessor.renew(lease_id, self._member.loop.time())
        except NotPrimaryError:
            done(errors.NotLeaderError())
            return None
        except EtcdError as refusal:
            done(refusal)
            return None
        if ttl_s:
            done(ttl_s)
            return None

        def revoked(gone: bool) -> None:
            done(errors.LeaseNotFoundError() if gone else errors.NotLeaderError())

        lessor.await_revocation(lease_id, revoked)
        return lambda: lessor.forget_waiter(lease_id, revoked)


def _checkpoints(points: list[tuple[int, int]]) -> bytes:
    request = rpc_pb2.LeaseCheckpointRequest()
    for lease_id, remaining_s in points:
        request.checkpoints.add(ID=lease_id, remaining_TTL=remaining_s)
    return request.SerializeToString()


def _ignore(_: Result) -> None:
    """A lost checkpoint is followed by the next."""
