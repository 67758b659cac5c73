"""Plain HTTP of the proxy: `/health`, `/proxy/health`, `/metrics`, `/proxy/metrics`.

| path | says |
|---|---|
| `/health` | whether the cluster answers a read of the key `a` within a second |
| `/proxy/health` | the same, and whether a watch can be made within three |
| `/metrics` | the metrics of a member, fetched from it |
| `/proxy/metrics` | those of the proxy itself |

A read that is refused for want of permission is an answer. Both health paths ask the cluster, as
the proxy's own calls do; the original's `/proxy/health` dials its own advertised address.

Source: etcd `server/proxy/grpcproxy/{health,metrics}.go`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Coroutine, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from keyraft.base import http_status
from keyraft.base.errors import PermissionDeniedError
from keyraft.base.log import Logger
from keyraft.client import errors
from keyraft.gateway import (
    COUNTER,
    GAUGE,
    Family,
    ProcessFamilies,
    Source,
    call_counters,
    render,
)
from keyraft.grpc import HttpRequest, Router
from keyraft.net import ClientTLS, Http1Client, HttpError
from keyraft.proxy.grpcproxy.broadcast import Counts
from keyraft.proxy.grpcproxy.range_cache import RangeCache
from keyraft.proxy.grpcproxy.upstream import Upstream

HEALTH_S: Final = 1.0
WATCH_S: Final = 3.0
METRICS_S: Final = 10.0
METRICS_BYTES_MAX: Final = 16_777_216
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_METRICS_TYPE: Final = (b"content-type", b"text/plain; version=0.0.4")
_KEY: Final = "a"


class ProxyHttp:
    """Answers requests; owns its tasks."""

    def __init__(
        self,
        upstream: Upstream,
        sources: Sequence[Source],
        tls: ClientTLS | None,
        log: Logger,
    ) -> None:
        """`tls`: for fetching metrics."""
        self._upstream = upstream
        self._sources = sources
        self._log = log
        self._client = Http1Client(tls=tls)
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, request: HttpRequest) -> None:
        """One request."""
        path = urlsplit(request.target).path
        if path == "/metrics":
            self._run(self._metrics(request))
        elif path in ("/health", "/proxy/health"):
            if request.method != "GET":
                self._log.warn("/health error", status_code=405)
                allow = (b"allow", b"GET")
                body = b"Method Not Allowed\n"
                request.respond(http_status.METHOD_NOT_ALLOWED, [_TEXT, _NOSNIFF, allow], body)
            else:
                self._run(self._health(request, path == "/proxy/health"))
        elif path == "/proxy/metrics":
            body = render(family for source in self._sources for family in source())
            request.respond(http_status.OK, [_METRICS_TYPE], body)
        else:
            request.respond(http_status.NOT_FOUND, [_TEXT, _NOSNIFF], b"404 page not found\n")

    async def close(self) -> None:
        """Ends what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._client.close()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = self._upstream.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _health(self, request: HttpRequest, with_watch: bool) -> None:
        reason = await self._read()
        if not reason and with_watch:
            reason = await self._watch()
        told = {"health": "false" if reason else "true", "reason": reason}
        body = json.dumps(told, separators=(",", ":")).encode()
        if reason:
            self._log.warn("/health error", output=body.decode(), status_code=503)
            request.respond(http_status.SERVICE_UNAVAILABLE, [_TEXT, _NOSNIFF], body + b"\n")
        else:
            request.respond(http_status.OK, [_TEXT], body)

    async def _read(self) -> str:
        try:
            await self._upstream.client.get(_KEY, timeout_s=HEALTH_S)
        except PermissionDeniedError:
            return ""
        except errors.DeadlineError as error:
            return f"GET ERROR:{error.text}"
        except errors.EtcdError as error:
            return f"GET ERROR:{error}"
        return ""

    async def _watch(self) -> str:
        try:
            async with asyncio.timeout(WATCH_S):
                async with self._upstream.client.watch(_KEY):
                    return ""
        except TimeoutError:
            return "WATCH TIMEOUT"
        except errors.EtcdError:
            return ""  # an answer, as in the original

    async def _metrics(self, request: HttpRequest) -> None:
        target = random.choice(self._upstream.client.endpoints)
        if "://" not in target:
            target = f"{request.scheme}://{target}"
        try:
            answer = await self._client.request(
                "GET", target, "/metrics", timeout_s=METRICS_S, answer_bytes_max=METRICS_BYTES_MAX
            )
        except (HttpError, OSError, TimeoutError):
            request.respond(
                http_status.INTERNAL_SERVER_ERROR, [_TEXT, _NOSNIFF], b"Internal server error\n"
            )
            return
        request.respond(http_status.OK, [_METRICS_TYPE], answer.body)


class ProxyMetrics:
    """The families of the proxy itself."""

    def __init__(self, router: Router, cache: RangeCache, counts: Counts) -> None:
        self._router = router
        self._cache = cache
        self._counts = counts
        self._process = ProcessFamilies()

    def families(self) -> Iterator[Family]:
        """All of them."""
        yield from self._process.collect()
        cache, counts = self._cache, self._counts
        for name, kind, value, text in (
            ("cache_hits_total", GAUGE, cache.hits, "Reads answered from the cache."),
            ("cache_keys_total", GAUGE, len(cache), "Answers in the cache."),
            ("cache_misses_total", GAUGE, cache.misses, "Reads that the cache had no answer to."),
            (
                "events_coalescing_total",
                COUNTER,
                counts.coalesced_events,
                "Events that were not sent by the cluster because another watcher got them.",
            ),
            (
                "watchers_coalescing_total",
                GAUGE,
                counts.coalesced_watchers,
                "Watchers that the cluster does not have because another has the same range.",
            ),
        ):
            yield Family(f"etcd_grpc_proxy_{name}", kind, text).add(value)
        yield from call_counters(self._router, used_only=True)
