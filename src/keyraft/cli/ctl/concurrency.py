"""lock and elect."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from keyraft.cli.ctl.context import FOREVER_S, Context, error_text
from keyraft.cli.ctl.exits import BAD_ARGS, ERROR, Exit

if TYPE_CHECKING:
    from keyraft.client import Client
    from keyraft.client.recipes import Lock, Session


async def _until_signal(work: Coroutine[Any, Any, None]) -> bool:
    """Runs `work` until it ends or SIGINT or SIGTERM cancels it, which is True."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    told = False

    def tell() -> None:
        nonlocal told
        told = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, tell)
    try:
        await task
    except asyncio.CancelledError:
        if not told:
            raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return told


async def lock(context: Context) -> None:
    """Takes a lock; holds it while a command runs, or until a signal."""
    from keyraft.client.errors import EtcdError, LeaseLostError, RawError
    from keyraft.client.recipes import Lock, Session

    if not context.arguments:
        raise Exit(BAD_ARGS, "lock takes a lock name argument and an optional command to execute")
    name, *command = context.arguments
    code = 0
    locked = False

    async def hold(client: Client, session: Session) -> None:
        nonlocal code, locked
        async with Lock(session, name) as held:
            locked = True
            if command:
                code = await _execute(command, held)
                return
            context.printer.get(await client.get(held.key))
            await session.lease.wait_lost()
            raise Exit(ERROR, "session expired")

    async with context.client(timeout_s=FOREVER_S) as client:
        try:
            async with Session(client, context["ttl"]) as session:
                told = await _until_signal(hold(client, session))
        except LeaseLostError:
            raise Exit(ERROR, "session expired") from None
        except (EtcdError, RawError) as error:
            raise Exit(ERROR, error_text(error)) from None
    if told and not locked:
        raise Exit(ERROR, "context canceled")
    if code:
        raise Exit(code, f"exit status {code}")


async def _execute(command: list[str], held: Lock) -> int:
    """The command's exit status; signals go to it, as it is in the terminal's group, too."""
    environment = os.environ | {
        "ETCD_LOCK_KEY": os.fsdecode(held.key),
        "ETCD_LOCK_REV": str(held.revision),
    }
    try:
        child = await asyncio.create_subprocess_exec(
            *command, env=environment, stdin=asyncio.subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise Exit(ERROR, f'exec: "{command[0]}": executable file not found in $PATH') from None
    except OSError as error:
        raise Exit(ERROR, str(error)) from None
    try:
        return await asyncio.shield(child.wait())
    except asyncio.CancelledError:
        return await child.wait()  # the lock is held until the command has ended


async def elect(context: Context) -> None:
    """Shows the leaders of an election, or stands for it."""
    from keyraft.client.errors import EtcdError, LeaseLostError, RawError

    arguments = context.arguments
    if len(arguments) not in (1, 2):
        raise Exit(
            BAD_ARGS, "elect takes one election name argument and an optional proposal argument"
        )
    if len(arguments) == 1 and not context["listen"]:
        raise Exit(BAD_ARGS, "no proposal argument but -l not set")
    if len(arguments) == 2 and context["listen"]:
        raise Exit(BAD_ARGS, "proposal given but -l is set")
    async with context.client(timeout_s=FOREVER_S) as client:
        try:
            if len(arguments) == 1:
                await _until_signal(_observe(context, client, arguments[0]))
            else:
                await _campaign(context, client, arguments[0], arguments[1])
        except LeaseLostError:
            raise Exit(ERROR, "elect: session expired") from None
        except (EtcdError, RawError) as error:
            raise Exit(ERROR, error_text(error)) from None


async def _observe(context: Context, client: Client, name: str) -> None:
    from keyraft.client.recipes.election import observe
    from keyraft.proto import rpc_pb2

    async for kv in observe(client, name):
        context.printer.get(rpc_pb2.RangeResponse(kvs=[kv], count=1))


async def _campaign(context: Context, client: Client, name: str, proposal: str) -> None:
    from keyraft.client.recipes import Election, Session

    async with Session(client) as session:
        election = Election(session, name)
        elected = False

        async def stand() -> None:
            nonlocal elected
            await election.campaign(proposal)
            elected = True
            context.printer.get(await client.get(election.key))
            await session.lease.wait_lost()
            raise Exit(ERROR, "elect: session expired")

        told = await _until_signal(stand())
        await election.resign()
    if told and not elected:
        raise Exit(ERROR, "context canceled")
