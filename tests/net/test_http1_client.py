"""The asking end of HTTP/1.1, against a server that follows a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from keyraft.net.http1 import Http1Client, HttpError
from keyraft.net.http1.client import HEAD_BYTES_MAX
from tests.support.connections import Connections

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"


class Peer:
    """Counts connections; `script` gets each with its number."""

    def __init__(self, script: Script, path: Path | None = None) -> None:
        self._script = script
        self._path = path
        self.connections = 0
        self._conversations = Connections(self._serve)

    async def __aenter__(self) -> Peer:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._conversations, self._path)
            self.address = f"unix://{self._path}"
        else:
            self._server = await asyncio.start_server(self._conversations, "127.0.0.1", 0)
            self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.client = Http1Client()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()
        self._server.close()
        await self._conversations.end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._script(reader, writer, self.connections)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client may go first
        finally:
            writer.close()


def run(script: Script, test: Callable[[Peer], Awaitable[None]], path: Path | None = None) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), Peer(script, path) as peer:
            await test(peer)

    uvloop.run(main())


def answering(answer: bytes) -> Script:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)

    return script


def test_calls_follow_each_other_on_one_connection() -> None:
    async def test(peer: Peer) -> None:
        for _ in range(3):
            answer = await peer.client.request("GET", peer.address, "/x")
            assert (answer.status, answer.body) == (200, b"fine")
        assert peer.connections == 1

    run(answering(FINE), test)


def test_calls_at_once_have_connections_of_their_own() -> None:
    async def test(peer: Peer) -> None:
        await asyncio.gather(*(peer.client.request("GET", peer.address, "/") for _ in range(5)))
        assert peer.connections == 5

    run(answering(FINE), test)


@pytest.mark.parametrize(
    ("answer", "body", "kept"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n",
            b"fine",
            True,
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + FINE, b"fine", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (FINE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"fine", False),
        (FINE.replace(b"1.1", b"1.0"), b"fine", False),
    ],
)
def test_answers_of_every_kind_are_read_to_their_end(
    answer: bytes, body: bytes, kept: bool
) -> None:
    async def test(peer: Peer) -> None:
        for _ in range(2):
            assert (await peer.client.request("GET", peer.address, "/")).body == body
        assert peer.connections == (1 if kept else 2)

    run(answering(answer), test)


def test_an_answer_without_length_ends_with_its_connection() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")

    async def test(peer: Peer) -> None:
        assert (await peer.client.request("GET", peer.address, "/")).body == b"until the end"

    run(script, test)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfine", "EOF"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi", "EOF"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * (HEAD_BYTES_MAX + 1), "too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000, "exceeds 65536"),
        (b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "malformed"),
        (FINE + FINE, "more than one|malformed"),
        (b"", "EOF"),
    ],
)
def test_what_is_no_answer_is_an_error(answer: bytes, text: str) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async def test(peer: Peer) -> None:
        with pytest.raises((HttpError, ConnectionError), match=text):
            await peer.client.request("GET", peer.address, "/")

    run(script, test)


def test_a_kept_connection_that_the_other_end_closed_costs_a_get_nothing() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(FINE)
        if number == 1:
            await reader.readuntil(b"\r\n\r\n")  # and leaves without a word
        else:
            await reader.read()

    async def test(peer: Peer) -> None:
        for _ in range(2):
            assert (await peer.client.request("GET", peer.address, "/")).status == 200
        assert peer.connections == 2

    run(script, test)

    async def once(peer: Peer) -> None:
        await peer.client.request("GET", peer.address, "/")
        with pytest.raises((HttpError, ConnectionError)):
            await peer.client.request("POST", peer.address, "/", body=b"twice?")

    run(script, once)


def test_an_answer_may_come_before_the_end_of_the_question() -> None:
    closed: list[bool] = []

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(FINE)
        await reader.read()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(10_000)
        finally:
            closed.append(True)

    async def test(peer: Peer) -> None:
        answer = await peer.client.request("POST", peer.address, "/", body=endless())
        assert answer.body == b"fine" and closed == [True]
        await peer.client.request("GET", peer.address, "/")
        assert peer.connections == 2  # the rest of the question was never sent

    run(script, test)


def test_a_question_that_breaks_off_is_an_error() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise RuntimeError("the file ended")

    async def test(peer: Peer) -> None:
        with pytest.raises(HttpError, match="the file ended"):
            await peer.client.request("POST", peer.address, "/", body=broken())

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        await reader.read()

    run(script, test)


def test_silence_and_slowness_have_limits() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        await reader.read()

    async def test(peer: Peer) -> None:
        with pytest.raises(TimeoutError):
            await peer.client.request("GET", peer.address, "/", timeout_s=0.01)
        with pytest.raises(TimeoutError, match="i/o timeout"):
            await peer.client.request("GET", peer.address, "/", still_s_max=0.01)

    run(script, test)


def test_a_field_with_a_line_end_is_not_sent() -> None:
    async def test(peer: Peer) -> None:
        for headers in ({"A": "b\r\nC: d"}, {"A": "b\n"}, {"A\r": "b"}):
            with pytest.raises(HttpError, match="more than one line"):
                await peer.client.request("GET", peer.address, "/", headers=headers)
        assert peer.connections == 0

    run(answering(FINE), test)


def test_a_unix_socket_is_dialled(tmp_path: Path) -> None:
    async def test(peer: Peer) -> None:
        assert (await peer.client.request("GET", peer.address, "/x")).body == b"fine"

    run(answering(FINE), test, tmp_path / "s")


def test_a_client_that_is_closed_ends_its_calls() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        await reader.read()

    async def test(peer: Peer) -> None:
        call = asyncio.create_task(peer.client.request("GET", peer.address, "/"))
        while not peer.connections:
            await asyncio.sleep(0)
        peer.client.close()
        with pytest.raises((HttpError, ConnectionError)):
            await call
        with pytest.raises(HttpError, match="closed"):
            await peer.client.request("GET", peer.address, "/")

    run(script, test)
