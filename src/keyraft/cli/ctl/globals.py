"""The flags that every command takes, and their environment variables."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from keyraft.cli.ctl.exits import ERROR, Exit
from keyraft.cli.ctl.flags import CommandFlag, FlagError, Values, shown

PREFIX: Final = "ETCDCTL_"
_SECRETS: Final = ("password", "auth-jwt-token")
OF_WATCH: Final = ("ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END")

GLOBAL_FLAGS: Final = [
    CommandFlag("endpoints", "strings", ["127.0.0.1:2379"], "gRPC endpoints"),
    CommandFlag("debug", "bool", False, "show what the client does"),
    CommandFlag(
        "write-out",
        "string",
        "simple",
        "set the output format (fields, json, protobuf, simple, table)",
        "w",
    ),
    CommandFlag("hex", "bool", False, "print byte strings as hex encoded strings"),
    CommandFlag("dial-timeout", "duration", 2.0, "dial timeout for client connections"),
    CommandFlag(
        "command-timeout",
        "duration",
        5.0,
        "timeout for short running command (excluding dial timeout)",
    ),
    CommandFlag("keepalive-time", "duration", 2.0, "keepalive time for client connections"),
    CommandFlag("keepalive-timeout", "duration", 6.0, "keepalive timeout for client connections"),
    CommandFlag("max-request-bytes", "int", 0, "send limit of a request in bytes (0: 2 MiB)"),
    CommandFlag("max-recv-bytes", "int", 0, "receive limit of a response in bytes (0: 2 GiB - 1)"),
    CommandFlag(
        "insecure-transport", "bool", True, "disable transport security for client connections"
    ),
    CommandFlag("insecure-discovery", "bool", True, "accept insecure SRV records"),
    CommandFlag(
        "insecure-skip-tls-verify",
        "bool",
        False,
        "skip verification of the server's certificate (for tests only)",
    ),
    CommandFlag("cert", "string", "", "identify secure client using this TLS certificate file"),
    CommandFlag("key", "string", "", "identify secure client using this TLS key file"),
    CommandFlag(
        "cacert", "string", "", "verify certificates of secure servers using this CA bundle"
    ),
    CommandFlag(
        "auth-jwt-token",
        "string",
        "",
        "JWT token for authentication (then --user and --password do not count)",
    ),
    CommandFlag(
        "user",
        "string",
        "",
        "username[:password] for authentication (prompt if password is not supplied)",
    ),
    CommandFlag("password", "string", "", "password for authentication (then --user has none)"),
    CommandFlag("discovery-srv", "string", "", "domain name to query for SRV records", "d"),
    CommandFlag(
        "discovery-srv-name", "string", "", "service name to query when using DNS discovery"
    ),
]


def log(level: str, message: str, **fields: object) -> None:
    """A line as the original's logger writes it to standard error."""
    write(level, "", message, fields)


def write(level: str, name: str, message: str, fields: Mapping[str, object]) -> None:
    """Writes a line; its caller is whoever called our caller."""
    from keyraft.logs.zap import DEFAULT_LOGGER, caller_of

    sys.stdout.flush()  # keep the order of both streams
    logger = DEFAULT_LOGGER.named(name) if name else DEFAULT_LOGGER
    line = logger.format(time.time(), level, caller_of(sys._getframe(2)), message, fields)
    sys.stderr.buffer.write(line)
    sys.stderr.flush()


class ClientLog:
    """The logger for the client library (base.log.Logger)."""

    def __init__(self, name: str, debug: bool) -> None:
        self._name = name
        self._debug = debug

    def debug(self, message: str, **fields: object) -> None:
        """With --debug only."""
        if self._debug:
            write("debug", self._name, message, fields)

    def info(self, message: str, **fields: object) -> None:
        """Writes nothing: the original shows no such lines of its client."""

    def warn(self, message: str, **fields: object) -> None:
        """A failure that may be retried."""
        write("warn", self._name, message, fields)

    def error(self, message: str, **fields: object) -> None:
        """What failed."""
        write("error", self._name, message, fields)


def variable(flag: CommandFlag) -> str:
    """The environment variable of a flag."""
    return PREFIX + flag.name.upper().replace("-", "_")


def without_secret(flag: CommandFlag, value: Any) -> str:
    """A flag's value as `--debug` shows it.

    DEVIATION: the original shows passwords and tokens, which then stand in the logs of scripts.
    """
    text = shown(flag, value)
    if flag.name == "user":
        name, colon, _ = text.partition(":")
        return f"{name}:<hidden>" if colon else text
    return "<hidden>" if text and flag.name in _SECRETS else text


def read_environment(values: Values, of_watch: bool) -> None:
    """Gives flags that were not given the values of their variables.

    A flag and its variable together are refused, even when both are equal. Local flags have no
    variable.
    """
    known = set(OF_WATCH) if of_watch else set()
    for flag in GLOBAL_FLAGS:
        name = variable(flag)
        text = os.environ.get(name, "")
        if not text:
            continue  # an empty one is told as one that nobody knows, as in the original
        known.add(name)
        if flag.name in values.given:
            log(
                "fatal",
                "conflicting environment variable is shadowed by corresponding command-line flag "
                "(either unset environment variable or disable flag))",
                **{"environment-variable": name},
            )
            raise Exit(ERROR)
        try:
            values.set(flag, text)
        except FlagError as error:
            # DEVIATION: the original says nothing, and takes false or zero for the value.
            reason = str(error).rpartition(" flag: ")[2]
            log("warn", f'invalid value "{text}" for {name}: {reason}')
    # DEVIATION: ETCDCTL_API=3, which older scripts set, is taken without a warning.
    known.add("ETCDCTL_API")
    # And of the others the names are told, without what may be a secret.
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            log("warn", "unrecognized environment variable", **{"environment-variable": name})
