"""RangeStream: chunks add up to the range at the revision it began at, whatever comes between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.errors import CompactedError, FutureRevisionError
from keyraft.mvcc import MemoryBackend, Store
from keyraft.mvcc.wire import header
from keyraft.proto import rpc_pb2
from tests.support.examples import examples


def put(store: Store, key: bytes, value: bytes = b"v") -> None:
    store.put_key(key, value)
    store.end()


def filled(keys: int) -> Store:
    store = Store(MemoryBackend())
    for number in range(keys):
        put(store, b"%04d" % number, b"v" * (number % 50))
    return store


def ask(store: Store, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
    return rpc_pb2.RangeResponse.FromString(store.range(request.SerializeToString()))


@examples(60)
@given(
    start=st.integers(0, 1300),
    end=st.integers(0, 1300),
    limit=st.sampled_from([-1, 0, 1, 9, 10, 11, 500, 5000]),
    keys_only=st.booleans(),
    count_only=st.booleans(),
    back=st.integers(0, 40),
    target=st.sampled_from([100, 3000, 1 << 20]),
    sort=st.sampled_from([0, 0, 1, 2, 3, 4]),
    seed=st.randoms(use_true_random=False),
)
def test_chunks_are_the_range_whatever_is_written_between(
    start: int,
    end: int,
    limit: int,
    keys_only: bool,
    count_only: bool,
    back: int,
    target: int,
    sort: int,
    seed: object,
) -> None:
    store = filled(1200)
    for number in range(0, 1200, 7):
        store.delete_keys([b"%04d" % number])
    request = rpc_pb2.RangeRequest(
        key=b"%04d" % start,
        range_end=b"\x00" if end > 1200 else b"%04d" % end,
        limit=limit,
        keys_only=keys_only,
        count_only=count_only,
        revision=store.revision - back if back else 0,
        sort_target=sort,  # type: ignore[arg-type]  # an enum's number
    )
    want = ask(store, request)
    began = store.revision
    chunks: list[rpc_pb2.RangeResponse] = []
    for number, message in enumerate(store.range_stream(request, header, target)):
        if message:
            response = rpc_pb2.RangeStreamResponse.FromString(message)
            assert response.HasField("range_response")
            chunks.append(response.range_response)
        if number < 50:
            key = b"%04d" % ((number * 389) % 1300)
            put(store, key, b"later")
            store.delete_keys([b"%04d" % ((number * 211) % 1300)])
    last = chunks.pop()
    for chunk in chunks:
        assert chunk.kvs and not chunk.HasField("header") and not chunk.more and not chunk.count
    assert last.header.revision == began
    assert last.more == want.more and last.count == want.count
    assert [kv for chunk in [*chunks, last] for kv in chunk.kvs] == list(want.kvs)


def test_the_first_chunk_is_small_and_the_next_ones_grow() -> None:
    store = filled(500)
    request = rpc_pb2.RangeRequest(key=b"\x00", range_end=b"\x00")
    sizes = [
        len(rpc_pb2.RangeStreamResponse.FromString(m).range_response.kvs)
        for m in store.range_stream(request, header, 10_000)
        if m
    ]
    assert sizes[:4] == [10, 20, 40, 80] and sum(sizes) == 500


def test_refusals_before_and_in_the_middle() -> None:
    store = filled(100)
    request = rpc_pb2.RangeRequest(key=b"\x00", range_end=b"\x00", revision=500)
    with pytest.raises(FutureRevisionError):
        next(store.range_stream(request, header, 100))
    request.revision = 50
    stream = store.range_stream(request, header, 100)
    assert next(stream)
    store.compact(60)
    with pytest.raises(CompactedError):
        list(stream)
    with pytest.raises(CompactedError):
        next(store.range_stream(request, header, 100))


def test_one_key_is_one_message() -> None:
    store = filled(3)
    request = rpc_pb2.RangeRequest(key=b"0001")
    (message,) = store.range_stream(request, header, 100)
    response = rpc_pb2.RangeStreamResponse.FromString(message).range_response
    assert (response.count, response.more, len(response.kvs)) == (1, False, 1)
