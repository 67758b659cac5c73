"""The man pages of all programs, made from their commands and flags.

Source: groff's man(7). A line of text never begins with a control character; `-` is `\\-`, because a
reader copies flags from the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from keyraft.base.version import VERSION
from keyraft.cli.ctl.command import Command
from keyraft.cli.ctl.flags import CommandFlag
from keyraft.cli.programs import PROGRAMS, tree
from keyraft.config.flagtable import FLAGS

_ALSO: Final = {
    "etcd": "keyraft config check FILE looks at a configuration file before a member does.",
    "keyraft": "keyraft completion SHELL prints what completes the words of these commands.",
}


def pages(own: click.Command) -> dict[str, str]:
    """File name → the page: one for each program, and one for each command of etcdctl.

    `own`: what `keyraft` runs.
    """
    made: dict[str, str] = {}
    for program in PROGRAMS:
        root = tree(program, own)
        made[f"{program}.1"] = _page(root)
        if program == "etcdctl":
            for command in root.children:
                if not command.hidden:
                    made[f"etcdctl-{command.name}.1"] = _page(command)
    return made


def _page(command: Command) -> str:
    title = command.path.replace(" ", "-")
    lines = [
        f'.TH "{_text(title.upper())}" 1 "" "Keyraft {VERSION}" "Keyraft"',
        ".SH NAME",
        f"{_text(title)} \\- {_text(_first(command))}",
        ".SH SYNOPSIS",
    ]
    for one in _runnable(command):
        lines += [".nf", f".B {_text(_usage(one))}", ".fi"]
    lines += [".SH DESCRIPTION", *_paragraphs(command.long or command.short)]
    if command.path == "etcd":
        lines += _sections(command)
    elif command.local_flags():
        lines += [".SH OPTIONS", *_flags(command.local_flags())]
    below = [one for one in _all(command) if one is not command]
    if below and command.path != "etcdctl":
        lines.append(".SH COMMANDS")
        for one in below:
            lines += [f".SS {_text(_usage(one))}", *_paragraphs(one.long or one.short)]
            lines += _flags(one.local_flags())
    if command.path == "etcdctl":
        lines.append(".SH COMMANDS")
        for one in command.children:
            if not one.hidden:
                lines += [".TP", f".BR etcdctl\\-{_text(one.name)} (1)", _text(one.short)]
    root = list(command.above())[-1]
    if root.inherited:
        lines += [".SH GLOBAL OPTIONS", *_flags(root.inherited)]
    others = ", ".join(f"\\fB{name}\\fR(1)" for name in PROGRAMS if name != command.path)
    lines += [".SH SEE ALSO", others]
    if command.path in _ALSO:
        lines += [".PP", _text(_ALSO[command.path])]
    return "\n".join(lines) + "\n"


def _first(command: Command) -> str:
    text = command.short or command.name
    return text[0].lower() + text[1:].rstrip(".")


def _all(command: Command) -> Iterator[Command]:
    if not command.hidden:
        yield command
        for child in command.children:
            yield from _all(child)


def _runnable(command: Command) -> Iterator[Command]:
    found = [one for one in _all(command) if one.run]
    if command.path == "etcdctl":
        yield Command("etcdctl [options] COMMAND [arguments]", run="all")
    else:
        yield from found


def _usage(command: Command) -> str:
    above = "" if command.parent is None else f"{command.parent.path} "
    return above + command.use + (" [flags]" if command.parent is None and command.flags else "")


def _sections(command: Command) -> Iterator[str]:
    """The member's flags, under the headings of its help."""
    flags = {flag.name: flag for flag in command.flags}
    section = ""
    for flag in FLAGS.values():
        if flag.section != section:
            section = flag.section
            yield f'.SH "{_text(section.upper())}"'
        yield from _flags([flags[flag.name]])


def _flags(flags: list[CommandFlag]) -> Iterator[str]:
    for flag in flags:
        if flag.hidden:
            continue
        name = f"\\fB\\-{flag.short}\\fR, " if flag.short else ""
        name += f"\\fB\\-\\-{_text(flag.name)}\\fR"
        if flag.kind != "bool":
            name += f"=\\fI{'LIST' if flag.kind == 'strings' else 'VALUE'}\\fR"
        yield ".TP"
        yield name
        default = flag.default
        if isinstance(default, list):
            default = ",".join(default)
        shown = "true" if default is True else str(default) if default else ""
        yield _text(flag.usage) + (f" Default: {_text(shown)}" if shown else "") or "\\&"


def _paragraphs(text: str) -> Iterator[str]:
    """Text with blank lines between paragraphs; indented lines are shown as they are."""
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith("  "):
            yield from (".nf", *(_text(line) for line in paragraph.split("\n")), ".fi")
        else:
            yield from (_text(line.strip()) for line in paragraph.split("\n"))


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "\\&...")
    escaped = escaped.replace("×", "\\(mu").replace('"', "\\(dq").replace("~", "\\(ti")
    escaped = escaped.replace("^", "\\(ha").replace("`", "\\(ga").replace("\n", " ")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
