"""The body of a request, for a handler that begins before the body has arrived."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from .limits import CLIENT_PORT


class BodyError(Exception):
    """The rest of the body does not come, or is malformed."""


class Body:
    """The bytes that arrived and were not read yet. Owned by the connection that fills it.

    `on_read` is called before each wait: to send 100 Continue, or to go on reading.
    """

    __slots__ = ("_pieces", "_waiter", "broken", "ended", "on_read", "unread_bytes")

    def __init__(self, on_read: Callable[[], None]) -> None:
        self.on_read = on_read
        self.unread_bytes = 0
        self.ended = False
        self.broken = False
        self._pieces: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None

    # --- the connection's side ----------------------------------------------------------------

    def put(self, piece: bytes) -> None:
        """More of it."""
        self._pieces.append(piece)
        self.unread_bytes += len(piece)
        self._wake()

    def end(self) -> None:
        """The body is complete."""
        self.ended = True
        self._wake()

    def fail(self) -> None:
        """The client is gone, was too slow, or sent a malformed body."""
        self.broken = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take_all(self) -> bytes:
        """Everything that has arrived."""
        pieces, self.unread_bytes = b"".join(self._pieces), 0
        self._pieces.clear()
        return pieces

    # --- the handler's side -------------------------------------------------------------------

    async def read(self) -> bytes:
        """The next piece, empty at the end; raises BodyError."""
        while not self._pieces:
            if self.broken:
                raise BodyError("unexpected EOF")
            if self.ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            self.on_read()
            await self._waiter
        piece = self._pieces.popleft()
        self.unread_bytes -= len(piece)
        return piece

    async def read_whole(
        self,
        bytes_max: int,
        within_s: float = CLIENT_PORT.body_s_max,
        on_piece: Callable[[int], bool] | None = None,
    ) -> bytes | None:
        """All of it; None when it is longer than `bytes_max`. Raises BodyError.

        `on_piece` gets the length of each piece and returns whether to go on.
        """
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(within_s):
                while piece := await self.read():
                    size += len(piece)
                    if size > bytes_max or (on_piece is not None and not on_piece(len(piece))):
                        return None
                    pieces.append(piece)
        except TimeoutError:
            raise BodyError("i/o timeout") from None
        return b"".join(pieces)

    async def read_exactly(self, size: int) -> bytes:
        """The next `size` bytes; raises BodyError when the body ends before."""
        pieces: list[bytes] = []
        while size:
            piece = await self.read()
            if not piece:
                raise BodyError("unexpected EOF")
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                self.unread_bytes += len(piece) - size
                piece = piece[:size]
            size -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The rest of the body, piece by piece as it comes; raises BodyError."""
        while piece := await self.read():
            yield piece
