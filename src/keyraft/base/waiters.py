"""Waiters for the answer to a request.

The code that carries a request out gets its bytes and a waiter, and answers the waiter once: with
the encoded response or with a refusal. A gRPC call is itself a waiter, so the hot path makes no
object for one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from keyraft.base.errors import BY_TEXT, EtcdError, RawError

Result = bytes | EtcdError | RawError
"""The encoded response, or the refusal."""

Done = Callable[[Result], None]


class Waiter(Protocol):
    """Receives the answer to a request; a gRPC call is a waiter."""

    on_cancel: Callable[[Any, int], None] | None
    """Set by whoever carries the request out: to be called with the waiter and a status code when
    the waiter gives up."""

    ticket: bytes  # what the one who carries it out finds the request by; set together with it
    began_s: float  # when it began to wait, on the loop's clock
    cancelled: bool  # nobody wants the answer any more

    def respond(self, message: bytes) -> None:
        """Gives the encoded response of a request that was carried out."""

    def fail(self, code: int, text: str) -> None:
        """Gives the code and text of a refusal."""


class DoneWaiter:
    """A waiter that passes the response or the refusal to one callback."""

    __slots__ = ("_done", "began_s", "cancelled", "on_cancel", "ticket")

    ticket: bytes

    def __init__(self, done: Done, began_s: float) -> None:
        self._done = done
        self.began_s = began_s
        self.cancelled = False
        self.on_cancel: Callable[[Any, int], None] | None = None

    def respond(self, message: bytes) -> None:
        """The response."""
        self._done(message)

    def fail(self, code: int, text: str) -> None:
        """The refusal, as the kind of error that its text stands for."""
        kind = BY_TEXT.get(text)
        self._done(kind() if kind is not None else RawError(code, text))
