"""The commands that ask no server: version, options, help."""

from __future__ import annotations

from keyraft.base.version import VERSION
from keyraft.cli.ctl.command import UnknownCommand, find
from keyraft.cli.ctl.context import Context
from keyraft.cli.ctl.exits import ERROR, Exit
from keyraft.cli.ctl.globals import GLOBAL_FLAGS
from keyraft.cli.ctl.help import flags_text, help_text


def version(context: Context) -> None:
    """Prints the version that this client speaks."""
    print("etcdctl version:", VERSION)
    print("API version:", VERSION.rpartition(".")[0])


def options(context: Context) -> None:
    """Prints the flags that every command takes."""
    print("The following options can be passed to any command:\n")
    print(flags_text(GLOBAL_FLAGS), end="")


def help_(context: Context) -> None:
    """Prints the help of the command that the arguments name."""
    from keyraft.cli.ctl.tree import ROOT

    try:
        command, _ = find(ROOT, context.arguments)
    except UnknownCommand:
        topic = " ".join(context.arguments)
        raise Exit(ERROR, f"Unknown help topic [`{topic}`]") from None
    print(help_text(command), end="")
