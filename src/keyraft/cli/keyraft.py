"""`keyraft`: commands that etcd does not have."""

from __future__ import annotations

import os
import sys

import click

from keyraft.base.version import VERSION
from keyraft.cli.pipes import end_by_pipe, guard


class _LazyGroup(click.Group):
    """Loads a command when it is named, so that the others start fast."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name == "bench":
            from keyraft.cli.bench import bench

            return bench
        if name == "config":
            from keyraft.cli.configcheck import config

            return config
        if name == "completion":
            from keyraft.cli.shells import completion

            return completion
        if name == "limit":
            from keyraft.cli.limit import limit

            return limit
        if name == "manual":
            from keyraft.cli.shells import manual

            return manual
        if name == "usage":
            from keyraft.cli.usage import usage

            return usage
        return super().get_command(context, name)

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(
            [
                *super().list_commands(context),
                *("bench", "completion", "config", "limit", "manual", "usage"),
            ]
        )


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="keyraft")
def _keyraft() -> None:
    """Keyraft: run members for development, and measure them."""


@_keyraft.command()
@click.argument("members", type=click.IntRange(1, 9), default=1)
def run(members: int) -> None:
    """Start one member on the defaults, or a local cluster of MEMBERS.

    One member listens on 127.0.0.1:2379 and keeps its data in default.etcd here. Several listen
    on 2379, 22379, 32379 and so on, with data in infra1.etcd, infra2.etcd and so on.
    """
    if members == 1:
        # The member replaces this process, so that signals reach it.
        os.execv(sys.executable, [sys.executable, "-m", "keyraft.cli.etcd"])
    import asyncio

    from keyraft.lab.local_cluster import run_cluster, seats

    code = asyncio.run(run_cluster(seats(members)))
    if code is None:
        end_by_pipe()
    raise SystemExit(code)


COMMANDS = _keyraft


def main() -> None:
    """Runs the command line of this process and ends it."""
    guard()
    _keyraft(prog_name="keyraft")


if __name__ == "__main__":
    main()
