"""Calls without a transport: what a handler answers is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keyraft.base.errors import EtcdError, RawError
from keyraft.grpc import StreamHandler

Answer = bytes | tuple[int, str] | None


class FakeCall:
    """A unary call; also good as a stream that takes `window` messages before it is full."""

    def __init__(
        self, metadata: Mapping[bytes, bytes] | None = None, window: int = 1 << 20
    ) -> None:
        self.metadata: Mapping[bytes, bytes] = metadata or {}
        self.peer = "127.0.0.1:1"
        self.common_name: str | None = None
        self.cancelled = False
        self.began_s = 0.0
        self.ticket = b""
        self.deadline_s: float | None = None
        self.on_cancel: Callable[[Any, int], None] | None = None
        self.answer: Answer = None
        self.sent: list[bytes] = []
        self.finished: tuple[int, str] | None = None
        self.window = window
        self.handler: StreamHandler | None = None

    def respond(self, message: bytes) -> None:
        assert self.answer is None, "answered twice"
        self.answer = message

    def fail(self, code: int, text: str) -> None:
        assert self.answer is None, "answered twice"
        self.answer = (code, text)

    @property
    def writable(self) -> int:
        return self.window - sum(map(len, self.sent))

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def finish(self, code: int = 0, text: str = "") -> None:
        assert self.finished is None, "finished twice"
        self.finished = (code, text)

    def drop(self, code: int, text: str) -> None:
        self.sent.clear()
        self.finish(code, text)

    def abort(self, code: int, text: str) -> None:
        if self.handler is not None:
            self.handler.on_cancel(code)
        self.finish(code, text)

    def pause_reading(self) -> None:
        """Nothing comes unasked."""

    def resume_reading(self) -> None:
        """Nothing was held."""


def ask(
    handle: Callable[[FakeCall, bytes], bytes | None], request: bytes, call: FakeCall | None = None
) -> FakeCall:
    """Calls a handler as the transport does."""
    call = call or FakeCall()
    try:
        answer = handle(call, request)
    except (EtcdError, RawError) as refusal:
        call.fail(refusal.code, refusal.text)
    else:
        if answer is not None:
            call.respond(answer)
    return call
