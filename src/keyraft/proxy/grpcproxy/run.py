"""`etcd grpc-proxy`: builds the proxy of its parts and runs it until a signal.

    clients ──► net.Server ─► Router ─┬─ KeysProxy ── RangeCache ─┐
                                      ├─ WatchProxy ──────────────┴─ WatchRanges ─ UpstreamWatches ─┐
                                      ├─ Renewals ─────────────────────────────────────────── Upstream ──► members
                                      ├─ ProxyMembers ─────────────────────────────────────── ┤
                                      └─ forwarding (all else, as bytes) ──────────────────── ┘

Limits: connections by file descriptors; one request of a client `RECEIVE_BYTES_MAX`; the rest is
said where it is kept (`upstream`, `watching`, `range_cache`, `renewals`).
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from keyraft.app.descriptors import RESERVED_DESCRIPTORS, Rejections, raise_limit, refusal
from keyraft.app.systemd import notify_ready
from keyraft.base.log import Logger
from keyraft.base.urls import URLError, split_host_port
from keyraft.client import TLS, Client, Dialer, Headers, Namespace, Space, errors
from keyraft.grpc import CallEnd, HttpRequest, Limits, Router, status
from keyraft.net import Names, Places, Server, ServerTLS, SRVError, in_thread
from keyraft.proxy.discovered import discover_endpoints
from keyraft.proxy.grpcproxy.broadcast import Lines, WatchRanges
from keyraft.proxy.grpcproxy.deliveries import Deliveries
from keyraft.proxy.grpcproxy.forwarding import register
from keyraft.proxy.grpcproxy.keys import KeysProxy, Ordering
from keyraft.proxy.grpcproxy.leadership import LeaderWatch
from keyraft.proxy.grpcproxy.leasing import LeasingKeys
from keyraft.proxy.grpcproxy.members import ProxyMembers
from keyraft.proxy.grpcproxy.options import OptionError, ProxyOptions
from keyraft.proxy.grpcproxy.proxy_http import ProxyHttp, ProxyMetrics
from keyraft.proxy.grpcproxy.range_cache import RangeCache
from keyraft.proxy.grpcproxy.renewals import Renewals
from keyraft.proxy.grpcproxy.security import client_tls, metrics_tls, server_tls
from keyraft.proxy.grpcproxy.upstream import Upstream
from keyraft.proxy.grpcproxy.watch_line import UpstreamWatches
from keyraft.proxy.grpcproxy.watching import WatchProxy

RECEIVE_BYTES_MAX: Final = 4_194_304  # gRPC's default, which the original leaves
DIAL_S: Final = 5.0
ORDER_RETRY_S: Final = 1.0
STOP_S: Final = 1.0  # for open calls, at the end
_ADVERTISED_MAX: Final = (1 << 32) - 1  # the flag's default: no limit

if TYPE_CHECKING:
    from keyraft.app.debug import ProfilePaths


class GrpcProxy:
    """The running proxy. Owned by one loop."""

    def __init__(self, options: ProxyOptions, log: Logger, descriptors: int) -> None:
        self._options = options
        self._log = log
        tls = client_tls(options)
        self.client = _client(options, tls, log)
        self.upstream = Upstream(self.client, options.max_send_bytes)
        prefix = options.namespace.encode("utf-8", "surrogateescape")
        space = Namespace(prefix) if prefix else None
        self.ranges = WatchRanges(
            Lines(lambda who: self._line(who, space)),
            Deliveries(lambda turn: self.upstream.loop.call_soon(turn)),
        )
        self.cache = RangeCache(self.ranges, monotonic)
        leader = LeaderWatch(self.upstream)
        ordering = Ordering() if options.experimental_serializable_ordering else None
        own: Space = self.client.namespace(prefix) if prefix else self.client
        self.members = ProxyMembers(
            self.upstream,
            own,
            options.advertise_client_url,
            options.resolver_prefix,
            options.resolver_ttl,
            log,
        )
        self.router = Router()
        keys = KeysProxy(self.upstream, self.cache, space, ordering)
        self.leasing: LeasingKeys | None = None
        if options.experimental_leasing_prefix:
            leasing_prefix = options.experimental_leasing_prefix.encode("utf-8", "surrogateescape")
            self.leasing = LeasingKeys(keys, own, leasing_prefix, log)
        (self.leasing or keys).register(self.router)
        WatchProxy(self.upstream, self.ranges, leader, space, log).register(self.router)
        self.renewals = Renewals(self.upstream, leader, space)
        self.renewals.register(self.router)
        self.members.register(self.router)
        register(self.router, self.upstream, self.cache.clear)
        if options.experimental_enable_grpc_logging:
            self.router.ends.listen(self._tell)
        metrics = ProxyMetrics(self.router, self.cache, self.ranges.counts)
        self.http = ProxyHttp(self.upstream, (metrics.families,), metrics_tls(tls), log)
        self._profiles: ProfilePaths | None = None
        if options.enable_pprof:
            from keyraft.app.debug import ProfilePaths  # it is much, and rarely asked for

            self._profiles = ProfilePaths()
        self._places = Places(max(descriptors - RESERVED_DESCRIPTORS, 1))
        self._say = refusal(log, "client", descriptors)
        limits = _limits(options)
        self.server = self._server(self.router, limits)
        self.metrics_server = self._server(Router(), limits)

    def _line(self, credentials: Headers, space: Namespace | None) -> UpstreamWatches:
        return UpstreamWatches(self.upstream, credentials, space)

    def _server(self, router: Router, limits: Limits) -> Server:
        return Server(
            self.upstream.loop,
            router,
            limits,
            self._handle_http,
            places=self._places,
            say=self._say,
            failed=Rejections(self._log, "client", self.upstream.loop.time),
        )

    def _handle_http(self, request: HttpRequest) -> None:
        if self._profiles is not None:
            parts = urlsplit(request.target)
            query = parse_qs(parts.query, keep_blank_values=True)
            if self._profiles.handle(request, [], parts.path, query):
                return
        self.http.handle(request)

    def _tell(self, call: CallEnd) -> None:
        self._log.info(
            "finished call",
            grpc_method=call.path,
            peer_address=call.peer,
            grpc_code=status.CODE_NAMES[call.code],
            grpc_error=call.text,
            grpc_time_ms=round(call.took_s * 1000, 3),
            request_bytes=call.received_bytes,
            response_bytes=call.sent_bytes,
        )

    async def start(self) -> None:
        """Listens and serves; raises OptionError and OSError with nothing open."""
        options, log = self._options, self._log
        tls = server_tls(options, log)
        try:
            await self._listen(self.server, options.listen_addr, tls)
            address = options.listen_addr
            log.info("listening for gRPC proxy client requests", address=address)
            self.upstream.client.pool.start()
            if options.experimental_serializable_ordering:
                await self._recover_order()
            self.members.start()
            if self.leasing is not None:
                self.leasing.start()
            if options.metrics_addr:
                await self._listen_metrics(tls)
        except (OSError, OptionError, ValueError):
            await self.stop()
            raise
        self.server.start()
        self.metrics_server.start()
        log.info("started gRPC proxy", address=options.listen_addr)

    async def _listen(self, server: Server, address: str, tls: ServerTLS | None) -> None:
        try:
            host, port = split_host_port(address)
        except URLError as error:
            raise OptionError(f"listen tcp: {error}") from None
        shown = f"[{host}]" if ":" in host else host
        url = f"{'https' if tls else 'http'}://{shown}:{port or 0}"
        try:
            await server.listen(url, tls, start_serving=False)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise OptionError(f"listen tcp {address}: bind: {reason}") from None
        except ValueError as error:
            raise OptionError(f"listen tcp: {error}") from None

    async def _listen_metrics(self, tls: ServerTLS | None) -> None:
        address = self._options.metrics_addr
        parts = urlsplit(address)
        secure = parts.scheme in ("https", "unixs")
        try:
            await self.metrics_server.listen(address, tls if secure else None, start_serving=False)
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            reason = f"bind: {os.strerror(number).lower()}" if number else str(error)
            raise OptionError(f"listen tcp {parts.netloc}: {reason}") from None
        self._log.info("gRPC proxy listening for metrics", address=address)

    async def _recover_order(self) -> None:
        """Waits for a linearizable read, so that the order begins at the present."""
        self._log.info("waiting for linearized read from cluster to recover ordering")
        while True:
            try:
                await self.client.get("_", keys_only=True)
            except errors.EtcdError as error:
                self._log.warn("ordering recovery failed, retrying in 1s", error=str(error))
                await asyncio.sleep(ORDER_RETRY_S)
            else:
                return

    async def sync_endpoints(self) -> None:
        """Takes the members' client URLs as endpoints, again and again."""
        interval_s = self._options.endpoints_auto_sync_interval
        while interval_s > 0:
            await asyncio.sleep(interval_s)
            before = self.client.endpoints
            try:
                found = await self.client.sync_endpoints()
                if found != before:
                    self._log.info("endpoints have changed", endpoints=found)
            except errors.EtcdError as error:
                self._log.info("Auto sync endpoints failed.", error=str(error))

    async def stop(self) -> None:
        """Ends everything."""
        await self.members.stop()
        await self.server.stop(STOP_S)
        if self.leasing is not None:
            await self.leasing.stop()
        await self.metrics_server.stop()
        await self.http.close()
        await self.upstream.close()


def _client(options: ProxyOptions, tls: TLS | None, log: Logger) -> Client:
    dial = Dialer(
        tls,
        timeout_s=DIAL_S,
        keepalive_s=options.dial_keepalive_time,
        keepalive_timeout_s=options.dial_keepalive_timeout,
        receive_bytes_max=max(options.max_recv_bytes, 0),
        keepalive_without_calls=options.permit_without_stream,
    )
    try:
        return Client(*options.endpoints, dial=dial, log=log)
    except ValueError as error:
        raise OptionError(str(error)) from None


def _limits(options: ProxyOptions) -> Limits:
    streams = options.max_concurrent_streams
    return Limits(
        message_bytes_max=RECEIVE_BYTES_MAX,
        streams_advertised=streams if 0 < streams < _ADVERTISED_MAX else None,
        keepalive_interval_s=options.grpc_keepalive_interval,
        keepalive_timeout_s=options.grpc_keepalive_timeout,
        keepalive_min_time_s=options.grpc_keepalive_min_time,
    )


async def discovered(
    options: ProxyOptions, log: Logger, names: Names | None = None
) -> ProxyOptions:
    """With the endpoints that DNS names, if it names any; raises OptionError."""

    def ask() -> tuple[str, ...]:
        return discover_endpoints(
            log,
            options.discovery_srv,
            options.cacert,
            options.insecure_discovery,
            options.discovery_srv_name,
            names,
        ).endpoints

    try:
        found = await in_thread(ask)
    except SRVError as error:
        raise OptionError(str(error)) from None
    return replace(options, endpoints=found or options.endpoints)


async def _run(options: ProxyOptions, log: Logger, descriptors: int) -> int:
    if options.discovery_srv:
        options = await discovered(options, log)
    stopped = asyncio.Event()
    caught: list[int] = []

    def stop(number: int) -> None:
        caught.append(number)
        stopped.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    proxy = GrpcProxy(options, log, descriptors)
    await proxy.start()
    notify_ready(log)
    syncing = loop.create_task(proxy.sync_endpoints())
    await stopped.wait()
    log.info("stop listening gRPC proxy client requests", address=options.listen_addr)
    syncing.cancel()
    with suppress(asyncio.CancelledError):
        await syncing
    await proxy.stop()
    return caught[0]


def run_proxy(options: ProxyOptions, log: Logger) -> int:
    """Runs until SIGINT or SIGTERM, and returns its number; raises OptionError."""
    options.check()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(options, log, raise_limit()))
