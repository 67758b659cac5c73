from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.auth import Identity
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
        internal_request.wrap(
            internal_request.KIND_PUT, b"", stamper.stamp_for(Identity(b"alice", 7))
        )
    )
    assert (parsed.username, parsed.auth_revision) == (b"alice", 7)
    assert parsed.ident


def test_stamps_with_one_end_have_one_proposer() -> None:
    stamper = internal_request.Stamper(RequestIDGenerator(0xFFFF, 1.0))
    callers = [Identity(b"alice", 300), Identity(b"bob", 300), Identity(b"alice", 301)]
    found: dict[bytes | None, set[tuple[bytes, int]]] = {}
    for turn in range(3 << LOW_BITS):  # over the edge of the ids' low bits
        caller = callers[turn % 3]
        stamp = stamper.stamp_for(caller)
        found.setdefault(internal_request.proposer_part(stamp), set()).add(
            (caller.username, caller.revision)
        )
        if not turn % 1000:
            parsed = internal_request.parse(stamp)
            assert (parsed.username, parsed.auth_revision) == (caller.username, caller.revision)
    assert None not in found
    assert all(len(who) == 1 for who in found.values())
    assert len(found) <= 4 * len(callers)
    stamp = stamper.stamp_for(callers[0])
    parsed = internal_request.parse(stamp)
    assert (parsed.username, parsed.auth_revision, parsed.stamp) == (b"alice", 300, stamp)
    ids = {internal_request.parse(make()).ident for make in (stamper.stamp, lambda: stamp)}
    assert len(ids) == 2
    long = stamper.stamp_for(Identity(b"x" * 300, 1))
    assert internal_request.parse(long).username == b"x" * 300
    short_id = b"\xa2\x06\x0b\x08\x81\x01\x12\x05alice"
    for broken in (b"", stamp[:3], stamp[:5], stamp[:6], b"\xa2\x06\x02\x12\x00", short_id):
        assert internal_request.proposer_part(broken) is None


@given(st.binary(min_size=1, max_size=12), st.binary(min_size=3, max_size=3), st.data())
def test_what_precedes_a_stamps_end_says_nothing_of_its_proposer(
    end: bytes, before: bytes, data: st.DataObject
) -> None:
    """So the short way of apply may remember who proposed by the end alone."""
    told: set[tuple[bytes, int] | None] = set()
    for head in (before, data.draw(st.binary(min_size=3, max_size=3))):
        stamp = b"\xa2\x06" + bytes((3 + len(end),)) + head + end
        if internal_request.proposer_part(stamp) is None:
            continue
        assert internal_request.proposer_part(stamp) == end
        try:
            parsed = internal_request.parse(stamp)
        except internal_request.MalformedEntryError:
            told.add(None)
        else:
            told.add((parsed.username, parsed.auth_revision))
    assert len(told) <= 1


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
