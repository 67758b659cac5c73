"""From a command line to an exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from keyraft.cli.ctl.command import Command, UnknownCommand, find
from keyraft.cli.ctl.exits import ERROR, Exit
from keyraft.cli.ctl.flags import CommandFlag, CommandHelpWanted, FlagError, Values, parse
from keyraft.cli.utl.tree import ARGUMENTS, GLOBAL_FLAGS, REQUIRED, ROOT


class UtlContext:
    """The arguments and flags of one command."""

    def __init__(self, values: Values, arguments: list[str]) -> None:
        self.values = values
        self.arguments = arguments

    def text(self, name: str) -> str:
        """A string flag."""
        return str(self.values[name])

    def number(self, name: str) -> int:
        """An integer flag."""
        return int(self.values[name])

    def seconds(self, name: str) -> float:
        """A duration flag."""
        return float(self.values[name])

    def is_set(self, name: str) -> bool:
        """A boolean flag."""
        return bool(self.values[name])


def run(words: list[str]) -> int:
    """Carries out the command line `words` (without the program's name); its exit code."""
    try:
        command, rest = find(ROOT, words)
    except UnknownCommand as error:
        return _say(f"Error: {error}\nRun 'etcdutl --help' for usage.")
    try:
        values, arguments = parse(command.all_flags(), rest)
        if command.run:
            _check(command, values, arguments)
    except CommandHelpWanted:
        sys.stdout.write(usage(command))
        return 0
    except FlagError as error:
        return _say(f"Error: {error}\n{usage(command)}")
    if not command.run:
        sys.stdout.write(usage(command))
        return 0
    module, _, name = command.run.partition(":")
    work: Callable[[UtlContext], None] = getattr(importlib.import_module(module), name)
    try:
        work(UtlContext(values, arguments))
    except Exit as end:
        sys.stdout.flush()
        if end.text:
            _say(f"Error: {end.text}")
        return end.code
    return 0


def _say(text: str) -> int:
    sys.stderr.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
    sys.stderr.flush()
    return ERROR


def _check(command: Command, values: Values, arguments: list[str]) -> None:
    """Raises FlagError for a required flag or argument that is missing."""
    count = ARGUMENTS.get(command.name)
    if count is not None and len(arguments) != count:
        raise FlagError(f"accepts {count} arg(s), received {len(arguments)}")
    required = REQUIRED.get(command.name, ())
    if "to-original" in values.given:
        required = ["data-dir"]
    missing = [name for name in required if name not in values.given]
    if missing:
        raise FlagError(
            "required flag(s) " + ", ".join(f'"{name}"' for name in missing) + " not set"
        )


def usage(command: Command) -> str:
    """The command's usage, its flags, and those of every command."""
    from keyraft.cli.ctl.help import flags_text, usage_text

    text = usage_text(command)
    if command is ROOT:
        flags = [*GLOBAL_FLAGS, CommandFlag("help", "bool", False, "help for etcdutl", "h")]
        lead, marker, tail = text.partition('\nUse "')
        return f"{lead}\nFlags:\n{flags_text(flags)}{marker}{tail}"
    more = f"\nGlobal Flags:\n{flags_text(GLOBAL_FLAGS)}"
    lead, marker, tail = text.partition('\nUse "')
    return f"{lead}{more}{marker}{tail}"
