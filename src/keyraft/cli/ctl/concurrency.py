"""lock and elect."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from keyraft.cli.ctl.context import FOREVER_S, Context, error_text
from keyraft.cli.ctl.exits import BAD_ARGS, ERROR, SIGNALLED, Exit, ended_by
from keyraft.cli.ctl.printers.base import complain

if TYPE_CHECKING:
    from keyraft.client import Client
    from keyraft.client.recipes import Lock

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
CANCELED: Final = "context canceled"


GIVE_UP_S: Final = 5.0  # the limit for cleaning up after a signal, when no server answers


class CommandProgress:
    """How far a command has come."""

    def __init__(self) -> None:
        self.there = False  # the lock is held, or the election is won
        self.executing = False
        self.code = 0  # of the command that was run


async def _until_signal(work: Coroutine[Any, Any, None], progress: CommandProgress) -> bool:
    """Runs `work` until it ends; True if SIGINT or SIGTERM cancelled it.

    A signal during the start of the program counts, too. A second one ends the program at once.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    told = asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, told.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    waiting = loop.create_task(told.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for number in SIGNALS:
        loop.remove_signal_handler(number)
    if not told.is_set():
        await task
        return False
    # The child has received the signal, too; wait for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN if progress.executing else signal.SIG_DFL)
    task.cancel()
    await asyncio.wait((task,), timeout=GIVE_UP_S)
    while progress.executing and not task.done():
        await asyncio.wait((task,), timeout=GIVE_UP_S)
    if not task.done():
        complain(f"Error: {CANCELED}")  # the key expires with its lease
        os._exit(ERROR)
    if not task.cancelled():
        task.result()
    return True


async def lock(context: Context) -> None:
    """Takes a lock; holds it while a command runs, or until a signal."""
    from keyraft.client.errors import EtcdError, LeaseLostError
    from keyraft.client.recipes import Lock, Session

    if not context.arguments:
        raise Exit(BAD_ARGS, "lock takes a lock name argument and an optional command to execute")
    name, *command = context.arguments
    progress = CommandProgress()

    async def hold(client: Client) -> None:
        async with Session(client, context["ttl"]) as session, Lock(session, name) as held:
            progress.there = True
            if command:
                progress.executing = True
                try:
                    progress.code = await _execute(command, held)
                finally:
                    progress.executing = False
                return
            context.printer.get(await client.get(held.key))
            await session.lease.wait_lost()
            raise Exit(ERROR, "session expired")

    async with context.client(timeout_s=FOREVER_S) as client:
        try:
            told = await _until_signal(hold(client), progress)
        except LeaseLostError:
            raise Exit(ERROR, "session expired") from None
        except EtcdError as error:
            raise Exit(ERROR, error_text(error)) from None
    if told and not progress.there:
        raise Exit(ERROR, CANCELED)
    if progress.code:
        code = progress.code if progress.code > 0 else SIGNALLED
        raise Exit(code, ended_by(progress.code))


async def _execute(command: list[str], held: Lock) -> int:
    """The command's exit status. It gets signals itself, being in the terminal's process group."""
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
        return await child.wait()  # hold the lock until the command has ended


async def elect(context: Context) -> None:
    """Shows the leaders of an election, or is a candidate in it."""
    from keyraft.client.errors import EtcdError, LeaseLostError

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
                await _until_signal(_observe(context, client, arguments[0]), CommandProgress())
            else:
                await _campaign(context, client, arguments[0], arguments[1])
        except LeaseLostError:
            raise Exit(ERROR, "elect: session expired") from None
        except EtcdError as error:
            raise Exit(ERROR, error_text(error)) from None


async def _observe(context: Context, client: Client, name: str) -> None:
    from keyraft.client.recipes.election import observe
    from keyraft.proto import rpc_pb2

    async for kv in observe(client, name):
        context.printer.get(rpc_pb2.RangeResponse(kvs=[kv], count=1))


async def _campaign(context: Context, client: Client, name: str, proposal: str) -> None:
    from keyraft.client.recipes import Election, Session

    progress = CommandProgress()

    async def stand() -> None:
        async with Session(client) as session:
            election = Election(session, name)
            await election.campaign(proposal)
            progress.there = True
            try:
                context.printer.get(await client.get(election.key))
                await session.lease.wait_lost()
            finally:
                await election.resign()
            raise Exit(ERROR, "elect: session expired")

    told = await _until_signal(stand(), progress)
    if told and not progress.there:
        raise Exit(ERROR, CANCELED)
