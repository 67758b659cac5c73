"""Asking for passwords on the terminal."""

from __future__ import annotations

import getpass

from keyraft.cli.ctl.exits import BAD_ARGS, ERROR, Exit


def ask(prompt: str) -> str:
    """Reads a password without echo; exit code 1 without a terminal."""
    try:
        return getpass.getpass(prompt)
    except (EOFError, OSError) as error:
        raise Exit(ERROR, str(error) or "EOF") from None


def ask_twice(name: str) -> str:
    """Reads a new password twice; exit code 128 if they differ."""
    first = ask(f"Password of {name}: ")
    if not first:
        raise Exit(BAD_ARGS, "empty password")
    if ask(f"Type password of {name} again for confirmation: ") != first:
        raise Exit(BAD_ARGS, "given passwords are different")
    return first
