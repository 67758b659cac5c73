"""How long a silent or a stalled peer keeps a stream, and from which address others are dialled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from keyraft.base.log import NullLogger
from keyraft.peer.metrics import PeerMetrics
from keyraft.peer.status import PeerStatus
from keyraft.peer.stream import LINK_HEARTBEAT_S, MESSAGE, DialTerms, StreamWriter
from keyraft.peer.transport import Transport

from .test_transport import CLUSTER, Lines, Recorder

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Server-Version: 3.7.1\r\n\r\n"


class Body:
    def __init__(self) -> None:
        self.unsent = 0
        self.closed = False

    def write(self, data: bytes) -> None: ...

    def unsent_bytes(self) -> int:
        return self.unsent

    def close(self) -> None:
        self.closed = True


def test_a_peer_that_takes_nothing_loses_its_stream_after_the_write_timeout() -> None:
    for timeout_s, kept in ((5.0, 3), (20.0, 12)):
        metrics = PeerMetrics()
        status = PeerStatus(2, NullLogger(), metrics)
        writer = StreamWriter(MESSAGE, 2, status, NullLogger(), metrics, timeout_s)
        body = Body()
        writer.attach(body, 0.0)
        body.unsent = 1
        ticks = 0
        while not body.closed:
            writer.tick()
            ticks += 1
        assert ticks == kept + 1
        assert timeout_s <= kept * LINK_HEARTBEAT_S + 1e-6
        assert not writer.working


class Silent:
    """A peer that opens streams and says nothing more."""

    def __init__(self) -> None:
        self.from_: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.from_.append(writer.get_extra_info("peername")[0])
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            if b"/raft/stream/" in request:
                writer.write(HEAD)
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30.0):
        while not holds():
            await asyncio.sleep(0.005)


def test_a_silent_stream_ends_after_the_read_timeout_and_is_dialled_from_the_wanted_address() -> (
    None
):
    async def main() -> None:
        silent = Silent()
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        lines = Lines()
        terms = DialTerms(read_timeout_s=0.1, local_host="127.0.0.2")
        transport = Transport(1, CLUSTER, [], Recorder(), lines, terms=terms)
        transport.add_peer(2, [f"http://127.0.0.1:{port}"])
        try:
            await until(lambda: any("i/o timeout" in str(fields) for _, fields in lines.warnings))
        finally:
            await transport.stop()
            server.close()
        assert set(silent.from_) == {"127.0.0.2"}

    asyncio.run(main())
