"""`etcd gateway`: forwards TCP connections to members without looking into them.

Clients on a host talk to the gateway, which knows the members' addresses. A connection goes to an
active endpoint of the best priority, by weight if weights are given, else in turn. An endpoint that
cannot be dialled is inactive until a probe reaches it; probes come every retry delay. Source: etcd
`server/proxy/tcpproxy`; SRV rules: RFC 2782.

Bytes are copied with back-pressure: while one side does not read, nothing is read from the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from keyraft.app.descriptors import refusal
from keyraft.base.durations import MINUTE
from keyraft.base.log import Logger
from keyraft.logs.zap import Duration
from keyraft.net import Acceptor, Places, bind

CHUNK_BYTES: Final = 64 * 1024
BACKLOG_CONNECTIONS: Final = 1_024
DIAL_TIMEOUT_S: Final = 30.0
CONNECTIONS_MAX: Final = 10_000  # open at a time; one more is refused
KEPT_DESCRIPTORS: Final = 50  # for probes and name look-ups; each connection takes two
RETRY_DELAY_WHEN_ZERO_NS: Final = 5 * MINUTE
RARELY: Final = 100  # a record of weight 0, beside weighted ones, gets one pick in so many


@dataclass(slots=True)
class GatewayEndpoint:
    """One member's address; lower `priority` is better, `weight` shares within one."""

    host: str
    port: int
    priority: int = 0
    weight: int = 0
    active: bool = True

    @property
    def address(self) -> str:
        """host:port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Picker:
    """Chooses the endpoint of the next connection."""

    def __init__(self, endpoints: Sequence[GatewayEndpoint], random: Random) -> None:
        self.endpoints = tuple(endpoints)
        self._random = random
        self._turn = 0

    def pick(self) -> GatewayEndpoint | None:
        """An active endpoint of the best priority; None when none is active."""
        active = [endpoint for endpoint in self.endpoints if endpoint.active]
        if not active:
            return None
        best = min(endpoint.priority for endpoint in active)
        candidates = [endpoint for endpoint in active if endpoint.priority == best]
        weighted = [endpoint for endpoint in candidates if endpoint.weight > 0]
        unweighted = [endpoint for endpoint in candidates if endpoint.weight == 0]
        if weighted and not (unweighted and self._random.randrange(RARELY) == 0):
            weights = [endpoint.weight for endpoint in weighted]
            return self._random.choices(weighted, weights)[0]
        self._turn += 1
        return unweighted[self._turn % len(unweighted)]


class TcpProxy:
    """The running gateway. Owned by one loop."""

    def __init__(self, picker: Picker, retry_delay_ns: int, log: Logger) -> None:
        self._picker = picker
        self._retry_delay_ns = retry_delay_ns or RETRY_DELAY_WHEN_ZERO_NS
        self._log = log
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes one accepted connection to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._forward(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled = await self._dial()
        if dialled is None:
            return
        out_reader, out_writer = dialled
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, out_writer))
                group.create_task(_copy(out_reader, writer))
        finally:
            out_writer.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while (endpoint := self._picker.pick()) is not None:
            try:
                return await _connect(endpoint)
            except OSError as error:
                endpoint.active = False
                self._log.warn(
                    "deactivated endpoint",
                    address=endpoint.address,
                    interval=Duration(self._retry_delay_ns),
                    error=str(error),
                )
        return None

    async def watch_inactive(self) -> None:
        """Probes inactive endpoints, for ever."""
        while True:
            await asyncio.sleep(self._retry_delay_ns / 1e9)
            for endpoint in self._picker.endpoints:
                if not endpoint.active:
                    await self._probe(endpoint)

    async def _probe(self, endpoint: GatewayEndpoint) -> None:
        try:
            _, writer = await _connect(endpoint)
        except OSError as error:
            self._log.warn(
                "failed to activate endpoint (stay inactive for another interval)",
                address=endpoint.address,
                interval=Duration(self._retry_delay_ns),
                error=str(error),
            )
            return
        writer.close()
        endpoint.active = True
        self._log.info("activated", address=endpoint.address)

    async def close(self) -> None:
        """Ends every connection."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


async def _connect(endpoint: GatewayEndpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            try:
                return await asyncio.open_connection(endpoint.host, endpoint.port)
            except socket.gaierror:
                if not endpoint.host.endswith("."):
                    raise  # else it may be in /etc/hosts, see `net.look_up`
                return await asyncio.open_connection(endpoint.host[:-1], endpoint.port)
    except TimeoutError:
        raise OSError("i/o timeout") from None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies until the end of the input, which is passed on; a broken connection ends both ways."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        if writer.can_write_eof():
            writer.write_eof()


async def run_gateway(
    host: str,
    port: int,
    endpoints: Sequence[GatewayEndpoint],
    retry_delay_ns: int,
    descriptors: int,
    log: Logger,
    on_listening: Callable[[], None],
) -> None:
    """Serves until SIGTERM or SIGINT; raises OSError when it cannot listen."""
    proxy = TcpProxy(Picker(endpoints, Random()), retry_delay_ns, log)
    loop = asyncio.get_running_loop()

    def connection() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(CHUNK_BYTES, loop)
        return asyncio.StreamReaderProtocol(reader, proxy.serve, loop)

    say = refusal(log, "gateway", descriptors)
    most = max(1, min(CONNECTIONS_MAX, (descriptors - KEPT_DESCRIPTORS) // 2))
    places = Places(most, say)
    listening = bind(host or None, port, reuse_port=False, reuse_address=True)
    acceptors = [Acceptor(loop, opened, connection, None, places, say) for opened in listening]
    for opened, acceptor in zip(listening, acceptors, strict=True):
        opened.listen(BACKLOG_CONNECTIONS)
        acceptor.start()
    on_listening()
    log.info("ready to proxy client requests", endpoints=[each.address for each in endpoints])
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watching = asyncio.create_task(proxy.watch_inactive())
    try:
        await stop.wait()
    finally:
        watching.cancel()
        for acceptor in acceptors:
            acceptor.close()
        await proxy.close()
