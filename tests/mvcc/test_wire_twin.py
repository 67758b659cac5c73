"""What the hot path reads and writes by hand is what protobuf reads and writes."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from keyraft.base.errors import RawError
from keyraft.mvcc import MemoryBackend, Store, plain_put, plain_range
from keyraft.mvcc import backend as b
from keyraft.mvcc.revision import (
    MalformedRevisionError,
    first_key,
    parse,
    row_key,
    tombstone_key,
)
from keyraft.mvcc.wire import (
    deleted_key_value,
    header,
    key_value,
    stored_key,
    varint,
)
from keyraft.proto import mvcc_pb2, rpc_pb2

sizes = st.sampled_from([0, 1, 2, 126, 127, 128, 129, 300, 16383, 16384, 20000])
numbers = st.integers(0, 300) | st.integers(-(1 << 63), (1 << 63) - 1)


def mutate(data: bytes, at: int, byte: int, cut: int) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[at % len(data)] ^= byte
    return bytes(changed[: len(data) - cut % 3])


@given(sizes, sizes, st.integers(0, 40), st.sampled_from([0, 0, 1, 2, 8, 0x80]), st.integers(0, 5))
def test_a_put_taken_for_plain_is_exactly_key_and_value(
    key_size: int, value_size: int, at: int, byte: int, cut: int
) -> None:
    good = rpc_pb2.PutRequest(key=b"k" * key_size, value=b"v" * value_size).SerializeToString()
    request = mutate(good, at, byte, cut)
    end = plain_put(request)
    if not end:
        return
    message = rpc_pb2.PutRequest.FromString(request)
    assert message == rpc_pb2.PutRequest(key=message.key, value=message.value)
    assert message.key and message.value
    assert request[2:end] == message.key
    # The bytes behind the key's field are the value's, to be stored under the value's own tag.
    stored = mvcc_pb2.KeyValue.FromString(request[:end] + b"\x2a" + request[end + 1 :])
    assert (stored.key, stored.value) == (message.key, message.value)


@pytest.mark.parametrize(("key_size", "value_size"), [(1, 1), (127, 127), (20, 256), (127, 16383)])
def test_ordinary_puts_are_plain(key_size: int, value_size: int) -> None:
    request = rpc_pb2.PutRequest(key=b"k" * key_size, value=b"v" * value_size)
    assert plain_put(request.SerializeToString()) == key_size + 2


@given(st.binary(max_size=12))
@example(b"\x0a\x01k\x12\x01v")
def test_any_bytes_are_a_plain_put_only_if_protobuf_says_so(request: bytes) -> None:
    if plain_put(request):
        message = rpc_pb2.PutRequest.FromString(request)
        assert message == rpc_pb2.PutRequest(key=message.key, value=message.value)


@given(sizes, st.booleans(), st.integers(0, 40), st.sampled_from([0, 0, 1, 2, 0x80]))
def test_a_range_taken_for_plain_asks_for_one_key_now(
    size: int, serializable: bool, at: int, byte: int
) -> None:
    good = rpc_pb2.RangeRequest(key=b"k" * size, serializable=serializable).SerializeToString()
    if 0 < size < 128:
        assert plain_range(good) == b"k" * size
    request = mutate(good, at, byte, 0)
    key = plain_range(request)
    if key is not None:
        message = rpc_pb2.RangeRequest.FromString(request)
        message.serializable = False
        assert message == rpc_pb2.RangeRequest(key=key) and key


@given(numbers)
def test_numbers_are_written_as_protobuf_writes_them(number: int) -> None:
    message = rpc_pb2.RangeResponse(count=number).SerializeToString()
    assert message == (b"\x20" + varint(number) if number else b"")


@given(sizes, numbers, numbers, numbers, sizes, numbers)
def test_key_values_are_written_as_protobuf_writes_them(
    key: int, created: int, modified: int, version: int, value: int, lease: int
) -> None:
    message = mvcc_pb2.KeyValue(
        key=b"k" * key,
        create_revision=created,
        mod_revision=modified,
        version=version,
        value=b"v" * value,
        lease=lease,
    )
    written = key_value(b"k" * key, created, modified, version, b"v" * value, lease)
    assert written == message.SerializeToString()
    if key:
        assert stored_key(written) == b"k" * key


@given(st.binary(max_size=20))
def test_the_key_of_damaged_rows_is_found_or_refused(row: bytes) -> None:
    try:
        key = stored_key(row)
    except ValueError:
        return
    assert not row or (row[0] == 0x0A and key in row)


def test_a_delete_event_carries_key_and_revision() -> None:
    kv = mvcc_pb2.KeyValue.FromString(deleted_key_value(b"k", 300))
    assert kv == mvcc_pb2.KeyValue(key=b"k", mod_revision=300)


@pytest.mark.parametrize("revision", [0, 1, 127, 128, 1 << 40])
def test_inner_headers_carry_only_the_revision(revision: int) -> None:
    response = rpc_pb2.PutResponse.FromString(header(revision))
    assert response.HasField("header")
    assert response.header == rpc_pb2.ResponseHeader(revision=revision)


@pytest.mark.parametrize("method", ["put", "range", "delete_range", "txn"])
def test_bytes_that_are_no_message_are_refused_and_change_nothing(method: str) -> None:
    store = Store(MemoryBackend())
    with pytest.raises(RawError) as refused:
        getattr(store, method)(b"\x0a\xff\xff")
    assert refused.value.code == 13
    assert store.revision == 1
    store.check()


def test_row_keys_are_etcds() -> None:
    assert row_key(2, 0).hex() == "00000000000000025f0000000000000000"
    assert tombstone_key(258, 3).hex() == "00000000000001025f000000000000000374"
    assert row_key(2, 0) < tombstone_key(2, 0) < row_key(2, 1) < first_key(3) < row_key(3, 0)
    assert parse(row_key(7, 9)) == (7, 9, False)
    assert parse(tombstone_key(7, 9)) == (7, 9, True)


@given(st.binary(max_size=20))
def test_damaged_row_keys_are_refused(row: bytes) -> None:
    try:
        main, sub, tombstone = parse(row)
    except MalformedRevisionError:
        return
    assert row == (tombstone_key(main, sub) if tombstone else row_key(main, sub))


@given(st.binary(min_size=1, max_size=20))
def test_damaged_rows_stop_the_start_with_a_reason(value: bytes) -> None:
    backend = MemoryBackend()
    backend.put(b.KEY, row_key(2, 0), value)
    try:
        mvcc_pb2.KeyValue.FromString(value)
        stored_key(value)
    except (DecodeError, ValueError):
        with pytest.raises(b.BackendError, match="damaged row"):
            Store(backend)
