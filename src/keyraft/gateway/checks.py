"""/health, /livez and /readyz: their checks, in order, and the form of the answers.

Source: etcd `api/etcdhttp/health.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from keyraft.base.log import Logger

SERIALIZABLE_READ: Final = "serializable_read"
LINEARIZABLE_READ: Final = "linearizable_read"
DATA_CORRUPTION: Final = "data_corruption"
NON_LEARNER: Final = "non_learner"
DISK_WRITE: Final = "disk_write"
CHECKS: Final = {
    "livez": (SERIALIZABLE_READ,),
    "readyz": (DATA_CORRUPTION, SERIALIZABLE_READ, LINEARIZABLE_READ, NON_LEARNER),
}
BY_NAME_ONLY: Final = {"livez": (), "readyz": (DISK_WRITE,)}
"""Checks of our own (DEVIATION:, etcd has none for its disk). They run where they are asked for, as
/readyz/disk_write, and are no part of /readyz, whose checks are etcd's."""
_CORRUPT: Final = "CORRUPT"

Done = Callable[[str], None]
"""Gets the reason of the failure, or ""."""


class Health(Protocol):
    """The questions to the member behind the port."""

    @property
    def has_leader(self) -> bool:
        """Whether there is a leader."""

    @property
    def is_learner(self) -> bool:
        """Whether this member has no vote."""

    def alarms(self) -> Sequence[str]:
        """The names of the raised alarms (NOSPACE, CORRUPT)."""

    def disk(self) -> str:
        """Which write to the disk takes too long; "" when none does."""

    def read(self, serializable: bool, done: Done) -> None:
        """Reads a key without permission checks; `done` is called at once or later."""

    def versions(self) -> tuple[str, str]:
        """The versions of cluster and storage; empty if unknown."""


class HealthCounts:
    """Counts of the results, for metrics."""

    def __init__(self) -> None:
        self.successes = 0
        self.failures = 0
        self.scrapes = 0
        """Of /metrics, answered."""
        self.passed: dict[tuple[str, str], int] = {}
        """(kind, check) -> whether it passed the last time."""
        self.runs: dict[tuple[str, str, str], int] = {}
        """(kind, check, outcome) -> how often."""

    def checked(self, kind: str, name: str, passed: bool) -> None:
        """One check of /livez or /readyz has run."""
        self.passed[kind, name] = int(passed)
        key = (kind, name, "success" if passed else "error")
        self.runs[key] = self.runs.get(key, 0) + 1


def check_health(
    health: Health, logger: Logger, excluded: set[str], serializable: bool, done: Done
) -> None:
    """The decision of /health; `done` gets the reason, empty when healthy."""
    for name in health.alarms():
        if name not in excluded:
            logger.warn("serving /health false due to an alarm", alarm=name)
            done(f"ALARM {name}")
            return
    if not serializable and not health.has_leader:
        logger.warn("serving /health false; no leader")
        done("RAFT NO LEADER")
        return

    def read(reason: str) -> None:
        if reason:
            logger.warn("serving /health false; Range fails", error=reason)
        done(f"RANGE ERROR:{reason}" if reason else "")

    health.read(serializable, read)


def run_check(health: Health, name: str, done: Done) -> None:
    """One check of /livez or /readyz; `done` gets the reason, empty when it passed."""
    if name == DATA_CORRUPTION:
        done("alarm activated: CORRUPT" if _CORRUPT in health.alarms() else "")
    elif name == DISK_WRITE:
        done(health.disk())
    elif name == NON_LEARNER:
        done("not supported for learner" if health.is_learner else "")
    else:
        health.read(name == SERIALIZABLE_READ, done)
