"""RangeStream, which 3.5.1 does not have, answers what Range answers, in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from keyraft.proto import rpc_pb2
from tests.differential.operations import KV, Generator, Operation
from tests.differential.runner import Client
from tests.support.server import OURS, Server

OPERATIONS = 600
ROWS = 400  # of 8 KiB: several messages
CALL_TIMEOUT_S = 30.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    member = Server(OURS, tmp_path / "data").start()
    yield member
    member.stop()


def streamed(
    call: grpc.UnaryStreamMultiCallable, request: rpc_pb2.RangeRequest
) -> tuple[object, int]:
    """The pieces put together, or the error; and how many there were."""
    whole = rpc_pb2.RangeResponse()
    pieces = 0
    try:
        for message in call(request.SerializeToString(), timeout=CALL_TIMEOUT_S):
            piece = rpc_pb2.RangeStreamResponse.FromString(message).range_response
            assert not whole.HasField("header"), "the header comes last, and once"
            whole.MergeFrom(piece)
            pieces += 1
    except grpc.RpcError as error:
        return (error.code(), error.details()), pieces
    return whole, pieces


def ranged(client: Client, request: rpc_pb2.RangeRequest) -> object:
    call = client._channel.unary_unary(
        KV + "Range", response_deserializer=rpc_pb2.RangeResponse.FromString
    )
    try:
        return call(request.SerializeToString(), timeout=CALL_TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code(), error.details()


@pytest.mark.real
def test_a_stream_is_a_range_in_pieces(server: Server) -> None:
    client = Client(server.endpoint)
    stream = client._channel.unary_stream(KV + "RangeStream")
    generator = Generator(17)
    compared = 0
    for _ in range(OPERATIONS):
        operation = generator.next()
        answer = client.call(operation)
        header = getattr(answer.message, "header", None)
        if header is not None:
            generator.known.revision = max(generator.known.revision, header.revision)
        request = operation.message
        if isinstance(request, rpc_pb2.RangeRequest) and request.sort_order < 3:
            request.ClearField("sort_order")
            if request.sort_target > 4:
                request.ClearField("sort_target")
            for field in ("min_mod", "max_mod", "min_create", "max_create"):
                request.ClearField(f"{field}_revision")
            whole, _ = streamed(stream, request)
            assert whole == ranged(client, request), request
            compared += 1
    assert compared > OPERATIONS // 10

    for number in range(ROWS):
        put = rpc_pb2.PutRequest(key=b"row/%06d" % number, value=bytes(8192))
        client.call(Operation(KV + "Put", put.SerializeToString(), put))
    for limit in (0, ROWS - 1, 7):
        request = rpc_pb2.RangeRequest(key=b"row/", range_end=b"row0", limit=limit)
        whole, pieces = streamed(stream, request)
        assert whole == ranged(client, request)
        assert (pieces > 1) is (limit != 7)
    client.close()


@pytest.mark.real
def test_sorts_and_filters_are_not_streamed(server: Server) -> None:
    client = Client(server.endpoint)
    stream = client._channel.unary_stream(KV + "RangeStream")
    for request, text in (
        (
            rpc_pb2.RangeRequest(key=b"a", sort_order=2, sort_target=1),
            "RangeStream does not support custom sort orders",
        ),
        (
            rpc_pb2.RangeRequest(key=b"a", min_mod_revision=1),
            "RangeStream does not support revision filters",
        ),
        (rpc_pb2.RangeRequest(), "etcdserver: key is not provided"),
    ):
        error, _ = streamed(stream, request)
        code = grpc.StatusCode.INVALID_ARGUMENT if "key" in text else grpc.StatusCode.UNIMPLEMENTED
        assert error == (code, text)
    client.close()
