"""HTTP/2, HPACK, gRPC's framing and HTTP/1.1, at both ends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator

import hpack

from keyraft.grpc import ClientConnection
from keyraft.grpc.http2 import huffman
from keyraft.grpc.http2.errors import HpackError
from keyraft.grpc.http2.hpack import HpackDecoder, HpackEncoder
from keyraft.net.http1 import Http1Limits, Http1Request
from keyraft.net.http1.client import HttpError, _Connection
from tests.grpc.bench import Bench
from tests.grpc.fuzz import HELD_BYTES_MAX, LIMITS, converse_with_client, converse_with_server
from tests.grpc.wire import PREFACE, Peer, frame, message, settings
from tests.net.test_http1_connection import Scene, Socket

from ..target import Choices, Target

# --- HTTP/2 -------------------------------------------------------------------------------------


def receive_as_server(data: bytes) -> None:
    """Bytes of any kind behind a good preface."""
    bench = Bench(LIMITS, http=True)
    server = bench.server
    server.receive(PREFACE + settings(), 0.0)
    for at in range(0, len(data), 700):
        server.receive(data[at : at + 700], 0.0)
        for _ in range(1000):
            if not server.wants_turn:
                break
            server.resume_output(0.0)
        server.check()
        server.take_output()
        assert server.queued_bytes + server.inbound_bytes <= HELD_BYTES_MAX
        if server.closed:
            break
    server.connection_lost(0.0)
    while server.wants_resume:
        server.resume_output(0.0)
    server.check()


def receive_as_client(data: bytes) -> None:
    """Bytes of any kind in answer to three calls; each ends once."""
    client = ClientConnection(LIMITS, 0.0, authority="a")
    ends: list[int] = []
    client.receive(settings(streams=100), 0.0)
    for _ in range(3):
        client.unary(b"/t.T/Echo", b"q" * 90, lambda *end: ends.append(end[0]), 0.0)
    for at in range(0, len(data), 700):
        client.receive(data[at : at + 700], 0.0)
        for _ in range(1000):
            if not client.wants_turn:
                break
            client.resume_output(0.0)
        client.check()
        client.take_output()
        if client.closed:
            break
    client.connection_lost(0.0)
    assert len(ends) == 3, ends


def talk_to_server(data: bytes) -> None:
    """A conversation that the bytes choose."""
    converse_with_server(data[:1] != b"\0", Choices(data[1:]))


def talk_to_client(data: bytes) -> None:
    """The same with the other end."""
    converse_with_client(0, Choices(data))


def framed_messages(data: bytes) -> None:
    """gRPC messages in DATA frames of any size, cut anywhere."""
    choices = Choices(data)
    bench = Bench(LIMITS)
    server = bench.server
    path = choices.choice(["/t.T/Echo", "/t.T/Talk", "/t.T/Many", "/t.T/List", "/t.T/Hold"])
    server.receive(PREFACE + settings(), 0.0)
    server.receive(frame(1, 4, 1, bench.peer.request(path)), 0.0)
    while not choices.over and not server.closed:
        size = choices.choice((1, 4, 5, 6, 20, 300))
        body = choices.take(size)
        server.receive(frame(0, choices.choice((0, 0, 0, 1)), 1, body), 0.0)
        while server.wants_turn:
            server.resume_output(0.0)
        server.check()
        server.take_output()
    server.connection_lost(0.0)
    while server.wants_resume:
        server.resume_output(0.0)


def _h2_seeds() -> Iterator[bytes]:
    peer = Peer()
    yield peer.unary(1, "/t.T/Echo", b"hello") + peer.unary(3, "/t.T/Hold", b"x")
    peer = Peer()
    talk = frame(1, 4, 1, peer.request("/t.T/Talk")) + frame(0, 0, 1, message(b"echo") * 3)
    yield talk + frame(8, 0, 0, struct.pack(">I", 500)) + frame(3, 0, 1, bytes(4))
    peer = Peer()
    block = peer.request("/t.T/List", ("grpc-timeout", "5m"), ("x-a", "b" * 60))
    yield frame(1, 1, 1, block[:9]) + frame(9, 0, 1, block[9:20]) + frame(9, 4, 1, block[20:])
    yield frame(6, 0, 0, b"12345678") + frame(2, 0, 5, bytes(5)) + settings(table=0, window=7)


def _answers() -> Iterator[bytes]:
    peer = Peer()
    out = b""
    for stream in (1, 3, 5):
        head = peer.block((":status", "200"), ("content-type", "application/grpc"))
        tail = peer.block(("grpc-status", "0"), ("grpc-message", "a%20b"))
        out += frame(1, 4, stream, head) + frame(0, 0, stream, message(b"abc"))
        out += frame(1, 5, stream, tail)
    yield out
    yield frame(7, 0, 0, struct.pack(">II", 1, 0) + b"bye") + frame(3, 0, 1, struct.pack(">I", 7))
    yield frame(1, 5, 1, Peer().block((":status", "503"), ("content-type", "text/html")))


_TYPES = tuple(bytes((kind, flags)) for kind in range(11) for flags in (0, 1, 4, 5))


# --- HPACK --------------------------------------------------------------------------------------


_INDEXED = frozenset((b"x-key", b"te"))


def read_blocks(data: bytes) -> None:
    """Three blocks to one decoder, beside the library; what was read is written and read again."""
    decoder, twin = HpackDecoder(4_096, 4_096), hpack.Decoder(max_header_list_size=1 << 30)
    pieces = data.split(b"--block--")[:3]
    for piece in pieces:
        decoder.oversize = False
        try:
            headers = decoder.decode(piece)
        except HpackError:
            return
        decoder.table.check()
        if decoder.oversize:
            return
        try:
            wanted = twin.decode(piece, raw=True)
        except hpack.HPACKError:
            wanted = None  # the library is stricter where the standard leaves a choice
        if wanted is not None:
            assert headers == [(bytes(name), bytes(value)) for name, value in wanted], piece
        again = HpackDecoder(1 << 20).decode(HpackEncoder(_INDEXED).encode(headers))
        assert again == headers, headers
        if wanted is None:
            return


def read_huffman(data: bytes) -> None:
    """Huffman codes; what is encoded is decoded."""
    assert huffman.decode(huffman.encode(data)) == data
    try:
        text = huffman.decode(data)
    except HpackError:
        return
    assert huffman.encode(text) == data


def _blocks() -> Iterator[bytes]:
    encoder = hpack.Encoder()
    first = encoder.encode([(":method", "POST"), (":path", "/a/B"), ("x-key", "value" * 9)])
    yield first + b"--block--" + encoder.encode([("x-key", "value" * 9), ("te", "trailers")])
    yield b"\x3f\xe1\x1f\x20\x82--block--\x20\x3f\x21\x40\x01a\x01b\xbe"
    yield HpackEncoder(_INDEXED).encode([(b"grpc-status", b"0"), (b"grpc-message", b"fine")])


# --- HTTP/1.1 -----------------------------------------------------------------------------------


def serve_http1(data: bytes) -> None:
    """A server's connection: the same requests whether the bytes come at once or in pieces."""
    for early in (False, True):
        whole = _requests([data], early)
        pieces = [data[at : at + 1] for at in range(min(len(data), 150))] + [data[150:]]
        cut = _requests(pieces, early)
        assert cut == whole, (cut, whole)


def _requests(pieces: list[bytes], early: bool) -> list[tuple[str, str, bytes]]:
    def answer(request: Http1Request) -> None:
        if not early:
            got.append((request.method, request.target, bytes(request.body)))
            request.respond(200, [], request.body[:100])
        else:
            got.append((request.method, request.target, b""))
            request.respond(404, [], b"no")

    got: list[tuple[str, str, bytes]] = []
    scene = Scene(answer, Http1Limits(body_bytes_max=1_000), early)
    for piece in pieces:
        if scene.over:
            break
        scene.feed(piece)
    if not scene.over:
        scene.connection.eof_received()
        scene.clock.settle()
    scene.clock.advance(1_000.0)
    assert scene.over
    return got


_LOOP = asyncio.new_event_loop()


def answer_http1(data: bytes) -> None:
    """A client's connection: an answer or the declared error."""
    _LOOP.run_until_complete(_answer(data))


async def _answer(data: bytes) -> None:
    connection = _Connection()
    connection.connection_made(Socket())
    connection.transport.protocol = connection  # type: ignore[union-attr]
    future = connection.expect(1_000)
    for at in range(0, len(data), 97):
        if future.done():
            break
        connection.data_received(data[at : at + 97])
    if not future.done():
        connection.eof_received()
    if not future.done():
        connection.connection_lost(None)
    try:
        await future
    except HttpError:
        return
    answer = connection.take()
    assert len(answer.body) <= 1_000
    assert answer.status >= 200


_HTTP_WORDS = (
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\n",
    b"Host: a\r\n",
    b"HTTP/1.0",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"\x0b",
    b"ffffffffffffffff",
)

ALL = (
    Target(
        "http2_server",
        receive_as_server,
        _h2_seeds,
        _TYPES,
        held_bytes=8 << 20,
        grown={
            "requests": lambda n: b"".join(_unaries(n)),
            "empty data": lambda n: (
                frame(1, 4, 1, Peer().request("/t.T/Talk")) + frame(0, 0, 1) * n
            ),
            "pings": lambda n: frame(6, 0, 0, bytes(8)) * n,
            "one byte a frame": lambda n: (
                frame(1, 4, 1, Peer().request("/t.T/Talk")) + frame(0, 0, 1, b"\0") * n
            ),
        },
    ),
    Target("http2_client", receive_as_client, _answers, _TYPES, held_bytes=8 << 20),
    Target(
        "http2_talk",
        talk_to_server,
        lambda: [bytes(range(seed, 256, 3)) * 4 for seed in range(4)],
        held_bytes=16 << 20,
        seconds=2.0,
        seconds_per_byte=1e-4,
    ),
    Target(
        "http2_talk_client",
        talk_to_client,
        lambda: [bytes(range(seed, 256, 3)) * 4 for seed in range(4)],
        held_bytes=64 << 20,
        seconds=2.0,
        seconds_per_byte=1e-4,
    ),
    Target(
        "grpc_messages",
        framed_messages,
        lambda: [
            bytes((kind,)) + b"\3\0" + message(b"hello")[:6] + b"\4\0" + message(b"x" * 30)
            for kind in range(0, 250, 50)
        ],
        (message(b""), message(b"a"), b"\1\0\0\0\1", b"\0\xff\xff\xff\xff", b"\2\0\0\0\0"),
        held_bytes=8 << 20,
    ),
    Target(
        "hpack",
        read_blocks,
        _blocks,
        (b"--block--", b"\x3f\xe1\x1f", b"\xbe", b"\x40\x01a\x01b", b"\xff\xff\xff\xff\x0f"),
        grown={
            "indexed": lambda n: b"\x82" * n,
            "new entries": lambda n: b"\x40\x01a\x01b" * n,
            "table sizes": lambda n: b"\x20\x3f\xe1\x1f" * n,
        },
    ),
    Target("huffman", read_huffman, lambda: [huffman.encode(b"www.example.com"), b"\xff\xff\xff"]),
    Target(
        "http1_server",
        serve_http1,
        lambda: [
            b"GET /health?x=y HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n",
            b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5;ext=1\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
            b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        ],
        _HTTP_WORDS,
        held_bytes=4 << 20,
        grown={
            "requests": lambda n: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * n,
            "chunks": lambda n: (
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                + b"1\r\na\r\n" * n
            ),
        },
    ),
    Target(
        "http1_client",
        answer_http1,
        lambda: [
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Etcd-Cluster-ID: 9\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.0 404 Not Found\r\n\r\nuntil the end",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        ],
        _HTTP_WORDS,
    ),
)


def _unaries(count: int) -> Iterator[bytes]:
    peer = Peer()
    for number in range(count):
        yield peer.unary(2 * number + 1, "/t.T/Echo", b"x")
