"""A JSON request from its path to its call."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from keyraft.base.clock import ThreadedLoop
from keyraft.gateway.json.calls import (
    DEADLINE_TEXT,
    Answer,
    Header,
    JsonStream,
    JsonUnaryCall,
    refuse,
)
from keyraft.gateway.json.decoding import (
    SLOW_MARKS,
    NotDecodedError,
    decode,
    is_slow,
)
from keyraft.gateway.json.metadata import BadHeaderError, annotate
from keyraft.gateway.json.methods import Method, methods_of
from keyraft.gateway.json.stream_body import FoundRequests, StreamBody, find_requests
from keyraft.gateway.json.websocket import open_websocket, wants_websocket
from keyraft.grpc import SERVER_STREAM, HttpRequest, Router, status, text_bytes_max

AT_ONCE_S: Final = 1e-6  # a shorter timeout has passed before the call begins
_FORM: Final = b"application/x-www-form-urlencoded"

T = TypeVar("T")


class JsonGateway:
    """The gateway before one router. Owned by the loop."""

    def __init__(
        self,
        router: Router,
        loop: ThreadedLoop,
        clock: Callable[[], float],
        message_bytes_max: int,
    ) -> None:
        """`clock`: the loop's, but exact. `message_bytes_max`: of a request, encoded."""
        self.loop = loop
        self.clock = clock
        self.ends = router.ends
        self._methods = methods_of(router)
        self._message_bytes_max = message_bytes_max
        self.message_text_bytes_max = text_bytes_max(message_bytes_max)
        self._thread: ThreadPoolExecutor | None = None

    def has(self, path: str) -> bool:
        """Whether a method has this path."""
        return path in self._methods

    def handle(self, request: HttpRequest, path: str, extra: list[Header]) -> None:
        """A request for a path below `/v3/`; `extra` are headers of every answer."""
        method = self._methods.get(path)
        headers = request.headers
        if wants_websocket(headers):
            open_websocket(self, request, method, extra)
            return
        verb = request.method
        if verb == "POST":
            verb = _override(headers)
        if method is None or method.route is None:
            refuse(request, extra, status.NOT_FOUND, "Not Found")
        elif verb != "POST":
            refuse(request, extra, status.UNIMPLEMENTED, "Method Not Allowed")
        else:
            self._call(request, method, extra, headers)

    def _call(
        self, request: HttpRequest, method: Method, extra: list[Header], headers: list[Header]
    ) -> None:
        try:
            metadata, timeout_s = annotate(headers)
        except BadHeaderError as refusal:
            refuse(request, extra, refusal.code, refusal.text)
            return
        body = request.body
        route = method.route
        assert route is not None, "a method without a route is refused before"
        if not method.is_unary and route.kind != SERVER_STREAM:
            if timeout_s is not None and timeout_s <= AT_ONCE_S:
                refuse(request, extra, status.DEADLINE_EXCEEDED, DEADLINE_TEXT)
                return
            stream = JsonStream(self, method, request, extra, metadata)
            stream.limit(timeout_s)
            stream.open()
            if request.coming:
                StreamBody(self, request, method, stream)
            elif is_slow(body):
                work = partial(find_requests, method, body, ended=True)
                self._elsewhere(work, partial(_give, stream))
            else:
                _give(stream, find_requests(method, body, ended=True))
            return

        if len(body) <= SLOW_MARKS or not is_slow(body):
            self._decoded(request, method, extra, metadata, timeout_s, _decode(method, body))
        else:
            decoded = partial(self._decoded, request, method, extra, metadata, timeout_s)
            self._elsewhere(partial(_decode, method, body), decoded)

    def _decoded(
        self,
        answer: Answer,
        method: Method,
        extra: list[Header],
        metadata: dict[bytes, bytes],
        timeout_s: float | None,
        outcome: bytes | NotDecodedError,
    ) -> None:
        if isinstance(outcome, NotDecodedError):
            refuse(answer, extra, status.INVALID_ARGUMENT, str(outcome))
        elif timeout_s is not None and timeout_s <= AT_ONCE_S:
            refuse(answer, extra, status.DEADLINE_EXCEEDED, DEADLINE_TEXT)
        else:
            self.start(method, answer, extra, metadata, timeout_s, outcome)

    def start(
        self,
        method: Method,
        answer: Answer,
        extra: list[Header],
        metadata: dict[bytes, bytes],
        timeout_s: float | None,
        message: bytes,
    ) -> None:
        """Starts a call that has one request."""
        unary = method.is_unary
        call = (JsonUnaryCall if unary else JsonStream)(self, method, answer, extra, metadata)
        if timeout_s is not None:
            call.limit(timeout_s)
        if len(message) > self._message_bytes_max:
            sizes = f"({len(message)} vs. {self._message_bytes_max})"
            text = f"grpc: received message larger than max {sizes}"
            call.fail(status.RESOURCE_EXHAUSTED, text)
            return
        if isinstance(call, JsonUnaryCall):
            call.start(message)
            return
        stream = call
        stream.open()
        stream.put(message)
        stream.end_input()

    # --- threads ------------------------------------------------------------------------------

    def in_thread(self, work: Callable[[], bytes], done: Callable[[bytes], None]) -> None:
        """Has `work` done in the thread; `done` is called on the loop."""
        self._elsewhere(work, done)

    def find_in_thread(
        self, work: Callable[[], FoundRequests], done: Callable[[FoundRequests], None]
    ) -> None:
        """The same for the requests of a stream."""
        self._elsewhere(work, done)

    def _elsewhere(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "keyraft-json")

        def finished(future: Future[T]) -> None:
            self.loop.call_soon_threadsafe(done, future.result())

        self._thread.submit(work).add_done_callback(finished)


def _override(headers: list[Header]) -> str:
    """The method that a form's `X-HTTP-Method-Override` asks for (grpc-gateway `mux.go`)."""
    wanted = content_type = b""
    for name, value in headers:
        if name == b"x-http-method-override":
            wanted = wanted or value
        elif name == b"content-type":
            content_type = content_type or value
    return wanted.decode("latin-1").upper() if wanted and content_type == _FORM else "POST"


def _decode(method: Method, body: bytes) -> bytes | NotDecodedError:
    try:
        return decode(method.request, method.request_table, body)
    except NotDecodedError as error:
        return error


def _give(stream: JsonStream, found: FoundRequests) -> None:
    """All requests of a body, up to the first that is none, as the original takes them."""
    for request in found.requests:
        stream.put(request)
    stream.end_input()
