"""Requests on the peer port and their answers, between HTTP/1.1 and the handlers.

A handler is a coroutine that gets a `PeerRequest` and returns a `PeerReply`. It is cancelled when
its client leaves. A handler whose response never ends (`RaftHandlers.stream`) returns None.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import unquote

from keyraft.base import http_status
from keyraft.base.log import Logger
from keyraft.net import Body, BodyError, Http1Request

_TEXT: Final = "text/plain; charset=utf-8"


class PeerRequest:
    """One request: its headers' names are in lower case, the first of a repeated one counts."""

    __slots__ = ("headers", "http", "method", "path")

    def __init__(self, http: Http1Request) -> None:
        self.http = http
        self.method = http.method
        self.path = unquote(http.target.partition("?")[0], "utf-8", "surrogateescape")
        self.headers: dict[str, str] = {}
        for name, value in http.headers:
            self.headers.setdefault(
                name.decode("latin-1"), value.decode("utf-8", "surrogateescape")
            )

    @property
    def body(self) -> Body:
        """The body, which may still be on its way."""
        return self.http.incoming


class PeerReply:
    """A complete response."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int,
        text: str | bytes = b"",
        headers: Mapping[str, str] | None = None,
        content_type: str = _TEXT,
    ) -> None:
        self.status = status
        self.body = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        self.headers = [
            (name.lower().encode(), value.encode("latin-1", "replace"))
            for name, value in (headers or {}).items()
        ]
        if self.body:
            self.headers.append((b"content-type", content_type.encode()))


Handler = Callable[[PeerRequest], Awaitable[PeerReply | None]]


def http_error(status: int, text: str, headers: Mapping[str, str] | None = None) -> PeerReply:
    """What Go's http.Error writes."""
    return PeerReply(status, text + "\n", {"X-Content-Type-Options": "nosniff", **(headers or {})})


def json_error(status: int, text: str, headers: Mapping[str, str] | None = None) -> PeerReply:
    """What etcd's `httptypes.HTTPError` writes."""
    body = json.dumps({"message": text}, separators=(",", ":"))
    return PeerReply(status, body, headers, "application/json")


class Routes:
    """Paths and their handlers; the longest matching prefix counts, as in Go's `ServeMux`."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._exact: dict[str, Handler] = {}
        self._below: list[tuple[str, Handler]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, path: str, handler: Handler) -> None:
        """A path, or with a slash at its end everything below it."""
        if path.endswith("/"):
            self._below.append((path, handler))
            self._below.sort(key=lambda entry: -len(entry[0]))
        else:
            self._exact[path] = handler

    def handle(self, http: Http1Request) -> None:
        """Starts the handler of a request; called by `Http1Service`."""
        asked = PeerRequest(http)
        handler = self._exact.get(asked.path)
        if handler is None:
            for beginning, below in self._below:
                if asked.path.startswith(beginning):
                    handler = below
                    break
        if handler is None:
            _answer(http, http_error(http_status.NOT_FOUND, "404 page not found"))
            return
        task = asyncio.get_running_loop().create_task(self._run(handler, asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def left() -> None:
            task.cancel()

        http.on_close = left

    async def stop(self) -> None:
        """Cancels all handlers."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, handler: Handler, asked: PeerRequest) -> None:
        http = asked.http
        try:
            reply = await handler(asked)
        except BodyError:
            reply = http_error(http_status.BAD_REQUEST, "error reading body")
        except Exception as error:  # noqa: BLE001 - as Go's server ends a connection and goes on
            self._logger.error(
                "failed to answer a peer", path=asked.path, error=f"{type(error).__name__}: {error}"
            )
            reply = http_error(http_status.INTERNAL_SERVER_ERROR, "Internal Server Error")
        if reply is not None:
            _answer(http, reply)


def _answer(http: Http1Request, reply: PeerReply) -> None:
    http.on_close = None
    http.respond(reply.status, reply.headers, reply.body)
