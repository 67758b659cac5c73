"""Method paths to handlers. Services register here and know nothing of HTTP/2."""

from __future__ import annotations

from collections.abc import Iterator

from keyraft.base.gotext import quote

from .call_ends import CallEnds
from .route import BIDI_STREAM, CLIENT_STREAM, SERVER_STREAM, UNARY, HandleUnary, OpenStream, Route


class Router:
    """The methods of a server; `ends` has the listeners for their calls."""

    def __init__(self) -> None:
        self._routes: dict[bytes, Route] = {}
        self._services: set[bytes] = set()
        self.ends = CallEnds()

    def unary(self, path: str, handle: HandleUnary) -> Route:
        """Registers `/package.Service/Method`, one message in, one out."""
        return self._add(Route(path, UNARY, handle, None))

    def stream(self, path: str, open_: OpenStream, kind: str = BIDI_STREAM) -> Route:
        """Registers a streaming method; `kind` is a label, and SERVER_STREAM takes one message."""
        assert kind in (CLIENT_STREAM, SERVER_STREAM, BIDI_STREAM), kind
        return self._add(Route(path, kind, None, open_))

    def _add(self, route: Route) -> Route:
        assert route.path not in self._routes, route.path
        self._routes[route.path] = route
        self._services.add(route.service.encode("ascii"))
        return route

    def find(self, path: bytes) -> Route | None:
        """The route of a request path."""
        return self._routes.get(path)

    def refusal(self, path: bytes) -> str:
        """gRPC-Go's text for a path that has no route."""
        text = path.decode("utf-8", "replace")
        service, slash, method = text.removeprefix("/").rpartition("/")
        if not slash:
            return f"malformed method name: {quote(path)}"
        if service.encode("utf-8") in self._services:
            return f"unknown method {method} for service {service}"
        return f"unknown service {service}"

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())
