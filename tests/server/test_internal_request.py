from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.ids import RequestIDGenerator
from keyraft.base.varints import LOW_BITS
from keyraft.proto import raft_internal_pb2, rpc_pb2
from keyraft.server.apply import internal_request
from keyraft.server.header import HeaderEncoder

UINT64 = st.integers(0, (1 << 64) - 1)


@given(st.sampled_from(sorted(internal_request.KINDS)), st.binary(max_size=300), UINT64)
def test_what_is_wrapped_is_what_protobuf_reads(kind: int, value: bytes, member: int) -> None:
    request = rpc_pb2.PutRequest(key=b"k", value=value).SerializeToString()
    if kind != internal_request.KIND_PUT:
        request = b""
    stamp = internal_request.Stamper(RequestIDGenerator(member, 1_700_000_000.5)).stamp()
    data = internal_request.wrap(kind, request, stamp)
    message = raft_internal_pb2.InternalRaftRequest.FromString(data)
    parsed = internal_request.parse(data)
    assert parsed.kind == kind and parsed.request == request and parsed.stamp == stamp
    assert parsed.ident == message.header.ID != 0
    if kind == internal_request.KIND_PUT:
        assert message.put.value == value
    assert internal_request.split(data) == ((kind, request, stamp) if kind < 16 else None)
    assert internal_request.is_v2(data) is None


def test_stamps_never_repeat_and_carry_what_the_generator_gave() -> None:
    stamper = internal_request.Stamper(RequestIDGenerator(0xABCD, 1_700_000_000.0))
    plain = RequestIDGenerator(0xABCD, 1_700_000_000.0)
    seen = set()
    for _ in range(40_000):
        stamp = stamper.stamp()
        seen.add(stamp)
        header = raft_internal_pb2.InternalRaftRequest.FromString(stamp).header
        assert plain.next() == header.ID
    assert len(seen) == 40_000


def test_a_user_and_his_revision_travel_in_the_stamp() -> None:
    stamper = internal_request.Stamper(RequestIDGenerator(1, 1.0))
    parsed = internal_request.parse(
        internal_request.wrap(internal_request.KIND_PUT, b"", stamper.stamp_for(b"alice", 7))
    )
    assert (parsed.username, parsed.auth_revision) == (b"alice", 7)
    assert parsed.ident


def test_the_proposer_is_what_follows_the_id() -> None:
    stamper = internal_request.Stamper(RequestIDGenerator(0xFFFF, 1.0))
    parts = set()
    for _ in range(3 << LOW_BITS):  # over the edge of the ids' low bits
        stamp = stamper.stamp_for(b"alice", 300)
        parts.add(internal_request.proposer_part(stamp))
    assert parts == {b"\x12\x05alice\x18\xac\x02"}
    parsed = internal_request.parse(stamp)
    assert (parsed.username, parsed.auth_revision, parsed.stamp) == (b"alice", 300, stamp)
    ids = {internal_request.parse(make()).ident for make in (stamper.stamp, lambda: stamp)}
    assert len(ids) == 2
    assert internal_request.proposer_part(stamper.stamp()) == b""
    long = stamper.stamp_for(b"x" * 300, 1)
    assert internal_request.parse(long).username == b"x" * 300
    for broken in (b"", stamp[:3], stamp[:5], b"\xa2\x06\x02\x12\x00"):
        assert internal_request.proposer_part(broken) is None


@given(st.binary(max_size=64))
def test_any_bytes_are_an_entry_or_malformed(data: bytes) -> None:
    try:
        parsed = internal_request.parse(data)
    except internal_request.MalformedEntryError:
        return
    if data and (parts := internal_request.split(data)) is not None:
        assert parts[1] == parsed.request or parsed.kind != parts[0]


def test_a_header_in_front_is_left_to_the_slow_way() -> None:
    message = raft_internal_pb2.InternalRaftRequest()
    message.header.ID = 5
    data = message.SerializeToString() + b"\x22\x03\x0a\x01k"
    assert internal_request.split(data) is None
    assert internal_request.parse(data).kind == internal_request.KIND_PUT


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "QGET", "GET", "SYNC"])
def test_requests_of_the_old_api_are_told_apart(method: str) -> None:
    old = raft_internal_pb2.Request(ID=9, Method=method, Path="/0/version", Val="3.5.0")
    data = old.SerializeToString()
    assert internal_request.is_v2(data) == data
    nested = b"\x12" + bytes((len(data),)) + data
    assert internal_request.is_v2(nested) == data


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 300)), max_size=20))
def test_headers_are_what_protobuf_writes(asked: list[tuple[int, int]]) -> None:
    encoder = HeaderEncoder(0xCDF818194E3A8C32, 0x8E9E05C52164694D)
    for revision, term in asked:
        header = rpc_pb2.ResponseHeader(
            cluster_id=0xCDF818194E3A8C32,
            member_id=0x8E9E05C52164694D,
            revision=revision,
            raft_term=term,
        )
        expected = rpc_pb2.PutResponse(header=header).SerializeToString()
        assert encoder.encode(revision, term) == expected
