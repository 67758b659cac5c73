"""Server and channel over real sockets of the loopback, in one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from keyraft.base.errors import EmptyKeyError
from keyraft.grpc import Call, Limits, Router, RpcError, Stream, status
from keyraft.net import Channel, Flusher, Server, serve
from keyraft.net.protocol import COALESCE_CONNECTIONS_MIN


class EchoStream:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.cancelled: list[int] = []

    def on_message(self, message: bytes) -> None:
        self.stream.send(message)
        if self.stream.writable <= 0:
            self.stream.pause_reading()

    def on_half_close(self) -> None:
        self.stream.finish()

    def on_cancel(self, code: int) -> None:
        self.cancelled.append(code)

    def on_writable(self) -> None:
        self.stream.resume_reading()


class Service:
    def __init__(self) -> None:
        self.router = Router()
        self.held: list[Call] = []
        self.cancels: list[int] = []
        self.streams: list[EchoStream] = []
        self.arrived = asyncio.Event()
        self.router.unary("/t.T/Echo", lambda call, request: request)
        self.router.unary("/t.T/Hold", self._hold)
        self.router.unary("/t.T/Fail", self._fail)
        self.router.unary("/t.T/Token", lambda call, request: call.metadata[b"token"])
        self.router.stream("/t.T/Echoes", self._open)
        self.router.stream("/t.T/Shared", Sharer)

    def _hold(self, call: Call, request: bytes) -> None:
        call.on_cancel = lambda _, code: self.cancels.append(code)
        self.held.append(call)
        self.arrived.set()

    def _fail(self, call: Call, request: bytes) -> bytes:
        raise EmptyKeyError

    def _open(self, stream: Stream) -> EchoStream:
        self.streams.append(EchoStream(stream))
        return self.streams[-1]


class Sharer(EchoStream):
    """Answers each message by one that shares its pieces with all other answers."""

    pieces = [*(bytes([i]) * 16_256 for i in range(60)), b"end"]

    def on_message(self, message: bytes) -> None:
        self.stream.send_shared(message, self.pieces)


Body = Callable[[Service, Server, Channel], Awaitable[None]]


def run(body: Body, *, limits: Limits | None = None, url: str = "http://127.0.0.1:0") -> None:
    async def main() -> None:
        service = Service()
        server = await serve([url], service.router, limits=limits)
        try:
            target = url if url.startswith("unix") else f"http://{server.addresses[0]}"
            async with Channel(target) as channel:
                await asyncio.wait_for(body(service, server, channel), 20)
        finally:
            await server.stop()

    uvloop.run(main())


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 70_000, 1_500_000])
def test_a_message_of_any_size_comes_back(size: int) -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        message = bytes(i & 0xFF for i in range(size))
        assert await channel.unary(b"/t.T/Echo", message) == message
        assert await channel.unary(b"/t.T/Echo", message, timeout_s=5) == message

    run(body)


def test_many_calls_at_once_each_get_their_own_answer() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        calls = [channel.unary(b"/t.T/Echo", b"%d" % i * (i % 700)) for i in range(2000)]
        for i, answer in enumerate(await asyncio.gather(*calls)):
            assert answer == b"%d" % i * (i % 700)
        assert channel.dials_total == 1

    run(body)


def test_calls_above_the_servers_stream_limit_wait_in_line() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        calls = [asyncio.ensure_future(channel.unary(b"/t.T/Hold", b"")) for _ in range(20)]
        answered = 0
        while answered < 20:
            service.arrived.clear()
            if not service.held:
                await service.arrived.wait()
            assert server.statistics().streams_open <= 3
            held, service.held = service.held, []
            for call in held:
                call.respond(b"")
                answered += 1
        await asyncio.gather(*calls)

    run(body, limits=Limits(streams_advertised=3))


def test_an_error_arrives_with_code_and_text() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        with pytest.raises(RpcError) as caught:
            await channel.unary(b"/t.T/Fail", b"")
        assert (caught.value.code, caught.value.text) == (3, "etcdserver: key is not provided")
        with pytest.raises(RpcError) as caught:
            await channel.unary(b"/t.T/Nope", b"")
        assert caught.value.text == "unknown method Nope for service t.T"

    run(body)


def test_large_shared_pieces_arrive_in_order_and_whole() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        streams = [await channel.stream(b"/t.T/Shared") for _ in range(5)]
        for number in range(12):
            for stream in streams:
                await stream.send(b"%d" % number)
        for stream in streams:
            stream.half_close()
            answers = [answer async for answer in stream]
            assert answers == [b"%d" % i + b"".join(Sharer.pieces) for i in range(12)]

    run(body)


def test_metadata_arrives() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        metadata = ((b"token", b"abc.7"),)
        assert await channel.unary(b"/t.T/Token", b"", metadata=metadata) == b"abc.7"
        assert await channel.unary(b"/t.T/Token", b"", metadata=metadata) == b"abc.7"

    run(body)


def test_cancelling_the_task_stops_the_work_on_the_server() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        task = asyncio.ensure_future(channel.unary(b"/t.T/Hold", b""))
        await service.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await channel.unary(b"/t.T/Echo", b"")  # behind the reset on the same connection
        assert service.cancels == [status.CANCELLED]
        assert server.statistics().streams_open == 0

    run(body)


def test_a_deadline_ends_the_call_at_both_ends() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        with pytest.raises(RpcError) as caught:
            await channel.unary(b"/t.T/Hold", b"", timeout_s=0.02)
        assert caught.value.code == status.DEADLINE_EXCEEDED
        await channel.unary(b"/t.T/Echo", b"")
        assert len(service.cancels) == 1

    run(body)


def test_a_stream_echoes_large_and_small_and_ends_well() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        stream = await channel.stream(b"/t.T/Echoes")
        sent = [b"x" * (i * 7919 % 100_000) for i in range(200)]

        async def write() -> None:
            for message in sent:
                await stream.send(message)
            stream.half_close()

        writer = asyncio.ensure_future(write())
        assert [message async for message in stream] == sent
        await writer
        assert stream.status == (0, "")
        assert server.statistics().streams_open == 0

    run(body)


def test_an_unread_stream_holds_the_sender_and_nothing_grows() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        stream = await channel.stream(b"/t.T/Echoes")
        blocks = 0

        async def write() -> None:
            nonlocal blocks
            while True:
                await stream.send(b"x" * 65_536)
                blocks += 1

        writer = asyncio.ensure_future(write())
        seen = -1
        while seen != blocks:  # until the writer stands still
            seen = blocks
            for _ in range(3):
                await channel.unary(b"/t.T/Echo", b"")
        queued = server.statistics().queued_bytes
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        stream.cancel()
        assert 10 < blocks < 2000
        assert queued < 100_000_000

    run(body)


def test_a_vanished_client_cancels_its_stream() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        stream = await channel.stream(b"/t.T/Echoes")
        await stream.send(b"a")
        assert await stream.receive() == b"a"
        await channel.close()
        while server.statistics().connections_open:
            await asyncio.sleep(0)
        assert service.streams[0].cancelled == [status.CANCELLED]

    run(body)


def test_a_stop_lets_open_calls_finish() -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        task = asyncio.ensure_future(channel.unary(b"/t.T/Hold", b""))
        await service.arrived.wait()
        stop = asyncio.ensure_future(server.stop(10))
        while channel.connected:
            await asyncio.sleep(0)
        service.held[0].respond(b"in time")
        assert await task == b"in time"
        await stop
        with pytest.raises(RpcError) as caught:
            await channel.unary(b"/t.T/Echo", b"")
        assert caught.value.code == status.UNAVAILABLE

    run(body)


def test_a_lost_server_ends_every_call_and_the_channel_dials_again() -> None:
    async def main() -> None:
        service = Service()
        server = await serve(["http://127.0.0.1:0"], service.router)
        async with Channel(f"http://{server.addresses[0]}") as channel:
            task = asyncio.ensure_future(channel.unary(b"/t.T/Hold", b""))
            await service.arrived.wait()
            await server.stop()
            with pytest.raises(RpcError) as caught:
                await task
            assert caught.value.code == status.UNAVAILABLE
            again = await serve([f"http://{server.addresses[0]}"], service.router)
            assert await channel.unary(b"/t.T/Echo", b"back") == b"back"
            assert channel.dials_total == 2
            await again.stop()

    uvloop.run(main())


def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    async def body(service: Service, server: Server, channel: Channel) -> None:
        assert await channel.unary(b"/t.T/Echo", b"hi") == b"hi"

    run(body, url=f"unix://{tmp_path}/s.sock")


def test_coalescing_holds_writes_only_under_load_and_loses_nothing() -> None:
    class Written:
        def __init__(self) -> None:
            self.times = 0

        def flush(self) -> None:
            self.times += 1

    async def main() -> None:
        flusher = Flusher(asyncio.get_running_loop(), hold_turns=2)
        few, many = [Written()], [Written() for _ in range(COALESCE_CONNECTIONS_MIN)]
        flusher.mark(few[0])
        await asyncio.sleep(0)
        assert [w.times for w in few] == [1]
        for written in many:
            flusher.mark(written)
        turns = 0
        while not many[0].times:
            await asyncio.sleep(0)
            turns += 1
        assert turns == 3
        assert [w.times for w in many] == [1] * COALESCE_CONNECTIONS_MIN
        for written in many:
            flusher.mark(written)
        flusher.flush()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [w.times for w in many] == [2] * COALESCE_CONNECTIONS_MIN

        service = Service()
        server = await serve(["http://127.0.0.1:0"], service.router, hold_turns=2)
        channels = [Channel(f"http://{server.addresses[0]}") for _ in range(12)]
        for _ in range(5):
            answers = await asyncio.gather(*[c.unary(b"/t.T/Echo", b"x") for c in channels])
            assert answers == [b"x"] * 12
        for channel in channels:
            await channel.close()
        await server.stop()

    uvloop.run(main())


def test_a_client_that_never_finishes_its_head_is_let_go() -> None:
    async def main() -> None:
        service = Service()
        server = await serve(["http://127.0.0.1:0"], service.router, on_http=lambda request: None)
        host, port = server.addresses[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTT")
        while not server.statistics().connections_open:
            await asyncio.sleep(0)
        (protocol,) = server._protocols
        protocol._tick()  # the handshake's time is up
        try:
            assert await reader.read() == b""
        except ConnectionResetError:  # when our bytes had not been read yet
            pass
        assert server.statistics().connections_open == 0
        writer.close()
        await server.stop()

    uvloop.run(main())
