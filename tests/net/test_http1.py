"""HTTP/1.1 on the client port, as `HttpRequest`s over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from keyraft.grpc import HttpRequest, Limits, Router, text_bytes_max
from keyraft.net import serve

Body = Callable[[asyncio.StreamReader, asyncio.StreamWriter, list[HttpRequest]], Awaitable[None]]


def run(body: Body, answer: Callable[[HttpRequest], None] | None = None) -> None:
    """Serves, opens one connection and gives it to `body` with the requests that arrive."""

    async def main() -> None:
        requests: list[HttpRequest] = []

        def on_http(request: HttpRequest) -> None:
            requests.append(request)
            if answer is not None:
                answer(request)

        limits = Limits(message_bytes_max=1000)
        server = await serve(["http://127.0.0.1:0"], Router(), limits=limits, on_http=on_http)
        host, port = server.addresses[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.wait_for(body(reader, writer, requests), 20)
        finally:
            writer.close()
            await server.stop()

    uvloop.run(main())


def echo(request: HttpRequest) -> None:
    request.respond(200, [(b"x-target", request.target.encode())], request.body)


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.rstrip().split(b"\r\n")
    fields = {k.lower(): v for k, v in (line.split(b": ", 1) for line in lines)}
    return status, fields, await reader.readexactly(int(fields.get(b"content-length", b"0")))


def test_requests_follow_each_other_on_one_connection() -> None:
    async def body(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[HttpRequest]
    ) -> None:
        for i in range(3):
            writer.write(
                b"POST /a%%20b?c=%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" % i
            )
            status, fields, text = await read_answer(reader)
            assert (status, text) == (b"HTTP/1.1 200 OK", b"abc")
            assert fields[b"x-target"] == b"/a%%20b?c=%d" % i
        assert requests[0].method == "POST"
        assert (b"host", b"h") in requests[0].headers
        assert requests[0].peer.startswith("127.0.0.1:")

    run(body, echo)


def test_a_head_may_arrive_byte_by_byte() -> None:
    async def body(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[HttpRequest]
    ) -> None:
        for byte in b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab":
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await read_answer(reader))[2] == b"ab"

    run(body, echo)


def test_a_client_that_asks_before_it_sends_is_told_to_go_on() -> None:
    async def body(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[HttpRequest]
    ) -> None:
        writer.write(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert requests == []
        writer.write(b"ab")
        assert (await read_answer(reader))[2] == b"ab"

    run(body, echo)


def test_a_body_above_the_limit_is_refused() -> None:
    async def body(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[HttpRequest]
    ) -> None:
        size = text_bytes_max(1000) + 1
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        assert (await read_answer(reader))[0].startswith(b"HTTP/1.1 413 ")
        assert requests == []

    run(body, echo)


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"X" * 70_000]
)
def test_what_is_no_http_is_refused_or_cut_off(sent: bytes) -> None:
    async def body(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[HttpRequest]
    ) -> None:
        writer.write(sent)
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
        assert answer == b"" or answer.split(b" ")[1] in (b"400", b"431")
        assert requests == []

    run(body, echo)


def test_an_answer_in_pieces_and_a_client_that_leaves() -> None:
    async def body(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[HttpRequest]
    ) -> None:
        writer.write(b"GET /watch HTTP/1.1\r\nHost: h\r\n\r\n")
        while not requests:
            await asyncio.sleep(0)
        request = requests[0]
        gone = asyncio.Event()
        request.on_close = gone.set
        request.start(200, [(b"content-type", b"application/json")])
        request.write(b"first\n")
        await reader.readuntil(b"first\n")
        request.write(b"second\n")
        await reader.readuntil(b"second\n")
        writer.close()
        await gone.wait()
        request.write(b"late")
        request.end()

    run(body)


def test_an_answer_broken_off_is_seen_as_incomplete() -> None:
    async def body(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[HttpRequest]
    ) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        while not requests:
            await asyncio.sleep(0)
        requests[0].start(200, [])
        requests[0].write(b"part")
        await reader.readuntil(b"part")
        requests[0].abort()
        try:
            rest = await reader.read()
        except ConnectionResetError:
            rest = b""
        assert b"0\r\n\r\n" not in rest  # the last chunk never comes

    run(body)
