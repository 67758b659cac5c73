"""Who waits for an answer, and what an answer is.

Whoever carries a request out is given its bytes and a waiter, and answers the waiter once: with the
encoded response, or with a refusal. A gRPC call is a waiter as it is, so the hot path makes no
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
    """Whoever wants the answer; a gRPC call is one as it is."""

    on_cancel: Callable[[Any, int], None] | None
    """Set by whoever carries the request out: to be called with the waiter and a status code when
    the waiter gives up."""

    ticket: bytes  # what the one who carries it out finds the request by; set together with it
    began_s: float  # when it began to wait, on the loop's clock
    cancelled: bool  # nobody wants the answer any more

    def respond(self, message: bytes) -> None:
        """It was carried out, and this is the encoded response."""

    def fail(self, code: int, text: str) -> None:
        """It was refused."""


class DoneWaiter:
    """A waiter that passes the result, whichever it is, to one callback."""

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
