"""The handshakes of one listener: from an accepted socket to a protocol that is let in.

A connection that shakes hands costs a socket and a timer until its client says something. Whoever is
not done in time, is refused, or speaks no TLS is told so where TLS has a word for it, and logged by
`Failed`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from ..address import peer_name
from ..reasons import handshake_reason
from .hello import asked_name
from .resumption import check_resumed
from .stream import Shared, TLSStream

if TYPE_CHECKING:
    from .ends import ServerTLS
    from .names import CertificateNames

HANDSHAKE_S_MAX: Final = 10.0

Failed = Callable[[str, str, str, "CertificateNames | None"], None]
"""Called for each failed TLS handshake: the client's address, the name it asked for, the reason,
and whom its certificate names, if it is valid and not let in."""


class Handshakes:
    """Owned by the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tls: ServerTLS,
        make: Callable[[], asyncio.BaseProtocol],
        failed: Failed | None,
    ) -> None:
        self._shared = Shared(loop)
        self._tls = tls
        self._make = make
        self._told = failed
        self._shaking: set[TLSStream] = set()
        self._deciding: set[asyncio.Task[None]] = set()

    def begin(self, accepted: socket.socket, address: object) -> None:
        """Takes a socket over; `address`: its client's, as `accept` has it."""
        self._shaking.add(
            TLSStream(
                self._shared,
                accepted,
                self._tls.context(),
                self._begun,
                self._failed,
                HANDSHAKE_S_MAX,
                peername=address,
            )
        )

    def _begun(self, stream: TLSStream) -> None:
        self._shaking.discard(stream)
        try:
            check_resumed(stream.ssl_object)
            waits = None
            if self._tls.verifies:
                waits = self._tls.verify(stream.ssl_object, peer_name(stream))
        except OSError as refused:
            self._failed(stream, refused)
            return
        if waits is None:
            self._open(stream)
            return
        task = self._shared.loop.create_task(self._decide(stream, waits))
        self._deciding.add(task)
        task.add_done_callback(self._deciding.discard)

    async def _decide(self, stream: TLSStream, waits: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S_MAX):
                await waits
        except (OSError, TimeoutError) as refused:
            self._failed(stream, refused)
        except asyncio.CancelledError:
            stream.abort()
            raise
        else:
            self._open(stream)

    def _open(self, stream: TLSStream) -> None:
        if not stream.is_closing():
            stream.open(self._make())

    def _failed(self, stream: TLSStream, error: OSError) -> None:
        self._shaking.discard(stream)
        if self._told is not None:
            shown = getattr(error, "names", None)  # of a CertificateRefusedError
            asked = asked_name(stream.hello)
            self._told(peer_name(stream), asked, handshake_reason(error), shown)
        stream.close()

    def close(self) -> None:
        """Ends the handshakes that are under way."""
        for stream in list(self._shaking):
            stream.abort()
        self._shaking.clear()
        for task in list(self._deciding):
            task.cancel()
