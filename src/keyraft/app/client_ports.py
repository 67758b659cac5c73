"""The ports for clients and for metrics: where they listen, and their protocols.

`--listen-client-urls` serve gRPC and, unless `--listen-client-http-urls` are given, also HTTP.
`--listen-client-http-urls` serve only HTTP. `--listen-metrics-urls` serve `/metrics` and the health
checks. An address that is given with http and with https accepts both. Source: etcd
`embed/etcd.go`, configureClientListeners.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

from keyraft.app.descriptors import Rejections, refusal
from keyraft.app.start_checks import (
    StartError,
    check_secure_urls,
    listen_error,
)
from keyraft.base.limits import GRPC_OVERHEAD_BYTES
from keyraft.base.urls import URL
from keyraft.config.config import Config
from keyraft.gateway import Gateway, JsonTerms
from keyraft.grpc import Limits, Router
from keyraft.net import HttpHandler, Places, Server

if TYPE_CHECKING:
    from keyraft.net import ServerTLS


def json_terms(config: Config, loop: asyncio.AbstractEventLoop, router: Router) -> JsonTerms | None:
    """What the JSON gateway is made of; None with `--enable-grpc-gateway=false`."""
    if not config.enable_grpc_gateway:
        return None
    return JsonTerms(router, loop, monotonic, _message_bytes_max(config), config.client_cert_auth)


class ClientPorts:
    """All of them, for one member. Owned by the loop."""

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        router: Router,
        gateway: Gateway,
        places: Places,
        descriptors: int,
    ) -> None:
        """`places`: of all these ports together; `descriptors`: the limit that they come from."""
        self._config = config
        self._loop = loop
        self._places = places
        self._say = refusal(config.log, "client", descriptors)
        self._failed = Rejections(config.log, "client", loop.time)
        limits = Limits(
            message_bytes_max=_message_bytes_max(config),
            streams_advertised=_advertised(config.max_concurrent_streams),
            keepalive_interval_s=config.grpc_keepalive_interval_s,
            keepalive_timeout_s=config.grpc_keepalive_timeout_s,
            keepalive_min_time_s=config.grpc_keepalive_min_time_s,
        )
        apart = bool(config.listen_client_http_urls)
        self.grpc = self._server(
            router, limits, None if apart else gateway.handle, gateway.takes_early
        )
        """What speaks gRPC."""
        self._others: list[tuple[Server, tuple[URL, ...]]] = []
        if apart:
            http = self._server(Router(), limits, gateway.handle, gateway.takes_early)
            self._others.append((http, config.listen_client_http_urls))
        if config.listen_metrics_urls:
            metrics = self._server(Router(), limits, gateway.handle_metrics_port)
            self._others.append((metrics, config.listen_metrics_urls))

    def _server(
        self,
        router: Router,
        limits: Limits,
        on_http: HttpHandler | None,
        early: Callable[[str], bool] | None = None,
    ) -> Server:
        return Server(
            self._loop,
            router,
            limits,
            on_http,
            early=early,
            places=self._places,
            say=self._say,
            failed=self._failed,
        )

    async def listen(self) -> None:
        """Opens all ports; their clients wait until `start`. Raises StartError with none open."""
        config = self._config
        texts = [str(url) for url in config.listen_client_urls]
        config.log.info("configuring client listeners", listen_client_urls=texts)
        tls = _client_tls(config)
        try:
            await self._open(self.grpc, config.listen_client_urls, tls)
            for server, urls in self._others:
                await self._open(server, urls, tls)
        except StartError:
            await self.stop(0.0)
            raise

    async def _open(self, server: Server, urls: tuple[URL, ...], tls: ServerTLS | None) -> None:
        secure = {url.address for url in urls if url.is_secure}
        plain = {url.address for url in urls if not url.is_secure}
        for url in urls:
            if not url.is_secure and url.address in secure:
                continue  # the https listener accepts both
            try:
                await server.listen(
                    str(url),
                    tls,
                    reuse_port=self._config.socket_reuse_port,
                    start_serving=False,
                    plain_too=url.is_secure and url.address in plain,
                )
            except OSError as error:
                raise StartError(listen_error(url.address, error)) from None
            except ValueError as error:
                raise StartError(str(error)) from None

    def start(self) -> None:
        """Begins to accept clients, and logs it."""
        config = self._config
        for server in (self.grpc, *(server for server, _ in self._others)):
            server.start()
        config.log.info("ready to serve client requests")
        apart = config.listen_client_http_urls
        self._tell(config.listen_client_urls, "grpc" if apart else "grpc+http")
        self._tell(apart, "http")
        for url in config.listen_metrics_urls:
            config.log.info("serving metrics", address=str(url))

    def _tell(self, urls: Iterable[URL], traffic: str) -> None:
        for url in urls:
            if url.is_secure:
                text = "serving client traffic securely"
            else:
                text = "serving client traffic insecurely; this is strongly discouraged!"
            self._config.log.info(text, traffic=traffic, address=url.address)

    async def stop(self, grace_s: float) -> None:
        """Closes all; calls that are open may finish for `grace_s`."""
        await self.grpc.stop(grace_s)
        for server, _ in self._others:
            await server.stop()


def _client_tls(config: Config) -> ServerTLS | None:
    """The TLS for secure URLs; None when nothing of the kind is given. Raises StartError."""
    has_certificate = bool(config.cert_file or config.key_file)
    urls = (*config.listen_client_urls, *config.listen_client_http_urls)
    _check_addresses(config)
    check_secure_urls(urls, has_certificate or config.auto_tls)
    for url in urls:
        if not url.is_secure:
            _tell_of_plain(config, url, has_certificate or config.auto_tls)
    if has_certificate or config.auto_tls:
        from keyraft.app.member_tls import client_tls

        return client_tls(config)
    if any(url.is_secure for url in config.listen_metrics_urls):
        raise StartError(
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
        )
    return None


def _tell_of_plain(config: Config, url: URL, has_certificate: bool) -> None:
    """Warns when flags about TLS do not reach a URL."""
    if has_certificate:
        config.log.warn(
            "scheme is http or unix while key and cert files are present; ignoring key and cert "
            "files",
            client_url=str(url),
        )
    if config.client_cert_auth:
        config.log.warn(
            "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert "
            "auth for this URL",
            client_url=str(url),
        )


def _check_addresses(config: Config) -> None:
    """Refuses an address that is in both kinds of client URLs; raises StartError."""
    taken = {url.address for url in config.listen_client_urls}
    for url in config.listen_client_http_urls:
        if url.address in taken:
            raise StartError(
                "cannot bind both --listen-client-urls and --listen-client-http-urls on the "
                f"same url {url}"
            )


def _message_bytes_max(config: Config) -> int:
    return config.max_request_bytes + GRPC_OVERHEAD_BYTES


def _advertised(streams: int) -> int | None:
    """The value to advertise: the flag's default means no limit."""
    return streams if 0 < streams < (1 << 32) - 1 else None
