"""One run: a cluster, clients, faults, peace, and then the questions.

Afterwards all members must hold the same keys (HashKV), a leader must be found again, and the
history of the clients must be linearizable. The same seed gives the same run, to the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from keyraft.mvcc.backend import KEY
from keyraft.proto import mvcc_pb2
from sim.clients import SimClient
from sim.cluster import SimCluster
from sim.faults import INTERVAL_S, Chaos, Storm
from sim.linearizability import Operation, Undecided, linearizable
from sim.model import EMPTY, step
from sim.node import Habits

SIZES: Final = (1, 3, 3, 3, 5)
RUN_S: Final = 30.0
PEACE_S: Final = 60.0  # within which a healed cluster must be whole
CLIENTS: Final = 4


class Violation(AssertionError):
    """What must never happen has happened."""


@dataclass(slots=True)
class Outcome:
    """What a run was like."""

    seed: int
    operations: int
    unknown: int
    virtual_s: float
    lives: int
    undecided: bool = False


def habits(chance: Random) -> Habits:
    """Members differ: some disks are slow, some clocks run fast."""
    return Habits(
        snapshot_count=chance.choice([15, 40, 200]),
        catchup_entries=chance.choice([3, 10, 50]),
        sync_max_s=chance.choice([0.001, 0.01, 0.05]),
        rate=chance.choice([1.0, 1.0, 0.9, 1.1]),
    )


def slow_disks(chance: Random) -> Habits:
    """What is answered too early has time to be forgotten."""
    return Habits(
        snapshot_count=100,
        catchup_entries=50,
        sync_min_s=0.01,
        sync_max_s=chance.choice([0.1, 0.4]),
    )


def run(
    seed: int,
    seconds: float = RUN_S,
    size: int | None = None,
    fault_interval_s: float = INTERVAL_S,
    storm: bool = False,
) -> Outcome:
    """Carries out the run of `seed`; raises Violation with its story.

    `storm`: elections without end on slow disks, instead of a bit of everything.
    """
    size = size if size is not None else Random(seed).choice(SIZES)
    cluster = SimCluster(size, seed, slow_disks if storm else habits)
    history: list[Operation] = []
    try:
        chaos = (Storm if storm else Chaos)(cluster, fault_interval_s)
        return _run(cluster, history, seconds, chaos)
    except Violation as violation:
        story = "\n".join(cluster.story[-40:])
        raise Violation(f"seed {seed}: {violation}\n{story}") from None
    except Exception as error:
        story = "\n".join(cluster.story[-40:])
        raise Violation(f"seed {seed}: {type(error).__name__}: {error}\n{story}") from error


def _run(cluster: SimCluster, history: list[Operation], seconds: float, chaos: Chaos) -> Outcome:
    clients = [SimClient(cluster, number, history) for number in range(CLIENTS)]
    cluster.run(seconds)
    chaos.stop()
    cluster.calm()
    cluster.tell("peace")
    cluster.run(3.0)
    for client in clients:
        client.stop()
    cluster.run(4.0)
    if not cluster.run_until(cluster.agreed, PEACE_S):
        raise Violation(f"no agreement within {PEACE_S} s of peace")
    hashes = cluster.hashes()
    if len(hashes) != 1:
        raise Violation(f"members differ: {hashes}")
    settle(cluster, history)
    undecided = False
    try:
        if not linearizable(history, EMPTY, step, limit=400_000):
            raise Violation("the history is not linearizable:\n" + _listed(history))
    except Undecided:
        undecided = True
    return Outcome(
        cluster.seed,
        len(history),
        sum(not operation.known for operation in history),
        cluster.loop.time(),
        sum(node.lives for node in cluster.nodes.values()),
        undecided,
    )


def settle(cluster: SimCluster, history: list[Operation]) -> None:
    """Gives unknown writes the outcome that the store tells of: every value is written once.

    One that never happened is dropped; one that did gets its answer, but no time of return. What
    deletions did stays open.
    """
    revisions: dict[str, int] = {}
    for _, stored in cluster.members[0].backend.range(KEY):
        kv = mvcc_pb2.KeyValue.FromString(stored)
        if kv.version:
            revisions[kv.value.decode()] = kv.mod_revision
    for operation in list(history):
        call = operation.input
        if operation.known or call[0] not in ("put", "cas"):
            continue
        revision = revisions.get(call[-1])
        if revision is None:
            history.remove(operation)
        else:
            done = ("rev", revision)
            operation.output = done if call[0] == "put" else (*done, True)


def _listed(history: list[Operation]) -> str:
    return "\n".join(
        f"  {o.call_s:9.4f}-{o.return_s:9.4f} c{o.client} {o.input} -> {o.output}"
        for o in sorted(history, key=lambda o: o.call_s)
    )
