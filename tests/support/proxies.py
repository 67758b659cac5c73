"""gRPC proxies as processes, of both makes, in front of members."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from keyraft.base.log import NullLogger
from keyraft.cli.grpcproxy import FLAGS
from keyraft.client import Client
from keyraft.proxy.grpcproxy import GrpcProxy, ProxyOptions
from tests.support.server import Server

STARTED = b"started gRPC proxy"


@dataclass
class Proxy(Server):
    """`etcd grpc-proxy start`; its data directory outlives it, its client port is what it listens
    on."""

    upstream: str = ""
    ready: bytes = STARTED

    def arguments(self) -> list[str]:
        return [
            "grpc-proxy",
            "start",
            f"--listen-addr={self.endpoint}",
            f"--advertise-client-url={self.endpoint}",
            f"--endpoints={self.upstream}",
            f"--data-dir={self.data_dir}",
            *self.flags,
        ]


def behind(command: tuple[str, ...], member: Server, *flags: str) -> Proxy:
    """A proxy before one member."""
    directory = member.data_dir.with_name(f"{member.data_dir.name}.proxy")
    return Proxy(command, directory, flags=flags, upstream=member.endpoint)


def options(**changes: Any) -> ProxyOptions:
    """What the flags say by themselves, but for `changes`; the proxy listens on a free port."""
    fields = {
        flag.name.replace("-", "_"): tuple(flag.default) if flag.kind == "strings" else flag.default
        for flag in FLAGS
    }
    return ProxyOptions(**{**fields, "listen_addr": "127.0.0.1:0", **changes})


Body = Callable[[GrpcProxy, Client], Awaitable[None]]


def through_proxy(body: Body, *endpoints: str, limit_s: float = 60.0, **changes: Any) -> None:
    """Runs `body` with a proxy in this process and a client of it; the invariants hold then."""

    async def main() -> None:
        proxy = GrpcProxy(options(endpoints=endpoints, **changes), NullLogger(), 1_000)
        await proxy.start()
        try:
            async with Client(proxy.server.addresses[0]) as client:
                await asyncio.wait_for(body(proxy, client), limit_s)
            proxy.ranges.check()
            proxy.cache.check()
        finally:
            await proxy.stop()

    uvloop.run(main())
