"""Scripts of commands with their expected output, in the "datadriven" form.

    # a comment
    command argument key=value key=(value, value)      (a backslash continues the line)
    optional input
    ----
    expected output

up to a blank line; output with blank lines stands between doubled `----`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Argument:
    """`key`, or `key=value`, or `key=(values)`; no `=`: no values."""

    key: str
    values: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ScriptCommand:
    """One command as it stands in the script; `line` is where."""

    line: int
    command: str
    arguments: list[Argument]
    input: str
    expected: str

    def value(self, key: str) -> str:
        """The single value of an argument; raises KeyError."""
        for argument in self.arguments:
            if argument.key == key:
                return argument.values[0]
        raise KeyError(key)

    def plain(self) -> list[str]:
        """The arguments without values."""
        return [argument.key for argument in self.arguments if not argument.values]


_ARGUMENT = re.compile(r"([^\s=()]+)(?:=(\([^)]*\)|\S*))?(?:\s+|$)")


def _parse_arguments(text: str) -> list[Argument]:
    arguments: list[Argument] = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _ARGUMENT.match(text, position)
        if match is None:
            raise ValueError(f"cannot parse {text[position:]!r}")
        key, value = match.group(1), match.group(2)
        if value is None:
            arguments.append(Argument(key))
        elif value.startswith("("):
            arguments.append(Argument(key, re.split(r"[,\s]+", value[1:-1].strip())))
        else:
            arguments.append(Argument(key, [value]))
        position = match.end()
    return arguments


def parse(text: str) -> Iterator[ScriptCommand]:
    """The cases of a script."""
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    position = 0

    def next_line() -> str:
        nonlocal position
        line = lines[position]
        position += 1
        return line

    while position < len(lines):
        start = position + 1
        line = next_line().strip()
        if not line or line.startswith("#"):
            continue
        while line.endswith("\\") and position < len(lines):
            line = line[:-1] + next_line().strip()
        command, *rest = line.split(None, 1)
        arguments = _parse_arguments(rest[0] if rest else "")
        body: list[str] = []
        while position < len(lines):
            line = next_line()
            if line == "----":
                break
            body.append(line)
        else:
            raise ValueError(f"line {start}: no ---- after {command}")
        expected: list[str] = []
        if position < len(lines) and lines[position] == "----":
            position += 1
            while lines[position : position + 2] != ["----", "----"]:
                expected.append(next_line())
            position += 2
        else:
            while position < len(lines):
                line = next_line()
                if not line.strip():
                    break
                expected.append(line)
        yield ScriptCommand(
            start,
            command,
            arguments,
            "\n".join(body).strip(),
            "".join(f"{line}\n" for line in expected),
        )


def rewrite(path: Path, handle: Callable[[ScriptCommand], str]) -> None:
    """Puts what `handle` returns in place of the expected output; to be read before it is kept."""
    lines = path.read_text(encoding="utf-8").split("\n")
    out: list[str] = []
    done = 0
    for case in parse("\n".join(lines)):
        body = lines.index("----", case.line - 1)
        out += lines[done : body + 1]
        actual = handle(case).rstrip("\n")
        is_blank_inside = "\n\n" in actual
        out += (["----"] if is_blank_inside else []) + [actual]
        out += ["----", "----"] if is_blank_inside else []
        done = body + 1 + case.expected.count("\n") + (3 if "\n\n" in case.expected else 0)
    path.write_text("\n".join(out + lines[done:]), encoding="utf-8")


def run(path: Path, handle: Callable[[ScriptCommand], str]) -> list[str]:
    """Runs a script; returns what differs, one account a case, and stops at the first."""
    for case in parse(path.read_text(encoding="utf-8")):
        actual = handle(case)
        if actual and not actual.endswith("\n"):
            actual += "\n"
        if actual != case.expected:
            return [
                f"{path}:{case.line}: {case.command}\nexpected:\n{case.expected}actual:\n{actual}"
            ]
    return []
