"""`keyraft usage`: keys, bytes and rates by prefix, from a running member (docs/USAGE.md)."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import click

from keyraft.base.sizes import size
from keyraft.cli.operator import Asking, asked, operator_options
from keyraft.client import Client
from keyraft.proto import operations_pb2

COLUMNS = ("PREFIX", "KEYS", "BYTES", "HISTORY", "REVISIONS", "WRITES/S")


@click.command()
@operator_options
@click.option("--prefix", default="", help="Only keys below this.")
@click.option("--depth", type=click.IntRange(1, 64), default=2, help="Segments of a prefix.")
@click.option("--top", type=click.IntRange(1, 4_096), default=20, help="The largest so many.")
@click.option(
    "--interval",
    type=click.FloatRange(0.001, 60.0),
    default=1.0,
    help="Seconds for rates, at least.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def usage(
    operator: Asking, prefix: str, depth: int, top: int, interval: float, as_json: bool
) -> None:
    """Keys, bytes, revisions and write rates by prefix, of one member."""

    async def ask(client: Client) -> operations_pb2.UsageResponse:
        return await client.maintenance.usage(
            prefix=prefix.encode("utf-8", "surrogateescape"),
            depth=depth,
            top=top,
            interval_s=interval,
        )

    answer = asked(operator, ask)
    if as_json:
        click.echo(json.dumps(as_object(answer)))
    else:
        for line in table(answer):
            click.echo(line)


def as_object(answer: operations_pb2.UsageResponse) -> dict[str, Any]:
    """What `--json` prints; a prefix that is no text is in base64."""
    return {
        "revision": answer.header.revision,
        "seconds": round(answer.seconds, 3),
        "prefixes": [{**_named(one.prefix), **_numbers(one)} for one in answer.prefixes],
        "others": _numbers(answer.others),
        "total": _numbers(answer.total),
    }


def _named(prefix: bytes) -> dict[str, str]:
    try:
        return {"prefix": prefix.decode("utf-8")}
    except UnicodeDecodeError:
        return {"prefix_base64": b64encode(prefix).decode()}


def _numbers(one: operations_pb2.PrefixUsage) -> dict[str, float]:
    return {
        "keys": one.keys,
        "bytes": one.bytes,
        "history_bytes": one.history_bytes,
        "revisions": one.revisions,
        "writes_per_second": round(one.writes_per_second, 3),
    }


def table(answer: operations_pb2.UsageResponse) -> list[str]:
    """The lines of the table."""
    rows: list[Sequence[str]] = [COLUMNS]
    for one in answer.prefixes:
        name = one.prefix.decode("utf-8", "backslashreplace")
        rows.append((name if name.isprintable() and name else repr(name), *_cells(one)))
    if answer.others.revisions:
        rows.append(("(others)", *_cells(answer.others)))
    rows.append(("(total)", *_cells(answer.total)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _cells(one: operations_pb2.PrefixUsage) -> tuple[str, ...]:
    return (
        str(one.keys),
        size(one.bytes),
        size(one.history_bytes),
        str(one.revisions),
        f"{one.writes_per_second:.1f}",
    )
