"""The lessor: the leases, the keys attached to them, and when they expire.

A lease is granted and revoked through the log, so every member knows the same leases and the same
keys on them. Time is different: only the leader's lessor (the *primary*) has deadlines. It renews
leases without the log, and revokes a lease that has run out through the log. A new leader therefore
starts every lease anew: with the whole TTL or the remaining TTL of a checkpoint, and with the time
of an election more, so that clients can find it.

Invariants (`check`):
- a key is attached to at most one lease (ensured by the store, which knows each key's lease);
- the `lease` bucket holds the leases in memory: id, TTL and checkpointed remaining TTL;
- a primary gives each lease a deadline, a follower gives none; a new primary gives them in slices
  (`promotion_step`), and a lease that has no deadline yet has not run out; a former primary
  removes the deadlines in slices (`demotion_step`), all of them before it is primary again;
- a lease that has run out is never renewed again: its renewal waits for the revocation, so a client
  whose renewal succeeded still has its keys.

Source: etcd `server/lease/lessor.go`.

DEVIATION: checkpoints are on, and always stored. etcd has them behind a gate that is off, so a
lease of a day that was an hour from its end gets a whole new day with every change of leader.
DEVIATION: a lease is in the checkpoint queue once. etcd enters it again with every checkpoint and
every renewal after one, so the entries for a long-lived lease pile up.
DEVIATION: leases are spread after a change of leader by one rule, "no more than 750 deadlines in
any second", and none is moved to an earlier time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from itertools import islice
from math import ceil, inf
from typing import Final

from google.protobuf.message import DecodeError

from keyraft.base import errors
from keyraft.base.invariants import Checks
from keyraft.lease import invariants
from keyraft.lease.duequeue import DueQueue
from keyraft.lease.record import LeaseRecord, Leases
from keyraft.lease.spread import Spread
from keyraft.mvcc import Backend, BackendError, finished, sort_steps
from keyraft.mvcc.backend import LEASE
from keyraft.proto import lease_pb2

NO_LEASE: Final = 0
TTL_MAX_S: Final = 9_000_000_000
SCAN_INTERVAL_S: Final = 0.5  # between two scans of the primary for expired leases
REVOKE_RATE_PER_S: Final = 1_000  # leases handed out for revocation a second, at most
PROMOTED_EXPIRIES_PER_S: Final = 750  # deadlines a second after a promotion: 3/4 of the revoke rate
PROMOTION_SLICE_LEASES: Final = 1_000  # given deadlines in one step; about 3 ms
CHECKPOINT_INTERVAL_S: Final = 300.0  # leases with more time than this are checkpointed once in it
TOLD_SLICE: Final = 100  # waiting renewals that get False in one step of a demotion
LIST_SLICE: Final = 500  # leases or keys that one step of a list reads
CHECKPOINT_BATCH_LEASES: Final = 1_000  # leases in one LeaseCheckpoint proposal
_NO_KEYS: Final[frozenset[bytes]] = frozenset()


class NotPrimaryError(Exception):
    """Only the leader's lessor knows deadlines; ask there."""


def min_ttl_s(election_ticks: int, heartbeat_ms: int) -> int:
    """The shortest TTL granted: an election and a half, in whole seconds (2 with the defaults)."""
    return ceil((3 * election_ticks // 2) * heartbeat_ms / 1000)


class Lessor:
    """All leases of a member. One thread owns it; `now` is monotonic seconds.

    Raises LeaseNotFoundError, LeaseExistsError, LeaseTTLTooLargeError, NotPrimaryError.
    """

    def __init__(
        self,
        backend: Backend,
        min_ttl_s: int,
        *,
        checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
        revoke_retry_s: float = 7.0,
    ) -> None:
        self._backend = backend
        self._min_ttl_s = min_ttl_s
        self._checkpoint_interval_s = checkpoint_interval_s
        self._revoke_retry_s = revoke_retry_s
        self._leases: Leases = {}
        self._waiters: dict[int, list[Callable[[bool], None]]] = {}
        self._primary = False
        self._spread: Spread | None = None  # used by the promotion under way
        self._undated: list[LeaseRecord] = []  # those without a deadline yet
        self._dated: list[LeaseRecord] = []  # whose deadlines a demotion must still remove
        self._dropped: list[tuple[float, int]] = []  # heap entries that it must still free
        self._unheard: list[int] = []  # leases with waiters that it must still tell
        self._promoted_s = 0.0  # when the promotion started the TTLs anew
        self._expiry = DueQueue(self._expiry_due, lambda: self._leases)
        self._checkpoints = DueQueue(self._checkpoint_due, lambda: self._leases)
        self.granted_total = 0
        self.renewed_total = 0
        self.revoked_total = 0
        self.on_grant: Callable[[int], None] | None = None  # gets each granted TTL, for metrics
        # The keys come back through `attach` as the store reads them.
        self._leases = finished(self.load_steps(backend, {}))

    # --- what there is -----------------------------------------------------------------------

    def load_steps(
        self, backend: Backend, key_leases: Mapping[bytes, int]
    ) -> Generator[None, None, Leases]:
        """Reads the leases of a database and their keys, for `take`. Nobody may write to it
        meanwhile. Raises BackendError for an invalid record."""
        leases: Leases = {}
        for number, (key, value) in enumerate(backend.range(LEASE), 1):
            try:
                stored = lease_pb2.Lease.FromString(value)
            except DecodeError as error:
                raise BackendError(f"damaged lease {bytes(key).hex()}: {error}") from None
            ttl_s = max(stored.TTL, self._min_ttl_s)
            leases[stored.ID] = LeaseRecord(stored.ID, ttl_s, stored.RemainingTTL)
            if not number % LIST_SLICE:
                yield
        for number, (name, lease_id) in enumerate(key_leases.items(), 1):
            lease = leases.get(lease_id)
            if lease is not None:
                lease.attach(name)
            if not number % LIST_SLICE:
                yield
        return leases

    def take(self, backend: Backend, leases: Leases) -> Leases:
        """Replaces all leases by those of a leader's database; returns the old ones. The
        lessor is not primary afterwards."""
        self._backend = backend
        before, self._leases = self._leases, {}
        self.demote()
        self._leases = leases
        return before

    def __len__(self) -> int:
        return len(self._leases)

    def exists(self, lease_id: int) -> bool:
        """Whether the lease is granted and not yet revoked."""
        return lease_id in self._leases

    @property
    def primary(self) -> bool:
        """Whether this lessor has the deadlines."""
        return self._primary

    def keys(self, lease_id: int) -> list[bytes]:
        """The keys on a lease in any order; none for an unknown one."""
        lease = self._leases.get(lease_id)
        return list(lease.keys) if lease is not None and lease.keys else []

    def attachments(self, lease_id: int) -> tuple[int, int]:
        """(number, how many keys were ever attached) of a lease, zeros when it has no key. The
        number is unique, also among earlier leases of the same id."""
        lease = self._leases.get(lease_id)
        return (lease.number, lease.attached) if lease is not None and lease.keys else (0, 0)

    def newest_keys(self, lease_id: int, count: int) -> list[bytes]:
        """The keys of a lease that are among the `count` attached last, and perhaps others."""
        lease = self._leases.get(lease_id)
        return list(islice(reversed(lease.keys), count)) if lease is not None and lease.keys else []

    def has_key(self, lease_id: int, key: bytes) -> bool:
        """Whether the key is attached to the lease."""
        lease = self._leases.get(lease_id)
        return lease is not None and lease.keys is not None and key in lease.keys

    def ids(self) -> list[int]:
        """All leases, the one that runs out first in front."""
        return finished(self.ids_steps())

    def ids_steps(self) -> Generator[None, None, list[int]]:
        """`ids` in steps; it lists the leases that exist at the first step."""
        order = [(lease.expiry_s, lease.id) for lease in self._leases.values()]
        ordered = yield from sort_steps(order, None, False, LIST_SLICE)
        return [lease_id for _, lease_id in ordered]

    def keys_steps(self, lease_id: int) -> Generator[None, None, list[bytes]]:
        """`keys` in steps; it lists the keys that are attached at the first step."""
        lease = self._leases.get(lease_id)
        keys = list(lease.keys) if lease is not None and lease.keys else []
        return (yield from sort_steps(keys, None, False, LIST_SLICE))

    def time_to_live(self, lease_id: int, now: float) -> tuple[int, int]:
        """(remaining, granted) in whole seconds; the remainder is cut off, as etcd does.

        Raises LeaseNotFoundError, NotPrimaryError.
        """
        if not self._primary:
            raise NotPrimaryError
        lease = self._find(lease_id)
        return int(self._deadline_s(lease) - now), lease.ttl_s

    # --- through the log ---------------------------------------------------------------------

    def grant(self, lease_id: int, ttl_s: int, now: float) -> int:
        """Makes a lease and returns its TTL in seconds, which is never below the minimum."""
        if lease_id == NO_LEASE:
            raise errors.LeaseNotFoundError
        if ttl_s > TTL_MAX_S:
            raise errors.LeaseTTLTooLargeError
        if lease_id in self._leases:
            raise errors.LeaseExistsError
        lease = LeaseRecord(lease_id, max(ttl_s, self._min_ttl_s), 0)
        self._leases[lease_id] = lease
        self._store(lease)
        self.granted_total += 1
        if self.on_grant is not None:
            self.on_grant(lease.ttl_s)
        if self._primary:
            lease.expiry_s = now + lease.ttl_s
            self._expiry.push(lease.expiry_s, lease_id)
            self._schedule_checkpoint(lease, now)
        return lease.ttl_s

    def keys_to_revoke(self, lease_id: int) -> set[bytes]:
        """The keys that are deleted before `revoke`, in one transaction."""
        return set(self._find(lease_id).keys or ())

    def revoke(self, lease_id: int) -> None:
        """Removes a lease whose keys are deleted already."""
        self._find(lease_id)
        del self._leases[lease_id]
        self._backend.delete(LEASE, _record_key(lease_id))
        self.revoked_total += 1
        self._wake(lease_id, revoked=True)

    def checkpoint(self, lease_id: int, remaining_ttl_s: int, now: float) -> None:
        """Stores the remaining TTL of a lease; 0 removes it. An unknown lease is skipped."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        lease.remaining_ttl_s = remaining_ttl_s
        self._store(lease)
        if self._primary:
            self._schedule_checkpoint(lease, now)

    def attach(self, lease_id: int, key: bytes) -> None:
        """Attaches a key to a lease; ignores an unknown lease, which a database may name."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.attach(key)

    def detach(self, lease_id: int, key: bytes) -> None:
        """Detaches a key from a lease; harmless if either is gone."""
        lease = self._leases.get(lease_id)
        if lease is not None and lease.keys is not None:
            lease.keys.pop(key, None)

    # --- the leader's part -------------------------------------------------------------------

    def renew(self, lease_id: int, now: float) -> int:
        """Starts the TTL anew and returns it in seconds.

        0: the lease has run out and must be revoked first; see `await_revocation`.
        Raises LeaseNotFoundError, NotPrimaryError.
        """
        if not self._primary:
            raise NotPrimaryError
        lease = self._leases.get(lease_id)
        if lease is None:
            raise errors.LeaseNotFoundError
        if lease.expiry_s <= now:
            return 0
        lease.expiry_s = now + (lease.remaining_ttl_s or lease.ttl_s)
        self.renewed_total += 1
        return lease.ttl_s

    def renew_at_once(self, lease_id: int, now: float) -> int:
        """`renew` for the common case; 0 when the caller must do more than renew."""
        lease = self._leases.get(lease_id)
        if lease is None or lease.expiry_s <= now or lease.remaining_ttl_s or not self._primary:
            return 0
        lease.expiry_s = now + lease.ttl_s
        self.renewed_total += 1
        return lease.ttl_s

    def checkpointed(self, lease_id: int) -> bool:
        """Whether a checkpoint is stored, which a renewal must first remove through the log."""
        lease = self._leases.get(lease_id)
        return lease is not None and lease.remaining_ttl_s > 0

    def running(self, lease_id: int, now: float) -> bool:
        """Whether a lease has time left."""
        lease = self._leases.get(lease_id)
        return lease is not None and lease.expiry_s > now

    def await_revocation(self, lease_id: int, done: Callable[[bool], None]) -> None:
        """Calls `done` once: True when the lease is revoked, False when this is no longer the primary."""
        self._waiters.setdefault(lease_id, []).append(done)

    def forget_waiter(self, lease_id: int, done: Callable[[bool], None]) -> None:
        """Cancels an `await_revocation`; harmless when `done` was called."""
        waiters = self._waiters.get(lease_id)
        if waiters is not None and done in waiters:
            waiters.remove(done)
            if not waiters:
                del self._waiters[lease_id]

    def promote(self, now: float, extend_s: float) -> None:
        """Becomes the primary: every lease gets a deadline, `extend_s` (an election) longer.

        Call `promotion_step` until it returns False. At most 750 deadlines fall into one second, so
        that leases that expire together do not use up the whole revoke rate.
        """
        if self._primary:
            self.demote()
        while self.demotion_step():  # with many leases the caller has done this before
            pass
        self._primary = True
        self._promoted_s = now + extend_s
        self._undated = list(self._leases.values())
        if len(self._undated) >= REVOKE_RATE_PER_S:
            self._spread = Spread(self._promoted_s, PROMOTED_EXPIRIES_PER_S)
        self.promotion_step(now)

    def promotion_step(self, now: float) -> bool:
        """Gives some leases their deadlines; returns whether others still have none."""
        undated = self._undated
        for lease in undated[-PROMOTION_SLICE_LEASES:]:
            if self._leases.get(lease.id) is not lease:
                continue
            if lease.expiry_s == inf:  # else it has been renewed meanwhile
                deadline_s = self._deadline_s(lease)
                if self._spread is not None:
                    deadline_s = self._spread.place(deadline_s)
                lease.expiry_s = deadline_s
            self._expiry.push(lease.expiry_s, lease.id)
            self._schedule_checkpoint(lease, now)
        del undated[-PROMOTION_SLICE_LEASES:]
        if not undated:
            self._spread = None
        return bool(undated)

    def _deadline_s(self, lease: LeaseRecord) -> float:
        """The deadline; for a lease that has none yet, the earliest that it can get."""
        if lease.expiry_s < inf:
            return lease.expiry_s
        return self._promoted_s + (lease.remaining_ttl_s or lease.ttl_s)

    def demote(self) -> None:
        """Stops being the primary: removes all deadlines; waiting renewals get False. Call
        `demotion_step` until it returns False."""
        self._primary = False
        self._undated = []
        self._spread = None
        self._dated = list(self._leases.values())
        self._dropped += self._expiry.clear()
        self._dropped += self._checkpoints.clear()
        self._unheard = list(self._waiters)
        self.demotion_step()

    def demotion_step(self) -> bool:
        """Removes some deadlines and answers some waiters; returns whether others are left."""
        for lease in self._dated[-PROMOTION_SLICE_LEASES:]:
            lease.expiry_s = inf
            lease.retry_s = 0.0
            lease.checkpoint_due_s = None
        del self._dated[-PROMOTION_SLICE_LEASES:]
        del self._dropped[-PROMOTION_SLICE_LEASES:]
        for lease_id in self._unheard[-TOLD_SLICE:]:
            self._wake(lease_id, revoked=False)
        del self._unheard[-TOLD_SLICE:]
        return self.demoting

    @property
    def demoting(self) -> bool:
        """Whether `demotion_step` has work left."""
        return bool(self._dated or self._dropped or self._unheard)

    def expired(
        self, now: float, limit: int = int(REVOKE_RATE_PER_S * SCAN_INTERVAL_S)
    ) -> list[int]:
        """Leases to revoke now, at most `limit`; one that is not revoked comes again later."""
        found: list[int] = []
        while len(found) < limit:
            lease_id = self._expiry.pop_due(now)
            if lease_id is None:
                break
            lease = self._leases[lease_id]
            lease.retry_s = now + self._revoke_retry_s
            self._expiry.push(lease.retry_s, lease_id)
            found.append(lease_id)
        return found

    def due_checkpoints(
        self, now: float, limit: int = CHECKPOINT_BATCH_LEASES
    ) -> list[tuple[int, int]]:
        """(lease, remaining seconds rounded up) for the next LeaseCheckpoint proposal."""
        found: list[tuple[int, int]] = []
        while len(found) < limit:
            lease_id = self._checkpoints.pop_due(now)
            if lease_id is None:
                break
            lease = self._leases[lease_id]
            lease.checkpoint_due_s = None
            remaining_s = ceil(self._deadline_s(lease) - now)
            if remaining_s <= 0:
                continue
            # Entered again at once, so that a checkpoint follows when this proposal is lost.
            self._schedule_checkpoint(lease, now)
            if remaining_s < lease.ttl_s:
                found.append((lease_id, remaining_s))
        return found

    # --- looking inside ----------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Sizes, for metrics and tests."""
        return {
            "leases": len(self._leases),
            "keys": sum(len(lease.keys or _NO_KEYS) for lease in self._leases.values()),
            "waiters": sum(map(len, self._waiters.values())),
            "expiry_entries": len(self._expiry),
            "checkpoint_entries": len(self._checkpoints),
        }

    def attached(self, lease_id: int, key: bytes) -> bool:
        """Whether the key hangs on the lease, or there is no such lease."""
        lease = self._leases.get(lease_id)
        return lease is None or (lease.keys is not None and key in lease.keys)

    def check(self, lease_of: Callable[[bytes], int] | None = None) -> None:
        """The invariants at the head of this module; raises InvariantError."""
        invariants.whole_lessor(self, lease_of)

    def check_steps(self, lease_of: Callable[[bytes], int] | None = None) -> Checks:
        """The same in steps, lease by lease; `lease_of`: which lease the store has a key on."""
        return invariants.lessor_steps(self, lease_of)

    # --- inside ------------------------------------------------------------------------------

    def _find(self, lease_id: int) -> LeaseRecord:
        lease = self._leases.get(lease_id)
        if lease is None:
            raise errors.LeaseNotFoundError
        return lease

    def _store(self, lease: LeaseRecord) -> None:
        record = lease_pb2.Lease(
            ID=lease.id, TTL=lease.ttl_s, RemainingTTL=lease.remaining_ttl_s
        ).SerializeToString()
        self._backend.put(LEASE, _record_key(lease.id), record)

    def _wake(self, lease_id: int, revoked: bool) -> None:
        for done in self._waiters.pop(lease_id, ()):
            done(revoked)

    def _schedule_checkpoint(self, lease: LeaseRecord, now: float) -> None:
        if lease.checkpoint_due_s is not None:
            return
        if (lease.remaining_ttl_s or lease.ttl_s) > self._checkpoint_interval_s:
            lease.checkpoint_due_s = now + self._checkpoint_interval_s
            self._checkpoints.push(lease.checkpoint_due_s, lease.id)

    def _expiry_due(self, lease_id: int) -> float | None:
        lease = self._leases.get(lease_id)
        if lease is None:
            return None
        return lease.expiry_s if lease.expiry_s > lease.retry_s else lease.retry_s

    def _checkpoint_due(self, lease_id: int) -> float | None:
        lease = self._leases.get(lease_id)
        return None if lease is None else lease.checkpoint_due_s


def _record_key(lease_id: int) -> bytes:
    """The key in bucket `lease`: the id as int64, big-endian."""
    return lease_id.to_bytes(8, "big", signed=True)
