"""One run: a cluster, clients, faults, peace, and then the questions.

Afterwards exactly the members live and hold the same keys (HashKV), which are the twin's; all
leases have run out, none before its time; every watch was sent every event, once and in order; and
the history of the clients is linearizable. The same seed gives the same run, to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from keyraft.proto import rpc_pb2
from keyraft.server.verification import check_member
from keyraft.storage.backend import WriteBuffer
from sim.clients import SimClient
from sim.cluster import SimCluster
from sim.compactor import CompactingClient
from sim.faults import INTERVAL_S, Chaos, Sleep, Storm
from sim.leases import LeaseHolder, expiries
from sim.linearizability import Operation, Undecided, linearizable
from sim.model import EMPTY, step
from sim.watchers import WatchClient
from sim.witnessed import Habits

SIZES: Final = (1, 3, 3, 3, 5)
RUN_S: Final = 30.0
PEACE_S: Final = 60.0  # within which a healed cluster must be whole
STORM_INTERVAL_S: Final = 0.25
CLIENTS: Final = 4
HOLDERS: Final = 2
WATCH_CLIENTS: Final = 3
STORY_LINES: Final = 40  # of the account that a violation carries
STATES_MAX: Final = 400_000  # after which the search for an order is given up


class Violation(AssertionError):
    """What must never happen has happened. `kind` is its first words, without numbers."""

    def __init__(self, text: str, at_s: float = 0.0, faults: tuple[int, ...] = ()) -> None:
        super().__init__(text)
        self.at_s = at_s
        self.faults = faults

    @property
    def kind(self) -> str:
        """What two violations of one cause have in common."""
        words = str(self).split(": ", 1)[-1].split(chr(10), 1)[0]
        return " ".join([word for word in words.split() if word.isalpha()][:2])


@dataclass(slots=True)
class RunSummary:
    """What a run was like."""

    seed: int
    operations: int
    unknown: int
    virtual_s: float
    lives: int
    changes: int  # of membership
    events: int  # that watchers were sent
    leases: int  # that ended
    snapshots: int  # databases that a leader sent and that took the place of another
    fingerprint: int  # of every message between members and its time
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes, beside its seed."""

    seconds: float = RUN_S
    size: int | None = None  # of the cluster at first; None: by the seed
    fault_interval_s: float = INTERVAL_S
    storm: bool = False  # elections without end on slow disks, instead of a bit of everything
    sleep: bool = False  # leaders that are cut off and paused, instead of a bit of everything
    only: frozenset[int] | None = None  # the numbers of the faults that happen; None: all


def plan_of(seed: int) -> Plan:
    """How the run of a seed goes when nobody says otherwise: of eight, two storm and one sleeps."""
    if seed % 4 == 0:
        return Plan(storm=True, fault_interval_s=STORM_INTERVAL_S)
    return Plan(sleep=seed % 8 == 1)


def habits(chance: Random) -> Habits:
    """Members differ: some disks are slow, some clocks run fast, some calendars are wrong."""
    return Habits(
        snapshot_count=chance.choice([15, 40, 200]),
        catchup_entries=chance.choice([3, 10, 50]),
        sync_max_s=chance.choice([0.001, 0.01, 0.05]),
        heartbeat_s=0.2,  # the usual election timeout, with half of the messages
        election_ticks=5,
        rate=chance.choice([1.0, 1.0, 0.9, 1.1]),
        wall_offset_s=chance.choice([0.0, 0.0, -86_400.0, 3_600.0]),
        strict_reconfig=chance.random() < 0.5,
        compaction_batch=chance.choice([1, 5, 1_000]),
        watch_rows=chance.choice([2, 10, 500]),
        watch_message_bytes=chance.choice([150, 400, 2_097_152]),
        watch_pending_bytes=chance.choice([1_000, 67_108_864]),
        corrupt_check_s=4.0,
        watch_budget=chance.choice([2, 10, 1_000]),
        watch_slice_s=chance.choice([0.0, 0.005, 0.03]),
        trim_entries=chance.choice([1, 20, 1_000]),
        slice_keys=chance.choice([1, 2, 500]),
        slice_s=chance.choice([0.0, 0.001, 0.02]),
    )


def slow_disks(chance: Random) -> Habits:
    """What is answered too early has time to be forgotten. One disk of four is so fast that the
    loop itself writes."""
    sync_min_s, sync_max_s = chance.choice([(0.01, 0.1), (0.01, 0.1), (0.01, 0.4), (0.0002, 0.001)])
    return Habits(
        snapshot_count=100,
        catchup_entries=50,
        sync_min_s=sync_min_s,
        sync_max_s=sync_max_s,
        slice_keys=chance.choice([1, 500]),
        slice_s=0.02,
    )


def run(
    seed: int,
    seconds: float = RUN_S,
    size: int | None = None,
    fault_interval_s: float = INTERVAL_S,
    storm: bool = False,
    sleep: bool = False,
) -> RunSummary:
    """Carries out the run of `seed`; raises Violation with its story. See `Plan`."""
    return Run(seed, Plan(seconds, size, fault_interval_s, storm, sleep)).carry_out()


class Run:
    """One run and everybody in it."""

    def __init__(self, seed: int, plan: Plan) -> None:
        size = plan.size if plan.size is not None else Random(seed).choice(SIZES)
        self.plan = plan
        self.cluster = SimCluster(size, seed, slow_disks if plan.storm else habits)
        self.cluster.witness.twin.once = True
        self.history: list[Operation] = []
        kind = Storm if plan.storm else Sleep if plan.sleep else Chaos
        self.chaos = kind(self.cluster, plan.fault_interval_s, plan.only)
        self.clients = [SimClient(self.cluster, n, self.history) for n in range(CLIENTS)]
        self.holders = [LeaseHolder(self.cluster, n, self.history) for n in range(HOLDERS)]
        self.watchers = [WatchClient(self.cluster) for _ in range(WATCH_CLIENTS)]
        self.compactor = CompactingClient(self.cluster)

    def carry_out(self) -> RunSummary:
        """The whole of it."""
        try:
            self._make_history()
            return self._judge()
        except AssertionError as violation:
            raise self._told(str(violation)) from violation
        except Exception as error:
            raise self._told(f"{type(error).__name__}: {error}") from error

    def _told(self, text: str) -> Violation:
        """The violation with its seed and the end of its story."""
        story = "\n".join(self.cluster.story[-STORY_LINES:])
        return Violation(
            f"seed {self.cluster.seed}: {text}\n{story}",
            self.cluster.loop.time(),
            tuple(self.chaos.happened),
        )

    def _make_history(self) -> None:
        cluster = self.cluster
        cluster.run(self.plan.seconds)
        self.chaos.stop()
        cluster.calm()
        cluster.tell("peace")
        cluster.run(3.0)
        self.compactor.stop()
        for client in self.clients:
            client.stop()
        for holder in self.holders:
            holder.stop()
        for watcher in self.watchers:
            watcher.steady = True
        cluster.run(4.0)
        if not cluster.run_until(cluster.agreed, PEACE_S):
            raise Violation(f"no agreement within {PEACE_S} s of peace: {cluster.whereabouts()}")
        twin = cluster.witness.twin
        if not cluster.run_until(lambda: not twin.leases and cluster.agreed(), PEACE_S):
            raise Violation(f"leases that nobody renews do not end: {sorted(twin.leases)}")
        if not cluster.run_until(
            lambda: all(watcher.heard_all() for watcher in self.watchers), PEACE_S
        ):
            raise Violation(f"watchers do not hear of everything up to revision {twin.revision}")

    def _judge(self) -> RunSummary:
        cluster, history = self.cluster, self.history
        hashes = cluster.hashes()
        if len(hashes) != 1:
            raise Violation(f"members differ: {hashes}")
        if any(member.alarms.any for member in cluster.members):
            raise Violation("a member was accused of corruption")
        self._compare_with_twin()
        for member in cluster.members:
            check_member(member)
            assert isinstance(member.backend, WriteBuffer), "made by its node"
            member.backend.check()
        for watcher in self.watchers:
            watcher.judge()
        settle(cluster, history)
        history += expiries(cluster)
        undecided = False
        try:
            if not linearizable(history, EMPTY, step, limit=STATES_MAX):
                raise Violation("the history is not linearizable:\n" + shortest(history))
        except Undecided:
            undecided = True
        return RunSummary(
            cluster.seed,
            len(history),
            sum(not operation.known for operation in history),
            cluster.loop.time(),
            sum(node.lives for node in cluster.nodes.values()),
            cluster.witness.changes,
            sum(watcher.events for watcher in self.watchers),
            len(cluster.witness.revoked),
            cluster.witness.snapshots,
            cluster.network.fingerprint,
            undecided,
        )

    def _compare_with_twin(self) -> None:
        twin = self.cluster.witness.twin
        everything = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString()
        for member in self.cluster.members:
            answer = rpc_pb2.RangeResponse.FromString(member.store.range(everything))
            found = {
                kv.key.decode(): (
                    kv.value.decode(),
                    kv.create_revision,
                    kv.mod_revision,
                    kv.version,
                    kv.lease,
                )
                for kv in answer.kvs
            }
            true = {
                key: (item.value, item.create, item.mod, item.version, item.lease)
                for key, item in twin.items.items()
            }
            if (found, member.store.revision) != (true, twin.revision):
                raise Violation(
                    f"the keys are not what the log says: {found} at {member.store.revision}, "
                    f"not {true} at {twin.revision}"
                )


def settle(cluster: SimCluster, history: list[Operation]) -> None:
    """Gives unknown writes the outcome that the log tells of: every value is written once.

    One that never happened is dropped; one that did gets its answer, but no time of return. What
    deletions did stays open.
    """
    revisions = cluster.witness.twin.revision_of
    for operation in list(history):
        call = operation.input
        if operation.known or call[0] not in ("put", "pair", "wipe", "cas"):
            continue
        revision = revisions.get(call[-1])
        if revision is None:
            history.remove(operation)
        else:
            done = ("rev", revision)
            operation.output = (*done, True) if call[0] == "cas" else done


def shortest(history: list[Operation]) -> str:
    """The end of the shortest beginning of a history that has no order, an operation a line."""
    returns = sorted(operation.return_s for operation in history if operation.known)
    low, high = 0, len(returns) - 1
    while low < high:
        middle = (low + high) // 2
        try:
            fine = linearizable(_until(history, returns[middle]), EMPTY, step, limit=STATES_MAX)
        except Undecided:
            fine = True
        if fine:
            low = middle + 1
        else:
            high = middle
    shown = [
        one for one in _until(history, returns[low]) if one.call_s >= returns[max(0, low - 12)]
    ]
    return _listed(shown or history)


def _until(history: list[Operation], end_s: float) -> list[Operation]:
    """What was called by then; what returned later counts as of unknown outcome."""
    return [
        one
        if one.return_s <= end_s
        else Operation(one.client, one.call_s, float("inf"), one.input, None)
        for one in history
        if one.call_s <= end_s
        and (one.return_s <= end_s or one.input[0] not in ("get", "all", "expire"))
    ]


def _listed(history: list[Operation]) -> str:
    return "\n".join(
        f"  {o.call_s:9.4f}-{o.return_s:9.4f} c{o.client} {o.input} -> {o.output}"
        for o in sorted(history, key=lambda o: o.call_s)
    )
