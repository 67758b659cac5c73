"""What every proxy of the tests does: passes bytes on from one socket to another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

CHUNK_BYTES = 1 << 16


async def pump(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    passable: Callable[[], Awaitable[object]],
) -> None:
    """Until the end of one of them; waits until the way is `passable` before each piece goes on."""
    try:
        while True:
            data = await source.read(CHUNK_BYTES)
            await passable()
            if not data:
                return
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()
