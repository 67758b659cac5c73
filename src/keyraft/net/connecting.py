"""Connected sockets for those who do more with one than a loop's own `create_connection` does."""

from __future__ import annotations

import asyncio
import socket
from typing import Any


async def look_up(host: str, port: int) -> list[Any]:
    """What `getaddrinfo` finds for a stream, without blocking; raises socket.gaierror.

    A name that ends with a dot, as DNS gives it, is in /etc/hosts without: Go's resolver finds it
    there, the C library's does not.
    """
    loop = asyncio.get_running_loop()
    try:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        if not host.endswith("."):
            raise
        return await loop.getaddrinfo(host[:-1], port, type=socket.SOCK_STREAM)


def look_up_blocking(host: str, port: int) -> list[Any]:
    """As `look_up`, for what has no event loop."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        if not host.endswith("."):
            raise
        return socket.getaddrinfo(host[:-1], port, type=socket.SOCK_STREAM)


async def connected(host: str, port: int, local_host: str = "") -> socket.socket:
    """Tries the addresses of `host` one after the other; raises OSError of the first.

    `local_host`: the address of our end, where the other is of the same family.
    """
    own = socket.AF_INET6 if ":" in local_host else socket.AF_INET
    found = await look_up(host, port)
    first: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            local = (local_host, 0) if local_host and family == own else None
            return await _connected(family, address, local)
        except OSError as error:
            first = first or error
    assert first is not None, "a name has an address, or an error"
    raise first


async def connected_unix(path: str) -> socket.socket:
    """Connects to a unix socket; raises OSError."""
    return await _connected(socket.AF_UNIX, path)


async def _connected(
    family: int, address: Any, local: tuple[str, int] | None = None
) -> socket.socket:
    made = socket.socket(family)
    try:
        made.setblocking(False)
        if local is not None:
            made.bind(local)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made
