"""Plain HTTP on the client port and the metrics port, for HTTP/1.1 and HTTP/2 alike.

`/version`, `/health`, `/livez`, `/readyz`, `/metrics`; everything else is Go's 404. Answers of the
client port carry CORS headers, those of the metrics port do not (etcd `embed/serve.go`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from keyraft.base import http_status
from keyraft.base.log import Logger
from keyraft.base.version import VERSION
from keyraft.gateway.checks import CHECKS, Health, HealthCounts, check_health, run_check
from keyraft.gateway.exposition import CONTENT_TYPE, Source, render
from keyraft.grpc import HttpRequest

Header = tuple[bytes, bytes]

_CORS_METHODS: Final = (b"access-control-allow-methods", b"POST, GET, OPTIONS, PUT, DELETE")
_CORS_HEADERS: Final = (b"access-control-allow-headers", b"accept, content-type, authorization")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")


class Gateway:
    """The HTTP side of a client port; refuses requests until `serve` was called."""

    def __init__(
        self,
        logger: Logger,
        cors: tuple[str, ...] = ("*",),
        host_whitelist: tuple[str, ...] = ("*",),
    ) -> None:
        self._logger = logger
        self._cors = frozenset(cors)
        self._hosts = frozenset(host_whitelist)
        self._behind: Health | None = None
        self._sources: Sequence[Source] = ()
        self.counts = HealthCounts()

    def serve(self, health: Health, sources: Sequence[Source]) -> None:
        """Sets the member to ask and the sources of metrics."""
        self._behind = health
        self._sources = sources

    # --- ports --------------------------------------------------------------------------------

    def handle(self, request: HttpRequest) -> None:
        """A request on the client port."""
        headers = dict(request.headers)
        extra = self._cors_headers(headers.get(b"origin", b"").decode("latin-1"))
        if request.method == "OPTIONS":
            request.respond(http_status.OK, extra, b"")
            return
        host = headers.get(b"host", b"").decode("latin-1")
        if request.scheme == "http" and not self._host_allowed(host):
            body = (
                f"Misdirected Request: host {host!r} is not in --host-whitelist "
                "(it is meant against DNS rebinding)\n"
            ).encode()
            request.respond(http_status.MISDIRECTED_REQUEST, [_TEXT, *extra], body)
            return
        self._route(request, extra, client_port=True)

    def handle_metrics_port(self, request: HttpRequest) -> None:
        """A request on a metrics port."""
        self._route(request, [], client_port=False)

    def _route(self, request: HttpRequest, extra: list[Header], client_port: bool) -> None:
        try:
            parts = urlsplit(request.target)
        except ValueError:  # for instance an unclosed bracket where a host might be
            request.respond(
                http_status.BAD_REQUEST, [_TEXT, _NOSNIFF, *extra], b"400 Bad Request\n"
            )
            return
        path = unquote(parts.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        behind = self._behind
        if behind is None:
            request.respond(
                http_status.SERVICE_UNAVAILABLE, [_TEXT, _NOSNIFF, *extra], b"not ready\n"
            )
        elif path == "/metrics":
            self._metrics(request, extra)
        elif path == "/health":
            self._health(request, extra, behind, query)
        elif path == "/version" and client_port:
            self._version(request, extra, behind)
        else:
            kind, _, name = path.strip("/").partition("/")
            names = CHECKS.get(kind, ())
            if names and not name and not path.endswith("/"):
                self._checks(request, extra, behind, kind, names, query)
            elif name in names:
                self._checks(request, extra, behind, kind, (name,), query)
            else:
                request.respond(
                    http_status.NOT_FOUND, [_TEXT, _NOSNIFF, *extra], b"404 page not found\n"
                )

    # --- paths --------------------------------------------------------------------------------

    def _metrics(self, request: HttpRequest, extra: list[Header]) -> None:
        body = render(family for source in self._sources for family in source())
        request.respond(http_status.OK, [(b"content-type", CONTENT_TYPE), *extra], body)

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
        query: dict[str, list[str]],
    ) -> None:
        if self._refuse_method(request, extra, "Health request error"):
            return
        excluded = {name for name in query.get("exclude", ()) if name}
        wanted = [name for name in names if len(names) == 1 or name not in excluded]
        unknown = sorted(excluded - set(names)) if len(names) > 1 or kind == "livez" else []
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
