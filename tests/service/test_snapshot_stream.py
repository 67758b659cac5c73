"""A snapshot on its way through the service: cut as etcd cuts it, held by a slow client."""

from __future__ import annotations

import os

import pytest

from keyraft.proto import rpc_pb2
from keyraft.service.snapshot import BLOB_BYTES, SnapshotHandler
from tests.server.harness import OneMember

from .calls import FakeCall
from .served import served

BLOCK_BYTES = 16 * BLOB_BYTES


class FakeStream(FakeCall):
    """Takes framed messages apart."""

    def send_framed(self, framed: bytes, count: int) -> None:
        start, before = 0, len(self.sent)
        while start < len(framed):
            assert framed[start] == 0, "compressed"
            stop = start + 5 + int.from_bytes(framed[start + 1 : start + 5], "big")
            assert stop <= len(framed), "cut short"
            self.sent.append(framed[start + 5 : stop])
            start = stop
        assert len(self.sent) == before + count

    def send_shared(self, head: bytes, pieces: list[bytes]) -> None:
        self.sent.append(b"".join((head, *pieces)))


class FakeFeed:
    """An export that the test carries out."""

    resumed = closed = 0

    def resume(self) -> None:
        self.resumed += 1

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def one() -> OneMember:
    found = OneMember()
    found.run(1.0)
    return found


def begun(one: OneMember, stream: FakeStream, feed: FakeFeed) -> SnapshotHandler:
    services = served(one.member, lambda _: feed)
    handler = SnapshotHandler(services.engine.upkeep, services.guard, stream)
    handler.on_message(b"")
    one.run(0.2)
    return handler


@pytest.mark.parametrize("size", [BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 4096, 4096])
def test_the_database_and_its_digest_come_in_pieces_of_32_kib(one: OneMember, size: int) -> None:
    stream = FakeStream()
    handler = begun(one, stream, FakeFeed())
    database, digest = os.urandom(size), os.urandom(32)
    for start in range(0, size, BLOCK_BYTES):
        block = database[start : start + BLOCK_BYTES]
        handler.block(block, size - start - len(block), False)
    handler.block(digest, 0, True)
    answers = [rpc_pb2.SnapshotResponse.FromString(message) for message in stream.sent]
    assert b"".join(answer.blob for answer in answers) == database + digest
    assert max(len(answer.blob) for answer in answers) <= BLOB_BYTES
    behind = size
    for answer in answers[:-1]:
        behind -= len(answer.blob)
        assert answer.remaining_bytes == behind
    assert answers[-1].blob == digest and answers[-1].remaining_bytes == 0
    assert len({answer.version for answer in answers}) == 1
    assert stream.finished == (0, "")


def test_a_client_that_does_not_read_holds_the_export(one: OneMember) -> None:
    stream, feed = FakeStream(window=BLOCK_BYTES), FakeFeed()
    handler = begun(one, stream, feed)
    assert not handler.block(bytes(BLOCK_BYTES), BLOCK_BYTES, False)
    handler.on_writable()
    assert feed.resumed == 1


def test_a_client_that_left_ends_the_export_and_gets_nothing_more(one: OneMember) -> None:
    stream, feed = FakeStream(), FakeFeed()
    handler = begun(one, stream, feed)
    handler.on_cancel(1)
    assert feed.closed == 1
    assert not handler.block(bytes(BLOCK_BYTES), 0, False)
    assert not stream.sent and stream.finished is None


def test_an_export_that_fails_says_so_and_never_looks_whole(one: OneMember) -> None:
    stream = FakeStream()
    handler = begun(one, stream, FakeFeed())
    handler.block(bytes(BLOCK_BYTES), BLOCK_BYTES, False)
    handler.failed("the disk is gone")
    assert stream.finished == (2, "the disk is gone")
