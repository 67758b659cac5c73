"""`keyraft limit`: how much may be under a prefix, and how fast it may be written (docs/LIMITS.md)."""

from __future__ import annotations

import json
from typing import Any

import click

from keyraft.base.limits import PREFIX_LIMITS
from keyraft.cli.operator import Asking, asked, operator_options
from keyraft.client import Client


@click.group()
def limit() -> None:
    """Limit prefixes of a cluster: bytes, keys, writes a second."""


@limit.command("set")
@click.argument("prefix")
@operator_options
@click.option("--bytes", "bytes_max", type=click.IntRange(0, 1 << 62), help="Of present revisions.")
@click.option("--keys", "keys_max", type=click.IntRange(0, 1 << 62), help="That exist at once.")
@click.option("--writes-per-second", type=click.FloatRange(0, 1e9), help="Of the whole cluster.")
def set_limit(
    operator: Asking,
    prefix: str,
    bytes_max: int | None,
    keys_max: int | None,
    writes_per_second: float | None,
) -> None:
    """Limit PREFIX; what is not given is not limited."""
    wanted = {
        name: number
        for name, number in (
            ("bytes", bytes_max),
            ("keys", keys_max),
            ("writes_per_second", writes_per_second),
        )
        if number is not None
    }
    if not wanted:
        raise click.UsageError("give --bytes, --keys or --writes-per-second")
    key = PREFIX_LIMITS + prefix.encode("utf-8", "surrogateescape")

    async def put(client: Client) -> None:
        await client.put(key, json.dumps(wanted))

    asked(operator, put)


@limit.command()
@click.argument("prefix")
@operator_options
def remove(operator: Asking, prefix: str) -> None:
    """Remove the limit of PREFIX."""
    key = PREFIX_LIMITS + prefix.encode("utf-8", "surrogateescape")

    async def delete(client: Client) -> int:
        return (await client.delete(key)).deleted

    if not asked(operator, delete):
        raise click.ClickException(f"{prefix} has no limit")


@limit.command("list")
@operator_options
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def list_limits(operator: Asking, as_json: bool) -> None:
    """List the limits."""

    async def read(client: Client) -> list[tuple[bytes, bytes]]:
        found = await client.get(PREFIX_LIMITS, prefix=True)
        return [(kv.key[len(PREFIX_LIMITS) :], kv.value) for kv in found.kvs]

    rows = [(_text(prefix), _numbers(value)) for prefix, value in asked(operator, read)]
    if as_json:
        click.echo(json.dumps([{"prefix": prefix, **numbers} for prefix, numbers in rows]))
        return
    for prefix, numbers in rows:
        words = [f"{name.replace('_', '-')}={number}" for name, number in numbers.items()]
        click.echo(f"{prefix}  {' '.join(words)}")


def _text(prefix: bytes) -> str:
    return prefix.decode("utf-8", "backslashreplace")


def _numbers(value: bytes) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"malformed": True}
