"""The requests of a stream, read from a body that is still coming.

Each request is taken as soon as its last byte is there, as by the original. A piece with many values
is read in the gateway's thread, and nothing more is given meanwhile; nor is it while the stream has
more requests than it takes.

Bounds: a request may be as long as the largest message in base64. A value that comes in pieces is
looked at anew with each of them; when that was too often (`RESCANNED_BYTES_MAX`), only once more, at
the end of the body.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Protocol

from keyraft.gateway.json.calls import JsonStream
from keyraft.gateway.json.decoding import NotDecodedError, decode_value, is_slow
from keyraft.gateway.json.methods import Method
from keyraft.gateway.json.scanner import EndOfText, SyntaxProblem, find_value
from keyraft.grpc import HttpRequest, status

RESCANNED_BYTES_MAX: Final = 4_194_304


class FoundRequests(NamedTuple):
    """What a text held: encoded requests, the start of one that is not whole, and whether no more
    can follow, because what stands there is none."""

    requests: list[bytes]
    rest: bytes
    over: bool


def find_requests(method: Method, text: bytes, ended: bool) -> FoundRequests:
    """The requests in `text`; with `ended` it is the rest of the body."""
    requests: list[bytes] = []
    at = 0
    try:
        while (found := find_value(text, at, ended=ended)) is not None:
            start, at = found
            requests.append(decode_value(method.request, method.request_table, text[start:at]))
    except EndOfText:
        return FoundRequests(requests, b"" if ended else text[at:], ended)
    except (SyntaxProblem, NotDecodedError):
        return FoundRequests(requests, b"", True)
    return FoundRequests(requests, b"", ended)


class Elsewhere(Protocol):
    """What does work in a thread (the gateway)."""

    message_text_bytes_max: int

    def find_in_thread(
        self, work: Callable[[], FoundRequests], done: Callable[[FoundRequests], None]
    ) -> None:
        """Has `work` done elsewhere; `done` is called on the loop."""


class StreamBody:
    """One body and the stream of its requests. Owned by the loop."""

    __slots__ = ("_busy", "_ended", "_gateway", "_method", "_over", "_request", "_rest", "_scanned")

    def __init__(
        self, gateway: Elsewhere, request: HttpRequest, method: Method, stream: JsonStream
    ) -> None:
        self._gateway = gateway
        self._request = request
        self._method = method
        self._rest = b""
        self._scanned = 0  # bytes that were looked at and held no whole request
        self._busy = False  # the thread reads
        self._ended = False
        self._over = False
        request.on_body = partial(self._take, stream)
        stream.on_room = partial(self._go_on, stream)

    def _take(self, stream: JsonStream, data: bytes, last: bool) -> None:
        self._ended = last
        if self._over:
            return
        text = self._rest = self._rest + data
        if len(text) > self._gateway.message_text_bytes_max:
            self._over, self._rest = True, b""
            stream.fail(status.RESOURCE_EXHAUSTED, "grpc: received message larger than max")
        elif not self._busy and (last or self._scanned <= RESCANNED_BYTES_MAX):
            self._read(stream)

    def _read(self, stream: JsonStream) -> None:
        text = self._rest
        work = partial(find_requests, self._method, text, self._ended)
        found = partial(self._found, stream, len(text))
        if is_slow(text):
            self._busy = True
            self._request.hold_reading(True)
            self._gateway.find_in_thread(work, found)
        else:
            found(work())

    def _found(self, stream: JsonStream, size: int, found: FoundRequests) -> None:
        self._busy = False
        self._rest = found.rest
        self._scanned = 0 if found.requests else self._scanned + size
        for request in found.requests:
            stream.put(request)
        if found.over:
            self._over = True
            stream.end_input()
        elif self._ended:
            self._read(stream)
        self._go_on(stream)

    def _go_on(self, stream: JsonStream) -> None:
        """Has more of the body given, or not."""
        self._request.hold_reading(self._busy or stream.full)
