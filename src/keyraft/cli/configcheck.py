"""`keyraft config check FILE`: what a member would say to its configuration file."""

from __future__ import annotations

import click

from keyraft.config.building import build_config
from keyraft.config.config import ConfigError
from keyraft.config.file import read_config_file
from keyraft.config.flagtable import FLAGS
from keyraft.config.noeffect import effect_note, is_set


@click.group("config")
def config() -> None:
    """Look at configuration files of members."""


@config.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--strict", is_flag=True, help="Let a warning fail the check, too.")
def check(file: str, strict: bool) -> None:
    """Read FILE as `etcd --config-file FILE` does, start nothing, and say what is wrong.

    Ends with 1 when no member would start with the file. Nothing but FILE is opened: certificates
    and directories that it names are not looked at.
    """
    try:
        warnings = _warnings(file)
    except ConfigError as error:
        click.echo(f"{file}: {error}", err=True)
        raise SystemExit(1) from None
    for warning in warnings:
        click.echo(f"{file}: warning: {warning}", err=True)
    if warnings and strict:
        raise SystemExit(1)
    click.echo(f"{file}: a member can start with it")


def _warnings(path: str) -> list[str]:
    """Raises ConfigError."""
    read = read_config_file(path)
    # The lines of a check go nowhere, and its files are not opened.
    built = build_config({**read.values, "log-outputs": ("/dev/null",)}, read.explicit)
    found = [f'"{key}" has no effect: it is no key of a member' for key in read.unknown]
    found += [f'"{key}" is set more than once: the last one counts' for key in read.repeated]
    for name in sorted(read.explicit & FLAGS.keys()):
        note = effect_note(name) if is_set(built, name) else ""
        if note.startswith("Not available"):
            raise ConfigError(f'"{name}" is set: {note[0].lower()}{note[1:]}')
        if note:
            found.append(f'"{name}" is set: {note[0].lower()}{note[1:]}')
    return found
