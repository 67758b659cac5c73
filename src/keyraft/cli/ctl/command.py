"""The tree of commands, and finding the command that was typed.

A command's work is named as "module:function" and imported only when it runs, so that every
command starts fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from keyraft.cli.ctl.flags import CommandFlag, without_flags

SUGGESTION_DISTANCE_MAX = 2


class Command:
    """One command or group of commands.

    `use` is its line of usage, beginning with its name; `run` is "" for a group. `inherited` flags
    apply to all commands below.
    """

    def __init__(
        self,
        use: str,
        short: str = "",
        *,
        run: str = "",
        flags: Iterable[CommandFlag] = (),
        inherited: Iterable[CommandFlag] = (),
        children: Iterable[Command] = (),
        long: str = "",
        example: str = "",
        group: str = "",
        hidden: bool = False,
    ) -> None:
        self.use = use
        self.name = use.split()[0]
        self.short = short
        self.long = long
        self.example = example
        self.run = run
        self.flags = list(flags)
        self.inherited = list(inherited)
        self.group = group
        self.hidden = hidden
        self.parent: Command | None = None
        self.children = sorted(children, key=lambda child: child.name)
        for child in self.children:
            child.parent = self

    @property
    def path(self) -> str:
        """The command's full name."""
        return self.name if self.parent is None else f"{self.parent.path} {self.name}"

    def above(self) -> Iterator[Command]:
        """This command and its parents, innermost first."""
        command: Command | None = self
        while command is not None:
            yield command
            command = command.parent

    def all_flags(self) -> list[CommandFlag]:
        """Its own flags and the inherited ones."""
        return [*self.flags, *(flag for command in self.above() for flag in command.inherited)]

    @property
    def handed_down(self) -> list[CommandFlag]:
        """The flags that its children inherit; on help pages without those of all commands."""
        return self.inherited if self.parent is not None else []

    def local_flags(self) -> list[CommandFlag]:
        """Its own flags and those that its children inherit."""
        return [*self.flags, *self.handed_down]

    def child(self, word: str) -> Command | None:
        """The child called `word`, or the only one whose name begins with it."""
        found = [child for child in self.children if child.name.startswith(word)]
        for child in found:
            if child.name == word:
                return child
        return found[0] if len(found) == 1 else None


class UnknownCommand(Exception):
    """The text is the original's, with suggestions."""


def find(root: Command, words: list[str]) -> tuple[Command, list[str]]:
    """The command that `words` name, and the words without its name; raises UnknownCommand."""
    command, rest = root, list(words)
    while command.children:
        positions = without_flags(command.all_flags(), rest)
        if not positions:
            break
        child = command.child(rest[positions[0]])
        if child is None:
            if command is root:
                raise UnknownCommand(_unknown(root, rest[positions[0]]))
            break
        del rest[positions[0]]
        command = child
    return command, rest


def _unknown(root: Command, word: str) -> str:
    text = f'unknown command "{word}" for "{root.name}"'
    near = [
        child.name
        for child in root.children
        if not child.hidden
        and (
            _distance(word.lower(), child.name) <= SUGGESTION_DISTANCE_MAX
            or child.name.startswith(word.lower())
        )
    ]
    if near:
        text += "\n\nDid you mean this?\n" + "".join(f"\t{name}\n" for name in near)
    return text


def _distance(one: str, other: str) -> int:
    """The edit distance: how many letters must be changed, added or removed (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != against)),
            )
    return row[-1]
