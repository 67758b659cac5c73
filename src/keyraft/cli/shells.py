"""`keyraft completion` and `keyraft manual`: what shells and `man` want to know of the programs."""

from __future__ import annotations

from pathlib import Path

import click

from keyraft.cli.ctl.completion import script
from keyraft.cli.programs import PROGRAMS, tree


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "powershell"]))
@click.option(
    "--program",
    "programs",
    type=click.Choice(PROGRAMS),
    multiple=True,
    help="Only for this program (may be repeated).",
)
def completion(shell: str, programs: tuple[str, ...]) -> None:
    """Print the script that completes commands and flags of all programs.

    For this shell only: source <(keyraft completion bash). For good: write it to a file that your
    shell reads at its start.
    """
    own = click.get_current_context().find_root().command
    for name in programs or PROGRAMS:
        click.echo(script(tree(name, own), shell))


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def manual(folder: Path) -> None:
    """Write the man pages of all programs into FOLDER.

    For example into /usr/local/share/man/man1.
    """
    from keyraft.cli.manual import pages

    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages(click.get_current_context().find_root().command).items():
        (folder / name).write_text(text)
