"""One connection per endpoint; calls use the ready connections in turn.

Each endpoint has a keeper, a task that dials, waits until the connection is lost, and dials
again after a pause that doubles with every failure. A call that finds nothing ready waits for the
first endpoint that becomes ready (gRPC's wait-for-ready, the default of etcd's own client).

Invariant: `_ready` holds exactly the connections that were alive when their keeper last looked;
`pick` looks again.
"""

from __future__ import annotations

import asyncio
from typing import Final

from keyraft.base.log import Logger
from keyraft.client.endpoint import Endpoint
from keyraft.client.errors import ClosedError
from keyraft.client.transport import Dial, EndpointConnection

RECONNECT_S_MIN: Final = 0.02
RECONNECT_S_MAX: Final = 1.0  # gRPC waits up to 120 s; failover should not
JITTER: Final = 0.2


class Pool:
    """The connections of one client; used on one event loop."""

    def __init__(self, endpoints: list[Endpoint], dial: Dial, log: Logger) -> None:
        self._dial = dial
        self._log = log
        self._keepers: dict[Endpoint, asyncio.Task[None]] = {}
        self._ready: dict[Endpoint, EndpointConnection] = {}
        self._order: list[EndpointConnection] = []
        self._retired: list[EndpointConnection] = []  # calls may still be under way on them
        self._turn = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._closed = False
        self._wanted = list(endpoints)
        self.last_error = ""  # why the last attempt or connection failed

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints in the order given."""
        return list(self._wanted)

    def set_endpoints(self, endpoints: list[Endpoint]) -> None:
        """Replaces the endpoints; connections to those that stay are kept."""
        self._wanted = list(endpoints)
        if self._keepers:
            self.start()
        for endpoint in [known for known in self._keepers if known not in self._wanted]:
            self._keepers.pop(endpoint).cancel()

    def start(self) -> None:
        """Begins to dial whatever is not yet dialled."""
        if self._closed:
            raise ClosedError("the client is closed")
        for endpoint in self._wanted:
            keeper = self._keepers.get(endpoint)
            if keeper is None or keeper.done():
                self._keepers[endpoint] = asyncio.ensure_future(self._keep(endpoint))

    def pick(self) -> EndpointConnection | None:
        """The next ready connection, None when there is none."""
        order = self._order
        for _ in range(len(order)):
            self._turn += 1
            connection = order[self._turn % len(order)]
            if connection.alive:
                return connection
        return None

    async def wait(self, timeout_s: float | None) -> EndpointConnection:
        """The next connection that is ready; TimeoutError after `timeout_s`."""
        self.start()
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while True:
            connection = self.pick()
            if connection is not None:
                return connection
            if self._closed:
                raise ClosedError("the client is closed")
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.append(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    async def close(self) -> None:
        """Closes every connection and wakes all who wait."""
        self._closed = True
        keepers = list(self._keepers.values())
        self._keepers.clear()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for connection in self._retired:
            await connection.close()
        self._wake()

    async def _keep(self, endpoint: Endpoint) -> None:
        pause_s = RECONNECT_S_MIN
        while True:
            self._log.debug("connecting", endpoint=endpoint.text)
            try:
                connection = await self._dial(endpoint)
            except (OSError, ValueError) as error:  # of a socket, of certificates
                import random  # importing it takes longer than all of this module

                self.last_error = str(error)
                self._log.debug("failed to connect", endpoint=endpoint.text, error=self.last_error)
                await asyncio.sleep(pause_s * (1 + JITTER * (2 * random.random() - 1)))
                pause_s = min(pause_s * 2, RECONNECT_S_MAX)
                continue
            try:
                self._log.debug("connected", endpoint=endpoint.text)
                self._set_ready(endpoint, connection)
                opened = asyncio.get_running_loop().time()
                await connection.wait_closed()
                lasted_s = asyncio.get_running_loop().time() - opened
                self.last_error = connection.reason
                self._log.debug("connection lost", endpoint=endpoint.text, error=self.last_error)
            finally:
                self._ready.pop(endpoint, None)
                self._order = list(self._ready.values())
                if connection.alive:
                    await connection.close()  # the endpoint was removed meanwhile
                self._retired = [old for old in (*self._retired, connection) if not old.gone]
            if lasted_s > RECONNECT_S_MAX:
                pause_s = RECONNECT_S_MIN
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RECONNECT_S_MAX)

    def _set_ready(self, endpoint: Endpoint, connection: EndpointConnection) -> None:
        self._ready[endpoint] = connection
        self._order = list(self._ready.values())
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
