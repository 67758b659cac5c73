"""What strangers may send to the peer port, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import uvloop

from keyraft.base.log import NullLogger
from keyraft.grpc import Limits, Router
from keyraft.net import PEER_PORT, Http1Client, Http1Limits, Http1Service, Server
from keyraft.peer import handlers
from keyraft.peer.exchange import PeerReply, PeerRequest, Routes
from keyraft.peer.handlers import RaftHandlers
from keyraft.peer.transport import Transport
from keyraft.raft import codec
from keyraft.raft.types import Message, MessageType
from tests.peer.test_transport import CLUSTER, Lines, Recorder

HEADERS = {
    "X-Server-From": "9",
    "X-Server-Version": "3.5.1",
    "X-Min-Cluster-Version": "3.0.0",
    "X-Etcd-Cluster-ID": f"{CLUSTER:x}",
}
POSTED_BYTES_MAX = 10_000
QUICK = replace(PEER_PORT, head_s_max=0.2, idle_s_max=0.2, body_span_s=0.2)


class Port:
    """A peer port with a Raft that remembers."""

    def __init__(self) -> None:
        self.raft = Recorder()
        self.lines = Lines()
        self.routes = Routes(self.lines)

    async def start(self, limits: Http1Limits) -> None:
        loop = asyncio.get_running_loop()
        self.transport = Transport(2, CLUSTER, [], self.raft, NullLogger())
        RaftHandlers(self.transport, self.raft, self.lines, POSTED_BYTES_MAX).register(self.routes)
        service = Http1Service(self.routes.handle, loop, limits, early=True)
        self.server = Server(loop, Router(), Limits(), None, http1=service)
        await self.server.listen("http://127.0.0.1:0", None)
        self.address = self.server.addresses[0]
        self.url = f"http://{self.address}"
        self.client = Http1Client()

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.address.split(":")
        return await asyncio.open_connection(host, int(port))

    async def stop(self) -> None:
        self.client.close()
        await self.transport.stop()
        await self.routes.stop()
        await self.server.stop()


def run(test: Callable[[Port], Awaitable[None]], limits: Http1Limits = PEER_PORT) -> None:
    async def main() -> None:
        port = Port()
        await port.start(limits)
        try:
            async with asyncio.timeout(30):
                await test(port)
        finally:
            await port.stop()

    uvloop.run(main())


def heartbeat() -> bytes:
    return codec.encode_message(Message(type=MessageType.HEARTBEAT, to=2, from_=9, term=1))


def test_a_message_is_taken_as_it_is_sent_and_no_content_coding_is_undone() -> None:
    async def test(port: Port) -> None:
        for body, coding, status in (
            (heartbeat(), {}, 204),
            (gzip.compress(heartbeat()), {"Content-Encoding": "gzip"}, 400),
            (gzip.compress(bytes(50_000_000)), {"Content-Encoding": "gzip"}, 400),
        ):
            answer = await port.client.request(
                "POST", port.url, "/raft", headers={**HEADERS, **coding}, body=body
            )
            assert answer.status == status
        assert len(port.raft.messages) == 1

    run(test)


def test_a_message_that_is_too_long_is_refused_before_it_is_read() -> None:
    async def test(port: Port) -> None:
        answer = await port.client.request(
            "POST", port.url, "/raft", headers=HEADERS, body=bytes(POSTED_BYTES_MAX + 1)
        )
        assert (answer.status, answer.body) == (400, b"error reading raft message\n")

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield bytes(1_000)

        answer = await port.client.request(
            "POST", port.url, "/raft", headers=HEADERS, body=endless()
        )
        assert answer.status == 400

    run(test)


def test_all_messages_that_are_being_read_have_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "POSTED_BYTES_MAX", 15_000)

    async def test(port: Port) -> None:
        held = []
        for _ in range(2):
            reader, writer = await port.dial()
            fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
            head = f"POST /raft HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: 9000\r\n\r\n"
            writer.write(head.encode() + bytes(8_000))
            held.append((reader, writer))
        done = [asyncio.ensure_future(reader.readline()) for reader, _ in held]
        await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
        assert [line.result() for line in done if line.done()] == [b"HTTP/1.1 400 Bad Request\r\n"]
        for line in done:
            line.cancel()
        answer = await port.client.request(
            "POST", port.url, "/raft", headers=HEADERS, body=heartbeat()
        )
        assert answer.status == 204
        for _, writer in held:
            writer.close()

    run(test)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /raft/probing HTTP/1.1\r\nHo",
        b"GET /raft/probing HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /raft HTTP/1.1\r\nHost: h\r\n%bContent-Length: 900\r\n\r\nabc",
        b"POST /raft/snapshot HTTP/1.1\r\nHost: h\r\n%bContent-Length: 900\r\n\r\nabc",
    ],
    ids=["nothing", "half a head", "one request", "half a message", "half a database"],
)
def test_a_connection_on_which_nothing_moves_is_closed(said: bytes) -> None:
    async def test(port: Port) -> None:
        reader, writer = await port.dial()
        fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items()).encode()
        writer.write(said.replace(b"%b", fields))
        try:
            while await reader.read(1_000):
                pass
        except ConnectionResetError:
            pass
        writer.close()

    run(test, QUICK)


def test_a_handler_that_fails_is_one_line_and_one_answer() -> None:
    async def test(port: Port) -> None:
        async def failing(asked: PeerRequest) -> PeerReply:
            raise KeyError("x")

        port.routes.add("/failing", failing)
        told: list[tuple[str, dict[str, object]]] = []
        port.lines.error = lambda message, **fields: told.append((message, fields))  # type: ignore[method-assign]
        answer = await port.client.request("GET", port.url, "/failing")
        assert answer.status == 500
        fields = {"path": "/failing", "error": "KeyError: 'x'"}
        assert told == [("failed to answer a peer", fields)]

    run(test)
