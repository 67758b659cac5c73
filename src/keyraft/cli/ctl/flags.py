"""Parses flags as the original does (GNU style, `spf13/pflag`), with its error messages.

    --name=value  --name value  -w value  -wvalue  -w=value  --bool  --bool=false  -ab  --

Flags and arguments may be mixed; after `--` everything is an argument. A library would be shorter.
But scripts compare the original's messages about bad flags, and it parses booleans, short flags and
repeated lists in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from keyraft.base.gotext import parse_bool, parse_int, parse_uint, quote
from keyraft.cli.ctl import gofmt


class FlagError(Exception):
    """A command line that cannot be read; the text is the original's."""


class CommandHelpWanted(Exception):
    """`-h` or `--help` was given."""


def _strings(text: str) -> list[str]:
    import csv  # as the original: one line of comma-separated values

    return next(csv.reader([text]), []) if text else []


READERS: Final[dict[str, Callable[[str], Any]]] = {
    "bool": parse_bool,
    "string": str,
    "int": parse_int,
    "uint": parse_uint,
    "duration": gofmt.parse_duration,
    "strings": _strings,
}


class CommandFlag:
    """One flag: its name, an optional letter, its kind (a key of READERS) and its default."""

    __slots__ = ("default", "hidden", "kind", "name", "short", "usage")

    def __init__(
        self, name: str, kind: str, default: Any, usage: str, short: str = "", hidden: bool = False
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.usage = usage
        self.short = short
        self.hidden = hidden

    @property
    def shown(self) -> str:
        """The flag as error messages show it."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"

    def read(self, text: str) -> Any:
        """The value; raises FlagError."""
        try:
            return READERS[self.kind](text)
        except ValueError as error:
            raise FlagError(
                f"invalid argument {quote(text)} for {quote(self.shown)} flag: {error}"
            ) from None


def shown(flag: CommandFlag, value: Any) -> str:
    """A value as the original prints it."""
    if flag.kind == "strings":
        return f"[{','.join(value)}]"
    if flag.kind == "duration":
        return gofmt.duration(value)
    return str(value).lower() if flag.kind == "bool" else str(value)


class Values:
    """The flags of a command line: values by flag name (with `-` as `_`), and which were given."""

    def __init__(self, flags: Iterable[CommandFlag]) -> None:
        self.flags = {flag.name: flag for flag in flags}
        self.values: dict[str, Any] = {name: flag.default for name, flag in self.flags.items()}
        self.given: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def set(self, flag: CommandFlag, text: str) -> None:
        """Takes one appearance of a flag; lists grow with each."""
        value = flag.read(text)
        if flag.kind == "strings" and flag.name in self.given:
            value = self.values[flag.name] + value
        self.values[flag.name] = value
        self.given.add(flag.name)


def parse(flags: Iterable[CommandFlag], words: list[str]) -> tuple[Values, list[str]]:
    """(values, arguments); raises FlagError and HelpWanted."""
    values = Values(flags)
    by_letter = {flag.short: flag for flag in values.flags.values() if flag.short}
    arguments: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            arguments += rest
            break
        if word.startswith("--"):
            _long(word[2:], values, rest)
        elif word.startswith("-") and len(word) > 1:
            _letters(word, values, by_letter, rest)
        else:
            arguments.append(word)
    return values, arguments


def _long(text: str, values: Values, rest: list[str]) -> None:
    name, equals, value = text.partition("=")
    if not name or name.startswith("-"):
        raise FlagError(f"bad flag syntax: --{text}")
    flag = values.flags.get(name)
    if flag is None:
        if name == "help":
            raise CommandHelpWanted
        raise FlagError(f"unknown flag: --{name}")
    if equals:
        values.set(flag, value)
    elif flag.kind == "bool":
        values.set(flag, "true")
    elif rest:
        values.set(flag, rest.pop(0))
    else:
        raise FlagError(f"flag needs an argument: --{name}")


def _letters(word: str, values: Values, by_letter: dict[str, CommandFlag], rest: list[str]) -> None:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = by_letter.get(letter)
        if flag is None:
            if letter == "h":
                raise CommandHelpWanted
            raise FlagError(f"unknown shorthand flag: {letter!r} in {word}")
        if letters.startswith("="):
            values.set(flag, letters[1:])
            return
        if flag.kind == "bool":
            values.set(flag, "true")
        elif letters:
            values.set(flag, letters)
            return
        elif rest:
            values.set(flag, rest.pop(0))
            return
        else:
            raise FlagError(f"flag needs an argument: {letter!r} in {word}")


def without_flags(flags: Iterable[CommandFlag], words: list[str]) -> list[int]:
    """The positions of the words that are neither a flag nor a flag's value.

    It finds the command before the command's own flags are known. So an unknown flag is assumed to
    take a value.
    """
    booleans = {"--help", "-h"}
    for flag in flags:
        if flag.kind == "bool":
            booleans |= {f"--{flag.name}", f"-{flag.short}"}
    found, at = [], 0
    while at < len(words):
        word = words[at]
        if word == "--":
            break
        if word.startswith("-") and len(word) > 1:
            alone = word in booleans or "=" in word or not (word[1] == "-" or len(word) == 2)
            at += 1 if alone else 2
            continue
        found.append(at)
        at += 1
    return found
