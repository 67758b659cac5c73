"""Conversations that `asyncio.start_server` begins, with an owner who ends them.

The streams' own task has none: what a test leaves unfinished is cancelled with the loop, and
Python 3.11 logs that as an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Connections:
    """One server's conversations; called with each new one."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._tasks: list[asyncio.Task[None]] = []

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.create_task(self._converse(reader, writer)))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(reader, writer)

    async def finish(self) -> None:
        """Returns when all have ended by themselves."""
        await asyncio.gather(*self._tasks)

    async def end(self) -> None:
        """Cancels what goes on; what one of them raised before is raised."""
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
