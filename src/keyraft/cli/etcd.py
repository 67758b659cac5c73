"""`etcd`: starts a member; `etcd gateway` and `etcd grpc-proxy` a proxy in front of members.

Exit codes are the original's: 0 after --version, --help and a stop, 1 when the configuration or
the start fails (one log line says why), 2 when the command line is invalid.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final, cast

from keyraft.app.start_checks import DiscoveryError, StartError, check_data_dir, identify_data_dir
from keyraft.base.version import GIT_SHA, VERSION, platform_name, runtime_version
from keyraft.cli.pipes import guard
from keyraft.config.arguments import VersionWanted, load
from keyraft.config.config import (
    DEFAULT_ADVERTISE_PEER,
    UNSET_ADVERTISE,
    Config,
    ConfigError,
)
from keyraft.config.flagset import ConflictError, HelpWanted, UsageError
from keyraft.config.helptext import USAGE, flags_text
from keyraft.config.noeffect import check_effects
from keyraft.logs.zap import DEFAULT_LOGGER
from keyraft.storage.process import StorageProcess


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with the process's own arguments and environment."""
    if arguments is None:
        guard()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["gateway"]:
        from keyraft.cli.gateway import gateway, verb_first

        gateway.main(verb_first(words[1:]), prog_name="etcd gateway")
    if words[:1] == ["grpc-proxy"]:
        from keyraft.cli.grpcproxy import grpc_proxy

        return grpc_proxy(words[1:])
    try:
        config = load(words, os.environ)
        check_effects(config)
    except UsageError as error:
        print(error, file=sys.stderr)
        print(USAGE, file=sys.stderr)
        return 2
    except HelpWanted:
        print(USAGE, file=sys.stderr)
        print(flags_text())
        return 0
    except VersionWanted:
        print(f"etcd Version: {VERSION}")
        print(f"Git SHA: {GIT_SHA}")
        print(f"Go Version: {runtime_version()}")
        print(f"Go OS/Arch: {platform_name()}")
        return 0
    except ConflictError as error:
        DEFAULT_LOGGER.fatal(
            "conflicting environment variable is shadowed by corresponding command-line flag "
            "(either unset environment variable or disable flag))",
            environment_variable=error.variable,
        )
    except ConfigError as error:
        error.log.info("Running: ", args=["etcd", *words])
        error.log.warn("failed to verify flags", error=str(error))
        if str(error) == UNSET_ADVERTISE:
            error.log.warn("advertise client URLs are not set", error=str(error))
        return 1
    config.log.info("Running: ", args=["etcd", *words])
    return _start(config)


RESTART: Final = 1_000_000  # `keyraft.app.rebuilding.RESTART`, which a start does not load


def _start(config: Config) -> int:
    try:
        kind = identify_data_dir(config.data_dir, config.log)
        if kind == "member":
            message = "server has already been initialized"
        else:
            message = "Initialize and start etcd server"
        config.log.info(message, data_dir=config.data_dir, dir_type=kind)
        check_data_dir(config.data_dir, config.log)
        check_data_dir(os.path.dirname(config.snap_directory), config.log, "member")
        code = _run(config)
    except DiscoveryError as error:
        config.log.warn(
            "failed to bootstrap; discovery token was already used",
            discovery_token=config.discovery_token,
            discovery_endpoints=list(config.discovery_endpoints),
            error=str(error),
        )
        config.log.warn("do not reuse discovery token; generate a new one to bootstrap a cluster")
        return 1
    except StartError as error:
        return _refuse(config, str(error), error.title)
    except ConfigError as error:
        return _refuse(config, str(error))
    except OSError as error:
        # An error without a message of its own: a full disk, no permission, no descriptors.
        return _refuse(config, f"{error.filename or 'start'}: {(error.strerror or '').lower()}")
    if code == RESTART:
        importlib.import_module("keyraft.app.rebuilding").start_again()
    if code < 0 and os.getpid() != 1:
        # As in the original: the process ends by the signal, so its parent sees which.
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return max(code, 0)


def _run(config: Config) -> int:
    """Loads the member while its storage process starts, and runs it."""
    gc.disable()  # objects made before the first request stay for ever
    spare = StorageProcess(not config.unsafe_no_fsync, config.memory_mlock)
    try:
        # Loaded here, so that --help and --version need no server in memory.
        member = importlib.import_module("keyraft.app.member")
        return cast(Callable[[Config, StorageProcess], int], member.run_member)(config, spare)
    finally:
        gc.enable()
        spare.stop()


def _refuse(config: Config, reason: str, title: str = "discovery failed") -> int:
    if "include" in reason and "--initial-cluster" in reason:
        config.log.warn("failed to start", error=reason)
        default = ",".join(f"{config.name}={url}" for url in config.initial_advertise_peer_urls)
        if config.initial_cluster == default:
            config.log.warn("forgot to set --initial-cluster?")
        if list(map(str, config.initial_advertise_peer_urls)) == [DEFAULT_ADVERTISE_PEER]:
            config.log.warn("forgot to set --initial-advertise-peer-urls?")
        if config.initial_cluster == default and not config.discovery_endpoints:
            config.log.warn(
                "V3 discovery settings (i.e., --discovery-token, --discovery-endpoints) are not set"
            )
        return 1
    config.log.fatal(title, error=reason)


if __name__ == "__main__":
    sys.exit(main())
