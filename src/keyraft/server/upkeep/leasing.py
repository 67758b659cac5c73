"""The leader's work for leases: revoke expired ones, checkpoint long ones, renew.

Revocations and checkpoints go through the log like a client's requests. A scan every half second
finds both. It revokes at most 500 leases, so that ten thousand leases that expire together do not
crowd out puts (etcd `lessor.runLoop`, `revokeExpiredLeases`).

A leader whose process or disk was paused may have been deposed without knowing it, while its
successor renews the leases. So after a pause of its clock a leader asks a quorum before it revokes
or renews. A member whose Raft already follows another leader refuses. A proposed revocation that
waits is not forwarded to a successor.

DEVIATION: etcd only checks the clock (`ensureLeadership`). There a successor may get the
revocations of a leader whose disk was paused, and a leader that is cut off answers for a second or
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

FRESH_TICKS: Final = 3  # heartbeats since the last tick; more: the clock was paused (etcd)
STEADY_ELECTIONS: Final = 2  # election timeouts after which Raft itself would have stepped down
CHECKPOINT_BATCHES_MAX: Final = 500  # of a scan (etcd `leaseCheckpointRate` / 2)

Renewed = Callable[["int | EtcdError | RawError"], None]
"""Gets the TTL in seconds, or the refusal; LeaseNotFoundError when the lease is gone."""


Told = Callable[["rpc_pb2.LeaseTimeToLiveResponse | EtcdError | RawError"], None]
"""Gets the answer without its header, or the refusal; LeaseNotFoundError when the lease is gone."""


class Leasing:
    """Owned by the member's loop. `expired_total` counts leases revoked because they expired."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._fast = member.settings.fast_lease_keep_alive
        self.expired_total = 0
        self._turn = 0  # counts promotions and demotions: each cancels the rest of the one before

    def start(self) -> None:
        """Starts the scans for expired leases."""
        self._member.loop.call_later(SCAN_INTERVAL_S, self._scan)

    def promote(self) -> None:
        """This member leads: leases get deadlines, in slices, after any old ones are removed."""
        if self._member.lessor.primary:
            self.demote()
        self._turn += 1
        self._promote_when_forgotten(self._turn)

    def demote(self) -> None:
        """This member no longer leads: deadlines are removed, in slices."""
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
        if not self._runs_steadily(now_s):
            member.read_index(self._asked)
            return
        self._revoke_expired(now_s)

    def _asked(self, error: EtcdError | RawError | None) -> None:
        """The result of asking a quorum."""
        if error is None and self._leads():
            self._member.paused_until_s = -inf
            self._revoke_expired(self._member.loop.time())

    def _leads(self) -> bool:
        """Whether this member has the deadlines, and Raft has not deposed it meanwhile."""
        member = self._member
        return member.lessor.primary and member.raft.leads(member.leadership.term)

    def _runs_steadily(self, now_s: float) -> bool:
        """Whether the loop has run without a pause, so that Raft's view of its leadership is
        recent.

        After a pause that takes a quorum's answer, or enough time for check-quorum; a first tick is
        not enough.
        """
        member = self._member
        settings = member.settings
        return (
            now_s - member.ticked_s <= FRESH_TICKS * settings.heartbeat_s
            and now_s - member.paused_until_s >= STEADY_ELECTIONS * settings.election_s
        )

    def _revoke_expired(self, now_s: float) -> None:
        member = self._member
        for lease_id in member.lessor.expired(now_s):
            request = rpc_pb2.LeaseRevokeRequest(ID=lease_id).SerializeToString()
            self._propose(KIND_LEASE_REVOKE, request, self._revoked)
        self._checkpoint(CHECKPOINT_BATCHES_MAX)

    def _checkpoint(self, batches: int) -> None:
        """Proposes due checkpoints, one batch in each turn."""
        member = self._member
        if member.stopped or not self._leads():
            return
        if not member.settings.lease_checkpoints:
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
        """Proposes as root, as there is no caller; a later scan tries again what was refused."""
        member = self._member
        try:
            member.propose_leading(kind, request, done, member.auth.own())
        except EtcdError as refusal:
            done(refusal)

    # --- telling ------------------------------------------------------------------------------

    def remaining(self, lease_id: int, keys: bool, done: Told) -> None:
        """Answers with the remaining TTL, at once or later. NotLeaderError: ask the leader.

        "Not found" must be true for the cluster, not only for a leader that is cut off. So a quorum
        is asked first in that case.
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

            over = step()  # copies the keys that it will sort
            member.queue.release()
            if not over:
                member.slices.add(step)

        # Not while a transaction has detached only some of its keys.
        member.queue.hold(list_keys)

    # --- renewing -----------------------------------------------------------------------------

    def renew(self, lease_id: int, done: Renewed) -> Callable[[], None] | None:
        """Renews a lease, or asks the leader to; `done` is called at once or later.

        Returns a function that cancels a waiting renewal, or None when there is nothing to cancel.
        An unknown lease is searched again after a read index round. An expired one waits for its
        revocation. For one with a checkpoint, the checkpoint is removed first. NotLeaderError: ask
        the leader.
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
        if not (self._runs_steadily(member.loop.time()) and self._is_up_to_date()):
            member.read_index(lambda error: self._renew_sure(lease_id, done, error))
            return None
        return self._renew_leading(lease_id, done)

    def may_renew_at_once(self, now_s: float) -> bool:
        """Whether `lessor.renew_at_once` may be used now; else `renew` must do more."""
        member = self._member
        return (
            member.raft.leads(member.leadership.term)
            and self._runs_steadily(now_s)
            and (
                self._fast
                or member.queue.applied_index >= member.committed_index  # as `_is_up_to_date`
            )
        )

    def _is_up_to_date(self) -> bool:
        """Whether a lease may be renewed as it is known, although not all is applied."""
        member = self._member
        return self._fast or member.queue.applied_index >= member.committed_index

    def _renew_sure(self, lease_id: int, done: Renewed, error: EtcdError | RawError | None) -> None:
        """The result of asking a quorum whether this member leads."""
        if error is not None or not self._leads():
            done(errors.NotLeaderError())
        else:
            self._member.paused_until_s = -inf
            self._renew_leading(lease_id, done)

    def _renew_leading(self, lease_id: int, done: Renewed) -> Callable[[], None] | None:
        if self._member.lessor.exists(lease_id):
            return self._renew(lease_id, done)
        # "Not found" must be true for the cluster, not only for a leader that is cut off.
        self._member.read_index(lambda error: self._renew_found(lease_id, done, error))
        return None

    def _renew_found(
        self, lease_id: int, done: Renewed, error: EtcdError | RawError | None
    ) -> None:
        """Everything that was committed when the renewal came is applied, or the wait failed."""
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
