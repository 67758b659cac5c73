"""A JSON gateway before a whole member in virtual time, and requests to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from queue import SimpleQueue
from random import Random
from typing import Any

from keyraft import service
from keyraft.base.clock import Loop
from keyraft.base.log import NullLogger
from keyraft.gateway import Gateway, JsonTerms
from keyraft.grpc import Router
from keyraft.server import MemberHealth, RaftEngine
from tests.server.harness import OneMember

MESSAGE_BYTES_MAX = 2_097_152


class Asked:
    """A plain HTTP request and its answer, whole or in pieces."""

    def __init__(
        self,
        target: str,
        body: bytes = b"",
        method: str = "POST",
        headers: dict[bytes, bytes] | None = None,
        room: int = 1 << 20,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = [(b"host", b"localhost"), *(headers or {}).items()]
        self.body = body
        self.peer = "127.0.0.1:1"
        self.common_name: str | None = None
        self.scheme = "http"
        self.room = room
        self.coming = False
        self.on_body: Callable[[bytes, bool], None] | None = None
        self.on_close: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.status = 0
        self.sent: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.ended = False
        self.aborted = False
        self.held = False
        self.on_data: Callable[[bytes], None] | None = None

    @property
    def writable(self) -> int:
        return self.room - sum(map(len, self.pieces))

    def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.start(status, headers)
        self.write(body)
        self.end()

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert not self.status, "answered twice"
        self.status, self.sent = status, dict(headers)

    def write(self, data: bytes) -> None:
        assert self.status and not self.ended, "written outside an answer"
        self.pieces.append(data)

    def end(self) -> None:
        assert self.status and not self.ended, "ended outside an answer"
        self.ended = True

    def abort(self) -> None:
        self.ended = self.aborted = True

    def upgrade(self, headers: list[tuple[bytes, bytes]], on_data: Callable[[bytes], None]) -> bool:
        self.start(101, headers)
        self.on_data = on_data
        return True

    def hold_reading(self, on: bool) -> None:
        self.held = on

    @property
    def text(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def value(self) -> Any:
        return json.loads(self.text)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.text.splitlines()]


class LoopWithThreads:
    """A loop in virtual time that threads hand results to; `settle` waits for them."""

    def __init__(self, loop: Loop) -> None:
        self.time = loop.time
        self.call_soon = loop.call_soon
        self.call_later = loop.call_later
        self._handed: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
        self._handed.put((callback, args))

    def settle(self) -> None:
        """Waits for one result, and takes it."""
        callback, args = self._handed.get(timeout=60)
        callback(*args)


class JsonPort:
    """A client port with the gateway, over one member."""

    def __init__(self, *, client_cert_auth: bool = False, json_gateway: bool = True) -> None:
        self.one = OneMember()
        self.one.run(1.0)
        member = self.one.member
        self.router = Router()
        engine = RaftEngine(member, None)
        self.guard = service.guard_of(engine, member.loop)
        service.register(self.router, engine, self.guard, Random(1))
        self.loop = LoopWithThreads(member.loop)
        terms = JsonTerms(
            self.router, self.loop, member.loop.time, MESSAGE_BYTES_MAX, client_cert_auth
        )
        self.gateway = Gateway(NullLogger(), json_terms=terms if json_gateway else None)
        self.auth_enabled = False
        self.gateway.serve(MemberHealth(member), (), lambda: self.auth_enabled)

    def ask(self, target: str, body: bytes | str = b"", run_s: float = 0.1, **more: Any) -> Asked:
        """Sends a request and lets the member run."""
        raw = body.encode() if isinstance(body, str) else body
        request = Asked(target, raw, **more)
        self.gateway.handle(request)
        self.one.run(run_s)
        return request
