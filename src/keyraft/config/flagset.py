"""Command line and environment → raw values, by the rules of Go's `flag` and etcd's `pkg/flags`.

- One hyphen or two, `--name value` or `--name=value`; a bool takes its value only behind `=`.
- Parsing stops at the first word that is no flag; what is left over is refused.
- A variable counts only when it is not empty; a variable beside the same flag on the command
  line is a conflict and fatal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from keyraft.base.gotext import quote
from keyraft.base.log import Logger
from keyraft.config.flagtable import Flag
from keyraft.config.flagvalues import GATES, STRINGS, UNIQUE, URLS, ValueRefused
from keyraft.config.oldflags import ALL_FLAGS

PREFIX: Final = "ETCD"
VERSION_VARIABLE: Final = "ETCD_VERSION"
_SECRET: Final = re.compile("PASSW|SECRET|TOKEN|CREDENTIAL|PRIVATE")  # in a variable's name
_HIDDEN: Final = "<hidden>"


class UsageError(Exception):
    """The command line is invalid; the message is printed with the usage, exit code 2."""


class HelpWanted(Exception):
    """-h or --help was given."""


class ConflictError(Exception):
    """`variable` is set beside its flag; fatal."""

    def __init__(self, variable: str) -> None:
        super().__init__(variable)
        self.variable = variable


class FlagSet:
    """Values by flag name, those that were set explicitly, and the words left over."""

    __slots__ = ("explicit", "rest", "values")

    def __init__(self) -> None:
        self.values: dict[str, Any] = {
            name: default_value(flag) for name, flag in ALL_FLAGS.items()
        }
        self.explicit: set[str] = set()
        self.rest: list[str] = []

    def set(self, name: str, text: str) -> None:
        """Sets a flag from text; raises ValueRefused."""
        self.values[name] = ALL_FLAGS[name].kind.parse(text, self.values[name])
        self.explicit.add(name)


def default_value(flag: Flag) -> Any:
    """The flag's value when it is not set."""
    if flag.kind is GATES:
        return {}
    if not flag.default and flag.kind in (STRINGS, UNIQUE, URLS):
        return ()
    return flag.kind.parse(flag.default, ())


def parse_arguments(arguments: Sequence[str]) -> FlagSet:
    """Raises UsageError or HelpWanted (Go `flag.FlagSet.Parse`)."""
    flags = FlagSet()
    at = 0
    while at < len(arguments):
        word = arguments[at]
        if len(word) < 2 or word[0] != "-":
            break
        at += 1
        name = word[2:] if word.startswith("--") else word[1:]
        if word == "--":
            break
        if not name or name[0] in "-=":
            raise UsageError(f"bad flag syntax: {word}")
        name, equals, value = name.partition("=")
        flag = ALL_FLAGS.get(name)
        if flag is None:
            if name in ("help", "h"):
                raise HelpWanted
            raise UsageError(f"flag provided but not defined: -{name}")
        if flag.kind.is_bool:
            try:
                flags.set(name, value if equals else "true")
            except ValueRefused as error:
                raise UsageError(
                    f"invalid boolean value {quote(value)} for -{name}: {error}"
                ) from None
            continue
        if not equals:
            if at == len(arguments):
                raise UsageError(f"flag needs an argument: -{name}")
            value = arguments[at]
            at += 1
        try:
            flags.set(name, value)
        except ValueRefused as error:
            raise UsageError(f"invalid value {quote(value)} for flag -{name}: {error}") from None
    flags.rest = list(arguments[at:])
    return flags


def apply_environment(flags: FlagSet, environ: Mapping[str, str], log: Logger) -> None:
    """Sets flags from ETCD_* variables that the command line did not set.

    Raises ValueRefused with the last refused variable in the order of flag names, as etcd does,
    and ConflictError.
    """
    on_command_line = {ALL_FLAGS[name].variable for name in flags.explicit}
    if environ.get(VERSION_VARIABLE):
        log.warn(
            "cannot set special environment variable",
            key=VERSION_VARIABLE,
            value=environ[VERSION_VARIABLE],
        )
    used = {VERSION_VARIABLE}
    refused: ValueRefused | None = None
    for name in sorted(ALL_FLAGS):
        variable = ALL_FLAGS[name].variable
        value = environ.get(variable, "")
        if not value or variable in on_command_line or variable == VERSION_VARIABLE:
            continue
        used.add(variable)
        try:
            flags.set(name, value)
        except ValueRefused as error:
            refused = ValueRefused(f"invalid value {quote(value)} for {variable}: {error}")
            continue
        log.info(
            "recognized and used environment variable",
            variable_name=variable,
            variable_value=value,
        )
    _check_variables(environ, used, on_command_line, log)
    if refused is not None:
        raise refused


def _check_variables(
    environ: Mapping[str, str], used: set[str], on_command_line: Iterable[str], log: Logger
) -> None:
    for variable, value in environ.items():
        if variable in used:
            continue
        if variable in on_command_line:
            raise ConflictError(variable)
        if variable.startswith(PREFIX + "_"):
            # DEVIATION: etcd logs what some images keep there, such as ETCD_ROOT_PASSWORD.
            shown = _HIDDEN if _SECRET.search(variable) else value
            log.warn(
                "unrecognized environment variable", environment_variable=f"{variable}={shown}"
            )
