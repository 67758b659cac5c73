"""completion: a script for a shell that completes commands and flags."""

from __future__ import annotations

from collections.abc import Iterator

from keyraft.cli.ctl.command import Command
from keyraft.cli.ctl.context import Context
from keyraft.cli.ctl.exits import ERROR, Exit

SHELLS = ("bash", "zsh", "fish", "powershell")


def _commands(command: Command) -> Iterator[Command]:
    yield command
    for child in command.children:
        yield from _commands(child)


def _words(command: Command) -> list[str]:
    """What may come after a command: its children and its flags."""
    flags = command.all_flags()
    return [*(child.name for child in command.children), *(f"--{flag.name}" for flag in flags)]


def completion(context: Context) -> None:
    """Prints the script for one of bash, zsh, fish, powershell."""
    from keyraft.cli.ctl.tree import ROOT

    if len(context.arguments) != 1 or context.arguments[0] not in SHELLS:
        given = context.arguments[0] if context.arguments else ""
        raise Exit(ERROR, f'invalid argument "{given}" for "etcdctl completion"')
    print(script(ROOT, context.arguments[0]))


def script(root: Command, shell: str) -> str:
    """The script for `root`, whatever its name; `shell` is one of SHELLS."""
    table = {
        command.path.removeprefix(root.name).strip(): _words(command) for command in _commands(root)
    }
    write = {"bash": _bash, "zsh": _zsh, "fish": _fish, "powershell": _powershell}[shell]
    return write(table).replace("etcdctl", root.name)


def _cases(table: dict[str, list[str]]) -> str:
    return "\n".join(
        f'        "{path}") words="{" ".join(words)}" ;;' for path, words in table.items()
    )


def _bash(table: dict[str, list[str]]) -> str:
    return f"""# bash completion for etcdctl
_etcdctl() {{
    local words path="" word i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        [[ "$word" == -* ]] || path="${{path:+$path }}$word"
    done
    case "$path" in
{_cases(table)}
        *) words="" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
    [[ -n "${{COMPREPLY[*]}}" ]] || COMPREPLY=($(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -F _etcdctl etcdctl"""


def _zsh(table: dict[str, list[str]]) -> str:
    return f"""#compdef etcdctl
_etcdctl() {{
    local wordlist=("${{(@)words[2,CURRENT-1]:#-*}}") words
    case "${{wordlist[*]}}" in
{_cases(table)}
        *) words="" ;;
    esac
    compadd -- ${{(s: :)words}}
}}
compdef _etcdctl etcdctl"""


def _fish(table: dict[str, list[str]]) -> str:
    lines = ["# fish completion for etcdctl"]
    for path, words in table.items():
        condition = (
            "; and ".join(f"__fish_seen_subcommand_from {word}" for word in path.split())
            or "__fish_use_subcommand"
        )
        for word in words:
            what = f"-l {word[2:]}" if word.startswith("--") else f"-f -a {word}"
            lines.append(f"complete -c etcdctl -n '{condition}' {what}")
    return "\n".join(lines)


def _powershell(table: dict[str, list[str]]) -> str:
    rows = "\n".join(
        f"        '{path}' = @({', '.join(repr(word) for word in words)})"
        for path, words in table.items()
    )
    return f"""# powershell completion for etcdctl
Register-ArgumentCompleter -Native -CommandName etcdctl -ScriptBlock {{
    param($word, $ast, $position)
    $table = @{{
{rows}
    }}
    $typed = $ast.CommandElements | Select-Object -Skip 1 | ForEach-Object {{ "$_" }}
    $path = ($typed | Where-Object {{ $_ -notlike '-*' -and $_ -ne $word }}) -join ' '
    $table[$path] | Where-Object {{ $_ -like "$word*" }}
}}"""
