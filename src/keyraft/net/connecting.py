"""Connected sockets for those who do more with one than a loop's own `create_connection` does."""

from __future__ import annotations

import asyncio
import socket
from typing import Any


async def connected(host: str, port: int) -> socket.socket:
    """Tries the addresses of `host` one after the other; raises OSError of the first."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    first: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            return await _connected(family, address)
        except OSError as error:
            first = first or error
    assert first is not None, "a name has an address, or an error"
    raise first


async def connected_unix(path: str) -> socket.socket:
    """Connects to a unix socket; raises OSError."""
    return await _connected(socket.AF_UNIX, path)


async def _connected(family: int, address: Any) -> socket.socket:
    made = socket.socket(family)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made
