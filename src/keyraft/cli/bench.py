"""`keyraft bench`: put, range and txn load against any etcd server, with etcd's `benchmark` flags."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import click
import uvloop

from keyraft.cli.ctl.exits import Exit
from keyraft.cli.ctl.password import ask
from keyraft.grpc import RpcError
from keyraft.lab.load_generator import (
    PUT,
    RANGE,
    TXN,
    Credentials,
    MakeRequest,
    Results,
    format_report,
    key_maker,
    put_maker,
    range_request,
    run_load,
    txn_maker,
)


@dataclass(frozen=True, slots=True)
class Setup:
    """The options that all loads share."""

    endpoints: list[str]
    connections: int
    clients: int
    random: Random
    credentials: Credentials | None


@click.group()
@click.option("--endpoints", default="127.0.0.1:2379", help="gRPC endpoints, comma list.")
@click.option("--conns", type=click.IntRange(1, 10_000), default=1, help="Connections in all.")
@click.option("--clients", type=click.IntRange(1, 1_000_000), default=1, help="Clients in all.")
@click.option("--seed", type=int, default=1, help="Seed of the random keys.")
@click.option("--user", default="", help="name[:password]; the password is asked for if missing.")
@click.pass_context
def bench(
    context: click.Context, endpoints: str, conns: int, clients: int, seed: int, user: str
) -> None:
    """Measure a server under load."""
    context.obj = Setup(
        [url if "://" in url else f"http://{url}" for url in endpoints.split(",")],
        min(conns, clients),
        clients,
        Random(seed),
        _credentials(user) if user else None,
    )


def _credentials(user: str) -> Credentials:
    name, colon, password = user.partition(":")
    if colon:
        return name, password
    try:
        return name, ask("Password: ")
    except Exit as error:
        raise click.ClickException(f"bad user information: {user} {error}") from None


@bench.command()
@click.option("--rate", type=float, default=0, help="Most puts a second (0 is no limit).")
@click.option("--key-size", type=click.IntRange(1, 4096), default=8)
@click.option("--val-size", type=click.IntRange(0, 1 << 20), default=8)
@click.option("--total", type=click.IntRange(1), default=10_000, help="Puts in all.")
@click.option("--key-space-size", type=click.IntRange(1), default=1, help="Possible keys.")
@click.option("--sequential-keys", is_flag=True, help="Keys in order, not by chance.")
@click.pass_obj
def put(
    setup: Setup,
    rate: float,
    key_size: int,
    val_size: int,
    total: int,
    key_space_size: int,
    sequential_keys: bool,
) -> None:
    """Put random keys."""
    make_key = key_maker(key_size, key_space_size, sequential_keys, setup.random)
    _run(setup, PUT, put_maker(make_key, _value(val_size, setup.random)), total, rate)


@bench.command(name="range")
@click.option("--rate", type=float, default=0, help="Most ranges a second (0 is no limit).")
@click.option("--total", type=click.IntRange(1), default=10_000, help="Ranges in all.")
@click.option("--limit", type=click.IntRange(0), default=0, help="Most keys an answer.")
@click.option(
    "--consistency",
    type=click.Choice(["l", "s"]),
    default="l",
    help="Linearizable or serializable.",
)
@click.argument("key")
@click.argument("range_end", default="")
@click.pass_obj
def range_(
    setup: Setup,
    rate: float,
    total: int,
    limit: int,
    consistency: str,
    key: str,
    range_end: str,
) -> None:
    """Read KEY, or the keys from KEY up to RANGE_END."""
    request = range_request(key.encode(), range_end.encode(), limit, consistency == "s")
    _run(setup, RANGE, lambda number: request, total, rate)


@bench.command()
@click.option("--rate", type=float, default=0, help="Most transactions a second (0 is no limit).")
@click.option("--key-size", type=click.IntRange(1, 4096), default=8)
@click.option("--val-size", type=click.IntRange(0, 1 << 20), default=8)
@click.option("--txn-ops", type=click.IntRange(1, 128), default=1, help="Puts a transaction.")
@click.option("--total", type=click.IntRange(1), default=10_000, help="Transactions in all.")
@click.option("--key-space-size", type=click.IntRange(1), default=1, help="Possible keys.")
@click.pass_obj
def txn(
    setup: Setup,
    rate: float,
    key_size: int,
    val_size: int,
    txn_ops: int,
    total: int,
    key_space_size: int,
) -> None:
    """Put several keys in each transaction.

    Keys are taken in order, because no transaction may write one twice.
    """
    if txn_ops > key_space_size:
        raise click.UsageError("the key space must be at least as large as a transaction")
    make_key = key_maker(key_size, key_space_size, True, setup.random)
    make = txn_maker(put_maker(make_key, _value(val_size, setup.random)), txn_ops)
    _run(setup, TXN, make, total, rate)


def _value(size: int, random: Random) -> bytes:
    return random.randbytes(size)


def _run(
    setup: Setup,
    path: bytes,
    make: MakeRequest,
    total: int,
    rate: float,
) -> None:
    load = run_load(
        setup.endpoints,
        setup.connections,
        setup.clients,
        path,
        make,
        total,
        rate,
        setup.credentials,
    )
    try:
        results: Results = uvloop.run(load)
    except RpcError as error:
        raise click.ClickException(error.text) from None
    click.echo(format_report(results), nl=False)
    if results.errors:
        raise SystemExit(1)
