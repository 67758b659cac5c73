"""watch: print events, run a command for each, or read watches from standard input."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from keyraft.base.gotext import quote
from keyraft.cli.ctl.context import Context, error_text
from keyraft.cli.ctl.exits import BAD_ARGS, ERROR, INTERRUPTED, INVALID_INPUT, Exit, ended_by
from keyraft.cli.ctl.flags import CommandHelpWanted, FlagError, Values, parse
from keyraft.cli.ctl.gofmt import raw, words
from keyraft.cli.ctl.printers.base import complain, line

if TYPE_CHECKING:
    from keyraft.client import Client, Watch
    from keyraft.proto import mvcc_pb2, rpc_pb2

BAD_NUMBER = "bad number of arguments"
CONFLICT = f"{BAD_NUMBER} (found conflicting environment key)"
NO_COMMAND = f"{BAD_NUMBER} (found separator --, but no commands)"


class BadWatch(Exception):
    """Arguments that make no watch."""


def split(arguments: list[str], typed: list[str]) -> tuple[list[str], list[str]]:
    """(what to watch, the command to run) of a watch's arguments.

    `typed` are the words as typed, with the `--` that is missing in the arguments. Key and range
    end may come from the environment instead, but not from both.
    """
    key = os.environ.get("ETCDCTL_WATCH_KEY", "")
    range_end = os.environ.get("ETCDCTL_WATCH_RANGE_END", "")
    command: list[str] = []
    if "--" in typed:
        command = typed[typed.index("--") + 1 :]
        if not command:
            raise BadWatch(NO_COMMAND)
        arguments = arguments[: len(arguments) - len(command)]
    if key:
        if arguments:
            raise BadWatch(CONFLICT)
        arguments = [key, range_end] if range_end else [key]
    if not arguments:
        raise BadWatch(BAD_NUMBER)
    return arguments, command


def start(client: Client, values: Values, arguments: list[str]) -> Watch:
    """The watch that flags and arguments ask for."""
    from keyraft.client.requests import FROM_KEY, prefix_end

    if len(arguments) == 2 and values["prefix"]:
        raise BadWatch("`range_end` and `--prefix` are mutually exclusive")
    key = raw(arguments[0])
    range_end = raw(arguments[1]) if len(arguments) == 2 else None
    if values["prefix"]:
        range_end = prefix_end(key)
        key = key or FROM_KEY
    return client.watch(
        key,
        range_end,
        start_revision=values["rev"],
        prev_kv=values["prev-kv"],
        progress_notify=values["progress-notify"],
        require_leader=True,
    )


async def watch(context: Context) -> None:
    """Shows events until the server ends the watch, which is code 5."""
    key, end = (os.environ.get(f"ETCDCTL_WATCH_{name}", "") for name in ("KEY", "RANGE_END"))
    if end and not key:
        raise Exit(
            BAD_ARGS, f"ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={quote(end)}"
        )
    if context["interactive"]:
        await _interactive(context)
        return
    try:
        arguments, command = split(context.arguments, context.words)
        async with context.client() as client:
            await _show(context, start(client, context.values, arguments), command)
    except BadWatch as error:
        if not context.arguments:
            context.configure()  # errors in flags come first
        raise Exit(BAD_ARGS, str(error)) from None
    raise Exit(INTERRUPTED, "watch is canceled by the server")


async def _show(context: Context, events: Watch, command: list[str]) -> None:
    """Prints the answers of one watch up to the server's last one."""
    from keyraft.client.errors import EtcdError, RawError
    from keyraft.proto import rpc_pb2

    try:
        async with events:
            async for response in events.responses():
                _print(context, response)
                for event in response.events if command else ():
                    await _execute(command, event, response.header.revision)
    except (EtcdError, RawError) as error:
        ended = events.cancellation or rpc_pb2.WatchResponse(canceled=True)
        complain(f"watch was canceled ({ended.cancel_reason or error_text(error)})")
        context.printer.watch(ended)


def _print(context: Context, response: rpc_pb2.WatchResponse) -> None:
    if not response.events:
        line(f"progress notify: {response.header.revision}")
    context.printer.watch(response)


async def _execute(command: list[str], event: mvcc_pb2.Event, revision: int) -> None:
    """Runs the command for one event; if it fails, etcdctl ends with code 1."""
    from keyraft.proto import mvcc_pb2

    environment = os.environ | {
        "ETCD_WATCH_REVISION": str(revision),
        "ETCD_WATCH_EVENT_TYPE": quote(mvcc_pb2.Event.EventType.Name(event.type)),
        "ETCD_WATCH_KEY": quote(event.kv.key),
        "ETCD_WATCH_VALUE": quote(event.kv.value),
    }
    reason = ""
    try:
        child = await asyncio.create_subprocess_exec(
            *command, env=environment, stdin=asyncio.subprocess.DEVNULL
        )
        code = await child.wait()
        if code:
            reason = ended_by(code)
    except FileNotFoundError:
        reason = f'exec: "{command[0]}": executable file not found in $PATH'
    except OSError as error:
        reason = str(error)
    if reason:
        shown = " ".join(quote(word) for word in command)
        complain(f"command [{shown}] error ({reason})")
        raise Exit(ERROR)


# --- watches from standard input -------------------------------------------------------------


async def _interactive(context: Context) -> None:
    async with context.client() as client:
        running: set[asyncio.Task[None]] = set()
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ended(task: asyncio.Task[None]) -> None:
            running.discard(task)
            problem = None if task.cancelled() else task.exception()
            if problem is not None and not failed.done():
                failed.set_exception(problem)

        reader = asyncio.ensure_future(_read(context, client, running, ended))
        await asyncio.wait((reader, failed), return_when=asyncio.FIRST_COMPLETED)
        for task in (reader, *running):
            task.cancel()
        if failed.done():
            failed.result()
        await reader


async def _read(
    context: Context,
    client: Client,
    running: set[asyncio.Task[None]],
    ended: Callable[[asyncio.Task[None]], None],
) -> None:
    """Carries out the lines of standard input; at its end the exit code is 3."""
    latest: list[Watch] = []
    while True:
        text = await asyncio.to_thread(sys.stdin.readline)
        if not text.endswith("\n"):
            raise Exit(INVALID_INPUT, "error reading watch request line: EOF")
        text = text[:-1]
        try:
            typed = words(text)
        except ValueError as error:
            raise Exit(INVALID_INPUT, str(error)) from None
        if not typed:
            complain(f"Invalid command: {text} (watch and progress supported)")
        elif typed[0] == "watch":
            begun = _begin(context, client, typed, text)
            if begun is not None:
                events, command = begun
                latest[:] = [events]
                task = asyncio.ensure_future(_show(context, events, command))
                running.add(task)
                task.add_done_callback(ended)
        elif typed[0] == "progress":
            if latest:
                await latest[0].request_progress()
        else:
            complain(f"Invalid command {text} (only support watch)")


def _begin(
    context: Context, client: Client, typed: list[str], text: str
) -> tuple[Watch, list[str]] | None:
    from keyraft.cli.ctl.tree import WATCH

    if len(typed) < 2 and not os.environ.get("ETCDCTL_WATCH_KEY"):
        complain(f"Invalid command {text} (command type or key is not provided)")
        return None
    try:
        values, arguments = parse(WATCH.flags, typed[1:])
        arguments, command = split(arguments, typed)
    except CommandHelpWanted:
        raise Exit(BAD_ARGS, "pflag: help requested") from None
    except (FlagError, BadWatch) as error:
        raise Exit(BAD_ARGS, str(error)) from None
    try:
        return start(client, values, arguments), command
    except BadWatch as error:
        complain(f"Invalid command {text} ({error})")
        return None
