"""The real member with its habits, looked at by a witness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from keyraft.raft import Entry, Message, Snapshot
from keyraft.server import Member
from keyraft.server.apply.queue import Work
from keyraft.server.verification import check_member
from sim.loop import MemberLoop, SimTimer
from sim.witness import Witness

VERIFY_ENTRIES: Final = 32  # applied between two checks of all that must hold in a member


@dataclass(slots=True)
class Habits:
    """How a member of this run behaves; small numbers make rare things happen often."""

    snapshot_count: int = 40
    catchup_entries: int = 10
    sync_min_s: float = 0.0002
    sync_max_s: float = 0.004
    commit_s: float = 0.003
    rate: float = 1.0  # of the member's clock
    heartbeat_s: float = 0.1
    election_ticks: int = 10
    wall_offset_s: float = 0.0  # of its calendar
    strict_reconfig: bool = True
    compaction_batch: int = 1_000  # revisions
    watch_rows: int = 500  # read from the store at once for watchers that are behind
    watch_message_bytes: int = 2_097_152  # larger ones are fragmented
    watch_pending_bytes: int = 67_108_864  # above it watchers fall behind
    self_repair: bool = True
    corrupt_check_s: float = 0.0
    compact_hash_check_s: float = 0.0
    watch_budget: int = 1_000  # of one slice of delivery
    watch_slice_s: float = 0.0  # how long the next slice waits: others run meanwhile
    slice_keys: int = 500  # that one step of a transaction or a read looks at
    slice_s: float = 0.0  # between two such steps: others run meanwhile
    trim_entries: int = 1  # the memory log is shortened in steps of so many


class SlowTurns:
    """A member's loop for those who work in slices: the next turn waits a little."""

    def __init__(self, loop: MemberLoop, pause_s: float) -> None:
        self._loop = loop
        self._pause_s = pause_s
        self.time = loop.time
        self.call_later = loop.call_later
        self.call_at = loop.call_at

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Not quite."""
        return self._loop.call_later(self._pause_s, callback, *args)


class WitnessedMember(Member):
    """The real member, looked at."""

    witness: Witness
    habits: Habits
    unverified = 0  # entries applied since the last check

    def verify(self) -> None:
        """Everything that must hold of it does, unless its life is over."""
        self.unverified = 0
        if not self.stopped:
            check_member(self)

    def _wake_watches(self) -> None:
        self.loop.call_later(self.habits.watch_slice_s, self._deliver)

    def _deliver(self) -> None:
        """As the real one, but other work comes in between."""
        if not self.stopped and self.watches.deliver(self.habits.watch_budget):
            self.loop.call_later(self.habits.watch_slice_s, self._deliver)

    def snapshot_installed(self, snapshot: Snapshot) -> None:
        """The leader's database is in place."""
        super().snapshot_installed(snapshot)
        self.witness.snapshots += 1

    def watch(self, witness: Witness, habits: Habits) -> None:
        """Everything that this member applies is witnessed; called before it starts."""
        self.witness = witness
        self.habits = habits
        self.snapshotter.trim_entries = habits.trim_entries
        self.snapshotter.release_s = 0.0  # a whole run is shorter
        self.store.slice_keys = habits.slice_keys
        if habits.slice_s:
            assert isinstance(self.loop, MemberLoop), "made by start"
            turns = SlowTurns(self.loop, habits.slice_s)
            for worker in (self.queue, self.slices):
                worker._loop = turns
                worker.steps_max = 1
        hub = self.watches
        hub._pass._chunk_rows = habits.watch_rows
        hub._sender._message_bytes_max = habits.watch_message_bytes
        hub._pending_bytes_max = habits.watch_pending_bytes
        apply = self.queue._apply
        own = self.settings.member_id
        leadership = self.leadership

        def leads(_before: int = 0) -> None:
            if leadership.leading:
                witness.leads(own, leadership.term)

        leadership.on_leader = (leads, *leadership.on_leader)
        leadership.on_confirmed = (leads, *leadership.on_confirmed)

        def witnessed(entry: Entry) -> Work | None:
            witness.applies(own, entry)
            self.unverified += 1
            if self.unverified == VERIFY_ENTRIES:
                self.loop.call_soon(self.verify)
            work = apply(entry)
            if entry.type:
                witness.changed(self, entry)
            return work

        self.queue._apply = witnessed
        step = self.raft.step

        def heard(message: Message) -> None:
            assert message.to == own, f"{own:x} hears what was said to {message.to:x}"
            former = self.membership.cluster.is_removed(message.from_)
            assert not former, f"{own:x} hears {message.from_:x}, a former member"
            step(message)

        self.raft.step = heard  # type: ignore[method-assign]  # looks on
