"""A client's handshake over a connected socket.

The server hears why it was refused, in an alert, before the socket is closed; with the loops' own
TLS it hears nothing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final
from weakref import WeakKeyDictionary

from .stream import Shared, TLSStream

HANDSHAKE_S_MAX: Final = 60.0  # unless the caller gives up before

_shared: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Shared]] = WeakKeyDictionary()


def _shared_of(loop: asyncio.AbstractEventLoop) -> Shared:
    found = _shared.get(loop)
    if found is None:
        found = _shared[loop] = Shared(loop)
    return found


async def shake_hands(
    connected: socket.socket, context: ssl.SSLContext, server_name: str
) -> TLSStream:
    """A stream that is ready for `open`; takes the socket over and closes it when it fails.

    Raises OSError, ssl.SSLError among them.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def begun(stream: TLSStream) -> None:
        if not done.done():
            done.set_result(None)

    def failed(stream: TLSStream, error: OSError) -> None:
        if not done.done():
            done.set_exception(error)

    stream = TLSStream(
        _shared_of(loop),
        connected,
        context,
        begun,
        failed,
        HANDSHAKE_S_MAX,
        server_name=server_name,
    )
    try:
        await done
    except BaseException:
        stream.abort()
        raise
    return stream
