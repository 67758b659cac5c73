"""Many clients that read large ranges, some of which stop reading: memory does not grow with them."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from keyraft.proto import rpc_pb2
from tests.grpc.wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    RST,
    WINDOW,
    Peer,
    frame,
    message,
    settings,
)
from tests.support.server import OURS, Server, serving

pytestmark = pytest.mark.real

READERS = 8
KEYS = 40
VALUE = 400_000  # bytes: a range has 16 MB
READER_BYTES_MAX = 8_000_000  # of memory, for each of them
ROOM = 1 << 30
FRAME = 16_384


class Reader:
    """One connection, read only when it is asked to."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 60.0)
        self.peer = Peer()
        self.stream = -1
        window = settings(window=ROOM) + frame(WINDOW, 0, 0, struct.pack(">I", ROOM))
        self.socket.sendall(PREFACE + window + frame(4, 1, 0))

    def ask(self, path: str, request: bytes) -> None:
        self.stream += 2
        head = frame(HEADERS, END_HEADERS, self.stream, self.peer.request(path))
        body = message(request)
        cuts = range(0, len(body), FRAME)
        frames = [frame(DATA, 0, self.stream, body[cut : cut + FRAME]) for cut in cuts]
        self.socket.sendall(head + b"".join(frames) + frame(DATA, END_STREAM, self.stream))

    def answer(self) -> bytes:
        pieces = []
        while True:
            for got in self.peer.read(self.socket.recv(1 << 20)):
                assert got.kind != RST
                if got.kind == DATA:
                    pieces.append(got.payload)
                elif got.kind == HEADERS and got.flags & END_STREAM:
                    assert got.headers["grpc-status"] == "0"
                    whole = b"".join(pieces)
                    assert int.from_bytes(whole[1:5], "big") == len(whole) - 5
                    return whole[5:]


def _private_bytes(pid: int) -> int:
    (line,) = (
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("RssAnon")
    )
    return int(line.split()[1]) * 1024


def test_readers_of_large_ranges_cost_little_memory_and_get_every_byte(tmp_path: Path) -> None:
    server = Server(OURS, tmp_path / "m")
    with serving(server), ExitStack() as opened:
        assert server.process is not None
        pid = server.process.pid

        def connected() -> Reader:
            made = Reader(server.client_port)
            opened.callback(made.socket.close)
            return made

        writer = connected()
        for number in range(KEYS):
            put = rpc_pb2.PutRequest(key=b"big/%03d" % number, value=bytes([number]) * VALUE)
            writer.ask("/etcdserverpb.KV/Put", put.SerializeToString())
            writer.answer()
        before = _private_bytes(pid)
        request = rpc_pb2.RangeRequest(key=b"big/", range_end=b"big0").SerializeToString()
        readers = [connected() for _ in range(READERS)]
        for reader in readers:
            reader.ask("/etcdserverpb.KV/Range", request)
        for reader in readers:
            assert reader.socket.recv(1, socket.MSG_PEEK)  # its answer has begun
        for number in range(20):
            # What is written meanwhile is not in the answers, and is not held up by them.
            put = rpc_pb2.PutRequest(key=b"big/%03d" % number, value=b"later")
            writer.ask("/etcdserverpb.KV/Put", put.SerializeToString())
            writer.answer()
        assert _private_bytes(pid) - before < READERS * READER_BYTES_MAX
        for reader in readers[READERS // 2 :]:
            reader.socket.close()
        for reader in readers[: READERS // 2]:
            found = rpc_pb2.RangeResponse.FromString(reader.answer())
            assert found.count == KEYS and not found.more and found.header.revision == KEYS + 1
            assert [kv.value for kv in found.kvs] == [bytes([n]) * VALUE for n in range(KEYS)]
        assert _private_bytes(pid) - before < READERS * READER_BYTES_MAX
