"""A server that stops does not wait for connections that will never tell that they are gone."""

from __future__ import annotations

import asyncio

from keyraft.grpc import Router
from keyraft.net import server
from keyraft.net.server import ServerProtocol, serve


def test_a_connection_that_never_tells_its_end_holds_nothing_up() -> None:
    async def run() -> None:
        serving = await serve(["http://127.0.0.1:0"], Router())
        silent = ServerProtocol(serving)
        serving.accepted(silent)
        await asyncio.wait_for(serving.stop(0.0), 20 * server.ABORT_S_MAX)
        assert serving.statistics().connections_open == 0

    asyncio.run(run())
