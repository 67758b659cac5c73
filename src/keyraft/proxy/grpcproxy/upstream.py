"""Calls to the cluster, made with callbacks on the connections of a client's pool.

What a client of the proxy says about itself goes on with its call (`headers_of`): its token, and
whether it wants a leader. When a call is repeated (etcd `client/v3/retry.go`):

    failure                                       a read          a write
    surely not sent                               again           again
    Unavailable                                   again           fails
    asked a learner, and there are others         again           again
    anything else                                 fails           fails

Without a connection calls wait for one, at most `WAIT_S` and `WAITING_CALLS_MAX` of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final, Protocol, cast

from keyraft.base.errors import LearnerNotSupportedError
from keyraft.client import Client, DirectConnection, Headers
from keyraft.grpc import ClientCall, ClientReceiver, ClientStream, status

TRIES_MAX: Final = 100
BACKOFF_S: Final = 0.025  # after each round over a quorum of the endpoints
WAIT_S: Final = 5.0  # for a connection, before a call fails: etcd's dial timeout
WAITING_CALLS_MAX: Final = 10_000
WAITING_BYTES_MAX: Final = 67_108_864  # of their requests
_PASSED_ON: Final = (b"token", b"authorization", b"hasleader")
_NO_CONNECTION: Final = "there is no connection to the cluster"

Answered = Callable[[int, str, bytes], None]
"""Gets code, text and reply; called once."""


def credentials_of(metadata: Mapping[bytes, bytes]) -> Headers:
    """What says who the caller is."""
    return tuple(
        (name, metadata[name]) for name in (b"token", b"authorization") if name in metadata
    )


class ClientsCall(Protocol):
    """Whoever waits for an answer: a unary call of a client."""

    on_cancel: Callable[[Any, int], None] | None
    deadline_s: float | None
    cancelled: bool

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """What it says about itself."""

    def respond(self, message: bytes) -> None:
        """The answer."""

    def fail(self, code: int, text: str) -> None:
        """The refusal."""


class UpstreamCall:
    """One call, with its repetitions."""

    __slots__ = (
        "_call",
        "_done",
        "_tries",
        "_upstream",
        "deadline_s",
        "headers",
        "method",
        "request",
        "safe",
        "since_s",
    )

    def __init__(
        self,
        upstream: Upstream,
        method: bytes,
        request: bytes,
        headers: Headers,
        safe: bool,
        deadline_s: float | None,
        done: Answered,
    ) -> None:
        self._upstream = upstream
        self._done: Answered | None = done
        self._call: ClientCall | None = None
        self._tries = 0
        self.method = method
        self.request = request
        self.headers = headers
        self.safe = safe
        self.deadline_s = deadline_s
        self.since_s = 0.0

    @property
    def over(self) -> bool:
        """Answered or cancelled."""
        return self._done is None

    def cancel(self) -> None:
        """Ends it; `done` is not called any more."""
        self._done = None
        if self._call is not None:
            self._call.cancel()

    def begin(self) -> None:
        """Sends it, or has it wait for a connection."""
        if self._done is None:
            return
        connection = self._upstream.pick()
        if connection is None:
            self._upstream.wait(self)
            return
        timeout_s = None
        if self.deadline_s is not None:
            timeout_s = max(self.deadline_s - monotonic(), 0.0)
        self._call = None
        call = connection.call(self.method, self.request, self.headers, timeout_s, self._ended)
        if not call.over:
            self._call = call

    def finish(self, code: int, text: str, reply: bytes) -> None:
        """Tells the result."""
        done, self._done = self._done, None
        if done is not None:
            done(code, text, reply)

    def _ended(self, code: int, text: str, reply: bytes) -> None:
        if code == status.OK or self._done is None:
            self.finish(code, text, reply)
            return
        unsent = self._call is None or self._call.unprocessed
        self._tries += 1
        again = (
            unsent
            or (self.safe and code == status.UNAVAILABLE)
            or (text == LearnerNotSupportedError.text and self._upstream.endpoints > 1)
        )
        if not again or self._tries >= TRIES_MAX:
            self.finish(code, text, reply)
        elif self._tries % (self._upstream.endpoints // 2 + 1):
            self._upstream.loop.call_soon(self.begin)
        else:
            self._upstream.loop.call_later(BACKOFF_S, self.begin)


class Upstream:
    """The cluster behind the proxy. Owned by the loop."""

    def __init__(self, client: Client, send_bytes_max: int) -> None:
        """`send_bytes_max`: of one request, 0 for any."""
        self.loop = asyncio.get_running_loop()
        self.client = client
        self._pool = client.pool
        self._plain = client.headers
        self._send_bytes_max = send_bytes_max
        self._waiting: deque[UpstreamCall | Callable[[DirectConnection], None]] = deque()
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def endpoints(self) -> int:
        """How many there are."""
        return len(self._pool.endpoints)

    def pick(self) -> DirectConnection | None:
        """The next connection that is ready."""
        return cast("DirectConnection | None", self._pool.pick())

    def headers_of(self, metadata: Mapping[bytes, bytes]) -> Headers:
        """The headers of a call that goes on for a client."""
        headers = self._plain
        for name in _PASSED_ON:
            value = metadata.get(name)
            if value is not None:
                headers = (*headers, (name, value))
        return headers

    def with_credentials(self, credentials: Headers, leader: bool = False) -> Headers:
        """The headers of a stream of the proxy's own, for whom `credentials` name."""
        headers = (*self._plain, *credentials)
        return (*headers, (b"hasleader", b"true")) if leader else headers

    # --- unary ----------------------------------------------------------------------------------

    def call(
        self,
        method: bytes,
        request: bytes,
        headers: Headers,
        done: Answered,
        *,
        safe: bool,
        deadline_s: float | None = None,
    ) -> UpstreamCall:
        """Makes a call; `safe`: it may be carried out twice."""
        call = UpstreamCall(self, method, request, headers, safe, deadline_s, done)
        if 0 < self._send_bytes_max < len(request):
            text = f"trying to send message larger than max ({len(request)} vs. "
            call.finish(status.RESOURCE_EXHAUSTED, f"{text}{self._send_bytes_max})", b"")
        else:
            call.begin()
        return call

    def ask(self, waiter: ClientsCall, method: bytes, request: bytes, safe: bool) -> None:
        """Passes a client's call on, and its answer back."""

        def done(code: int, text: str, reply: bytes) -> None:
            waiter.on_cancel = None
            if code:
                waiter.fail(code, text)
            else:
                waiter.respond(reply)

        self.ask_for(waiter, method, request, safe, done)

    def ask_for(
        self, waiter: ClientsCall, method: bytes, request: bytes, safe: bool, done: Answered
    ) -> None:
        """The same for one who looks at the answer first, and takes `waiter.on_cancel` off."""
        call = self.call(
            method,
            request,
            self.headers_of(waiter.metadata),
            done,
            safe=safe,
            deadline_s=waiter.deadline_s,
        )
        if not call.over:
            waiter.on_cancel = lambda _waiter, _code: call.cancel()

    # --- connections ----------------------------------------------------------------------------

    def when_ready(self, begin: Callable[[DirectConnection], None]) -> None:
        """Calls `begin` with a connection, at once or when there is one."""
        connection = self.pick()
        if connection is not None:
            begin(connection)
        else:
            self._waiting.append(begin)
            self._watch_pool()

    def wait(self, call: UpstreamCall) -> None:
        """For UpstreamCall: begins it again when there is a connection."""
        if (
            len(self._waiting) >= WAITING_CALLS_MAX
            or self._waiting_bytes + len(call.request) > WAITING_BYTES_MAX
        ):
            call.finish(status.UNAVAILABLE, self._pool.last_error or _NO_CONNECTION, b"")
            return
        call.since_s = self.loop.time()
        self._waiting_bytes += len(call.request)
        self._waiting.append(call)
        self._watch_pool()

    def _watch_pool(self) -> None:
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._serve_waiting())

    async def _serve_waiting(self) -> None:
        """Runs while anybody waits for a connection."""
        while self._waiting:
            try:
                await self._pool.wait(WAIT_S / 10)
            except TimeoutError:
                self._give_up()
                continue
            waiting, self._waiting = self._waiting, deque()
            self._waiting_bytes = 0
            for one in waiting:
                if isinstance(one, UpstreamCall):
                    one.begin()
                else:
                    self.when_ready(one)
            await asyncio.sleep(0)

    def _give_up(self) -> None:
        """Fails the calls that have waited for too long."""
        now = self.loop.time()
        kept: deque[UpstreamCall | Callable[[DirectConnection], None]] = deque()
        self._waiting_bytes = 0
        waiting, self._waiting = self._waiting, kept
        for one in waiting:
            if not isinstance(one, UpstreamCall):
                kept.append(one)
            elif one.over:
                continue
            elif now - one.since_s >= WAIT_S:
                one.finish(status.UNAVAILABLE, self._pool.last_error or _NO_CONNECTION, b"")
            else:
                kept.append(one)
                self._waiting_bytes += len(one.request)

    async def close(self) -> None:
        """Ends what waits, and the client."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.client.close()


class Piped:
    """The answers of one stream of the cluster, for one stream of a client.

    While the client does not read, the cluster's stream is not read.
    """

    def __init__(self, upstream: Upstream, method: bytes, stream: ClientsStream) -> None:
        self._upstream = upstream
        self._method = method
        self._stream = stream
        self._call: ClientStream | None = None
        self._paused = False
        self._over = False

    # --- the client's side ----------------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """The one request."""
        self._upstream.when_ready(lambda connection: self._begin(connection, message))

    def on_half_close(self) -> None:
        """Expected."""

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._over = True
        if self._call is not None:
            self._call.cancel()

    def on_writable(self) -> None:
        """The client has read."""
        if self._paused and self._call is not None:
            self._paused = False
            self._call.resume_reading()

    # --- the cluster's side ---------------------------------------------------------------------

    def _begin(self, connection: DirectConnection, request: bytes) -> None:
        if self._over:
            return
        headers = self._upstream.headers_of(self._stream.metadata)
        call = connection.open(self._method, headers, _PipedAnswers(self))
        if not call.over:
            self._call = call
            call.send(request)
            call.half_close()

    def answered(self, message: bytes) -> None:
        """One message of the cluster."""
        if not self._over:
            self._stream.send(message)
            if self._stream.writable <= 0 and self._call is not None:
                self._paused = True
                self._call.pause_reading()

    def ended(self, code: int, text: str) -> None:
        """The cluster's end."""
        if not self._over:
            self._over = True
            self._stream.finish(code, text)


class _PipedAnswers(ClientReceiver):
    """Passes on what a stream of the cluster says."""

    def __init__(self, piped: Piped) -> None:
        self._piped = piped

    def on_message(self, message: bytes) -> None:
        """ClientReceiver."""
        self._piped.answered(message)

    def on_end(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        """ClientReceiver."""
        self._piped.ended(code, text)

    def on_writable(self) -> None:
        """ClientReceiver."""


class ClientsStream(Protocol):
    """A client's stream, as `Piped` sees it."""

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """What the client says about itself."""

    @property
    def writable(self) -> int:
        """Bytes that may still be queued."""

    def send(self, message: bytes) -> None:
        """One message."""

    def finish(self, code: int = 0, text: str = "") -> None:
        """The end."""
