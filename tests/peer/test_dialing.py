"""The reading end of a stream: chunks cut anywhere, answers that are none, peers that fall silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from keyraft.peer.dialing import (
    HEAD_BYTES_MAX,
    REFUSAL_BYTES_MAX,
    IncomingStream,
    StreamError,
)
from keyraft.peer.frames import FrameError
from tests.support.connections import Connections

OPEN = b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.5.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(pieces: list[bytes], extension: bytes = b"") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece)


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def dial(
    script: Script,
    use: Callable[[IncomingStream, int], Awaitable[None]],
) -> bytes:
    """Runs `use` on a stream whose other end follows `script`; the request as it came."""
    asked: list[bytes] = []

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                await script(reader, writer)
            except ConnectionError:
                pass  # the other end may go first
            finally:
                writer.close()

        connections = Connections(serve)
        server = await asyncio.start_server(connections, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        stream = IncomingStream(idle_timeout_s=60.0)
        try:
            status = await stream.open(
                f"http://127.0.0.1:{port}", "/raft/stream/message/1", {"X-Raft-To": "2"}, None, 20.0
            )
            await use(stream, status)
        finally:
            stream.close()
            server.close()
            await connections.end()

    asyncio.run(main())
    return asked[0]


async def nothing(stream: IncomingStream, status: int) -> None:
    raise AssertionError(f"opened with {status}")


def test_the_body_is_passed_on_and_its_end_is_told() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OPEN + chunked([b"one"]))
        await writer.drain()
        writer.write(chunked([b"two", b"three"]) + b"0\r\n\r\n")
        await reader.read()

    got: list[bytes] = []

    async def use(stream: IncomingStream, status: int) -> None:
        assert status == 200
        await stream.read(got.append)

    request = dial(script, use)
    assert b"".join(got) == b"onetwothree"
    assert request.startswith(b"GET /raft/stream/message/1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Raft-To: 2\r\n" in request


def test_what_the_decoder_refuses_ends_the_stream_with_its_error() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OPEN + chunked([b"bad"]))
        await reader.read()

    def feed(data: bytes) -> None:
        raise FrameError("no frame")

    async def use(stream: IncomingStream, status: int) -> None:
        with pytest.raises(FrameError, match="no frame"):
            await stream.read(feed)

    dial(script, use)


def test_a_silent_peer_is_given_up() -> None:
    class Socket(asyncio.Transport):
        aborted = False

        def abort(self) -> None:
            self.aborted = True

    async def main() -> None:
        stream = IncomingStream(idle_timeout_s=0.01)
        socket = Socket()
        stream.connection_made(socket)
        stream.data_received(OPEN)
        with pytest.raises(TimeoutError, match="i/o timeout"):
            await stream.read(lambda data: None)
        assert socket.aborted

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"Content-Length: 22\r\n\r\ncluster ID mismatch\nxx and more", "cluster ID mismatch\nxx"),
        (b"Transfer-Encoding: chunked\r\n\r\n" + chunked([b"no"]) + b"0\r\n\r\n", "no"),
        (b"Connection: close\r\n\r\nuntil the end", "until the end"),
        (b"Content-Length: 0\r\n\r\n", ""),
        (b"\r\n" + b"x" * 300_000, "x" * REFUSAL_BYTES_MAX),
    ],
)
def test_a_refusal_has_its_text(answer: bytes, text: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 412 Precondition Failed\r\n" + answer)
        await writer.drain()

    async def use(stream: IncomingStream, status: int) -> None:
        assert status == 412
        assert await stream.text() == text

    dial(script, use)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (HEAD_BYTES_MAX + 1),
    ],
)
def test_an_answer_that_is_no_http_is_an_error(answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    with pytest.raises((StreamError, ConnectionError)):
        dial(script, nothing)


def test_an_address_that_is_no_url_is_an_error() -> None:
    async def main() -> None:
        stream = IncomingStream(1.0)
        with pytest.raises(StreamError, match="cannot dial"):
            await stream.open("ftp://127.0.0.1", "/", {}, None, 1.0)

    asyncio.run(main())
