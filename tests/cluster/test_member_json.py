"""Members are written as Go writes them, and damaged data is refused."""

from __future__ import annotations

import pytest

from keyraft.base.ids import MemberID
from keyraft.cluster import ChangeContext, MemberRecord, MembershipDataError, decode_context
from keyraft.cluster.member import decode_member, decode_member_key, member_key

FULL = MemberRecord(MemberID(7), ("http://a:1",), "n<1>&", ("http://b:2", "http://c:3"), True)


def test_members_are_written_as_go_writes_them() -> None:
    assert FULL.to_json() == (
        b'{"id":7,"peerURLs":["http://a:1"],"isLearner":true,"name":"n\\u003c1\\u003e\\u0026",'
        b'"clientURLs":["http://b:2","http://c:3"]}'
    )
    assert MemberRecord(MemberID(7)).to_json() == b'{"id":7,"peerURLs":null}'
    promotion = ChangeContext(MemberRecord(MemberID(7)), is_promote=True)
    assert promotion.to_json() == b'{"id":7,"peerURLs":null,"isPromote":true}'


def test_what_is_written_reads_back() -> None:
    assert decode_member(FULL.to_json()) == FULL
    assert decode_context(FULL.to_json()) == ChangeContext(FULL)
    assert decode_context(ChangeContext(MemberRecord(MemberID(7)), True).to_json()).is_promote
    assert decode_context(b"") == ChangeContext()
    assert decode_member_key(member_key(0x8E9E)) == 0x8E9E


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"id":-1}',
        b'{"id":true}',
        b'{"id":18446744073709551616}',
        b'{"id":1,"name":2}',
        b'{"id":1,"peerURLs":[1]}',
        b'{"id":1,"clientURLs":"x"}',
        b"\xff\xfe",
    ],
)
def test_damaged_data_is_refused(data: bytes) -> None:
    with pytest.raises(MembershipDataError):
        decode_member(data)


def test_a_damaged_key_is_refused() -> None:
    with pytest.raises(MembershipDataError):
        decode_member_key(b"zz")
