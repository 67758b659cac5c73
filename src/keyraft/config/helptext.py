"""What `etcd --help` and a wrong flag print: the usage, and every flag with its default."""

from __future__ import annotations

from typing import Final

from keyraft.config.feature_gates import GATES
from keyraft.config.flagtable import FLAGS
from keyraft.config.flagvalues import BOOL
from keyraft.config.noeffect import GATES_WITHOUT_EFFECT, effect_note

USAGE: Final = """\
Usage:

  etcd [flags]
    Start an etcd server.

  etcd --version
    Show the version of etcd.

  etcd -h | --help
    Show the help information about etcd.

  etcd --config-file
    Start with a configuration file. Other flags and the environment are ignored then.
    Durations in the file are whole nanoseconds; "10m" is for the command line only.

  etcd gateway
    Forward TCP connections to members, without looking into them.
"""


def flags_text() -> str:
    """Every flag by section, as --help prints them on standard output."""
    lines = []
    section = ""
    for flag in FLAGS.values():
        if flag.name == "version":
            continue
        if flag.section != section:
            section = flag.section
            lines += ["", f"{section}:"]
        default = flag.default or ("${name}.etcd" if flag.name == "data-dir" else "")
        shown = "" if flag.kind is BOOL and default == "false" else f" '{default}'"
        note = effect_note(flag.name)
        lines += [f"  --{flag.name}{shown}", f"    {flag.help}.{f' {note}.' if note else ''}"]
        if flag.name == "feature-gates":
            lines += [
                f"    {name}=true|false ({stage} - default={str(default).lower()})"
                + (
                    f" Without effect here: {GATES_WITHOUT_EFFECT[name]}."
                    if name in GATES_WITHOUT_EFFECT
                    else ""
                )
                for name, (default, stage) in GATES.items()
            ]
    return "\n".join(lines) + "\n"
