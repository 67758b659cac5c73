"""Arguments and environment → the configuration, or the reason why there is none.

`load` is the whole way: command line, then either the configuration file (and nothing else) or
the environment, then checks, in the order and with the answers of etcd's `etcdmain`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keyraft.base.gotext import quote
from keyraft.base.log import Logger
from keyraft.config.building import build_config
from keyraft.config.config import (
    RAFT_IO_TIMEOUT_S_MIN,
    Config,
    ConfigError,
    machine_address,
    with_default_host,
)
from keyraft.config.flagset import FlagSet, apply_environment, parse_arguments
from keyraft.config.flagvalues import ValueRefused
from keyraft.config.oldflags import DEPRECATED, translate
from keyraft.logs.zap import DEFAULT_LOGGER


class VersionWanted(Exception):
    """--version was given."""


def load(
    arguments: Sequence[str], environ: Mapping[str, str], log: Logger = DEFAULT_LOGGER
) -> Config:
    """The member's configuration.

    `log` is used until the flags' own logger exists. Raises flagset.UsageError and HelpWanted,
    VersionWanted, flagset.ConflictError, ConfigError.
    """
    flags = parse_arguments(arguments)
    if flags.rest:
        raise ConfigError(f"{quote(flags.rest[0])} is not a valid flag")
    if flags.values["version"]:
        raise VersionWanted
    path = flags.values["config-file"] or environ.get("ETCD_CONFIG_FILE", "")
    if path:
        config = _from_file(path)
    else:
        config = _from_flags(flags, environ, log)
    for name, warning in DEPRECATED.items():
        if name in config.explicit:
            config.log.warn(warning)
    if "data-dir" not in config.explicit:
        config.log.warn("'data-dir' was empty; using default", data_dir=config.data_dir)
    return with_default_host(config, machine_address())


def _from_file(path: str) -> Config:
    from keyraft.config.file import read_config_file  # and with it YAML

    file = read_config_file(path)
    config = build_config(file.values, file.explicit)
    config.log.info(
        "loaded server configuration, other configuration command line flags and environment "
        "variables will be ignored if provided",
        path=path,
    )
    if file.unknown:
        config.log.warn(
            "unknown keys in the configuration file have no effect",
            path=path,
            keys=list(file.unknown),
        )
    if file.repeated:
        config.log.warn(
            "keys that come again in the configuration file: the last one counts",
            path=path,
            keys=list(file.repeated),
        )
    return config


def _from_flags(flags: FlagSet, environ: Mapping[str, str], log: Logger) -> Config:
    try:
        apply_environment(flags, environ, log)
    except ValueRefused as error:
        raise ConfigError(str(error)) from None
    values = flags.values
    for name in ("raft-read-timeout", "raft-write-timeout"):
        if values[name] < RAFT_IO_TIMEOUT_S_MIN:
            log.info(f"{name} increased to minimum value: 5s")
    if "listen-client-urls" in flags.explicit and "advertise-client-urls" not in flags.explicit:
        values["advertise-client-urls"] = ()
    discovers = (
        values["discovery-srv"] or values["discovery-srv-name"] or values["discovery-endpoints"]
    )
    if discovers and "initial-cluster" not in flags.explicit:
        values["initial-cluster"] = ""
    if values["discovery-fallback"] == "proxy":
        raise ConfigError(
            'v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"'
        )
    translate(values, flags.explicit, values["feature-gates"])
    return build_config(values, frozenset(flags.explicit))
