"""The reading end of a stream: chunks cut anywhere, answers that are none, peers that fall silent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.peer.dialing import (
    CHUNK_LINE_BYTES_MAX,
    HEAD_BYTES_MAX,
    REFUSAL_BYTES_MAX,
    ChunkDecoder,
    IncomingStream,
    StreamError,
)
from keyraft.peer.frames import FrameError

OPEN = b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.5.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(pieces: list[bytes], extension: bytes = b"") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece)


@given(
    pieces=st.lists(st.binary(max_size=40), max_size=8),
    cuts=st.lists(st.integers(0, 500), max_size=10),
    extension=st.sampled_from([b"", b";a=b", b" "]),
    ends=st.booleans(),
)
def test_chunks_come_out_whole_however_they_are_cut(
    pieces: list[bytes], cuts: list[int], extension: bytes, ends: bool
) -> None:
    data = chunked(pieces, extension) + (b"0\r\n\r\n" if ends else b"")
    decoder = ChunkDecoder()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    got = b"".join(decoder.feed(data[a:b]) for a, b in itertools.pairwise(places))
    assert got == b"".join(pieces)
    assert decoder.ended == ends


def test_a_chunk_comes_out_byte_by_byte_as_it_arrives() -> None:
    decoder = ChunkDecoder()
    got = [decoder.feed(bytes((byte,))) for byte in chunked([b"abc"])]
    assert [piece for piece in got if piece] == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n",
        b"\r\n\r\n",
        b"-1\r\n",
        b"1_0\r\nx",
        b"+3\r\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n\n",
        b"f" * 17 + b"\r\n",
        b"1" * CHUNK_LINE_BYTES_MAX,
    ],
)
def test_what_is_no_chunk_ends_the_connection(data: bytes) -> None:
    with pytest.raises(StreamError):
        ChunkDecoder().feed(data)


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

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
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
            await stream.open("unix:///tmp/x", "/", {}, None, 1.0)

    asyncio.run(main())
