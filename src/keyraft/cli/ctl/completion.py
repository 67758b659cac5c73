"""completion: a script for a shell that completes commands, flags and output forms.

Each script holds one table: for every command its subcommands, its flags, and which flags take a
value. It follows the typed words from command to command and skips flags and their values. Any
other word is an argument, for which files are offered.

DEVIATION: the scripts are our own. The original's run the program at every Tab, which would be
slower than the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from keyraft.cli.ctl.command import Command
from keyraft.cli.ctl.context import Context
from keyraft.cli.ctl.exits import ERROR, Exit

FORMS: Final = "fields json protobuf simple table"

Row = tuple[str, str, str, str]
"""Path, subcommands, flags, flags that take a value; all but the path separated by blanks."""


def _commands(command: Command) -> Iterator[Command]:
    yield command
    for child in command.children:
        yield from _commands(child)


def _rows(root: Command) -> list[Row]:
    rows = []
    for command in _commands(root):
        flags = command.all_flags()
        taking = [flag for flag in flags if flag.kind != "bool"]
        valued = [f"--{flag.name}" for flag in taking]
        valued += [f"-{flag.short}" for flag in taking if flag.short]
        rows.append(
            (
                command.path.removeprefix(root.name).strip(),
                " ".join(child.name for child in command.children),
                " ".join([f"--{flag.name}" for flag in flags] + ["--help"]),
                " ".join(valued),
            )
        )
    return rows


def completion(context: Context) -> None:
    """Prints the script for one of bash, zsh, fish, powershell."""
    from keyraft.cli.ctl.tree import ROOT

    if len(context.arguments) != 1 or context.arguments[0] not in SHELLS:
        given = context.arguments[0] if context.arguments else ""
        raise Exit(ERROR, f'invalid argument "{given}" for "etcdctl completion"')
    print(script(ROOT, context.arguments[0]))


def script(root: Command, shell: str) -> str:
    """The script for `root`, whatever its name; `shell` is one of SHELLS."""
    return SHELLS[shell](_rows(root)).replace("etcdctl", root.name)


def _bash(rows: list[Row]) -> str:
    cases = "\n".join(
        f'        "{path}") commands="{commands}" flags="{flags}" valued="{valued}" ;;'
        for path, commands, flags, valued in rows
    )
    return f"""# bash completion for etcdctl
__etcdctl_table() {{
    case "$1" in
{cases}
    esac
}}
_etcdctl() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" path="" flag="" word offered i
    local commands flags valued
    __etcdctl_table ""
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        if [[ -n "$flag" ]]; then
            [[ "$word" == "=" ]] || flag=""
        elif [[ " $valued " == *" $word "* ]]; then
            flag="$word"
        elif [[ "$word" != -* && " $commands " == *" $word "* ]]; then
            path="${{path:+$path }}$word"
            __etcdctl_table "$path"
        fi
    done
    [[ "$current" != "=" ]] || current=""
    case "$flag" in
        "") if [[ "$current" == -* ]]; then offered="$flags"; else offered="$commands"; fi ;;
        -w | --write-out) offered="{FORMS}" ;;
        *) offered="" ;;
    esac
    COMPREPLY=($(compgen -W "$offered" -- "$current"))
    [[ -n "${{COMPREPLY[*]}}" || -n "$offered" ]] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -F _etcdctl etcdctl"""


def _zsh(rows: list[Row]) -> str:
    return f"""#compdef etcdctl
autoload -U +X bashcompinit && bashcompinit
{_bash(rows)}"""


def _fish(rows: list[Row]) -> str:
    cases = "\n".join(
        f"        case '{path}'\n"
        f"            set -g __etcdctl_commands {commands}\n"
        f"            set -g __etcdctl_flags {flags}\n"
        f"            set -g __etcdctl_valued {valued}"
        for path, commands, flags, valued in rows
    )
    return f"""# fish completion for etcdctl
function __etcdctl_table
    switch "$argv"
{cases}
    end
end
function __etcdctl_offer
    set -l path
    set -l flag
    __etcdctl_table
    for word in (commandline -opc)[2..-1]
        if test -n "$flag"
            set flag
        else if contains -- $word $__etcdctl_valued
            set flag $word
        else if contains -- $word $__etcdctl_commands
            set -a path $word
            __etcdctl_table $path
        end
    end
    set -l current (commandline -ct)
    if string match -q -- '-w' "$flag"; or string match -q -- '--write-out' "$flag"
        string split ' ' '{FORMS}'
    else if test -n "$flag"
        __fish_complete_path "$current"
    else if string match -q -- '-*' "$current"
        string join \\n -- $__etcdctl_flags
    else if test -n "$__etcdctl_commands"
        string join \\n -- $__etcdctl_commands
    else
        __fish_complete_path "$current"
    end
end
complete -c etcdctl -f -a '(__etcdctl_offer)'"""


def _powershell(rows: list[Row]) -> str:
    cases = "\n".join(
        f"        '{path}' = @('{commands}', '{flags}', '{valued}')"
        for path, commands, flags, valued in rows
    )
    return f"""# powershell completion for etcdctl
Register-ArgumentCompleter -Native -CommandName etcdctl -ScriptBlock {{
    param($current, $ast, $position)
    $table = @{{
{cases}
    }}
    $typed = @($ast.CommandElements | Select-Object -Skip 1 | ForEach-Object {{ "$_" }})
    if ($current -ne '' -and $typed.Count) {{ $typed = @($typed | Select-Object -SkipLast 1) }}
    $path = ''
    $flag = ''
    foreach ($word in $typed) {{
        if ($flag -ne '') {{ $flag = '' }}
        elseif (($table[$path][2] -split ' ') -ccontains $word) {{ $flag = $word }}
        elseif ($word -ne '' -and ($table[$path][0] -split ' ') -ccontains $word) {{
            $path = "$path $word".Trim()
        }}
    }}
    $offered = $table[$path][0]
    if ($current -like '-*') {{ $offered = $table[$path][1] }}
    if ($flag -ne '') {{ $offered = '' }}
    if (@('-w', '--write-out') -ccontains $flag) {{ $offered = '{FORMS}' }}
    $offered -split ' ' | Where-Object {{ $_ -ne '' -and $_ -like "$current*" }}
}}"""


SHELLS: Final[dict[str, Callable[[list[Row]], str]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
    "powershell": _powershell,
}
