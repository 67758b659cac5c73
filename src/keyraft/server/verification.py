"""Runs the checks of a whole member: bit by bit while it lives, all of them when it ends.

With `KEYRAFT_VERIFY=1` a live member does so (`app/member.py`): each tick looks at everything of
constant size and at one step of what grows with the data, so a tick costs a few milliseconds
whatever is stored. The first fact that does not hold is told, and the member stops: its data is no
longer trusted by itself. Tests and the simulator call `check` where they want it.

This module stands above the member, which knows nothing of it, so without the variable it costs
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from keyraft.base.invariants import Checks, InvariantError, hold, whole
from keyraft.mvcc.backend import META, META_CONSISTENT_INDEX
from keyraft.server.member import Member

STEPS_A_TICK: Final = 4  # of the checks that grow with the data; about a millisecond each

AT_END_KEYS_MAX: Final = 200_000  # about three seconds


class Checked(Protocol):
    """A database that can look at itself; not all can."""

    def check_steps(self) -> Checks:
        """In steps."""


class Verification:
    """The checks of one member, on its loop. `failed` is told what does not hold, once."""

    def __init__(
        self, member: Member, failed: Callable[[str], None], database: Checked | None = None
    ) -> None:
        self._member = member
        self._failed = failed
        self._database = database
        self._pass: Iterator[None] = iter(())
        self._life = 0  # of the store that the pass looks at
        self.passes = 0  # that came to their end

    def start(self) -> None:
        """Begins to look, with every heartbeat interval."""
        self._member.loop.call_later(self._member.settings.heartbeat_s, self._tick)

    def _tick(self) -> None:
        if self._member.stopped:
            return
        try:
            self._look()
        except InvariantError as error:
            self._failed(str(error))
            return
        self.start()

    def _look(self) -> None:
        member = self._member
        if member.raft.installing:
            return
        check_small(member)
        if self._life != member.store.lives:
            self._life = member.store.lives
            self._pass = self._steps()
        for _ in range(STEPS_A_TICK):
            if next(self._pass, self) is self:
                self.passes += 1
                self._pass = self._steps()
                return

    def _steps(self) -> Checks:
        """Everything that grows with the data, once."""
        yield from _growing(self._member)
        if self._database is not None:
            yield from self._database.check_steps()

    def end(self) -> None:
        """Looks at everything at once, when the member has stopped; at what grows only where that
        takes no longer than a stop may."""
        member = self._member
        try:
            if member.store.statistics()["keys"] <= AT_END_KEYS_MAX:
                check_member(member)
                if self._database is not None:
                    whole(self._database.check_steps())
            elif not member.raft.installing:
                check_small(member)
        except InvariantError as error:
            self._failed(str(error))


def check_member(member: Member) -> None:
    """Every fact of a member, as far as it holds at this moment. Raises InvariantError."""
    if member.raft.installing:
        return  # the database may already be the leader's, while memory is still ours
    check_small(member)
    member.watches.check()
    member.auth.check()
    member.lessor.check(_lease_of(member))
    if member.queue.busy:
        whole(member.store.check_steps(member.lessor.attached))
    else:
        member.store.check(member.lessor.attached)


def _growing(member: Member) -> Checks:
    yield from member.store.check_steps(member.lessor.attached)
    yield from member.lessor.check_steps(_lease_of(member))
    yield from member.watches.check_steps()
    yield from member.auth.check_steps()


def _lease_of(member: Member) -> Callable[[bytes], int]:
    leases = member.store.key_leases
    return lambda key: leases.get(key, 0)


def check_small(member: Member) -> None:
    """What is of one size, or as large as what waits just now. Raises InvariantError."""
    raft, queue, leadership = member.raft, member.queue, member.leadership
    raft.check()
    applied, committed = queue.applied_index, member.committed_index
    if not member.stopped:
        queue.check(committed)
        member.reads.check(applied)
        member.waiting.check()
    hold(raft.applied_index <= committed, "Raft applies what it hands out", raft.applied_index)
    stored = member.backend.get(META, META_CONSISTENT_INDEX)
    consistent = int.from_bytes(stored or b"", "big")
    hold(consistent <= applied, "the database is not ahead of apply", consistent, applied)
    found = member.consistent_index
    hold(consistent == found, "the consistent index is stored", consistent, found)
    member.membership.check(raft.conf_state)
    primary = member.lessor.primary
    hold(leadership.confirmed or not primary, "only a confirmed leader has deadlines", primary)
    has = primary or not leadership.confirmed or member.lessor.demoting
    hold(has, "a confirmed leader has the deadlines, or forgets old ones first", primary)
    member.alarms.check()
