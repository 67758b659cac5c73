"""Feature gates: switches of `--feature-gates`, after etcd's `server/features` and `featuregate`.

A gate that Keyraft has no use for is accepted all the same, so that a command line written for
etcd starts Keyraft too.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from keyraft.base.gotext import parse_bool

ALPHA: Final = "ALPHA"
BETA: Final = "BETA"

GATES: Final[Mapping[str, tuple[bool, str]]] = MappingProxyType(
    {
        "AllAlpha": (False, ALPHA),
        "AllBeta": (False, BETA),
        "CompactHashCheck": (True, ALPHA),  # DEVIATION: it costs nothing; off in etcd
        "FastLeaseKeepAlive": (True, BETA),
        "InitialCorruptCheck": (False, ALPHA),
        "LeaseCheckpoint": (False, ALPHA),
        "LeaseCheckpointPersist": (False, ALPHA),
        "PriorityRequest": (False, ALPHA),
        "SetMemberLocalAddr": (False, ALPHA),
        "StopGRPCServiceOnDefrag": (False, ALPHA),
        "TxnModeWriteWithSharedBuffer": (True, BETA),
    }
)
"""Gate → its default and its stage."""


def parse_gates(text: str, previous: Mapping[str, bool]) -> Mapping[str, bool]:
    """The gates that "Name=true,Other=false" sets; raises ValueError with etcd's words.

    AllAlpha and AllBeta set every gate of their stage that nothing else has set.
    """
    given: dict[str, bool] = {}
    for piece in text.split(","):
        if not piece:
            continue
        name, equals, value = piece.partition("=")
        name, value = name.strip(), value.strip()
        if not equals:
            raise ValueError(f"missing bool value for {name}")
        try:
            given[name] = parse_bool(value)
        except ValueError as error:
            raise ValueError(f"invalid value of {name}={value}, err: {error}") from None
    for name in given:
        if name not in GATES:
            raise ValueError(f"unrecognized feature gate: {name}")
    enabled = {**previous, **given}
    for group, stage in (("AllAlpha", ALPHA), ("AllBeta", BETA)):
        if group in given:
            for name, (_, gate_stage) in GATES.items():
                if gate_stage == stage:
                    enabled.setdefault(name, given[group])
    return MappingProxyType(enabled)


def is_enabled(explicit: Mapping[str, bool], name: str) -> bool:
    """Whether the gate is on: as set, else by its default."""
    return explicit.get(name, GATES[name][0])


def format_gates(explicit: Mapping[str, bool]) -> str:
    """What is set, as the flag takes it, sorted."""
    return ",".join(f"{name}={str(on).lower()}" for name, on in sorted(explicit.items()))
