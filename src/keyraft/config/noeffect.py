"""Flags that have no effect here: they are refused, or cause a warning.

A member does not start with a flag of this kind that protects something or changes what the cluster
consists of: the operator must not rely on a protection that does not exist. Any other such flag
causes one warning. A field of `Config` that nothing reads stands in one of these two tables (a test
checks it) until its effect exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from keyraft.config.config import Config, ConfigError
from keyraft.config.flagset import default_value
from keyraft.config.flagtable import FLAGS

REFUSED: Final[Mapping[str, str]] = MappingProxyType({})
"""Flag → what would happen if the member started nevertheless; none is left."""

WARNED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "backend-bbolt-freelist-type": "the database is LMDB, which keeps its own free list",
        "socket-reuse-address": "listeners always set SO_REUSEADDR",
        "v2-deprecation": "there is no v2 store",
        "downgrade-check-time": "only a leader of the target release sees that all members run it",
    }
)
"""Flag → why it has no effect."""

GATES_WITHOUT_EFFECT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "LeaseCheckpointPersist": "what is checkpointed is always stored",
        "TxnModeWriteWithSharedBuffer": "it is about a buffer of bbolt's transactions",
    }
)
"""Feature gate that nothing reads → why."""


def effect_note(name: str) -> str:
    """The note in the help text for a flag without effect; empty for other flags."""
    if name in REFUSED:
        return "Not available here: refuses to start"
    return f"Without effect here: {WARNED[name]}" if name in WARNED else ""


def check_effects(config: Config) -> None:
    """Warns once for each flag that is set and has no effect; raises ConfigError."""
    for name, consequence in REFUSED.items():
        if is_set(config, name):
            refusal = ConfigError(f"--{name} is not available: {consequence}")
            refusal.log = config.log
            raise refusal
    for name, reason in WARNED.items():
        if is_set(config, name):
            config.log.warn("flag has no effect", flag=f"--{name}", reason=reason)
    for gate, wanted in config.feature_gates.items():
        if gate in GATES_WITHOUT_EFFECT:
            config.log.warn(
                "feature gate has no effect",
                gate=gate,
                value=wanted,
                reason=GATES_WITHOUT_EFFECT[gate],
            )


def is_set(config: Config, name: str) -> bool:
    """Whether the flag was set to something other than its default."""
    value: Any = getattr(config, FLAGS[name].field)
    return bool(value != default_value(FLAGS[name]))
