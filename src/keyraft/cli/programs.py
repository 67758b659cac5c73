"""The commands and flags of every program, as one kind of tree: for completion and man pages.

etcdctl and etcdutl are such trees; that of `etcd` is made of the flag table, and what `click` runs is
asked for its commands and options.
"""

from __future__ import annotations

from typing import Final

import click

from keyraft.cli.ctl.command import Command
from keyraft.cli.ctl.flags import CommandFlag
from keyraft.config.flagtable import FLAGS, Flag
from keyraft.config.flagvalues import BOOL, DURATION
from keyraft.config.noeffect import effect_note

PROGRAMS: Final = ("etcd", "etcdctl", "etcdutl", "keyraft")
_NUMBERS: Final = ("int", "int64", "uint", "uint32", "uint64")


def tree(name: str, own: click.Command) -> Command:
    """The root of a program's commands; `name` is one of PROGRAMS, `own` what `keyraft` runs."""
    if name == "etcdctl":
        from keyraft.cli.ctl.tree import ROOT

        return ROOT
    if name == "etcdutl":
        from keyraft.cli.utl.tree import ROOT as UTL

        return UTL
    if name == "keyraft":
        return _clicked(own, "keyraft")
    return _etcd()


def _etcd() -> Command:
    from keyraft.cli.gateway import gateway
    from keyraft.cli.grpcproxy import FLAGS as PROXY_FLAGS

    start = Command("start [options]", "Starts the proxy", run="proxy", flags=PROXY_FLAGS)
    return Command(
        "etcd",
        "Starts a member of an etcd cluster.",
        run="member",
        long=(
            "Starts one member: it founds a cluster with others, joins one, or goes on with its data "
            "directory.\n\nEach flag is also an environment variable, --my-flag is ETCD_MY_FLAG, and a "
            "key of the file that --config-file names; then flags and environment are not read."
        ),
        flags=[_flag(flag) for flag in FLAGS.values()],
        children=[
            _clicked(gateway, "gateway"),
            Command("grpc-proxy", "Starts a gRPC proxy in front of members", children=[start]),
        ],
    )


def _flag(flag: Flag) -> CommandFlag:
    note = effect_note(flag.name)
    usage = f"{flag.help}.{f' {note}.' if note else ''}"
    kind = "bool" if flag.kind is BOOL else "string"
    if flag.kind is DURATION:
        usage += " A duration, as 1m30s or 100ms."
    elif flag.kind.go_type in _NUMBERS:
        usage += " A number."
    default = flag.default == "true" if kind == "bool" else flag.default
    return CommandFlag(flag.name, kind, default, usage)


def _clicked(command: click.Command, name: str) -> Command:
    context = click.Context(command, info_name=name)
    words = [name]
    flags = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words.append(parameter.make_metavar(context))
        elif isinstance(parameter, click.Option) and "--help" not in parameter.opts:
            flags.append(_option(parameter))
    children = []
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                children.append(_clicked(found, child))
    help_text = (command.help or "").replace("\b", "").strip()
    return Command(
        " ".join(words),
        help_text.split("\n\n")[0].replace("\n", " "),
        run="" if children else "click",
        flags=flags,
        children=children,
        long=help_text,
    )


def _option(option: click.Option) -> CommandFlag:
    long = next((one for one in option.opts if one.startswith("--")), option.opts[0])
    short = next((one[1:] for one in option.opts if not one.startswith("--")), "")
    kind = "bool" if option.is_flag else "string"
    default = option.default
    if isinstance(default, list | tuple):
        default = ",".join(map(str, default))
    if kind == "bool":
        default = default is True
    elif not isinstance(default, str | int | float):
        default = ""
    return CommandFlag(long.lstrip("-"), kind, default and str(default), option.help or "", short)
