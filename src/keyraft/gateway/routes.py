"""Plain HTTP on the client port and the metrics port, for HTTP/1.1 and HTTP/2 alike.

`/version`, `/health`, `/livez`, `/readyz`, `/metrics`, and on the client port `/v3/` for the JSON
gateway (`gateway.json`, loaded when the first such request comes); everything else is Go's 404, and
a path that is not clean is redirected to one that is, as Go's `ServeMux` does. Answers of the
client port carry CORS headers, those of the metrics port do not (etcd `embed/serve.go`).
"""

from __future__ import annotations

import json
import posixpath
import string
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from keyraft.base import http_status
from keyraft.base.clock import ThreadedLoop
from keyraft.base.log import Logger
from keyraft.base.version import VERSION
from keyraft.gateway.checks import (
    BY_NAME_ONLY,
    CHECKS,
    Health,
    HealthCounts,
    check_health,
    run_check,
)
from keyraft.gateway.exposition import CONTENT_TYPE, Source, render
from keyraft.grpc import HttpRequest, Router

if TYPE_CHECKING:
    from keyraft.gateway.json import JsonGateway

Header = tuple[bytes, bytes]

_CORS_METHODS: Final = (b"access-control-allow-methods", b"POST, GET, OPTIONS, PUT, DELETE")
_CORS_HEADERS: Final = (b"access-control-allow-headers", b"accept, content-type, authorization")
_QUERY: Final = string.punctuation  # stays as it is; what no header may hold is escaped
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")


_HTML: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})
_JSON_PATH: Final = "/v3/"
_JSON_PATH_BEFORE_3_4: Final = "/v3beta/"
_STREAMS: Final = frozenset(
    start + name
    for start in (_JSON_PATH, _JSON_PATH_BEFORE_3_4)
    for name in ("watch", "lease/keepalive")
)
"""Where a body is a stream of requests."""
_NAMED_BY_CERTIFICATE: Final = (
    b"CommonName of client sending a request against gateway will be ignored and not used as "
    b"expected\n"
)


_DEBUG_PATHS: Final = ("/debug/", "/config/")
DebugHandler = Callable[[HttpRequest, "list[Header]", str, "dict[str, list[str]]"], bool]
"""Answers a path of its own and returns True."""


class JsonTerms(NamedTuple):
    """What the JSON gateway is made of."""

    router: Router
    loop: ThreadedLoop
    clock: Callable[[], float]
    """The loop's, but exact."""
    message_bytes_max: int
    """Of a request, encoded."""
    client_cert_auth: bool
    """Whether certificates name users elsewhere."""


class Gateway:
    """The HTTP side of a client port; refuses requests until `serve` was called."""

    def __init__(
        self,
        logger: Logger,
        cors: tuple[str, ...] = ("*",),
        host_whitelist: tuple[str, ...] = ("*",),
        json_terms: JsonTerms | None = None,
    ) -> None:
        """`json_terms`: None without `--enable-grpc-gateway`."""
        self._logger = logger
        self._cors = frozenset(cors)
        self._hosts = frozenset(host_whitelist)
        self._behind: Health | None = None
        self._sources: Sequence[Source] = ()
        self._debug: DebugHandler | None = None
        self._read_variables: Callable[[], bytes] = lambda: b"{\n}\n"
        self._json_terms = json_terms
        self._json: JsonGateway | None = None
        self._auth_enabled: Callable[[], bool] = bool
        self.counts = HealthCounts()

    def serve(
        self,
        health: Health,
        sources: Sequence[Source],
        auth_enabled: Callable[[], bool] = bool,
    ) -> None:
        """Sets the member to ask, the sources of metrics, and who knows whether there are users."""
        self._behind = health
        self._sources = sources
        self._auth_enabled = auth_enabled

    def serve_debug(self, variables: Callable[[], bytes], paths: DebugHandler | None) -> None:
        """Sets what /debug/vars shows, and who answers the paths of `--enable-pprof`."""
        self._read_variables = variables
        self._debug = paths

    # --- ports --------------------------------------------------------------------------------

    def handle(self, request: HttpRequest) -> None:
        """A request on the client port."""
        headers = dict(request.headers)
        host = headers.get(b"host", b"").decode("latin-1")
        if request.scheme == "http" and not self._host_allowed(host):
            body = (
                f"Misdirected Request: host {host!r} is not in --host-whitelist "
                "(it is meant against DNS rebinding)\n"
            ).encode()
            request.respond(http_status.MISDIRECTED_REQUEST, [_TEXT, _NOSNIFF], body)
            return
        if self._named_by_certificate(request):
            request.respond(http_status.BAD_REQUEST, [_TEXT, _NOSNIFF], _NAMED_BY_CERTIFICATE)
            return
        extra = self._cors_headers(headers.get(b"origin", b"").decode("latin-1"))
        if request.method == "OPTIONS":
            request.respond(http_status.OK, extra, b"")
            return
        self._route(request, extra, client_port=True)

    def takes_early(self, target: str) -> bool:
        """Whether `handle` gets a request for `target` before its body: one of a stream."""
        return self._json_terms is not None and target in _STREAMS

    def handle_metrics_port(self, request: HttpRequest) -> None:
        """A request on a metrics port."""
        self._route(request, [], client_port=False)

    def _route(self, request: HttpRequest, extra: list[Header], client_port: bool) -> None:
        target = request.target
        if client_port and self._json is not None and self._json.has(target):
            self._json.handle(request, target, extra)  # the way of nearly all
            return
        try:
            parts = urlsplit(target)
        except ValueError:  # for instance an unclosed bracket where a host might be
            request.respond(
                http_status.BAD_REQUEST, [_TEXT, _NOSNIFF, *extra], b"400 Bad Request\n"
            )
            return
        path = unquote(parts.path)
        terms = self._json_terms if client_port else None
        if client_port and path.startswith(_JSON_PATH_BEFORE_3_4):
            path = _JSON_PATH + path.removeprefix(_JSON_PATH_BEFORE_3_4)
        clean = _clean(path, terms is not None)
        if clean != path and request.method != "CONNECT":
            _redirect(request, extra, clean, parts.query)
            return
        query = parse_qs(parts.query, keep_blank_values=True)
        behind = self._behind
        if behind is None:
            request.respond(
                http_status.SERVICE_UNAVAILABLE, [_TEXT, _NOSNIFF, *extra], b"not ready\n"
            )
        elif terms is not None and path.startswith(_JSON_PATH):
            self._json_gateway(terms).handle(request, path, extra)
        elif path == "/metrics":
            self._metrics(request, extra)
        elif path == "/health":
            self._health(request, extra, behind, query)
        elif path == "/version" and client_port:
            self._version(request, extra, behind)
        elif client_port and path == "/debug/vars":
            self._variables(request, extra)
        elif (
            client_port
            and self._debug is not None
            and path.startswith(_DEBUG_PATHS)
            and self._debug(request, extra, path, query)
        ):
            pass
        else:
            kind, slash, name = path[1:].partition("/")
            names = CHECKS.get(kind, ())
            if names and not slash:
                excluded = {name for name in query.get("exclude", ()) if name}
                self._checks(request, extra, behind, kind, names, excluded, query)
            elif name in names or name in BY_NAME_ONLY.get(kind, ()):
                self._checks(request, extra, behind, kind, (name,), set(), query)
            else:
                request.respond(
                    http_status.NOT_FOUND, [_TEXT, _NOSNIFF, *extra], b"404 page not found\n"
                )

    def _json_gateway(self, terms: JsonTerms) -> JsonGateway:
        if self._json is None:
            from keyraft.gateway.json import JsonGateway  # a start needs none of it

            self._json = JsonGateway(terms.router, terms.loop, terms.clock, terms.message_bytes_max)
        return self._json

    # --- paths --------------------------------------------------------------------------------

    def _metrics(self, request: HttpRequest, extra: list[Header]) -> None:
        body = render(family for source in self._sources for family in source())
        request.respond(http_status.OK, [(b"content-type", CONTENT_TYPE), *extra], body)
        self.counts.scrapes += 1

    def _variables(self, request: HttpRequest, extra: list[Header]) -> None:
        if self._refuse_method(request, extra, "/debug/vars error"):
            return
        kind = (b"content-type", b"application/json; charset=utf-8")
        request.respond(http_status.OK, [kind, *extra], self._read_variables())

    def _version(self, request: HttpRequest, extra: list[Header], health: Health) -> None:
        if request.method != "GET":
            allow = (b"allow", b"GET")
            request.respond(
                http_status.METHOD_NOT_ALLOWED,
                [_TEXT, _NOSNIFF, allow, *extra],
                b"Method Not Allowed\n",
            )
            return
        cluster, storage = health.versions()
        versions = {
            "etcdserver": VERSION,
            "etcdcluster": cluster or "not_decided",
            "storage": storage or "unknown",
        }
        body = json.dumps(versions, separators=(",", ":")).encode()
        request.respond(http_status.OK, [_JSON, *extra], body)

    def _health(
        self,
        request: HttpRequest,
        extra: list[Header],
        health: Health,
        query: dict[str, list[str]],
    ) -> None:
        if self._refuse_method(request, extra, "/health error"):
            return
        excluded = {name for name in query.get("exclude", ()) if name}
        serializable = query.get("serializable", [""])[0] == "true"

        def done(reason: str) -> None:
            told = {"health": "false" if reason else "true", "reason": reason}
            body = json.dumps(told, separators=(",", ":")).encode()
            if not reason:
                self.counts.successes += 1
                request.respond(http_status.OK, [_TEXT, *extra], body)
                return
            self.counts.failures += 1
            self._logger.warn("/health error", output=body.decode(), status_code=503)
            request.respond(
                http_status.SERVICE_UNAVAILABLE, [_TEXT, _NOSNIFF, *extra], body + b"\n"
            )

        check_health(health, self._logger, excluded, serializable, done)

    def _checks(
        self,
        request: HttpRequest,
        extra: list[Header],
        health: Health,
        kind: str,
        names: tuple[str, ...],
        excluded: set[str],
        query: dict[str, list[str]],
    ) -> None:
        if self._refuse_method(request, extra, "Health request error"):
            return
        wanted = [name for name in names if name not in excluded]
        unknown = sorted(excluded - set(names))
        if unknown:
            listed = ",".join(f'"{name}"' for name in unknown)
            self._logger.warn("some health checks cannot be excluded", missing_health_checks=listed)
        outcomes: dict[str, str] = {}

        def finish() -> None:
            lines = "".join(
                f"[-]{name} failed: {outcomes[name]}\n" if outcomes[name] else f"[+]{name} ok\n"
                for name in wanted
            )
            if any(outcomes.values()):
                self._logger.error(
                    "Health check error", path=f"/{kind}", reason=lines, status_code=503
                )
                request.respond(
                    http_status.SERVICE_UNAVAILABLE,
                    [_TEXT, _NOSNIFF, *extra],
                    lines.encode() + b"\n",
                )
            else:
                body = (lines if "verbose" in query else "") + "ok\n"
                request.respond(http_status.OK, [_TEXT, _NOSNIFF, *extra], body.encode())

        def done(name: str, reason: str) -> None:
            self.counts.checked(kind, name, not reason)
            outcomes[name] = reason
            if len(outcomes) == len(wanted):
                finish()

        if not wanted:
            finish()
        for name in wanted:
            run_check(health, name, partial(done, name))

    def _refuse_method(self, request: HttpRequest, extra: list[Header], what: str) -> bool:
        if request.method == "GET":
            return False
        self._logger.warn(what, status_code=405)
        allow = (b"allow", b"GET")
        request.respond(
            http_status.METHOD_NOT_ALLOWED,
            [_TEXT, _NOSNIFF, allow, *extra],
            b"Method Not Allowed\n",
        )
        return True

    # --- access -------------------------------------------------------------------------------

    def _named_by_certificate(self, request: HttpRequest) -> bool:
        """Whether the client may think that its certificate says who it is to the JSON gateway."""
        terms = self._json_terms
        return (
            terms is not None
            and terms.client_cert_auth
            and request.scheme == "https"
            and request.target.startswith((_JSON_PATH, _JSON_PATH_BEFORE_3_4))
            and bool(request.common_name)
            and self._auth_enabled()
        )

    def _cors_headers(self, origin: str) -> list[Header]:
        if "*" in self._cors:
            allowed = "*"
        elif origin in self._cors:
            allowed = origin
        else:
            return []
        return [
            _CORS_METHODS,
            (b"access-control-allow-origin", allowed.encode("latin-1")),
            _CORS_HEADERS,
        ]

    def _host_allowed(self, host: str) -> bool:
        if "*" in self._hosts:
            return True
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        return name.strip("[]") in self._hosts


def _clean(path: str, has_json: bool) -> str:
    """The path that Go's `ServeMux` would serve."""
    if has_json and path == _JSON_PATH[:-1]:
        return _JSON_PATH
    if "//" not in path and "/." not in path and path[:1] == "/":
        return path
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean if clean == "/" or not path.endswith("/") else clean + "/"


def _redirect(request: HttpRequest, extra: list[Header], path: str, query: str) -> None:
    """Go's `http.Redirect`, which explains itself in HTML to those who read."""
    where = quote(path) + (f"?{quote(query, _QUERY)}" if query else "")
    headers = [(b"location", where.encode("ascii", "replace")), *extra]
    body = b""
    if request.method in ("GET", "HEAD"):
        headers.insert(0, (b"content-type", b"text/html; charset=utf-8"))
        body = f'<a href="{where.translate(_HTML)}">Temporary Redirect</a>.\n\n'.encode()
    request.respond(http_status.TEMPORARY_REDIRECT, headers, body)
