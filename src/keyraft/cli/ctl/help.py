"""The help pages and the usage text, laid out as the original's (`spf13/cobra`)."""

from __future__ import annotations

from keyraft.cli.ctl.command import Command
from keyraft.cli.ctl.flags import CommandFlag

NAME_WIDTH_MIN = 11  # of a command's name in a list (cobra's)
PROMPT = (
    'Use "etcdctl options" for a list of global command-line options (applies to all commands).\n'
)


def help_text(command: Command) -> str:
    """What `--help` shows."""
    lead = (command.long or command.short).rstrip()
    return (lead + "\n\n" if lead else "") + usage_text(command) + PROMPT


def usage_text(command: Command) -> str:
    """What is shown after a bad command line."""
    parts = ["Usage:"]
    flags = [flag for flag in command.local_flags() if not flag.hidden]
    if command.run:
        line = command.use if command.parent is None else f"{command.parent.path} {command.use}"
        parts.append(f"  {line}" + ("" if "[flags]" in line else " [flags]"))
    if command.children:
        parts.append(f"  {command.path} [command]")
    text = "\n".join(parts) + "\n"
    if command.example:
        text += f"\nExamples:\n{command.example.rstrip()}\n"
    text += _children(command)
    shown = [*flags, CommandFlag("help", "bool", False, f"help for {command.name}", "h")]
    if command.parent is not None:
        text += "\nFlags:\n" + flags_text(shown)
        if command.parent.handed_down:
            text += "\nGlobal Flags:\n" + flags_text(command.parent.handed_down)
    if command.children:
        text += f'\nUse "{command.path} [command] --help" for more information about a command.\n'
    return text


def _children(command: Command) -> str:
    children = [child for child in command.children if not child.hidden]
    if not children:
        return ""
    width = max(NAME_WIDTH_MIN, *(len(child.name) for child in children))
    groups: dict[str, list[str]] = {}
    for child in children:
        groups.setdefault(child.group, []).append(f"  {child.name:{width}} {child.short}")
    if list(groups) == [""]:
        return "\nAvailable Commands:\n" + "\n".join(groups[""]) + "\n"
    text = ""
    order = list(dict.fromkeys([*GROUPS, *groups]))
    for group in order:
        if groups.get(group):
            title = group if group else "Additional Commands:"
            text += f"\n{title}\n" + "\n".join(groups[group]) + "\n"
    return text


GROUPS = (
    "Key-value commands",
    "Cluster maintenance commands",
    "Concurrency commands",
    "Authentication commands",
    "Utility commands",
)

_WORDS = {
    "strings": "strings",
    "string": "string",
    "int": "int",
    "uint": "uint",
    "duration": "duration",
    "bool": "",
}


def flags_text(flags: list[CommandFlag]) -> str:
    """A list of flags with what they take, what they are for, and their defaults."""
    rows = []
    for flag in sorted(flags, key=lambda flag: flag.name):
        left = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
        word = _WORDS[flag.kind]
        rows.append((left + (f" {word}" if word else ""), flag.usage + _default(flag)))
    width = max(len(left) for left, _ in rows)
    return "".join(f"{left:{width}}   {right}\n" for left, right in rows)


def _default(flag: CommandFlag) -> str:
    from keyraft.base.gotext import quote
    from keyraft.cli.ctl import gofmt

    if not flag.default:
        return ""
    if flag.kind == "strings":
        return f" (default [{','.join(flag.default)}])"
    if flag.kind == "duration":
        return f" (default {gofmt.duration(flag.default)})"
    if flag.kind == "string":
        return f" (default {quote(flag.default)})"
    if flag.kind == "bool":
        return " (default true)"
    return f" (default {flag.default})"
