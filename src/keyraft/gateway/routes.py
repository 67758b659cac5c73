"""Plain HTTP on the client port and the metrics port, for HTTP/1.1 and HTTP/2 alike.

`/version`, `/health`, `/livez`, `/readyz`, `/metrics`; everything else is Go's 404. Answers of the
client port carry CORS headers, those of the metrics port do not (etcd `embed/serve.go`).
"""

from __future__ import annotations

import json
from functools import partial
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from keyraft.base.log import Logger
from keyraft.base.version import VERSION
from keyraft.gateway.checks import CHECKS, check_health, run_check
from keyraft.gateway.exposition import CONTENT_TYPE, render
from keyraft.gateway.metrics import Scrape
from keyraft.gateway.process import ProcessFamilies
from keyraft.grpc import HttpRequest
from keyraft.server import Member

Header = tuple[bytes, bytes]

_CORS_METHODS: Final = (b"access-control-allow-methods", b"POST, GET, OPTIONS, PUT, DELETE")
_CORS_HEADERS: Final = (b"access-control-allow-headers", b"accept, content-type, authorization")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")


class Gateway:
    """The HTTP side of one member; refuses until `serve` has given it the member."""

    def __init__(
        self,
        logger: Logger,
        cors: tuple[str, ...] = ("*",),
        host_whitelist: tuple[str, ...] = ("*",),
    ) -> None:
        self._logger = logger
        self._cors = frozenset(cors)
        self._hosts = frozenset(host_whitelist)
        self._member: Member | None = None
        self._scrape: Scrape | None = None
        self._process = ProcessFamilies()

    def serve(self, member: Member, scrape: Scrape) -> None:
        """From now on there is a member to ask."""
        self._member = member
        self._scrape = scrape

    # --- ports --------------------------------------------------------------------------------

    def handle(self, request: HttpRequest) -> None:
        """A request on the client port."""
        headers = dict(request.headers)
        extra = self._cors_headers(headers.get(b"origin", b"").decode("latin-1"))
        if request.method == "OPTIONS":
            request.respond(200, extra, b"")
            return
        host = headers.get(b"host", b"").decode("latin-1")
        if request.scheme == "http" and not self._host_allowed(host):
            body = (
                f"Misdirected Request: host {host!r} is not in --host-whitelist "
                "(it is meant against DNS rebinding)\n"
            ).encode()
            request.respond(421, [_TEXT, *extra], body)
            return
        self._route(request, extra, client_port=True)

    def handle_metrics_port(self, request: HttpRequest) -> None:
        """A request on a metrics port."""
        self._route(request, [], client_port=False)

    def _route(self, request: HttpRequest, extra: list[Header], client_port: bool) -> None:
        try:
            parts = urlsplit(request.target)
        except ValueError:  # for instance an unclosed bracket where a host might be
            request.respond(400, [_TEXT, _NOSNIFF, *extra], b"400 Bad Request\n")
            return
        path = unquote(parts.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        member = self._member
        if member is None:
            request.respond(503, [_TEXT, _NOSNIFF, *extra], b"not ready\n")
        elif path == "/metrics":
            self._metrics(request, extra)
        elif path == "/health":
            self._health(request, extra, member, query)
        elif path == "/version" and client_port:
            self._version(request, extra, member)
        else:
            kind, _, name = path.strip("/").partition("/")
            names = CHECKS.get(kind, ())
            if names and not name and not path.endswith("/"):
                self._checks(request, extra, member, kind, names, query)
            elif name in names:
                self._checks(request, extra, member, kind, (name,), query)
            else:
                request.respond(404, [_TEXT, _NOSNIFF, *extra], b"404 page not found\n")

    # --- paths --------------------------------------------------------------------------------

    def _metrics(self, request: HttpRequest, extra: list[Header]) -> None:
        assert self._scrape is not None, "set together with the member"
        body = render(self._scrape.families(self._process))
        request.respond(200, [(b"content-type", CONTENT_TYPE), *extra], body)

    def _version(self, request: HttpRequest, extra: list[Header], member: Member) -> None:
        if request.method != "GET":
            allow = (b"allow", b"GET")
            request.respond(405, [_TEXT, _NOSNIFF, allow, *extra], b"Method Not Allowed\n")
            return
        cluster = member.membership.cluster.version
        versions = {
            "etcdserver": VERSION,
            "etcdcluster": str(cluster) if cluster is not None else "not_decided",
            "storage": member.membership.storage_version or "unknown",
        }
        body = json.dumps(versions, separators=(",", ":")).encode()
        request.respond(200, [_JSON, *extra], body)

    def _health(
        self,
        request: HttpRequest,
        extra: list[Header],
        member: Member,
        query: dict[str, list[str]],
    ) -> None:
        if self._refuse_method(request, extra, "/health error"):
            return
        excluded = {name for name in query.get("exclude", ()) if name}
        serializable = query.get("serializable", [""])[0] == "true"

        def done(reason: str) -> None:
            health = {"health": "false" if reason else "true", "reason": reason}
            body = json.dumps(health, separators=(",", ":")).encode()
            if not reason:
                member.counters.health_success += 1
                request.respond(200, [_TEXT, *extra], body)
                return
            member.counters.health_failures += 1
            self._logger.warn("/health error", output=body.decode(), status_code=503)
            request.respond(503, [_TEXT, _NOSNIFF, *extra], body + b"\n")

        check_health(member, excluded, serializable, done)

    def _checks(
        self,
        request: HttpRequest,
        extra: list[Header],
        member: Member,
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
                request.respond(503, [_TEXT, _NOSNIFF, *extra], lines.encode() + b"\n")
            else:
                body = (lines if "verbose" in query else "") + "ok\n"
                request.respond(200, [_TEXT, _NOSNIFF, *extra], body.encode())

        def done(name: str, reason: str) -> None:
            counters = member.counters
            outcome = "error" if reason else "success"
            counters.healthcheck[kind, name] = 0 if reason else 1
            key = (kind, name, outcome)
            counters.healthchecks[key] = counters.healthchecks.get(key, 0) + 1
            outcomes[name] = reason
            if len(outcomes) == len(wanted):
                finish()

        if not wanted:
            finish()
        for name in wanted:
            run_check(member, name, partial(done, name))

    def _refuse_method(self, request: HttpRequest, extra: list[Header], what: str) -> bool:
        if request.method == "GET":
            return False
        self._logger.warn(what, status_code=405)
        allow = (b"allow", b"GET")
        request.respond(405, [_TEXT, _NOSNIFF, allow, *extra], b"Method Not Allowed\n")
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
