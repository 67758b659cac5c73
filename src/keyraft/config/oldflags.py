"""Flags of earlier versions that are still accepted: ignored, deprecated, or under a new name.

etcd 3.6 took what 3.4 and 3.5 called `--experimental-NAME` beside the new names, 3.7 refuses it.
Keyraft takes it as 3.6 does, so that a command line, environment or file that started etcd starts
Keyraft: with a warning, and never beside the new name. Six of them became feature gates.
Sources: `server/embed/config.go`, `server/etcdmain/config.go`, `server/features` (3.6.9).

DEVIATION: 3.6 warns of most of them; Keyraft of all, and the value is checked under its new name.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from keyraft.config.config import ConfigError
from keyraft.config.feature_gates import GATES, is_enabled
from keyraft.config.flagtable import FLAGS, Flag
from keyraft.config.flagvalues import BOOL, IGNORED

PREFIX: Final = "experimental-"

IGNORED_NAMES: Final = (
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
    "test.coverprofile",
    "test.outputdir",
)
"""Accepted only for old command lines; without effect."""

_IN_V: Final = (
    "--{old} is deprecated in v3.6 and will be decommissioned in v3.7. Use '--{new}' instead."
)
_IN: Final = (
    "--{old} is deprecated in 3.6 and will be decommissioned in 3.7. Use '--{new}' instead."
)
_BARE: Final = (
    "--{old} is deprecated in 3.6 and will be decommissioned in 3.7. Use --{new} instead."
)
_ZERO_IS_UNSET: Final = "warning-unary-request-duration"

_RENAMED: Final = {
    "compact-hash-check-time": _IN,
    "corrupt-check-time": _IN_V,
    "compaction-batch-limit": _IN_V,
    "watch-progress-notify-interval": _IN_V,
    "warning-apply-duration": _IN_V,
    _ZERO_IS_UNSET: "--{old} is deprecated, and will be decommissioned in v3.7. "
    "Use --{new} instead.",
    "bootstrap-defrag-threshold-megabytes": _IN_V,
    "memory-mlock": _IN_V,
    "snapshot-catchup-entries": _IN_V,
    "compaction-sleep-interval": _IN_V.replace("'--", "'"),
    "downgrade-check-time": _IN_V,
    "peer-skip-client-san-verification": _IN_V,
    "enable-distributed-tracing": _BARE,
    "distributed-tracing-address": _BARE,
    "distributed-tracing-service-name": _BARE,
    "distributed-tracing-instance-id": _BARE,
    "distributed-tracing-sampling-rate": _BARE,
    "backend-bbolt-freelist-type": _IN_V,  # of 3.4; 3.5 and 3.6 refuse the old name
}
"""New name → the warning about the old one, which is the same name behind the prefix."""

_GATES: Final = {
    "stop-grpc-service-on-defrag": ("StopGRPCServiceOnDefrag", _IN_V),
    "initial-corrupt-check": ("InitialCorruptCheck", _IN_V),
    "compact-hash-check-enabled": ("CompactHashCheck", _IN),
    "txn-mode-write-with-shared-buffer": ("TxnModeWriteWithSharedBuffer", _IN_V),
    "enable-lease-checkpoint": ("LeaseCheckpoint", _IN_V),
    "enable-lease-checkpoint-persist": ("LeaseCheckpointPersist", _IN_V),
}
"""Old name behind the prefix → the gate that it became, and the warning."""


def _old_flag(name: str) -> Flag:
    if name in _GATES:
        default = str(GATES[_GATES[name][0]][0]).lower()
        return Flag(PREFIX + name, BOOL, default, "Experimental", "")
    new = FLAGS[name]
    return Flag(PREFIX + name, new.kind, new.default, "Experimental", "")


OLD_FLAGS: Final[dict[str, Flag]] = {
    PREFIX + name: _old_flag(name) for name in (*_RENAMED, *_GATES)
}
"""The flags that are accepted under their experimental names, by that name."""

ALL_FLAGS: Final[dict[str, Flag]] = (
    FLAGS | OLD_FLAGS | {name: Flag(name, IGNORED, "", "Ignored", "") for name in IGNORED_NAMES}
)
"""All flags that the command line and the environment may set."""

DEPRECATED: Final = {
    "max-snapshots": "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
    "v2-deprecation": "--v2-deprecation is deprecated and scheduled for removal in v3.8. "
    "The default value is enforced, ignoring user input.",
    **{PREFIX + name: text.format(old=PREFIX + name, new=name) for name, text in _RENAMED.items()},
    **{
        PREFIX + name: text.format(old=PREFIX + name, new=f"feature-gates={gate}=true")
        for name, (gate, text) in _GATES.items()
    },
}
"""The warning for each deprecated flag."""


def translate(values: dict[str, Any], explicit: Collection[str], gates: Collection[str]) -> None:
    """Moves what was set under an old name to the new one.

    `gates` are those that `feature-gates` names. Raises ConfigError for an old name beside its
    new one.
    """
    enabled = dict(values["feature-gates"])
    for name, (gate, _) in _GATES.items():
        old = PREFIX + name
        if old not in explicit:
            continue
        # DEVIATION: 3.6 takes LeaseCheckpointPersist for LeaseCheckpoint here.
        if gate in gates:
            new = f"--feature-gates={gate}={str(is_enabled(enabled, gate)).lower()}"
            raise ConfigError(
                f"cannot specify both flags: --{old}={str(values[old]).lower()} and {new} "
                f"at the same time, please just use {new}"
            )
        enabled[gate] = values[old]
    values["feature-gates"] = enabled
    for name in _RENAMED:
        old = PREFIX + name
        if old not in explicit:
            continue
        if name not in explicit:
            values[name] = values[old]
        elif name != _ZERO_IS_UNSET:
            raise ConfigError(
                f"cannot set --{old} and --{name} at the same time, please use --{name} only"
            )
        elif values[old] and values[name]:
            raise ConfigError(f"both --{old} and --{name} flags are set. Use only --{name}")
        else:
            values[name] = values[name] or values[old]
