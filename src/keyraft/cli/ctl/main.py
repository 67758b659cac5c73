"""From a command line to an exit code."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from keyraft.cli.ctl.command import Command, UnknownCommand, find
from keyraft.cli.ctl.context import Context
from keyraft.cli.ctl.exits import ERROR, Exit
from keyraft.cli.ctl.flags import CommandHelpWanted, FlagError, parse
from keyraft.cli.ctl.tree import ROOT

CATCHING: Final = frozenset(("lock", "elect"))
"""Commands that unblock SIGINT and SIGTERM themselves, once they wait for them."""

Run = Callable[[Context], "Coroutine[Any, Any, None] | None"]


def run(words: list[str]) -> int:
    """Carries out the command line `words` (without the program's name); its exit code."""
    try:
        command, rest = find(ROOT, words)
    except UnknownCommand as error:
        print(f"Error: {error}\nRun 'etcdctl --help' for usage.", file=sys.stderr)
        return ERROR
    if command.name not in CATCHING:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        values, arguments = parse(command.all_flags(), rest)
    except CommandHelpWanted:
        return _help(command)
    except FlagError as error:
        return _misused(command, str(error))
    if not command.run:
        return _help(command)
    context = Context(command, values, arguments, words)
    try:
        _carry_out(command, context)
    except Exit as end:
        if end.text:
            sys.stdout.flush()
            message = f"Error: {end.text}\n".encode("utf-8", "surrogateescape")
            sys.stderr.buffer.write(message)
            sys.stderr.flush()
        return end.code
    return 0


def _carry_out(command: Command, context: Context) -> None:
    module, _, name = command.run.partition(":")
    work: Run = getattr(importlib.import_module(module), name)
    coroutine = work(context)
    if coroutine is None:
        return
    import asyncio

    from keyraft.cli.ctl.context import error_text
    from keyraft.client.errors import EtcdError, RawError

    try:
        asyncio.run(coroutine)
    except (EtcdError, RawError) as error:
        raise Exit(ERROR, error_text(error)) from None


def _help(command: Command) -> int:
    from keyraft.cli.ctl.help import help_text

    sys.stdout.write(help_text(command))
    return 0


def _misused(command: Command, text: str) -> int:
    from keyraft.cli.ctl.help import usage_text

    sys.stderr.write(f"Error: {text}\n{usage_text(command)}\n")
    return ERROR
