"""A server of ours for foreign clients: the same methods as the Go program beside this file."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

import uvloop

from keyraft.base.errors import EmptyKeyError, RawError
from keyraft.grpc import Call, HttpRequest, Limits, Router, Stream
from keyraft.net import ServerTLS, serve


class Echoes:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def on_message(self, message: bytes) -> None:
        self.stream.send(message)
        if self.stream.writable <= 0:
            self.stream.pause_reading()

    def on_half_close(self) -> None:
        self.stream.finish()

    def on_cancel(self, code: int) -> None:
        pass

    def on_writable(self) -> None:
        self.stream.resume_reading()


class Count:
    """Server streaming: as many messages as asked for, each of the size asked for."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.left = self.size = 0

    def on_message(self, message: bytes) -> None:
        self.left, self.size = map(int, message.split())
        self.on_writable()

    def on_half_close(self) -> None:
        pass

    def on_cancel(self, code: int) -> None:
        pass

    def on_writable(self) -> None:
        while self.left and self.stream.writable > 0:
            self.stream.send(b"x" * self.size)
            self.left -= 1
        if not self.left:
            self.stream.finish()


class Join:
    """Client streaming: all messages in one."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.parts: list[bytes] = []

    def on_message(self, message: bytes) -> None:
        self.parts.append(message)

    def on_half_close(self) -> None:
        self.stream.send(b"".join(self.parts))
        self.stream.finish()

    def on_cancel(self, code: int) -> None:
        pass

    def on_writable(self) -> None:
        pass


def router(cancels: list[int]) -> Router:
    """`cancels` gets the code of each held call that is given up."""

    def hold(call: Call, request: bytes) -> None:
        call.on_cancel = lambda _, code: cancels.append(code)

    def fail(call: Call, request: bytes) -> bytes:
        raise EmptyKeyError

    def text(call: Call, request: bytes) -> bytes:
        raise RawError(2, "100% \u00fcn\u00efcode\n\ttext")

    made = Router()
    made.unary("/t.T/Echo", lambda call, request: request)
    made.unary("/t.T/Hold", hold)
    made.unary("/t.T/Fail", fail)
    made.unary("/t.T/Text", text)
    made.unary(
        "/t.T/Token",
        lambda call, request: call.metadata[b"token"] + call.metadata.get(b"key-bin", b""),
    )
    made.unary("/t.T/Name", lambda call, request: (call.common_name or "").encode())
    made.stream("/t.T/Echoes", Echoes)
    made.stream("/t.T/Count", Count, "server_stream")
    made.stream("/t.T/Join", Join, "client_stream")
    return made


def on_http(request: HttpRequest) -> None:
    """Repeats what it was asked."""
    if request.target == "/pieces":
        request.start(200, [(b"content-type", b"text/plain")])
        for i in range(5):
            request.write(b"piece %d\n" % i)
        request.end()
        return
    host = dict(request.headers).get(b"host", b"")
    text = f"{request.method} {request.target} {request.scheme} ".encode()
    request.respond(
        200, [(b"content-type", b"text/plain")], text + host.split(b":")[0] + b" " + request.body
    )


class ServerThread:
    """Our server in a loop of its own, so that a blocking client can talk to it."""

    def __init__(self, *, tls: ServerTLS | None = None, limits: Limits | None = None) -> None:
        self._tls = tls
        self._limits = limits
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._main()))
        self.address = ""
        self.cancels: list[int] = []

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        scheme = "https" if self._tls else "http"
        server = await serve(
            [f"{scheme}://127.0.0.1:0"],
            router(self.cancels),
            tls=self._tls,
            limits=self._limits,
            on_http=on_http,
        )
        self.address = server.addresses[0]
        self._started.set()
        await self._stop.wait()
        await server.stop(1)

    def __enter__(self) -> ServerThread:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
