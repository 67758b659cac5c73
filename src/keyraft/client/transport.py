"""What the client needs of a connection, without how it is made.

A connection carries unary calls and streams of raw messages to one endpoint. Once it is not alive
it never is again: the pool makes a new one. A failed call says whether the server may have seen it;
only a write that no server has seen is safe to repeat.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from keyraft.client.endpoint import Endpoint
from keyraft.grpc import ClientCall, ClientReceiver, ClientStream

Headers = tuple[tuple[bytes, bytes], ...]
Done = Callable[[int, str, bytes], None]


class CallFailed(Exception):
    """A call that ended with a status other than OK.

    `sent` is False only when the request surely never reached a server: no connection, a stream
    that the peer refused (REFUSED_STREAM) or that its GOAWAY excluded.
    """

    __slots__ = ("code", "sent", "text")

    def __init__(self, code: int, text: str, sent: bool = True) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.sent = sent


class EndpointStream(Protocol):
    """A call with many messages; ended by `receive` returning None or raising `CallFailed`."""

    async def send(self, message: bytes) -> None:
        """Queues one message; waits while the peer's window and the queue are full."""

    async def receive(self) -> bytes | None:
        """The next message, None when the server ended with OK."""

    def half_close(self) -> None:
        """Nothing more will be sent."""

    def cancel(self) -> None:
        """Ends the call on both sides; harmless when it has ended."""


class EndpointConnection(Protocol):
    """One HTTP/2 connection to one endpoint."""

    @property
    def alive(self) -> bool:
        """False once the connection is lost or the peer said GOAWAY."""

    def unary(
        self, method: bytes, request: bytes, headers: Headers, timeout_s: float | None
    ) -> Awaitable[bytes]:
        """The response message; raises `CallFailed` (code 4 when `timeout_s` has passed)."""

    def stream(self, method: bytes, headers: Headers) -> EndpointStream:
        """Opens a stream; its `receive` raises failures."""

    @property
    def gone(self) -> bool:
        """No longer alive, and no call is under way on it."""

    async def wait_closed(self) -> None:
        """Returns when the connection is no longer alive."""

    @property
    def reason(self) -> str:
        """Why it is no longer alive."""

    async def close(self) -> None:
        """Fails what is open and closes the socket."""


class DirectConnection(EndpointConnection, Protocol):
    """One whose calls are made with callbacks, without a task or a future (a proxy's)."""

    def call(
        self, method: bytes, request: bytes, headers: Headers, timeout_s: float | None, done: Done
    ) -> ClientCall:
        """A unary call; `done(code, text, reply)` is called once, perhaps before this returns."""

    def open(self, method: bytes, headers: Headers, receiver: ClientReceiver) -> ClientStream:
        """A stream; `receiver` is told its end, perhaps before this returns."""


Dial = Callable[[Endpoint], Awaitable[EndpointConnection]]
"""Makes a connection; raises OSError with the reason, which a DeadlineError passes on."""
