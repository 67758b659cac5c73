"""/health, /livez and /readyz: what is asked, in which order, and how the answer reads.

Source: etcd `api/etcdhttp/health.go`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from keyraft.base.errors import EtcdError, RawError
from keyraft.server import Member

SERIALIZABLE_READ: Final = "serializable_read"
LINEARIZABLE_READ: Final = "linearizable_read"
DATA_CORRUPTION: Final = "data_corruption"
NON_LEARNER: Final = "non_learner"
CHECKS: Final = {
    "livez": (SERIALIZABLE_READ,),
    "readyz": (DATA_CORRUPTION, SERIALIZABLE_READ, LINEARIZABLE_READ, NON_LEARNER),
}
_ALARMS: Final = {1: "NOSPACE", 2: "CORRUPT"}
_READ: Final = b"\x0a\x01\x00\x18\x01"  # one key, as cheap as a read can be

Done = Callable[[str], None]
"""Told why it failed, or nothing."""


def check_health(member: Member, excluded: set[str], serializable: bool, done: Done) -> None:
    """The decision of /health; `done` gets the reason, empty when healthy."""
    for kind, _ in member.alarms.raised():
        name = _ALARMS.get(kind, "UNKNOWN")
        if name not in excluded:
            member.logger.warn("serving /health false due to an alarm", alarm=name)
            done(f"ALARM {name}")
            return
    if not serializable and not member.leadership.leader:
        member.logger.warn("serving /health false; no leader")
        done("RAFT NO LEADER")
        return

    def read(reason: str) -> None:
        if reason:
            member.logger.warn("serving /health false; Range fails", error=reason)
        done(f"RANGE ERROR:{reason}" if reason else "")

    _read(member, serializable, read)


def run_check(member: Member, name: str, done: Done) -> None:
    """One check of /livez or /readyz; `done` gets the reason, empty when it passed."""
    if name == DATA_CORRUPTION:
        done("alarm activated: CORRUPT" if member.alarms.corrupt else "")
    elif name == NON_LEARNER:
        done("not supported for learner" if member.membership.is_learner else "")
    else:
        _read(member, name == SERIALIZABLE_READ, done)


def _read(member: Member, serializable: bool, done: Done) -> None:
    def ready(error: EtcdError | None) -> None:
        if error is not None:
            done(error.text)
            return
        try:
            member.store.range(_READ)
        except (EtcdError, RawError) as refusal:
            done(refusal.text)
            return
        done("")

    if serializable:
        ready(None)
    else:
        member.read_index(ready)
