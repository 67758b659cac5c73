"""What commands of `keyraft` that ask a member have in common: where it is, and who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from keyraft.cli.ctl.exits import Exit
from keyraft.cli.ctl.password import ask
from keyraft.client import TLS, Client, errors

T = TypeVar("T")
TIMEOUT_S = 300.0  # a walk over many rows takes its time


@dataclass(frozen=True, slots=True)
class Asking:
    """Where to ask, and as whom."""

    endpoint: str
    user: str
    password: str
    tls: TLS | None


def operator_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options, handed over as `operator`."""

    @click.option("--endpoint", default="127.0.0.1:2379", help="The member to ask.")
    @click.option(
        "--user", default="", help="name[:password]; the password is asked for if missing."
    )
    @click.option("--cacert", default="", help="File of the authorities that the member must show.")
    @click.option("--cert", default="", help="File of the certificate to show.")
    @click.option("--key", default="", help="File of its key.")
    @wraps(command)
    def wrapped(endpoint: str, user: str, cacert: str, cert: str, key: str, **others: Any) -> None:
        name, colon, password = user.partition(":")
        if name and not colon:
            try:
                password = ask("Password: ")
            except Exit as error:
                raise click.ClickException(f"bad user information: {error}") from None
        tls = TLS(ca_file=cacert, cert_file=cert, key_file=key) if cacert or cert else None
        command(Asking(endpoint, name, password, tls), **others)

    return wrapped


def asked(operator: Asking, question: Callable[[Client], Awaitable[T]]) -> T:
    """The answer; ends the command with the member's refusal."""

    async def run() -> T:
        async with Client(
            operator.endpoint,
            tls=operator.tls,
            user=operator.user,
            password=operator.password,
            timeout_s=TIMEOUT_S,
        ) as client:
            return await question(client)

    try:
        return asyncio.run(run())
    except errors.EtcdError as error:
        raise click.ClickException(str(error)) from None
